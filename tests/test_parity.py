"""What a Continuous Thought Machine can learn: the parities of a row of bits.

Bit i is asked for the parity of bits 0 … i (arXiv 2505.05522, section 5), which takes
thought: the parity of all bits is no sum of what single bits say. What the recipe
below is made of, and what was tried without it: docs/parity.md.
"""

from __future__ import annotations

import numpy as np
import pytest
from modgrad import functional as F
from modgrad import nn, optim, spec, trace
from modgrad.ctm import (
    ContinuousThoughtMachine,
    MostCertain,
    at_tick,
    certainty,
    maze_losses,
    two_tick_loss,
)
from modgrad.program import Tensor
from modgrad.schedule import warmdown
from modgrad.training import Training

BATCH = 64
WIDTH = 64


class Parity(nn.Module):
    """bits f32[B, L] of ±1 → two classes for each, [B, L, 2]."""

    def __init__(self, length: int, ticks: int) -> None:
        self.length = length
        self.value = nn.Parameter(bit_code(), trainable=False)
        self.position = nn.Parameter(position_codes(length), trainable=False)
        self.machine = ContinuousThoughtMachine(
            WIDTH,
            2 * length,
            neurons=128,
            width=WIDTH,
            ticks=ticks,
            memory=8,
            hidden=8,
            action_pairs=128,
            output_pairs=128,
        )
        # What attention asks may then follow the tick, where an even mean over all
        # ticks so far hardly moves.
        self.machine.action.decay.value = np.linspace(0.0, 2.0, 128, dtype=np.float32)

    def ticks(self, bits: Tensor) -> Tensor:
        """[B, T, L, 2]"""
        features = bits.reshape(*bits.shape, 1) * self.value + self.position
        logits = self.machine(features)
        return logits.reshape(*logits.shape[:2], self.length, 2)

    def loss(self, bits: Tensor, parities: Tensor) -> Tensor:
        logits = self.ticks(bits)
        chosen = F.one_hot_max(certainty(logits))
        # Bit by bit from the first, as a route is learned step by step.
        return two_tick_loss(maze_losses(logits, parities), chosen)

    def answer(self, bits: Tensor) -> Tensor:
        logits = self.ticks(bits)
        return at_tick(logits, MostCertain().tick(certainty(logits), logits))


def bit_code() -> np.ndarray:
    """[1, WIDTH]: what is added for a bit of 1, in the half without positions."""
    half = WIDTH // 2
    return np.concatenate([nn.normal((1, half), 1.0), np.zeros((1, half), np.float32)], 1)


def position_codes(length: int) -> np.ndarray:
    """[L, WIDTH]: waves of WIDTH / 4 frequencies in the second half.

    From a position to the next it is the same rotation everywhere: who has learned to
    step along the first bits can go on along the others.
    """
    frequencies = np.arange(1, WIDTH // 4 + 1)
    angles = np.pi / length * np.arange(length)[:, None] * frequencies
    waves = np.sqrt(2.0) * np.concatenate([np.cos(angles), np.sin(angles)], 1)
    return np.concatenate([np.zeros((length, WIDTH // 2)), waves], 1).astype(np.float32)


def draw(generator: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    bits = generator.integers(0, 2, (count, length))
    parities = bits.cumsum(1) % 2
    return (1 - 2 * bits).astype(np.float32), parities.astype(np.uint8)


def optimizers(model: Parity) -> list[optim.Optimizer]:
    """Muon for the products inside the machine, AdamW for all else."""
    machine = model.machine
    matrices = [machine.join.weight, machine.query.weight, machine.synapse.blocks[0].weight]
    matrices += [projection.weight for projection in machine.attention]
    inside = {id(parameter) for parameter in matrices}
    rest = [one for one in model.parameters() if one.trainable and id(one) not in inside]
    return [
        optim.Muon(matrices, 0.006),
        optim.AdamW(rest, 1e-3, (0.9, 0.99)),
    ]


def accuracy_after(steps: int, length: int, ticks: int) -> float:
    """Of 2000 rows that were not trained on, over all bits."""
    nn.manual_seed(0)
    model = Parity(length, ticks)
    training = Training(
        model.loss,
        optimizers(model),
        inputs={"bits": spec((BATCH, length)), "parities": spec((BATCH, length), "u8")},
        clip_norm=1.0,
        precision="f32",
        threads=1,
    )
    generator = np.random.default_rng(0)
    for step in range(steps):
        bits, parities = draw(generator, BATCH, length)
        training.backward(bits=bits, parities=parities)
        training.step(warmdown(step / steps, cooldown=0.8))
    bits, parities = draw(np.random.default_rng(1), 2000, length)
    answer = trace(model.answer, bits=spec(bits.shape))
    weights = {name: training.weights()[name] for name in answer.parameters}
    predicted = answer.run(weights=weights, bits=bits)["output"].argmax(-1)
    return float((predicted == parities).mean())


def test_parities_of_eight_bits_and_that_ticks_are_what_they_take() -> None:
    """The same machine, the same parameters, the same updates, more time to think."""
    one, twelve = (accuracy_after(600, length=8, ticks=ticks) for ticks in (1, 12))
    assert one + 0.05 < twelve
    assert twelve > 0.99


@pytest.mark.slow
def test_parities_of_sixteen_bits() -> None:
    assert accuracy_after(4500, length=16, ticks=28) >= 0.98
