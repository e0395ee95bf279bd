"""The built-in search as a researcher: that it learns, and never repeats itself."""

from __future__ import annotations

import dataclasses
import math
import random
import sys
from pathlib import Path

import pytest
from modgrad.autoresearch.errors import ResearcherError, ResearcherGone
from modgrad.autoresearch.researchers.base import Failure
from modgrad.autoresearch.researchers.history import parse
from modgrad.autoresearch.researchers.literals import value_from, written_as
from modgrad.autoresearch.researchers.search import PLATEAU, Search
from modgrad.autoresearch.researchers.sources import load
from modgrad.autoresearch.researchers.steps import CHOICE, scale_of
from modgrad.autoresearch.researchers.tunables import read, write

from tests.conftest import ROOT
from tests.search.world import (
    FAKE,
    LANGUAGE,
    TODAY,
    Simulation,
    add,
    briefing,
    by_name,
    contract,
    fill,
    fresh_state,
)


def learning_rate_score(sources: dict[str, str]) -> float:
    """Lower at a larger learning rate, up to 0.1; all else costs a little."""
    found = by_name(sources)
    rate, breadth = found["learning_rate"].value, found["breadth"].value
    assert isinstance(rate, float)
    assert isinstance(breadth, int)
    return 2.0 + 0.1 * abs(math.log2(rate / 0.1)) + 0.01 * abs(math.log2(breadth / 64))


def test_it_learns_where_a_random_walk_does_not(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, {"train.py": FAKE}, learning_rate_score)
    for _ in range(40):
        simulation.step()
    tip = simulation.state.tip
    assert tip is not None
    assert tip.val_bpb is not None

    def walk(seed: int) -> float:
        """Keeps what is better of single changes, argument and size at random."""
        generator, sources = random.Random(seed), {"train.py": FAKE}
        for _ in range(40):
            one = generator.choice([one for one in read(sources) if scale_of(one)])
            around = scale_of(one)
            assert around is not None
            if around.kind == CHOICE:
                value = generator.choice(around.options)
            else:
                value = around.at(generator.uniform(-around.reach, around.reach))
            edited = write(sources, {one.key: value})
            if learning_rate_score(edited) < learning_rate_score(sources):
                sources = edited
        return learning_rate_score(sources)

    walks = sorted(walk(seed) for seed in range(5))
    assert tip.val_bpb < walks[2]
    assert tip.val_bpb < 2.1


def test_it_never_repeats_itself_and_goes_on(tmp_path: Path) -> None:
    """On a file with little to turn, where nothing helps and some things crash."""
    source = FAKE[: FAKE.index("    forgetting")]

    def score(sources: dict[str, str]) -> float | None:
        value = by_name(sources)["breadth"].value
        return None if value == 128 else 2.0 + len(sources["train.py"]) / 1000

    simulation = Simulation(tmp_path, {"train.py": source}, score)
    for _ in range(60):
        simulation.step()
    assert len(set(simulation.proposals)) == 60


def test_only_mutable_files_are_touched(tmp_path: Path) -> None:
    everything = {str(one.relative_to(ROOT)): one.read_text() for one in ROOT.glob("isis/*.py")}
    state = fresh_state()
    for number in range(1, 16):
        fill(tmp_path, everything)
        proposal = Search().propose(tmp_path, briefing(state, LANGUAGE))
        for path, text in everything.items():
            if not LANGUAGE.allows(path):
                assert (tmp_path / path).read_text() == text
        assert len(list(tmp_path.rglob("*.*"))) == len(everything)
        assert proposal.hypothesis
        assert "\n" not in proposal.hypothesis
        assert proposal.changes
        add(state, "base", "\n".join(proposal.changes), "discard", 2.0 + number / 100)
    assert len({one.notes for one in state.experiments[1:]}) == 15


def test_a_tunable_file_that_may_not_be_changed_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, {"train.py": FAKE})
    rules = dataclasses.replace(LANGUAGE, mutable=(), tunable=("train.py",))
    with pytest.raises(ResearcherError, match=r"train\.py"):
        Search().propose(tmp_path, briefing(fresh_state(), rules))


def test_the_same_state_gives_the_same_proposal(tmp_path: Path) -> None:
    state, proposals = fresh_state(seed=3), []
    for index in range(1, 9):
        add(state, "base", f"train.py:Recipe.breadth: 64 -> {64 + index}", "discard", 2.1)
    for _ in range(2):
        fill(tmp_path, {"train.py": FAKE})
        proposals.append(Search().propose(tmp_path, briefing(state, contract("train.py"))))
    assert proposals[0] == proposals[1]
    others = set()
    for seed in range(8):
        fill(tmp_path, {"train.py": FAKE})
        told = briefing(fresh_state(seed), contract("train.py"))
        others.add(Search().propose(tmp_path, told).changes)
    assert len(others) > 1


