"""What depends on how a task is scored: words for its score, what is pinned for it,
how coarse it is. `judge.py` forms the scores.

A contract names its task's evaluator; everything else of the loop is the same for
all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.state import DataFile, MazeSet, Settings

SECONDS_A_BYTE = 2e-3  # two hundred times what scoring the default model takes
SECONDS_A_MAZE = 0.5
STANDARD_ERRORS = 3.0  # from the best possible, within which nothing is left to find


@dataclass(frozen=True)
class Evaluator:
    """The words for a score and for the second score that no researcher is shown."""

    name: str
    title: str
    unit: str  # behind a number, in a sentence
    short: str  # the same where there is little room, with the space before it
    holdout: str
    fitted_to: str  # what a gain may be particular to


EVALUATORS = {
    one.name: one
    for one in (
        Evaluator(
            name="language",
            title="bits per byte",
            unit="bits per byte",
            short=" bpb",
            holdout="The holdout is text",
            fitted_to="val.txt",
        ),
        Evaluator(
            name="mazes",
            title="share of first steps that are wrong",
            unit="of first steps wrong",
            short="",
            holdout="The holdout is mazes of a secret seed",
            fitted_to="the pinned mazes",
        ),
    )
}


def find(name: str) -> Evaluator:
    """The evaluator of that name; raises `UsageError` where there is none."""
    if name not in EVALUATORS:
        raise UsageError(
            f"contract.toml: the evaluator `{name}` is none of {', '.join(EVALUATORS)}"
        )
    return EVALUATORS[name]


def of(settings: Settings | None) -> Evaluator:
    """The evaluator of a tag."""
    return EVALUATORS[settings.evaluator if settings is not None else "language"]


def limit_seconds(settings: Settings, data: DataFile) -> float:
    """After how long an evaluation is given up: far beyond what any model that could
    be trained takes."""
    if settings.mazes is not None:
        return 120 + SECONDS_A_MAZE * settings.mazes.held_out
    return 120 + SECONDS_A_BYTE * data.bytes


def values(settings: Settings) -> dict[str, str]:
    """What the commands of the contract may ask for, beside what every task has."""
    mazes = settings.mazes
    return {} if mazes is None else {"size": str(mazes.size), "layout": mazes.layout}


def trained_on(settings: Settings) -> str:
    """What a model sees, for the prompt."""
    if settings.mazes is not None:
        return f"mazes, made as it goes, {described(settings.mazes)}"
    return f"{sum(one.bytes for one in settings.train):,} bytes"


def described(mazes: MazeSet) -> str:
    """`21x21 pixels, layout open`."""
    return f"{mazes.size}x{mazes.size} pixels, layout {mazes.layout}"


def nothing_left(settings: Settings, score: float) -> str | None:
    """Where a baseline is too good for anything to be found: why, and what is harder."""
    mazes = settings.mazes
    if mazes is None:
        return None
    error = mazes.standard_error(score)
    if score >= STANDARD_ERRORS * error:
        return None
    ways = [f"--size {harder_size(mazes.size)}", f"--budget {_shorter(settings.budget):g}"]
    if mazes.layout != "open":
        ways.insert(0, "--layout open")
    return (
        f"nothing is left to find: {score:.6f} is within {STANDARD_ERRORS:g} standard errors "
        f"({error:.6f}) of 0 over {mazes.count} mazes. Set up a harder tag: "
        f"{' or '.join(ways)}"
    )


def harder_size(size: int) -> int:
    """About twice as many cells a side; odd, as the size of a maze is."""
    return 2 * size - 3 if size > 5 else 11


def _shorter(budget: float) -> float:
    """A fifth of a budget, to two digits."""
    fifth = budget / 5
    digits = 1 - math.floor(math.log10(fifth))
    return max(1.0, round(fifth, digits))
