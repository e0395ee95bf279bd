"""Training: optimisers against plain numpy, averaging, accumulation, resume."""

from __future__ import annotations

import numpy as np
import pytest
from modgrad import functional as F
from modgrad import nn, optim, spec
from modgrad.errors import NonFiniteError, ProgramError
from modgrad.program import Tensor
from modgrad.training import Training


class Regression(nn.Module):
    """Least squares with one weight matrix, whose gradient is known."""

    def __init__(self) -> None:
        nn.manual_seed(3)
        self.linear = nn.Linear(4, 3)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return ((self.linear(x) - y) ** 2).sum() / 2

    def gradient(self, weight: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ weight.T - y).T @ x


X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
INPUTS = {"x": spec((5, 4)), "y": spec((5, 3))}


def regression(optimizer: type[optim.Optimizer], **settings: object) -> tuple[Regression, Training]:
    clip_norm = settings.pop("clip_norm", None)
    model = Regression()
    training = Training(
        model.loss,
        [optimizer(model.parameters(), **settings)],
        inputs=INPUTS,
        clip_norm=clip_norm,  # type: ignore[arg-type]
        precision="f32",
        threads=1,
    )
    return model, training


def weight_of(training: Training) -> np.ndarray:
    return training.core.parameters(False)["linear.weight"]


def test_adamw_follows_its_paper() -> None:
    model, training = regression(
        optim.AdamW, learning_rate=0.1, betas=(0.8, 0.9), epsilon=1e-6, weight_decay=0.05
    )
    weight = model.linear.weight.value.astype(np.float64)
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step in range(1, 6):
        training.backward(x=X, y=Y)
        training.step(0.5)
        gradient = model.gradient(weight, X, Y)
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        update = (first / (1 - 0.8**step)) / (np.sqrt(second / (1 - 0.9**step)) + 1e-6)
        weight -= 0.05 * (update + 0.05 * weight)
    np.testing.assert_allclose(weight_of(training), weight, rtol=1e-5)


def test_sgd_with_momentum() -> None:
    model, training = regression(optim.SGD, learning_rate=0.01, momentum=0.9)
    weight = model.linear.weight.value.astype(np.float64)
    velocity = np.zeros_like(weight)
    for _ in range(5):
        training.backward(x=X, y=Y)
        training.step()
        velocity = 0.9 * velocity + model.gradient(weight, X, Y)
        weight -= 0.01 * velocity
    np.testing.assert_allclose(weight_of(training), weight, rtol=1e-5)


def test_muon_moves_by_a_nearly_orthogonal_step() -> None:
    model, training = regression(optim.Muon, learning_rate=0.1, nesterov=False)
    before = model.linear.weight.value.copy()
    training.backward(x=X, y=Y)
    training.step()
    step = (before - weight_of(training)) / 0.1
    gradient = model.gradient(before, X, Y)
    values = np.linalg.svd(step, compute_uv=False)
    assert values.min() > 0.5 and values.max() < 1.5
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    assert np.trace(step @ (left @ right).T) > 0.9 * values.sum()


def test_the_norm_is_clipped_over_all_parameters() -> None:
    model, training = regression(optim.SGD, learning_rate=1.0, momentum=0.0, clip_norm=0.25)
    before = model.linear.weight.value.copy()
    training.backward(x=X, y=Y)
    training.step()
    norm = training.gradient_norm()
    gradient = model.gradient(before.astype(np.float64), X, Y)
    assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    moved = before - weight_of(training)
    assert np.linalg.norm(moved) == pytest.approx(0.25, rel=1e-4)


def test_accumulated_gradients_are_averaged() -> None:
    model, training = regression(optim.SGD, learning_rate=0.01, momentum=0.0)
    before = model.linear.weight.value.astype(np.float64)
    training.backward(x=X, y=Y)
    training.backward(x=2 * X, y=Y)
    training.step()
    mean = (model.gradient(before, X, Y) + model.gradient(before, 2 * X, Y)) / 2
    np.testing.assert_allclose(weight_of(training), before - 0.01 * mean, rtol=1e-4, atol=1e-6)