def test_first_proposals_are_likely_ones(tmp_path: Path) -> None:
    """Arguments of the step's cost and the rates, before switches and moves: one of
    thirty draws is another (7 of 240)."""
    numbers = []
    for seed in range(6):
        state = fresh_state(seed)
        for _ in range(4):
            fill(tmp_path, TODAY)
            proposal = Search().propose(tmp_path, briefing(state, LANGUAGE))
            assert len(proposal.changes) == 1
            values = [value_from(one.new) for one in parse(proposal.changes[0])[0]]
            numbers.append(len(values) == 1 and type(values[0]) in (int, float))
            add(state, "base", proposal.changes[0], "discard", 2.1)
    assert sum(numbers) >= len(numbers) - 2


def test_a_long_history(tmp_path: Path) -> None:
    state, best = fresh_state(), 2.0
    values = [1e-3 * (1 + index / 1000) for index in range(10_000)]
    tip, old = "base", "1e-3"
    for index, value in enumerate(values):
        kept = index % 200 == 199
        best -= 0.001 if kept else 0.0
        new = written_as(value, "1e-3")
        notes = f"train.py:Recipe.learning_rate: {old} -> {new}"
        one = add(state, tip, notes, "keep" if kept else "discard", best if kept else best + 0.1)
        if kept:
            tip, old = one.candidate or "", new
    source = FAKE.replace("1e-3", old)
    fill(tmp_path, {"train.py": source})
    assert Search().propose(tmp_path, briefing(state, contract("train.py"))).changes


def test_experiments_of_an_agent_leave_no_trouble(tmp_path: Path) -> None:
    state = fresh_state()
    add(state, "base", "what an agent: has -> to say\nmore", "keep", 1.9, "architecture")
    add(state, "commit1", "", "crash", None, "kernel")
    fill(tmp_path, {"train.py": FAKE})
    assert Search().propose(tmp_path, briefing(state, contract("train.py"))).changes


def test_a_plateau_goes_back_to_an_older_keep() -> None:
    state = fresh_state()
    for score in (1.9, 1.8):
        add(state, "base", f"train.py:Recipe.breadth: 64 -> {int(score * 100)}", "keep", score)
    assert Search().base(briefing(state, LANGUAGE)) is None
    bases = []
    for _ in range(PLATEAU + 40):
        bases.append(Search().base(briefing(state, LANGUAGE)))
        add(state, "commit2", "", "discard", 2.5)
    assert set(bases[:PLATEAU]) == {None}
    assert {"base", "commit1"} <= set(bases)
    assert bases.count(None) > len(bases) / 2


def test_repair_is_left_to_others(tmp_path: Path) -> None:
    failure = Failure("shape", "no", "")
    assert Search().repair(tmp_path, briefing(fresh_state(), LANGUAGE), failure) is None


@pytest.mark.parametrize(
    "text",
    [b"", b"# nothing\n", b"def f(:\n", b"\xff\xfe", b"x = 1\x00", b"\xef\xbb\xbfx = 1\n"],
)
def test_a_file_that_offers_nothing_is_refused_in_one_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "train.py").write_bytes(text)
    with pytest.raises(ResearcherError) as caught:
        Search().propose(tmp_path, briefing(fresh_state(), contract("train.py")))
    assert str(caught.value).startswith("train.py: ")
    assert "\n" not in str(caught.value)


def test_without_optuna_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"train.py": FAKE})
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ResearcherGone, match="pip install optuna"):
        Search().propose(tmp_path, briefing(fresh_state(), contract("train.py")))
    assert (tmp_path / "train.py").read_text() == FAKE


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResearcherError, match=r"train\.py: cannot be read"):
        load(tmp_path, ("train.py",))


def test_messages_read_like_a_persons(tmp_path: Path) -> None:
    source = FAKE.replace("breadth", "hidden")
    messages = set()
    for seed in range(12):
        fill(tmp_path, {"train.py": source})
        told = briefing(fresh_state(seed), contract("train.py"))
        messages.add(Search().propose(tmp_path, told).hypothesis)
    assert "halve hidden 64 → 32: cheaper steps, so more of them" in messages
