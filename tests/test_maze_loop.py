"""The loop where mazes, and no files, are what is scored: in a small world."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from modgrad.autoresearch import decision, digest, evaluators, prompt, results, setup, status
from modgrad.autoresearch.errors import EnvironmentFault, UsageError
from modgrad.autoresearch.experiment import briefing
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.report_frame import summary
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.state import MazeSet
from modgrad.errors import MazeError

from tests.loop_world import (
    MAZES,
    Recipes,
    git,
    ignore,
    make_repository,
    open_world,
    read_score,
    research,
    set_up,
)


def make(folder: Path, score: str) -> Path:
    world = make_repository(folder, MAZES)
    (world / "recipe.py").write_text(f"score = {score}\n")
    git(world, "commit", "--quiet", "--all", "--message", "a score")
    return world


@pytest.fixture
def world(memory_folder: Path) -> Path:
    return make(memory_folder / "world", "0.2")


def test_what_is_pinned_is_which_mazes_not_files(world: Path) -> None:
    lab = set_up(world, task="mazes")
    settings, data = lab.settings, lab.layout.data
    assert settings.mazes == MazeSet(21, "open", 200, 2000)
    assert (settings.evaluator, settings.train, settings.overlap) == ("mazes", (), 0.0)
    assert sorted(path.name for path in data.iterdir()) == ["holdout.json", "val.json"]
    assert json.loads((data / "val.json").read_text()) == {
        "size": 21,
        "layout": "open",
        "mazes": 200,
    }
    held_out = json.loads((data / "holdout.json").read_text())
    assert held_out["mazes"] == 2000 and held_out["seed"] > 1 << 20
    assert (data / "holdout.json").stat().st_mode & 0o77 == 0
    # The seed stands nowhere else: neither in the journal nor in what is shown.
    assert str(held_out["seed"]) not in lab.layout.journal.read_text()
    assert str(held_out["seed"]) not in json.dumps(digest.as_json(lab.state))
    other = set_up(world, tag="other", task="mazes")
    assert json.loads((other.layout.data / "holdout.json").read_text()) != held_out
    # A journal that is read again says the same.
    assert open_world(world).settings == settings
    (data / "val.json").write_text('{"size": 5, "layout": "open", "mazes": 200}')
    with pytest.raises(EnvironmentFault, match="not as it was pinned"):
        lab.verify_data()


def test_setup_says_which_mazes(world: Path) -> None:
    request = setup.Request("t", "mazes", 1.0, baseline_runs=1, size=39, layout="corner")
    lab, said = setup.prepare(Repository(world), request, ignore)
    assert (
        "mazes:     39x39 pixels, layout corner; ever new ones to train on, 200 pinned ones to "
        "score, 2,000 of a secret seed held out\n"
    ) in said
    assert "bytes" not in said and "overlap" not in said
    assert evaluators.values(lab.settings) == {"size": "39", "layout": "corner"}


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("mazes", {"size": 22}, "22x22 pixels is impossible"),
        ("mazes", {"size": -3}, "must not be negative"),
        ("mazes", {"layout": "centre"}, "`centre` is no maze layout"),
        ("mazes", {"val": Path("val.txt")}, "--train, --val: the task mazes makes its mazes"),
        ("language", {"size": 21}, "--size: the task language has no mazes"),
        ("language", {"layout": "open"}, "--layout: the task language has no mazes"),
    ],
)
def test_what_cannot_be_set_up(
    tmp_path: Path, task: str, options: dict[str, object], message: str
) -> None:
    language = MAZES.replace("tasks.mazes", "tasks.language").replace('"mazes"', '"language"')
    world = make_repository(tmp_path / "world", MAZES if task == "mazes" else language)
    request = setup.Request("t", task, 1.0, **options)  # type: ignore[arg-type]
    with pytest.raises((UsageError, MazeError), match=message):
        setup.prepare(Repository(world), request, ignore)
    assert not Layout(world / ".git", "t").journal.exists()


def test_an_evaluator_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world", MAZES.replace('"mazes"\n', '"chess"\n'))
    with pytest.raises(UsageError, match="`chess` is none of language, mazes"):
        setup.prepare(Repository(world), setup.Request("t", "mazes", 1.0), ignore)


def test_seeds_that_agree_are_not_taken_for_no_noise(world: Path) -> None:
    lab = set_up(world, task="mazes", baseline_runs=3)
    binomial = math.sqrt(0.2 * 0.8 / 200)
    assert lab.state.seed_spread == (pytest.approx(0.0, abs=1e-15), 2)
    assert lab.state.spread == (pytest.approx(binomial), 2)
    # One maze, and then what no seed and no choice of mazes explains.
    lab = research(
        world, Recipes(["score = 0.195\n", "score = 0.195\nx = 1\n", "score = 0.1\n"]), 3
    )
    first, second, third = lab.state.experiments[1:]
    assert (first.status, first.provisional) == ("keep", True)
    assert (second.status, second.reason) == ("discard", "equal to the tip")
    assert (third.status, third.provisional) == ("keep", False)
    assert lab.state.sigma == pytest.approx(math.sqrt(0.1 * 0.9 / 200))


def test_a_spread_above_that_of_the_mazes_counts(memory_folder: Path) -> None:
    world = make(memory_folder / "world", "0.2")
    lab = set_up(world, task="mazes", baseline_runs=2)
    lab.state.replicates[lab.settings.baseline] = {0: 0.1, 1: 0.3}
    assert lab.state.spread == lab.state.seed_spread
    assert lab.state.spread[0] == pytest.approx(0.2 / math.sqrt(2))


def test_one_run_tells_of_no_spread_at_all(world: Path) -> None:
    lab = set_up(world, task="mazes", baseline_runs=1)
    assert lab.state.sigma is None and lab.state.spread[1] == 0


def test_fresh_seeds_that_tie_confirm_nothing(world: Path) -> None:
    set_up(world, task="mazes", baseline_runs=3)
    lab = research(world, Recipes(["score = 0.195\n", "score = 0.02\n"]), 2, confirm=2)
    first, second = lab.state.experiments[1:]
    assert first.status == "discard" and "≤" in first.reason
    assert second.status == "keep"
    holds, _ = decision.confirm([0.0, 0.0], lab.state.spread[0], 2)
    assert not holds


@pytest.mark.parametrize(
    ("score", "is_left"), [(0.0, False), (0.005, False), (0.04, False), (0.045, True), (0.5, True)]
)
def test_a_baseline_that_leaves_nothing_to_find(
    memory_folder: Path, score: float, is_left: bool
) -> None:
    world = make(memory_folder / "world", str(score))
    lab, _ = setup.prepare(
        Repository(world), setup.Request("t", "mazes", 300.0, layout="corner"), ignore
    )
    lab.evaluate = read_score
    said = setup.measure_baseline(lab)
    assert f"baseline: val_bpb {score:.6f}, holdout {score + 0.01:.6f}" in said
    assert ("nothing is left to find" in said) != is_left
    if not is_left:
        assert "Set up a harder tag: --layout open or --size 39 or --budget 60" in said


def test_what_is_shown_speaks_of_mazes(world: Path) -> None:
    set_up(world, task="mazes", baseline_runs=2)
    lab = research(world, Recipes(["score = 0.1\n"]), 1)
    state = lab.state
    lines = status.as_lines(state, state.last_time, running=False)
    assert any(line.endswith("0.100000 · experiment 1") for line in lines)
    assert any("holdout" in line and "0.110000 · +0.010000 to val" in line for line in lines)
    assert "0.200000 → 0.100000 of first steps wrong" in summary(state)[1]
    text = prompt.build(briefing(lab, 2), program="# What to do\n")
    assert "- Training: 1 seconds on mazes, made as it goes, 21x21 pixels, layout open" in text
    assert "- Noise (from seed to seed, or of 200 mazes where that is more;" in text
    assert "one maze is 0.005000" in text and "bytes" not in text
    assert "0.110000" not in text  # the holdout
    known = results.figures(state)
    assert known.evaluator.name == "mazes" and results.drift_warning(known) is None