def test_the_running_average() -> None:
    _, training = regression(optim.SGD, learning_rate=0.01, momentum=0.0)
    average = None
    for _ in range(4):
        training.backward(x=X, y=Y)
        training.step()
        training.average(0.75)
        weight = weight_of(training).astype(np.float64)
        average = weight if average is None else 0.75 * average + 0.25 * weight
    np.testing.assert_allclose(training.weights()["linear.weight"], average, rtol=1e-5)


def test_a_step_needs_a_backward() -> None:
    _, training = regression(optim.SGD)
    with pytest.raises(ProgramError, match="needs a backward pass"):
        training.step()


def test_a_loss_that_is_not_finite_is_refused_at_its_step() -> None:
    _, training = regression(optim.SGD)
    with pytest.raises(NonFiniteError, match="the loss at step 0 is not finite"):
        training.backward(x=X * np.inf, y=Y)


class Hashed(nn.Module):
    """A model with a sparse table, dropout and a tied use of one parameter."""

    def __init__(self) -> None:
        nn.manual_seed(5)
        self.table = nn.EmbeddingBag(64 * 2, 8, deviation=0.1, sparse=True)
        self.up = nn.Linear(8, 8)
        self.head = nn.Linear(8, 256)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.table(F.ngram_hash(tokens, [1, 2], 64))
        x = F.dropout(F.relu_squared(self.up(self.up(x))), 0.1, stream=1)
        return F.cross_entropy(self.head(x), targets).mean()


def hashed(threads: int = 1, precision: str = "f32") -> Training:
    model = Hashed()
    model.name_parameters()
    tokens = spec((4, 16), "u8")
    dense = [p for p in model.parameters() if not p.sparse]
    return Training(
        model.loss,
        [optim.AdamW(dense, 1e-2), optim.RowwiseAdagrad([model.table.table], 0.1)],
        inputs={"tokens": tokens, "targets": tokens},
        clip_norm=1.0,
        precision=precision,
        threads=threads,
    )


def batch(step: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(step).integers(97, 123, (4, 17)).astype(np.uint8)
    return {
        "tokens": np.ascontiguousarray(draw[:, :-1]),
        "targets": np.ascontiguousarray(draw[:, 1:]),
    }


def advance(training: Training, steps: int, average_from: int = 6) -> None:
    for _ in range(steps):
        step = training.steps
        training.backward(**batch(step))
        training.step()
        if step >= average_from:
            training.average(0.9)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("split", [1, 5, 9])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(split: int, precision: str) -> None:
    whole = hashed(precision=precision)
    advance(whole, 12)
    first = hashed(precision=precision)
    advance(first, split)
    second = hashed(precision=precision)
    second.restore(first.weights(), first.state(), first.steps)
    advance(second, 12 - split)
    for name, value in whole.weights().items():
        np.testing.assert_array_equal(second.weights()[name], value, err_msg=name)
    for name, value in whole.state().items():
        np.testing.assert_array_equal(second.state()[name], value, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_runs_repeat_bitwise_for_any_number_of_threads(threads: int) -> None:
    runs = [hashed(threads), hashed(threads)]
    for run in runs:
        advance(run, 5)
    for name, value in runs[0].weights().items():
        np.testing.assert_array_equal(runs[1].weights()[name], value)


def test_training_lowers_the_loss() -> None:
    training = hashed()
    losses = []
    for _ in range(150):
        losses.append(training.backward(**batch(0)))
        training.step()
    assert losses[0] > 5.4 and np.mean(losses[-10:]) < 1.5


def test_a_wrong_state_is_refused_in_words() -> None:
    training = hashed()
    state = training.state()
    state["first/up.weight"] = np.zeros((1, 1), np.float32)
    with pytest.raises(ProgramError, match=r"first/up\.weight"):
        training.restore(training.weights(), state, 0)
