"""The evaluator of the loop, in a process of its own; compiled code does the work.

    python -m modgrad.autoresearch.judge CHECKPOINT DATA --sha256 DIGEST ...

Ends with one line of JSON: `{"bits_per_byte": ...}`, or `{"refused": reason}`
where the checkpoint has no score. Any other end is a failure of the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from modgrad import _core, checkpoint
from modgrad.autoresearch.leak import find_leak
from modgrad.errors import CheckpointError, EvaluationError, MachineError, ModgradError
from modgrad.machine import resolve_threads


def main() -> int:
    """Scores, or says why there is no score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sha256", required=True, help="of the data, as pinned")
    parser.add_argument("--max-bytes", type=int, help="score only so many bytes, to rehearse")
    parser.add_argument("--train", type=Path, nargs="*", default=[], help="the training data")
    parser.add_argument("--sources", type=Path, nargs="*", default=[], help="what was changed")
    given = parser.parse_args()
    data = given.data.read_bytes()
    if hashlib.sha256(data).hexdigest() != given.sha256:
        print(f"error: {given.data}: is not the file that was pinned at setup", file=sys.stderr)
        return 3
    try:
        leak = find_leak(data, given.train, given.sources, checkpoint.load(given.checkpoint))
        if leak is not None:
            return _end({"refused": f"leak: {leak}"})
        score = json.loads(
            _core.evaluate_language(
                given.checkpoint,
                data,
                threads=resolve_threads(None),
                max_bytes=given.max_bytes,
                expected_sha256=given.sha256,
            )
        )
    except (CheckpointError, EvaluationError) as error:
        return _end({"refused": str(error)})
    except (MachineError, ModgradError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    if hashlib.sha256(given.data.read_bytes()).hexdigest() != given.sha256:
        print(f"error: {given.data}: was changed while it was scored", file=sys.stderr)
        return 3
    return _end(score)


def _end(result: dict[str, object]) -> int:
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
