"""Losses over ticks, certainty, and when a thought stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import modgrad
import numpy as np
import pytest
from modgrad import ctm, nn, spec, trace
from modgrad import functional as F
from modgrad.ctm.exits import AdaptiveGate, CertaintyThreshold
from modgrad.errors import UsageError
from modgrad.program import Tensor

Array = np.ndarray[Any, Any]


def run(function: Callable[..., Any], **inputs: Array) -> Array:
    dtypes = {"float32": "f32", "uint8": "u8", "int32": "i32"}
    specs = {name: spec(one.shape, dtypes[one.dtype.name]) for name, one in inputs.items()}
    return trace(function, **specs).run(**inputs)["output"]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def route_logits(targets: Array, prefixes: Array, classes: int = 5) -> Array:
    """Logits [B, T, R, C] whose correct prefix is as given [B, T]."""
    batch, ticks = prefixes.shape
    logits = normal(batch, ticks, targets.shape[1], classes, seed=4) * 0.1
    for b in range(batch):
        for t in range(ticks):
            for r, target in enumerate(targets[b]):
                wrong = (target + 1) % classes
                logits[b, t, r, wrong if r == prefixes[b, t] else target] += 2.0
    return logits


def test_certainty_of_even_logits_is_none_and_of_one_large_one_is_full() -> None:
    even = np.full((1, 2, 3, 5), 7.0, np.float32)
    assert np.abs(run(ctm.certainty, logits=even)).max() < 1e-6
    sure = even.copy()
    sure[..., 2] += 80.0
    np.testing.assert_allclose(run(ctm.certainty, logits=sure), 1.0, atol=1e-6)


def test_certainty_is_the_mean_over_positions_and_ignores_a_shift() -> None:
    logits = normal(2, 3, 4, 5)
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy = -(probability * np.log(probability)).sum(-1) / np.log(5)
    found = run(ctm.certainty, logits=logits)
    np.testing.assert_allclose(found, 1 - entropy.mean(-1), atol=1e-5)
    shift = normal(2, 3, 4, 1, seed=1) * 50
    np.testing.assert_allclose(run(ctm.certainty, logits=logits + shift), found, atol=1e-5)


def test_the_correct_prefix_ends_at_the_first_mistake() -> None:
    targets = np.random.default_rng(1).integers(0, 5, (3, 6), dtype=np.uint8)
    prefixes = np.array([[0, 6], [1, 5], [3, 2]])
    found = run(ctm.correct_prefix, logits=route_logits(targets, prefixes), targets=targets)
    np.testing.assert_array_equal(found, prefixes)


@pytest.mark.parametrize(("prefix", "trained"), [(0, 5), (1, 5), (5, 9), (18, 20), (20, 20)])
def test_a_route_is_trained_a_little_further_than_it_is_right(prefix: int, trained: int) -> None:
    targets = np.random.default_rng(2).integers(0, 5, (1, 20), dtype=np.uint8)
    logits = route_logits(targets, np.array([[prefix, 0]]))
    found = run(ctm.maze_losses, logits=logits, targets=targets)
    logsumexp = np.log(np.exp(logits).sum(-1))
    right = np.take_along_axis(logits, targets[:, None, :, None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(found, (logsumexp - right)[..., :trained].mean(-1), rtol=1e-5)


def test_of_equal_values_the_first_is_chosen() -> None:
    equal = np.array([[3.0, 3.0, 1.0], [1.0, 2.0, 2.0]], np.float32)
    np.testing.assert_array_equal(run(F.one_hot_max, x=equal), [[1, 0, 0], [0, 1, 0]])


def test_only_two_ticks_are_trained() -> None:
    losses = np.array([[3.0, 1.0, 1.5, 2.0]], np.float32)
    certainties = np.array([[0.1, 0.2, 0.3, 0.9]], np.float32)

    def loss(losses: Tensor, certainties: Tensor) -> Tensor:
        return ctm.two_tick_loss(losses, F.one_hot_max(certainties))

    assert run(loss, losses=losses, certainties=certainties) == pytest.approx(1.5)
    for tick, weight in enumerate([0.0, 0.5, 0.0, 0.5]):
        nudged = losses.copy()
        nudged[0, tick] += 1e-2
        difference = run(loss, losses=nudged, certainties=certainties) - 1.5
        assert difference == pytest.approx(weight * 1e-2, abs=1e-6)


def test_the_gradient_is_softmax_less_one_hot_over_the_trained_positions() -> None:
    targets = np.random.default_rng(3).integers(0, 5, (2, 8), dtype=np.uint8)
    start = route_logits(targets, np.array([[0, 2, 1], [0, 0, 0]]))
    start[1, :, 3] = 0.0  # no two ticks are alike
    start += normal(*start.shape, seed=9) * 0.05
    logits = nn.Parameter(start)
    logits.name = "logits"

    def loss(targets: Tensor) -> Tensor:
        losses = ctm.maze_losses(logits, targets)
        return ctm.two_tick_loss(losses, F.one_hot_max(ctm.certainty(logits)))

    assert modgrad.checkgrad(loss, targets=targets)["logits"] < 1e-5


def test_chances_to_stop_sum_to_one() -> None:
    nn.manual_seed(0)
    gate = AdaptiveGate(6)
    gate.name_parameters()
    chance = run(gate.distribution, synchrony=normal(3, 7, 6) * 3)
    np.testing.assert_allclose(chance.sum(-1), 1.0, atol=1e-6)
    stopping = 1 / (1 + np.exp(-(normal(3, 7, 6) * 3 @ gate.gate.weight.value.T)[..., 0]))
    stopping[:, -1] = 1.0
    going = np.cumprod(np.concatenate([np.ones((3, 1)), 1 - stopping[:, :-1]], 1), 1)
    np.testing.assert_allclose(chance, stopping * going, atol=1e-5)
    single = run(gate.distribution, synchrony=normal(2, 1, 6))
    np.testing.assert_array_equal(single, 1.0)


def test_a_gate_that_must_be_sure_runs_to_the_end() -> None:
    nn.manual_seed(0)
    synchrony, certainties = normal(5, 4, 6) * 3, normal(5, 4)
    for threshold in (1.0, 0.5):
        gate = AdaptiveGate(6, threshold=threshold)
        gate.name_parameters()
        chance = run(gate.distribution, synchrony=synchrony)
        chosen = run(gate.tick, certainties=certainties, synchrony=synchrony)
        above = np.cumsum(chance, 1) > threshold
        expected = np.where(above.any(1), above.argmax(1), 3) if threshold < 1 else np.full(5, 3)
        np.testing.assert_array_equal(chosen.argmax(1), expected)
        np.testing.assert_array_equal(chosen.sum(1), 1.0)


def test_a_gate_learns_by_exact_gradients() -> None:
    nn.manual_seed(1)
    gate = AdaptiveGate(3)
    gate.name_parameters()

    def loss(losses: Tensor, synchrony: Tensor) -> Tensor:
        return gate.loss(losses, losses, synchrony)

    errors = modgrad.checkgrad(loss, losses=normal(2, 5), synchrony=normal(2, 5, 3))
    assert {"gate.weight", "gate.bias", "losses", "synchrony"} <= set(errors)


def test_an_exit_by_certainty_takes_the_first_that_is_sure_or_the_last() -> None:
    certainties = np.array([[0.1, 0.96, 0.99], [0.1, 0.2, 0.3], [0.95, 0.1, 0.2]], np.float32)
    rule = CertaintyThreshold(0.95)
    chosen = run(lambda certainties: rule.tick(certainties, certainties), certainties=certainties)
    np.testing.assert_array_equal(chosen.argmax(1), [1, 2, 2])
    values = normal(3, 3, 2, 5)
    picked = run(ctm.at_tick, values=values, chosen=chosen)
    np.testing.assert_array_equal(picked, values[[0, 1, 2], [1, 2, 2]])
    assert run(ctm.mean_ticks, chosen=chosen) == pytest.approx(8 / 3)


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(UsageError, match="none, certainty, adaptive"):
        ctm.make_exit("never", 4)
