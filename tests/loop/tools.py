"""A researcher that does what a test says, and what is looked at when the loop has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modgrad.autoresearch import results, tags
from modgrad.autoresearch.errors import ResearcherGone
from modgrad.autoresearch.journal import Journal
from modgrad.autoresearch.lab import Lab, Options
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.loop import Limits, Stop, only_one, run_loop
from modgrad.autoresearch.researchers.base import Briefing, Failure, Proposal
from modgrad.autoresearch.state import State

from tests.fault_harness import leftovers
from tests.loop_world import git, ignore, open_world

Step = Callable[[Path], Any]


class Scripted:
    """Does one step after another in the workspace; what a step raises, it raises."""

    name = "scripted"

    def __init__(self, *steps: Step | str, mend: Step | None = None) -> None:
        self.steps = [recipe(step) if isinstance(step, str) else step for step in steps]
        self.mend = mend
        self.asked: list[Briefing] = []
        self.failures: list[Failure] = []

    def base(self, briefing: Briefing) -> str | None:
        return None

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        self.asked.append(briefing)
        if len(self.asked) > len(self.steps):
            raise ResearcherGone("no steps are left")
        result = self.steps[len(self.asked) - 1](workspace)
        return result if isinstance(result, Proposal) else Proposal(f"step {len(self.asked)}")

    def repair(self, workspace: Path, briefing: Briefing, failure: Failure) -> Proposal | None:
        self.failures.append(failure)
        if self.mend is None:
            return None
        self.mend(workspace)
        return Proposal("mended")


def recipe(text: str) -> Step:
    """A step that writes a recipe."""

    def step(workspace: Path) -> None:
        (workspace / "recipe.py").write_text(text)

    return step


def fails(error: Exception) -> Step:
    """A step that raises."""

    def step(workspace: Path) -> None:
        raise error

    return step


def run(
    folder: Path,
    researcher: Any,
    *,
    fallback: Callable[[], Any] | None = None,
    prepare: Callable[[Lab], Any] = ignore,
    stop: Stop | None = None,
    options: Options | None = None,
    tag: str = "t",
    **limits: Any,
) -> tuple[Lab, str]:
    """`loop` with a researcher and limits, until it ends by itself."""
    given = {"failures": 3, "when_gone": "stop", **limits}
    _, layout = tags.find(tag, folder)
    with only_one(layout.lock, "the loop"):
        lab = open_world(folder, tag)
        lab.options = options or Options()
        prepare(lab)
        stop = stop or Stop()
        with stop.listening(ignore):
            reason = run_loop(
                lab, researcher, fallback or (lambda: researcher), Limits(**given), stop
            )
    return lab, reason


def records(folder: Path, kind: str | None = None, tag: str = "t") -> list[dict[str, Any]]:
    layout = Layout(folder / ".git", tag)
    found = Journal(layout.journal, layout.key).read()
    return [record for record in found if kind in (None, record["kind"])]


def told(lab: Lab) -> list[tuple[int, str | None, str | None]]:
    """(number, status, crash class) of each experiment but the baseline."""
    return [(one.number, one.status, one.crash) for one in lab.state.experiments[1:]]


def rows(lab: Lab) -> list[str]:
    table = results.parse((lab.layout.worktree / "results-language.tsv").read_text())
    return [row.status for row in table]


def sound(folder: Path, lab: Lab) -> None:
    """What holds whenever the loop has ended."""
    unfinished = lab.state.current is not None
    assert lab.state.tip is not None
    assert lab.repository.ref(lab.layout.branch) == lab.state.tip.candidate
    assert git(lab.layout.worktree, "rev-parse", "HEAD") == lab.state.tip.candidate
    refs = lab.repository.refs(lab.layout.candidates)
    for one in lab.state.experiments[1:]:
        if one.candidate is not None:
            assert refs[lab.layout.candidate(one.number)] == one.candidate
    current = str(lab.layout.work)
    assert [line for line in leftovers(lab.layout) if not (unfinished and current in line)] == []
    assert State.replay(records(folder, tag=lab.layout.tag)).kept == lab.state.kept
