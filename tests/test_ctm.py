"""Continuous Thought Machines: gradients, and what reaches what."""

from __future__ import annotations

from typing import Any

import modgrad
import numpy as np
import pytest
from modgrad import functional as F
from modgrad import nn, optim, spec, trace
from modgrad.ctm import ContinuousThoughtMachine
from modgrad.errors import UsageError
from modgrad.program import Tensor
from modgrad.training import Training


def small(**options: Any) -> ContinuousThoughtMachine:
    nn.manual_seed(3)
    sizes: dict[str, Any] = {
        "neurons": 6,
        "width": 4,
        "ticks": 5,
        "memory": 3,
        "hidden": 2,
        "heads": 2,
        "action_pairs": 5,
        "output_pairs": 4,
        "self_pairs": 1,
    }
    model = ContinuousThoughtMachine(3, 2, **{**sizes, **options})
    model.name_parameters()
    for pairs in (model.action, model.output):
        pairs.decay.value[:] = 0.3  # at 0 it stands on the edge of what is allowed
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden": 0},
        {"ticks": 2, "memory": 4},
        {"heads": 1},
        {"depth": 3, "min_width": 3},
        {"depth": 2, "min_width": 4, "hidden": 0, "ticks": 2},
        {"pairing": "first-last", "action_pairs": 3, "output_pairs": 2, "self_pairs": 0},
        {"pairing": "random", "action_pairs": 2, "output_pairs": 3, "self_pairs": 0},
    ],
)
def test_gradients_of_the_whole_machine_agree_with_differences(options: dict[str, Any]) -> None:
    model = small(**options)
    weights = np.random.default_rng(1).standard_normal((2, model.ticks, 2)).astype(np.float32)

    def loss(features: Tensor, weights: Tensor) -> Tensor:
        return (model(features) * weights).sum()

    features = np.random.default_rng(2).standard_normal((2, 4, 3)).astype(np.float32)
    checks = modgrad.checkgrad(loss, features=features, weights=weights)
    assert checks.keys() >= {one.name for one in model.parameters() if one.trainable}


def test_every_parameter_has_a_gradient_and_moves() -> None:
    model = small()
    for pairs in (model.action, model.output):
        pairs.decay.value[:] = 0.0  # as a new machine has it
    before = {name: one.value.copy() for name, one in model.named_parameters()}

    def loss(features: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(model(features), targets).mean()}

    shape = (2, 4, 3)
    trainable = [one for one in model.parameters() if one.trainable]
    training = Training(
        loss,
        [optim.AdamW(trainable, 1e-2)],
        inputs={"features": spec(shape), "targets": spec((2, 5), "u8")},
        threads=1,
    )
    features = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    training.backward(features=features, targets=np.zeros((2, 5), np.uint8))
    training.step()
    after = training.weights()
    for name, parameter in model.named_parameters():
        # A bias of all keys moves no softmax: it has no gradient, and does not move.
        if parameter.trainable and name != "attention.1.bias":
            assert not np.array_equal(after[name], before[name]), name


def test_each_token_reaches_the_last_prediction_and_samples_are_independent() -> None:
    model = small()
    features = np.random.default_rng(4).standard_normal((3, 4, 3)).astype(np.float32)
    program = trace(lambda features: model(features), features=spec((3, 4, 3)))
    before = program.run(features=features)["output"]
    for token in range(4):
        changed = features.copy()
        changed[1, token] += 1.0
        after = program.run(features=changed)["output"]
        assert not np.array_equal(after[1, -1], before[1, -1])
        np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


def test_sizes_that_cannot_be_are_refused() -> None:
    for options in (
        {"ticks": 0},
        {"heads": 3},
        {"memory": 0},
        {"neurons": 0},
        {"depth": 0},
        {"depth": 2, "min_width": 0},
        {"pairing": "nearest"},
        {"pairing": "random"},  # with pairs of a neuron with itself
        {"pairing": "first-last", "self_pairs": 0, "output_pairs": 7},
    ):
        with pytest.raises(UsageError):
            small(**options)


def test_two_calls_in_a_row_are_one_and_gradients_pass_between_them() -> None:
    """Without pairs to ask with, nothing but state and trace is carried."""
    whole, half = small(ticks=6, action_pairs=0), small(ticks=3, action_pairs=0)

    def both(features: Tensor) -> dict[str, Tensor]:
        states, trace = half.think(features)
        more, last = half.think(features, states[:, -1], trace)
        return {"states": F.concat([states, more], 1), "trace": last}

    def once(features: Tensor) -> dict[str, Tensor]:
        states, trace = whole.think(features)
        return {"states": states, "trace": trace}

    features = np.random.default_rng(2).standard_normal((3, 4, 3)).astype(np.float32)
    apart = trace(both, features=spec(features.shape)).run(features=features)
    together = trace(once, features=spec(features.shape)).run(features=features)
    for name in ("states", "trace"):
        np.testing.assert_allclose(apart[name], together[name], atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"memory": 7}, {"action_pairs": 0}, {"hidden": 0}])
def test_gradients_through_a_carried_state_and_trace(options: dict[str, int]) -> None:
    model = small(ticks=3, **options)
    generator = np.random.default_rng(1)
    weights = generator.standard_normal((2, 6, 4)).astype(np.float32)
    traces = generator.standard_normal((2, 6, model.memory)).astype(np.float32)

    def loss(features: Tensor, weights: Tensor, traces: Tensor) -> Tensor:
        states, trace = model.think(features)
        more, trace = model.think([features[:, :1], features[:, 2:]], states[:, -1], trace)
        synchrony = model.synchrony(F.concat([states, more], 1))
        return (synchrony * weights).sum() + (trace * traces).sum()

    features = generator.standard_normal((2, 4, 3)).astype(np.float32)
    assert modgrad.checkgrad(loss, features=features, weights=weights, traces=traces)


def test_a_region_needs_neither_features_nor_pairs_nor_outputs() -> None:
    nn.manual_seed(1)
    region = ContinuousThoughtMachine(
        None, 0, neurons=8, width=4, ticks=2, memory=3, hidden=2, heads=1, action_pairs=0
    )
    region.name_parameters()

    def loss(tokens: Tensor) -> Tensor:
        states, trace = region.think(tokens)
        return (states * states).sum() + trace.sum()

    tokens = np.random.default_rng(1).standard_normal((2, 1, 4)).astype(np.float32)
    errors = modgrad.checkgrad(loss, tokens=tokens)
    assert {"start_state", "attention.2.weight", "query.bias"} <= errors.keys()
