"""Training steps of the published Continuous Thought Machine beside ours, in one run.

    python -m benches.peers.sakana_ctm --checkout DIR --pytorch ENV/bin/python

DIR is your checkout of SakanaAI/continuous-thought-machines; ENV an environment with
torch. Both sides train the same sizes on random features, in turn, so that a drift of
the machine's speed touches both: 256 neurons, 16 ticks, memory 16, hidden 16, 121
tokens of 128, 256 random pairs, one synapse layer; cross-entropy at every tick, exact
gradients through all of them, clipping, AdamW.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from modgrad.machine import resolve_threads

from benches.ctm import step_milliseconds

PEER = Path(__file__).parent / "sakana_module.py"
ROUNDS = 2  # of each side, in turn


def main() -> int:
    """Prints medians, ranges and ratios for each batch size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--pytorch", type=Path, required=True, help="a Python that has torch")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--modes", nargs="+", default=["f32", "bf16"], help="and f32-compile")
    parser.add_argument("--repeats", type=int, default=20, help="steps in a round")
    given = parser.parse_args()
    threads = resolve_threads(given.threads)
    for batch in given.batches:
        ours: list[float] = []
        theirs: dict[str, list[float]] = {mode: [] for mode in given.modes}
        for _ in range(ROUNDS):
            ours += step_milliseconds(batch, threads, given.repeats)
            for mode in given.modes:
                words = ["--batch", batch, "--threads", threads, "--mode", mode]
                words += ["--repeats", given.repeats]
                row = peer(given.pytorch, given.checkout, *words)
                theirs[mode] += row["milliseconds"]
        print(f"batch {batch:>3}, {threads} threads, modgrad f32: {_line(ours)}")
        for mode, times in theirs.items():
            ratio = statistics.median(times) / statistics.median(ours)
            print(
                f"batch {batch:>3}, {threads} threads, torch {mode}: {_line(times)}, {ratio:.1f}x"
            )
    return 0


def peer(python: Path, checkout: Path, *words: object) -> dict[str, Any]:
    """One measurement of theirs, in a process of its own."""
    command = [str(python), str(PEER), "time", "--checkout", str(checkout), *map(str, words)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"error: --pytorch {python}: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it gave no reason"]
        raise SystemExit(f"error: no figure of theirs: {lines[-1].removeprefix('error: ')}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _line(times: list[float]) -> str:
    return f"median {statistics.median(times):.2f} ms ({min(times):.2f} to {max(times):.2f})"


if __name__ == "__main__":
    sys.exit(main())
