"""The facts of a tag as plain data: for `status --json` and for the prompt.

Holdout scores are left out on purpose, wherever they stand: what a researcher is
shown it will fit, and then the holdout measures nothing.
"""

from __future__ import annotations

import statistics
import unicodedata
from dataclasses import asdict
from typing import Any

from modgrad.autoresearch.state import CURVE_POINTS, Experiment, State

STATUSES = ("keep", "discard", "crash")  # of what was run
BEST = 5  # keeps that are shown
NEAR_SIGMAS = 2.0  # above the tip, within which a discard is a near miss
NEAR_MISSES = 8
FAILURES = 4  # of each crash class, the newest
RECENT = 12  # finished experiments, the newest
LINE = 240  # characters of a hypothesis or a reason

Fact = dict[str, Any]


def as_json(state: State) -> Fact:
    """What is known about a tag; only values that JSON has."""
    tried = [one for one in state.experiments if one.number > 0 and one.status in STATUSES]
    scores = _scores(state)
    settings = state.settings
    return {
        "task": settings.task if settings else None,
        "tag": settings.tag if settings else None,
        "machine": settings.machine if settings else None,
        "budget_seconds": settings.budget if settings else None,
        "train_bytes": sum(file.bytes for file in settings.train) if settings else None,
        "val_bytes": settings.val.bytes if settings else None,
        "mazes": asdict(settings.mazes) if settings and settings.mazes else None,
        "seconds_per_experiment": seconds_per_experiment(state),
        "sigma": state.sigma,
        "baseline": _experiment(state, state.baseline, scores),
        "tip": _experiment(state, state.tip, scores),
        "current": _experiment(state, state.current, scores),
        "counts": {
            "experiments": len(tried),
            **{s: sum(one.status == s for one in tried) for s in STATUSES},
        },
        "best": [_experiment(state, one, scores) for one in best_keeps(state)],
        "near_misses": [_experiment(state, one, scores) for one in near_misses(state)],
        "failures": {
            name: {
                "count": len(crashes),
                "newest": [
                    {"number": one.number, "reason": reason_of(state, one)}
                    for one in crashes[: -FAILURES - 1 : -1]
                ],
            }
            for name, crashes in sorted(_crashes(tried).items())
        },
        "families": families(tried),
        "recent": [_experiment(state, one, scores) for one in tried[: -RECENT - 1 : -1]],
        "curve": last_curve(state),
        "cost_usd": state.cost,
        "researcher_failures": state.failures,
        "fallback": state.fallback and one_line(state.fallback),
        "paused": state.paused and one_line(state.paused),
        "stopped": one_line(state.stops[-1][1]) if state.stops else None,
    }


def one_line(text: str, limit: int = LINE) -> str:
    """Text without line breaks, control and direction marks, and not too long."""
    visible = "".join(
        " " if character.isspace() else character
        for character in text[: 8 * limit]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    joined = " ".join(visible.split())
    return joined if len(joined) <= limit else joined[: limit - 1].rstrip() + "…"


def reason_of(state: State, one: Experiment) -> str:
    """Why it ended as it did, should a holdout score stand there, without it."""
    text = one.reason
    for other in state.experiments:
        if other.holdout_bpb is not None:
            exact = repr(other.holdout_bpb)
            for form in {f"{other.holdout_bpb:.6f}", exact if len(exact) > 6 else "\0"}:
                text = text.replace(form, "(not shown)")
    return one_line(text)


def best_keeps(state: State) -> list[Experiment]:
    """The kept experiments with the lowest scores, the best first."""
    kept = [state.experiments[number] for number in state.kept]
    scored = [one for one in kept if one.val_bpb is not None]
    return sorted(scored, key=lambda one: (one.val_bpb, -one.number))[:BEST]


def near_misses(state: State) -> list[Experiment]:
    """Discards whose score is so near to the tip's that the seed may explain it."""
    tip = state.tip.val_bpb if state.tip else None
    if tip is None or state.sigma is None:
        return []
    bound = tip + NEAR_SIGMAS * state.sigma
    near = [
        one
        for one in state.experiments
        if one.status == "discard" and one.val_bpb is not None and one.val_bpb <= bound
    ]
    return sorted(near, key=lambda one: (one.val_bpb, -one.number))[:NEAR_MISSES]


def families(tried: list[Experiment]) -> dict[str, Fact]:
    """How often each family was tried and kept, the best rate first."""
    counts: dict[str, list[int]] = {}
    for one in tried:
        count = counts.setdefault(one_line(one.family, 40) or "unknown", [0, 0])
        count[0] += 1
        count[1] += one.status == "keep"
    ranked = sorted(counts.items(), key=lambda item: (-item[1][1] / item[1][0], item[0]))
    return {
        name: {"tried": number, "kept": kept, "rate": round(kept / number, 3)}
        for name, (number, kept) in ranked
    }


def last_curve(state: State) -> list[list[float]]:
    """(seconds, loss in bits) of the newest run that has a curve."""
    for one in reversed(state.experiments):
        for run in reversed(one.measurements):
            if run.curve:
                step = max(1.0, len(run.curve) / CURVE_POINTS)
                points = min(len(run.curve), CURVE_POINTS)
                # Counted from the end, so that the last point is there.
                chosen = [run.curve[-1 - round(step * index)] for index in range(points)]
                return [[seconds, loss] for seconds, loss in reversed(chosen)]
    return []


def seconds_per_experiment(state: State) -> float | None:
    """The median from plan to end; a pause in one does not move it."""
    spent = [one.wall_seconds for one in state.experiments if one.number and one.finished]
    return round(statistics.median(spent), 1) if spent else None


def _crashes(tried: list[Experiment]) -> dict[str, list[Experiment]]:
    crashes: dict[str, list[Experiment]] = {}
    for one in tried:
        if one.status == "crash":
            crashes.setdefault(one_line(one.crash or "unknown", 40), []).append(one)
    return crashes


def _scores(state: State) -> dict[str, float]:
    """The recorded score of each commit that has been a tip."""
    kept = [state.experiments[number] for number in state.kept]
    return {
        one.candidate: one.val_bpb
        for one in kept
        if one.candidate is not None and one.val_bpb is not None
    }


def _experiment(state: State, one: Experiment | None, scores: dict[str, float]) -> Fact | None:
    if one is None:
        return None
    before = scores.get(one.parent) if one.number else None
    return {
        "number": one.number,
        "commit": one.candidate,
        "status": one.status,
        "val_bpb": one.val_bpb,
        "change": round(one.val_bpb - before, 6)
        if one.val_bpb is not None and before is not None
        else None,
        "provisional": one.provisional,
        "family": one_line(one.family, 40),
        "hypothesis": one_line(one.hypothesis),
        "reason": reason_of(state, one),
        "crash": one.crash,
        "memory_gb": round(one.memory_gb, 3),
        "seconds": round(one.wall_seconds, 1),
        "researcher": one.researcher,
    }
