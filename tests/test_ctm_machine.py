"""Continuous Thought Machines: sizes, pairings, and what must not change a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from modgrad import nn, spec, trace
from modgrad.ctm import ContinuousThoughtMachine
from modgrad.ctm.machine import LARGEST_DECAY, Pairs
from modgrad.ctm.synapse import widths
from modgrad.program import Tensor


def parameters(model: nn.Module) -> int:
    return sum(one.value.size for one in model.parameters() if one.trainable)


def residual_network(blocks: list[int]) -> int:
    """Parameters of a residual network on pixels: 1×1 to 3 channels, a stem of 3×3 to
    64, then stages of basic blocks, from the second on with twice the channels."""
    norm, total, channels = 2, 3 * 3 + 3 + 3 * 64 * 9 + 2 * 64, 64
    for stage, count in enumerate(blocks):
        wide = 64 << stage
        for index in range(count):
            before = channels if index == 0 else wide
            total += 9 * (before * wide + wide * wide) + 2 * norm * wide
            if before != wide:
                total += before * wide + norm * wide
        channels = wide
    return total


LARGE = {"neurons": 2048, "width": 512, "ticks": 1, "memory": 25, "hidden": 32, "heads": 8}
PAIRED = {"pairing": "first-last", "output_pairs": 64, "action_pairs": 32}
SMALL = {"neurons": 1024, "width": 256, "ticks": 1, "memory": 25, "hidden": 32, "heads": 4}
FEW = {"action_pairs": 32, "output_pairs": 32}
DEFAULT = {"neurons": 512, "width": 128, "ticks": 1, "memory": 25, "hidden": 32, "heads": 4}


@pytest.mark.parametrize(
    ("features", "outputs", "blocks", "options", "expected"),
    [
        (128, 500, [3, 4], {**LARGE, **PAIRED, "depth": 8}, 31_998_330),
        (128, 500, [3, 4], {**LARGE, **PAIRED, "depth": 4}, 20_176_510),
        (64, 250, [2], {**SMALL, "depth": 8, "action_pairs": 128, "output_pairs": 128}, 8_511_992),
        (
            128,
            500,
            [3, 4],
            {**DEFAULT, "depth": 8, "action_pairs": 32, "output_pairs": 32},
            3_924_262,
        ),
    ],
)
def test_published_sizes(
    features: int, outputs: int, blocks: list[int], options: dict[str, Any], expected: int
) -> None:
    """What the published code counts for its maze models, backbone included."""
    model = ContinuousThoughtMachine(features, outputs, **options)
    assert parameters(model) + residual_network(blocks) == expected


def test_the_size_of_the_maze_model_of_modgrad() -> None:
    """450,325, which has a gate to stop (a weight for each output pair and a bias) and
    no temperatures."""
    model = ContinuousThoughtMachine(128, 100, hidden=8, depth=4)
    assert parameters(model) - 2 + 256 + 1 == 450_325


def test_widths_are_even_steps_cut_to_whole_numbers() -> None:
    assert widths(2048, 8, 16) == [2048, 1757, 1467, 1177, 886, 596, 306, 16]
    assert widths(256, 4, 16) == [256, 176, 96, 16]


def test_pairings() -> None:
    nn.manual_seed(1)
    pairs = Pairs(50, 20, "random-pairing", 4)
    assert pairs.count == 20
    assert (pairs.left.value[:4] == pairs.right.value[:4]).all()
    assert (pairs.left.value != pairs.right.value).any()
    first, last = Pairs(9, 3, "first-last"), Pairs(9, 3, "first-last", last=True)
    assert first.left.value.tolist() == [0, 0, 0, 1, 1, 2]
    assert first.right.value.tolist() == [0, 1, 2, 1, 2, 2]
    assert last.left.value.tolist() == [6, 6, 6, 7, 7, 8]
    drawn = Pairs(1000, 4, "random")
    assert drawn.count == 10
    assert len(set(drawn.left.value[:4])) == 1  # the first left one with every right one
    assert len(set(drawn.right.value[:4])) == 4


def machine(**options: Any) -> ContinuousThoughtMachine:
    nn.manual_seed(7)
    sizes: dict[str, Any] = {
        "neurons": 20,
        "width": 16,
        "ticks": 6,
        "memory": 4,
        "hidden": 3,
        "action_pairs": 9,
        "output_pairs": 8,
    }
    model = ContinuousThoughtMachine(5, 3, **{**sizes, **options})
    model.name_parameters()
    return model


def run(model: ContinuousThoughtMachine, features: np.ndarray, threads: int = 1) -> np.ndarray:
    program = trace(lambda features: model(features), features=spec(features.shape))
    return program.run(features=features, threads=threads)["output"]


def some_features(batch: int, tokens: int = 7) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((batch, tokens, 5)).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 3])
def test_neither_company_nor_threads_change_a_bit(depth: int) -> None:
    model, features = machine(depth=depth), some_features(8)
    together = run(model, features)
    assert np.array_equal(run(model, features, threads=2), together)
    for sample in range(8):
        assert np.array_equal(run(model, features[sample : sample + 1])[0], together[sample])


@pytest.mark.parametrize("depth", [1, 3])
def test_the_names_of_neurons_and_the_order_of_tokens_do_not_matter(depth: int) -> None:
    model, features = machine(depth=depth), some_features(3)
    before = run(model, features)
    np.testing.assert_allclose(run(model, features[:, ::-1].copy()), before, atol=2e-5)
    order = np.random.default_rng(5).permutation(20)
    for one in (model.start_state, model.start_trace):
        one.value = one.value[order]
    levels = (model.level1, model.level1_bias, model.level2, model.level2_bias)
    for one in levels:
        one.value = np.ascontiguousarray(one.value[..., order])
    first, last = model.synapse.blocks[0], model.synapse.blocks[-1]
    first.weight.value[16:] = first.weight.value[16:][order]
    # The widest layers' outputs: those of the first block are added to the last's.
    columns = np.concatenate([order, order + 20]) if depth == 1 else order
    for block in {id(first): first, id(last): last}.values():
        block.weight.value = np.ascontiguousarray(block.weight.value[:, columns])
        block.bias.value = block.bias.value[columns]
        norms = [block.norm, block.skip] if hasattr(block, "skip") else [block.norm]
        for norm in norms:
            norm.weight.value, norm.bias.value = norm.weight.value[order], norm.bias.value[order]
    if depth > 1:
        below = model.synapse.blocks[1].weight
        below.value = np.ascontiguousarray(below.value[order])
    place = np.argsort(order).astype(np.int32)
    for pairs in (model.action, model.output):
        pairs.left.value, pairs.right.value = place[pairs.left.value], place[pairs.right.value]
    np.testing.assert_allclose(run(model, features), before, atol=2e-5)


def test_over_one_token_the_query_does_not_matter() -> None:
    model, features = machine(), some_features(2, tokens=1)
    before = run(model, features)
    model.query.weight.value = model.query.weight.value * -3
    assert np.array_equal(run(model, features), before)


def test_what_forgets_at_once_reads_the_present_alone() -> None:
    model, features = machine(), some_features(2)
    for pairs in (model.action, model.output):
        pairs.decay.value[:] = 2 * LARGEST_DECAY  # cut to the largest

    def both(features: Tensor) -> dict[str, Tensor]:
        states, _ = model.think(features)
        return {"states": states, "synchrony": model.synchrony(states)}

    found = trace(both, features=spec(features.shape)).run(features=features)
    states = found["states"]
    present = states[:, :, model.output.left.value] * states[:, :, model.output.right.value]
    np.testing.assert_allclose(found["synchrony"], present, atol=1e-5)
