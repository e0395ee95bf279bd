"""Scoring a checkpoint in a fresh process of the trusted installation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modgrad.autoresearch import evaluators, sandbox, trusted
from modgrad.autoresearch.errors import EnvironmentFault, EvaluatorKilled
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.processes import Finished
from modgrad.autoresearch.state import DataFile, Settings

TRIES = 2  # an evaluator that was killed from outside is started once more


@dataclass(frozen=True)
class Score:
    """What the evaluator said."""

    val_bpb: float | None
    refused: str  # why there is no score
    seconds: float


def score(
    layout: Layout,
    settings: Settings,
    checkpoint: Path,
    data: DataFile,
    *,
    marker: str,
    sources: Sequence[Path] = (),
    rehearse: bool = False,
) -> Score:
    """The score of a checkpoint on pinned data; a rehearsal takes little of them.

    Raises `EnvironmentFault` where the evaluator itself fails: that says nothing
    about the candidate, unless it was killed (`EvaluatorKilled`) and no other's kills it.
    """
    trusted.verify(layout.trusted, settings.trusted)
    arguments = [str(checkpoint), str(layout.data / data.name), "--sha256", data.sha256]
    arguments += ["--evaluator", settings.evaluator]
    if rehearse:
        arguments.append("--rehearse")
    arguments += ["--train", *(str(layout.data / one.name) for one in settings.train)]
    arguments += ["--sources", *map(str, sources)]
    command = trusted.command(layout.trusted, "modgrad.autoresearch.judge", *arguments)
    log = layout.work / "evaluator.log"
    reason = ""
    for _ in range(TRIES):
        done = sandbox.start_trainer(
            command,
            cwd=layout.work,
            scratch=layout.work / "evaluator",
            python_path=layout.trusted,
            marker=marker,
            log=log,
            limit_seconds=evaluators.limit_seconds(settings, data),
        )
        output = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = output[-1] if output else ""
        result = _parsed(last) if done.code == 0 else None
        if result is not None:
            return Score(result.get("val_bpb"), result.get("refused", ""), done.wall_seconds)
        reason = done.log_error or last.removeprefix("error: ") or f"ended with {done.code}"
        # Limits that the baseline stayed far below: the checkpoint is to blame.
        if done.timed_out:
            return _refusal(f"scoring it took more than {done.wall_seconds:.0f} s", done)
        if done.out_of_memory:
            return _refusal("scoring it takes more memory than the machine can give", done)
    killed = done.code is not None and done.code < 0
    fault = EvaluatorKilled if killed else EnvironmentFault
    raise fault(f"the evaluator failed: {reason}")


def _parsed(line: str) -> dict[str, Any] | None:
    """What the evaluator said, or None where its log does not hold it: a full disk, say."""
    try:
        result = json.loads(line)
    except ValueError:
        return None
    return result if isinstance(result, dict) else None


def _refusal(reason: str, done: Finished) -> Score:
    return Score(None, reason, done.wall_seconds)
