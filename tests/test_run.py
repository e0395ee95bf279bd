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


def trained(started: Run, training: Training, clock: Clock) -> None:
    """All steps of a run, a second each and the first ten."""
    while started.continues():
        training.backward(x=np.ones(3, np.float32))
        training.step()
        clock.now += 1.0 if training.steps > 1 else 10.0
        started.record(1.0, 3)
    started.finish()


@pytest.mark.parametrize(("left", "steps"), [(0, 91), (3, 88), (50, 81)])
def test_steps_are_left_over_of_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, steps: int
) -> None:
    """A tenth of it at most, and the slow first step does not count."""
    clock = Clock()
    monkeypatch.setattr(run, "time", clock)
    started, training, _ = begun(tmp_path / "m.ckpt", 100.0, left)
    trained(started, training, clock)
    assert training.steps == steps
    # What was left over is not there for a resumed run.
    resumed, training, _ = begun(tmp_path / "m.ckpt", 100.0, left)
    trained(resumed, training, clock)
    assert training.steps == steps
    resumed, training, _ = begun(tmp_path / "m.ckpt", 150.0, left)
    trained(resumed, training, clock)
    assert training.steps > steps + 20


def test_what_only_the_score_reads_is_saved_and_restored(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    started, _, model = begun(path, 10.0, 0)
    model.offset.value = np.array([4.0], np.float32)
    started.finish()
    resumed, training, model = begun(path, 10.0, 0)
    assert model.offset.value == 4.0
    assert set(training.weights()) == {"slope"}
    resumed.finish()
    assert run.checkpoint.load(path).weights["offset"] == 4.0


def test_two_runs_cannot_train_one_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / ("m" * 250)
    started, _, _ = begun(path, 10.0, 0)
    with pytest.raises(UsageError, match="another run is training it"):
        begun(path, 10.0, 0)
    begun(tmp_path / "other.ckpt", 10.0, 0)[0].finish()
    started.finish()
    begun(path, 10.0, 0)[0].finish()
    assert {each.name for each in tmp_path.iterdir()} == {path.name, "other.ckpt"}


def test_a_run_that_is_refused_leaves_no_lock(tmp_path: Path) -> None:
    begun(tmp_path / "m.ckpt", 10.0, 0)[0].finish()
    refused = []
    for _ in range(2):
        with pytest.raises(UsageError, match="the task 'line', not 'other'") as error:
            Run(tmp_path / "m.ckpt", task="other", settings={})
        refused.append(error)  # and with it the run that was begun
    assert [each.name for each in tmp_path.iterdir()] == ["m.ckpt"]
