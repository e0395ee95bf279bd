"""What the tests of the built-in search share: sources, states, a simulated loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from modgrad.autoresearch import contract as contracts
from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.researchers.base import FAMILIES, Briefing
from modgrad.autoresearch.researchers.search import Search
from modgrad.autoresearch.researchers.tunables import Tunable, read
from modgrad.autoresearch.state import Experiment, Settings, State

from tests.conftest import ROOT

LANGUAGE = contracts.load((ROOT / contracts.FILE).read_text(), "language")
TODAY = {path: (ROOT / path).read_bytes().decode() for path in LANGUAGE.tunable}

# Everything that may stand between a reader and a value.
ODD = '''\
"""Größen."""
from dataclasses import dataclass
from modgrad import optim

@dataclass(frozen = True)
class Sizes:
    width : int=128 # of the stream
    naïve_rows: int = 1 << 18   # für jede Sorte
    rate: float = 1e-3
    kind: str = 'plain'  # plain, gated or none
    orders: tuple[int, ...] = ( 2,3 , 5 )
    flag: bool = False
    words: tuple[str, ...] = ("a", 'b',)
    many: int = 10_000
    decay: float = 0.999
    share: float = (
        0.5
    )  # of the budget
    made: object = None
    _hidden: int = 3

TABLE: dict[str, Sizes] = {
    "first": Sizes(width=7),
    "größte": Sizes(width = 320, # not 512
        rate=2E-3,
        # a comment of its own
        orders=(2, 3, 4)
    ), "third": Sizes(),
}
DEFAULT = "größte"

def make(matrices):
    fast, betas = 0.1, (0.9, 0.98)
    return optim.AdamW(matrices, fast, betas, weight_decay=0.1), helper(gain=0.5, stream=7)
'''

FAKE = '''\
"""A fake training file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What can be turned."""

    learning_rate: float = 1e-3
    breadth: int = 64
    forgetting: float = 0.99
    soft: bool = False
    shape: str = "round"  # round, square or flat
    orders: tuple[int, ...] = (2, 3, 4)
'''


def contract(*paths: str) -> Contract:
    return dataclasses.replace(LANGUAGE, mutable=paths, tunable=paths)


def fresh_state(seed: int = 0, budget: float = 20.0, score: float = 2.0) -> State:
    """A state after `setup`: the baseline was kept."""
    values: dict[str, object] = {"baseline": "base", "budget": budget, "seed": seed}
    names = [field.name for field in dataclasses.fields(Settings)]
    state = State(settings=Settings(**{name: values.get(name) for name in names}))  # type: ignore[arg-type]
    add(state, "base", "", "keep", score)
    return state


def add(
    state: State, base: str, notes: str, status: str, score: float | None, family: str = ""
) -> Experiment:
    number = len(state.experiments)
    commit = f"commit{number}" if number else "base"
    parent = state.experiments[state.kept[-1]].candidate if state.kept else "base"
    one = Experiment(number, base, parent or "base", 0, "search", 0.0, candidate=commit)
    one.notes, one.status, one.val_bpb, one.family = notes, status, score, family
    one.finished = 1.0
    state.experiments.append(one)
    if status == "keep":
        state.kept.append(number)
    return one


def briefing(state: State, rules: Contract) -> Briefing:
    return Briefing(len(state.experiments), state, rules, "", "", "", "")


def fill(folder: Path, sources: dict[str, str]) -> None:
    for path, text in sources.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())


def by_name(sources: dict[str, str]) -> dict[str, Tunable]:
    return {one.name: one for one in read(sources)}


class Simulation:
    """Runs a researcher against a score that is computed from its sources."""

    def __init__(
        self, folder: Path, sources: dict[str, str], score: Callable[[dict[str, str]], float | None]
    ) -> None:
        self.folder, self.score = folder, score
        self.rules = contract(*sources)
        self.files = {"base": dict(sources)}
        self.state = fresh_state(score=score(sources) or 9.0)
        self.proposals: list[tuple[str, frozenset[str]]] = []

    def step(self, seed: int = 0) -> None:
        search, told = Search(), briefing(self.state, self.rules)
        tip = self.state.tip
        assert tip is not None
        base = search.base(told) or tip.candidate or ""
        fill(self.folder, self.files[base])
        proposal = search.propose(self.folder, told)
        edited = {path: (self.folder / path).read_bytes().decode() for path in self.files[base]}
        assert edited != self.files[base]
        assert edited not in self.files.values()
        assert proposal.family in FAMILIES
        self.proposals.append((base, frozenset(proposal.changes)))
        score = self.score(edited)
        best = tip.val_bpb or 9.0
        status = "crash" if score is None else "keep" if score < best else "discard"
        notes = "\n".join(proposal.changes)
        one = add(self.state, base, notes, status, score, proposal.family or "")
        self.files[one.candidate or ""] = edited
