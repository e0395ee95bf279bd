"""The eight regions on mazes: what they see, what moves, and the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modgrad import checkpoint, mazes, nn, spec, trace
from modgrad.ctm import STRATEGIES
from modgrad.training import Training

from tests.conftest import ROOT


@pytest.fixture
def brain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module brain.py, as the example imports it."""
    monkeypatch.syspath_prepend(str(ROOT / "examples/mazes"))
    for name in ("brain", "model", "train"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import brain  # type: ignore[import-not-found, unused-ignore]

    nn.manual_seed(4)
    return brain


def drawn(count: int) -> mazes.Mazes:
    return mazes.generate(count, size=7, layout="corner", route_len=6)


def test_the_whole_maze_is_seen_and_mazes_are_independent(brain: Any) -> None:
    model = brain.make_model(7, 6, ticks=4)
    program = trace(model.score, pixels=spec((3, 3, 7, 7)))
    pixels = drawn(3).pixels
    before = program.run(pixels=pixels)["logits"]
    assert before.shape == (3, 6, 5)
    for row, column in ((5, 5), (1, 1), (3, 4), (6, 6)):  # the goal, the start, a wall, a corner
        changed = pixels.copy()
        changed[1, :, row, column] = 1.0 - changed[1, :, row, column]
        after = program.run(pixels=changed)["logits"]
        assert (after[1] != before[1]).any(), (row, column)
        np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("solver_weight", [0.0, 1.0])
def test_every_parameter_moves_and_a_few_mazes_are_learned(
    brain: Any, strategy: str, solver_weight: float
) -> None:
    import train  # type: ignore[import-not-found, unused-ignore]

    config = brain.MazeConfig(7, 6, strategy, ticks=3, solver_weight=solver_weight)
    model = brain.MazeBrain(config)
    shapes = {"pixels": spec((8, 3, 7, 7)), "targets": spec((8, 6), "u8")}
    training = Training(
        model.loss,
        train.make_optimizers(model, train.Recipe(learning_rate=1e-2)),
        inputs={**shapes, "ways": spec((8, 9), "u8")},
        clip_norm=1.0,
        threads=1,
    )
    before = training.weights()
    one = drawn(8)
    losses = []
    for _ in range(60):
        ways = train.ways_of_cells(one.directions)
        losses.append(training.backward(pixels=one.pixels, targets=one.targets, ways=ways))
        training.step()
    after = training.weights()
    for name, parameter in model.named_parameters():
        if name == "brain.no_pairs":
            continue  # nothing in it
        assert parameter.trainable != np.array_equal(before[name], after[name]), name
    assert losses[-1] < 0.5 * losses[0]


def test_the_command_trains_scores_and_resumes(tmp_path: Path) -> None:
    path = tmp_path / "brain.ckpt"

    def run(*flags: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "examples/mazes", "--brain", "--size", "7", "--route-len", "6"]
        command += ["--ticks", "3", "--batch", "4", "--threads", "1", "--checkpoint", str(path)]
        command += map(str, flags)
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run("--steps", 3, "--autoresearch-summary")
    assert done.returncode == 0, done.stderr
    assert "task:             mazes-brain\n" in done.stdout
    assert run("--steps", 4, "--no-score").returncode == 0
    assert checkpoint.load(path).meta["step"] == 4
    done = run("--d-model", 64)
    assert done.returncode == 2 and "--d-model means nothing for --model brain" in done.stderr
