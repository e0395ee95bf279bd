"""The evaluator in a process of its own: `python -m modgrad.evaluate --help`.

`evaluate` starts it on a saved checkpoint, so that no live model and no Python
of whoever trained it is anywhere near the number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from modgrad.errors import EvaluationError


def evaluate(
    checkpoint: Path,
    data: Path,
    *,
    threads: int,
    context: int | None = None,
    max_bytes: int | None = None,
) -> dict[str, Any]:
    """Scores a checkpoint on a file of bytes; returns the evaluator's figures.

    Raises `EvaluationError` with the evaluator's own line where it refuses.
    """
    arguments = ["--threads", str(threads)]
    if context is not None:
        arguments += ["--context", str(context)]
    if max_bytes is not None:
        arguments += ["--max-bytes", str(max_bytes)]
    return isolated("modgrad.evaluate", [*arguments, "--", str(checkpoint), str(data)])


def isolated(module: str, arguments: list[str]) -> dict[str, Any]:
    """Runs an evaluator's module in a fresh Python; returns the figures it prints.

    Isolated: neither the working folder nor the environment can put modules in the
    evaluator's way.
    """
    command = [sys.executable, "-I", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it ended with status {done.returncode}"
        raise EvaluationError(reason.removeprefix("error: "))
    score: dict[str, Any] = json.loads(done.stdout)
    return score


def main(arguments: list[str] | None = None) -> int:
    """Scores a checkpoint and prints the figures as JSON."""
    import argparse

    from modgrad import _core
    from modgrad.data import read_bytes
    from modgrad.errors import ModgradError
    from modgrad.machine import resolve_threads

    parser = argparse.ArgumentParser(prog="python -m modgrad.evaluate", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--context", type=int)
    parser.add_argument("--max-bytes", type=int)
    parser.add_argument("--sha256", help="refuse data of any other digest")
    given = parser.parse_args(arguments)
    try:
        score = _core.evaluate_language(
            given.checkpoint,
            read_bytes([given.data]).tobytes(),
            threads=resolve_threads(given.threads),
            context=given.context,
            max_bytes=given.max_bytes,
            expected_sha256=given.sha256,
        )
    except ModgradError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    print(score)
    return 0


if __name__ == "__main__":
    sys.exit(main())
