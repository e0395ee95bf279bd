"""What PPMd (7-Zip's variant H) makes of a text, going on adapting while it is scored.

    pip install pyppmd
    python -m benches.peers.ppmd train.txt val.txt

Bits per byte of VAL behind TRAIN: what the compressed size grows by when VAL is
appended. A frozen model, such as ours, is at a disadvantage in this.
"""

from __future__ import annotations

import sys
from pathlib import Path

ORDERS = (8, 12)
MEMORY = 1 << 30  # more than these texts need, so that nothing is forgotten


def main() -> None:
    """Prints a line for each order."""
    from pyppmd import Ppmd7Encoder

    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    train, val = (Path(path).read_bytes() for path in sys.argv[1:])
    for order in ORDERS:

        def size(text: bytes, order: int = order) -> int:
            encoder = Ppmd7Encoder(order, MEMORY)
            return len(encoder.encode(text)) + len(encoder.flush())

        bits = 8 * (size(train + val) - size(train)) / len(val)
        print(f"PPMd, order {order}: {bits:.4f} bits per byte of {len(val)}")


if __name__ == "__main__":
    main()
