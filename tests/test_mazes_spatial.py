"""The machine with neurons at every cell of a maze: as a user trains it, and its parts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modgrad import checkgrad, checkpoint, mazes, nn, optim, spec, trace
from modgrad import functional as F
from modgrad.maze_bank import Stream
from modgrad.program import Tensor
from modgrad.training import Training

from tests.test_mazes_example import EXAMPLE, example

TINY = ("--model", "spatial", "--size", 7, "--batch", 4, "--d-model", 8, "--threads", 1)


@pytest.fixture
def spatial(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module spatial.py as the example imports it."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "spatial", raising=False)
    import spatial  # type: ignore[import-not-found, unused-ignore]

    nn.manual_seed(5)
    return spatial


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, spatial: Any) -> Any:
    """The module train_spatial.py."""
    monkeypatch.delitem(sys.modules, "train_spatial", raising=False)
    import train_spatial  # type: ignore[import-not-found, unused-ignore]

    return train_spatial


def policy(model: Any, pixels: np.ndarray, ticks: int) -> np.ndarray:
    """Logits of every cell [B, n, n, 5]."""
    model.name_parameters()
    program = trace(lambda pixels: model.policy(pixels, ticks=ticks), pixels=spec(pixels.shape))
    return program.run(pixels=pixels)["output"][:, 0]


def test_train_and_score(tmp_path: Path) -> None:
    done = example(tmp_path, *TINY, "--steps", 4, "--mazes", 50)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "mazes-spatial.ckpt"
    assert {"score", "score_21", "score_39"} <= set(checkpoint.load(path).programs)
    # Whole routes are predicted, of other sizes too, by the same weights.
    score = mazes.evaluate(path, threads=1, mazes=20, size=21)
    assert (score["program"], score["route_length"], score["mazes_in_reach"]) == (
        "score_21",
        198,
        20,
    )


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--exit", "certainty"), "--exit means nothing for --model spatial"),
        (("--d-model", "6"), "--d-model 6"),
        (("--ticks", "0"), "--ticks 0"),
    ],
)
def test_flags_without_a_meaning_are_refused(
    tmp_path: Path, flags: tuple[str, ...], reason: str
) -> None:
    done = example(tmp_path, *TINY, *flags, "--steps", 1)
    assert done.returncode == 2
    assert reason in done.stderr and "Traceback" not in done.stderr


def test_the_start_hears_of_the_goal(spatial: Any) -> None:
    """And not before news can have come."""
    model = spatial.SpatialModel(spatial.SpatialConfig(size=9, channels=8))
    pixels = mazes.generate(1, size=9, layout="corner").pixels
    moved = pixels.copy()
    moved[0, :, 7, 7] = 1.0  # floor
    apart = 3 + 3  # cells from corner to corner, walls or not
    for ticks, differ in ((apart - 1, False), (apart + 2, True)):
        before, after = (policy(model, given, ticks)[0, 0, 0] for given in (pixels, moved))
        assert (before != after).any() == differ, ticks


def test_a_maze_does_not_depend_on_company(spatial: Any) -> None:
    model = spatial.SpatialModel(spatial.SpatialConfig(size=9))
    pixels = mazes.generate(3, size=9).pixels
    together = policy(model, pixels, 10)
    for place in range(3):
        np.testing.assert_array_equal(
            policy(model, pixels[place : place + 1], 10)[0], together[place]
        )


def test_a_walk_by_the_solver_reaches_the_goal(training: Any) -> None:
    drawn = mazes.generate(20, size=11, loops=0.1, route_len=60)
    ways = training.ways_of_cells(drawn.directions)
    assert set(np.unique(ways)) == {0.0, 1.0} and (ways.sum(-1) >= 1).all()

    def walk(ways: Tensor, start: Tensor) -> Tensor:
        return F.walk(ways, start, 25)

    start = (drawn.pixels[:, 0] - drawn.pixels[:, 1])[:, 1::2, 1::2]
    program = trace(walk, ways=spec(ways.shape), start=spec(start.shape))
    found = program.run(ways=ways, start=np.ascontiguousarray(start))["output"]
    arrived = (found[:, :, mazes.WAIT] == 1).argmax(1)
    np.testing.assert_array_equal(2 * arrived, drawn.lengths)


def test_distances_are_those_of_the_shortest_ways(training: Any) -> None:
    drawn = mazes.generate(20, size=11, loops=0.1)
    found = training.distances(training.ways_of_cells(drawn.directions))
    start = (drawn.pixels[:, 0] - drawn.pixels[:, 1])[:, 1::2, 1::2] > 0
    goal = (drawn.pixels[:, 1] - drawn.pixels[:, 0])[:, 1::2, 1::2] > 0
    np.testing.assert_array_equal(2 * found[start], drawn.lengths)
    assert (found[goal] == 0).all() and (found[~goal] > 0).all()


def test_small_mazes_fill_the_place_of_a_large_one(training: Any) -> None:
    source = Stream(size=15, seed=3)
    recipe = training.Recipe(batch=2, with_loops=0.0)
    drawn = training.draw(source, recipe, 1, np.random.default_rng(0), True)
    small = Stream(size=7, seed=3).draw(1, 8)
    np.testing.assert_array_equal(drawn.pixels[1, :, 6:13, :7], small.pixels[4 + 2])
    # A place that no maze reaches is asked nothing.
    ways = training.ways_of_cells(drawn.directions)
    assert (ways.sum(-1)[:, :6, :6] > 0).all() and (ways.sum(-1)[:, 6:] == 0).all()


def test_gradients_agree_with_differences(spatial: Any) -> None:
    model = spatial.SpatialModel(spatial.SpatialConfig(size=5, channels=4, memory=2))
    model.name_parameters()

    def power(pixels: Tensor, reads: Tensor) -> Tensor:
        return (model.policy(pixels, reads, ticks=8, kept=8) ** 2).mean()

    pixels = mazes.generate(2, size=5).pixels
    assert len(checkgrad(power, pixels=pixels, reads=np.array([3, 6], np.int32))) == 10


def test_learns_eight_mazes_by_heart(spatial: Any, training: Any) -> None:
    model = spatial.SpatialModel(spatial.SpatialConfig(size=7, channels=16, kept=12))
    drawn = mazes.generate(8, size=7)
    pixels, ways = drawn.pixels, training.ways_of_cells(drawn.directions)
    learner = Training(
        model.loss,
        [optim.AdamW(model.parameters(), 1e-2)],
        inputs={
            "pixels": spec(pixels.shape),
            "ways": spec(ways.shape),
            "reads": spec((2,), "i32"),
            "noise": spec((8, 3, 3, 32)),
        },
        clip_norm=1.0,
        precision="f32",
        threads=1,
    )
    loss, quiet = float("inf"), np.zeros((8, 3, 3, 32), np.float32)
    reads = np.array([9, 12], np.int32)
    for _ in range(150):
        loss = learner.backward(pixels=pixels, ways=ways, reads=reads, noise=quiet)
        learner.step()
    assert loss < 0.05
