"""A run's clock, under one that the test winds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from modgrad import nn, optim, run, spec, trace
from modgrad.errors import UsageError
from modgrad.program import Tensor
from modgrad.run import Run
from modgrad.training import Training


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Line(nn.Module):
    def __init__(self) -> None:
        self.slope = nn.Parameter(np.ones(1, np.float32))
        self.offset = nn.Parameter(np.zeros(1, np.float32), trainable=False)

    def loss(self, x: Tensor) -> Tensor:
        return (x * self.slope).mean()

    def score(self, x: Tensor) -> Tensor:
        return x * self.slope + self.offset


def begun(path: Path, budget: float, left: int) -> tuple[Run, Training, Line]:
    model, inputs = Line(), {"x": spec((3,))}
    score = trace(model.score, **inputs)
    training = Training(model.loss, [optim.AdamW([model.slope], 0.1)], inputs=inputs, threads=1)
    started = Run(path, task="line", settings={}, budget=budget)
    started.leave(left)
    started.begin(training, {"score": score})
    return started, training, model


@pytest.mark.parametrize(("left", "steps"), [(0, 10), (3, 7), (20, 1)])
def test_steps_are_left_over_of_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, steps: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(run, "time", clock)
    started, training, _ = begun(tmp_path / "m.ckpt", 10.0, left)
    while started.continues():
        training.backward(x=np.ones(3, np.float32))
        training.step()
        clock.now += 1.0
    started.finish()
    assert training.steps == steps


def test_what_only_the_score_reads_is_saved_as_it_stands(tmp_path: Path) -> None:
    started, _, model = begun(tmp_path / "m.ckpt", 10.0, 0)
    model.offset.value = np.array([4.0], np.float32)
    started.finish()
    saved, training, _ = begun(tmp_path / "m.ckpt", 10.0, 0)
    assert saved.saved_weight("slope") is None  # it was resumed
    assert set(training.weights()) == {"slope"}
    score = run.checkpoint.load(tmp_path / "m.ckpt")
    assert score.weights["offset"] == 4.0


def test_two_runs_cannot_train_one_checkpoint(tmp_path: Path) -> None:
    started, _, _ = begun(tmp_path / "m.ckpt", 10.0, 0)
    with pytest.raises(UsageError, match="another run is training it"):
        begun(tmp_path / "m.ckpt", 10.0, 0)
    begun(tmp_path / "other.ckpt", 10.0, 0)[0].finish()
    started.finish()
    begun(tmp_path / "m.ckpt", 10.0, 0)[0].finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.ckpt", "other.ckpt"]
