"""The evaluators of the loop, in a process of their own; compiled code does the work.

    python -m modgrad.autoresearch.judge CHECKPOINT DATA --sha256 DIGEST ...

DATA is what is scored: text, or JSON that says which mazes. Ends with one line of
JSON: `{"val_bpb": ...}`, or `{"refused": reason}` where the checkpoint has no score.
Any other end is a failure of the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modgrad import _core, checkpoint
from modgrad.autoresearch.leak import find_leak
from modgrad.errors import CheckpointError, EvaluationError, MachineError, ModgradError
from modgrad.machine import resolve_threads

Result = dict[str, Any]

REHEARSED_BYTES = 4096
REHEARSED_MAZES = 16


def main() -> int:
    """Scores, or says why there is no score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sha256", required=True, help="of the data, as pinned")
    parser.add_argument("--evaluator", choices=sorted(SCORES), default="language")
    parser.add_argument("--rehearse", action="store_true", help="score only a little")
    parser.add_argument("--train", type=Path, nargs="*", default=[], help="the training data")
    parser.add_argument("--sources", type=Path, nargs="*", default=[], help="what was changed")
    given = parser.parse_args()
    data = given.data.read_bytes()
    if hashlib.sha256(data).hexdigest() != given.sha256:
        print(f"error: {given.data}: is not the file that was pinned at setup", file=sys.stderr)
        return 3
    try:
        score = SCORES[given.evaluator](given, data)
    except (CheckpointError, EvaluationError) as error:
        return _end({"refused": str(error)})
    except (MachineError, ModgradError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        # Compiled code met what it holds to be impossible, in what the checkpoint says.
        return _end({"refused": f"the evaluator broke on the checkpoint: {error}"})
    if hashlib.sha256(given.data.read_bytes()).hexdigest() != given.sha256:
        print(f"error: {given.data}: was changed while it was scored", file=sys.stderr)
        return 3
    return _end(score)


def _language(given: argparse.Namespace, data: bytes) -> Result:
    leak = find_leak(data, given.train, given.sources, checkpoint.load(given.checkpoint))
    if leak is not None:
        return {"refused": f"leak: {leak}"}
    score = json.loads(
        _core.evaluate_language(
            given.checkpoint,
            data,
            threads=resolve_threads(None),
            max_bytes=REHEARSED_BYTES if given.rehearse else None,
            expected_sha256=given.sha256,
        )
    )
    return {**score, "val_bpb": score["bits_per_byte"]}


def _mazes(given: argparse.Namespace, data: bytes) -> Result:
    # A model that knows the pinned mazes is the evaluator's own to refuse: it scores
    # mazes of a secret seed beside them.
    which = json.loads(data)
    if given.rehearse:
        which["mazes"] = REHEARSED_MAZES
    score: Result = json.loads(
        _core.evaluate_mazes(given.checkpoint, threads=resolve_threads(None), **which)
    )
    return score


SCORES: dict[str, Callable[[argparse.Namespace, bytes], Result]] = {
    "language": _language,
    "mazes": _mazes,
}


def _end(result: Result) -> int:
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
