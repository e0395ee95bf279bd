"""The interface of a researcher: a scratch clone and history in, edits out.

A researcher edits files in `workspace`, a disposable clone of the branch that no
other part of the loop relies on: whatever happens to it (commits, resets, a
deleted .git) has no effect but the bytes of the files that stand there in the
end. It never runs the training: the loop does, and scores it.

Raise `ResearcherError` where asking again later may help (no network, a rate
limit, a hang), `ResearcherGone` where it will not (no such program).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.state import State

# What a change is about. A researcher names one, or it is guessed from the diff.
FAMILIES = (
    "architecture",
    "optimiser",
    "schedule",
    "data order",
    "regularisation",
    "kernel",
    "simplification",
)


@dataclass(frozen=True)
class Briefing:
    """What a researcher is told."""

    number: int  # of the experiment
    state: State
    contract: Contract
    tip_diff: str  # from the baseline to the tip
    log_tail: str  # of the last run
    ideas: str  # ideas.md of the user
    steer: str  # steer.md of the user
    diffs: dict[int, str] = field(default_factory=dict)  # of recent experiments, by number


@dataclass(frozen=True)
class Failure:
    """Why a candidate did not run, for one try at mending it."""

    crash: str  # the crash class
    reason: str  # one line
    log_tail: str


@dataclass(frozen=True)
class Proposal:
    """What a researcher did in the workspace."""

    hypothesis: str  # one sentence: what was changed, and why it should help
    family: str | None = None  # one of FAMILIES
    cost: float = 0.0  # US dollars, where the researcher reports it
    changes: tuple[str, ...] = ()  # a line each, for the record, where it has more to say


class Researcher(Protocol):
    """Proposes one experiment after another."""

    name: str

    def base(self, briefing: Briefing) -> str | None:
        """The kept commit whose files it wants to edit; None for the branch's tip."""
        ...

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        """Edits the workspace and says what for."""
        ...

    def repair(self, workspace: Path, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Mends its last edits, which still stand in the workspace; None to give up."""
        ...
