"""A Continuous Thought Machine with neurons at every cell of the maze.

What happens to a maze of S × S pixels, on its lattice of n × n cells, n = (S − 1) / 2:

1. a stem reads the 3 × 3 pixels around each cell: its walls, and whether it is start
   or goal. This drives the cell's synapse at every tick;
2. at each tick every cell hears its own neurons and those of its four neighbours
   whose axons lead to it; gated activations, neuron-level models over their last M
   values, synchronisation of pairs within a cell and across its borders
   (`F.spatial_think` holds the equations);
3. a head reads, from the synchronisation of a cell's pairs, where to go from there:
   up, down, left, right, or wait;
4. a walker follows these from the start. It chooses and does not learn.

All weights are shared by all cells, so that one set walks mazes of any size. A route
visits no cell twice, and news takes somewhat more than a tick to the next cell, as it
learned to: 1.6 ticks for every cell are enough for nearly any maze.

In training, and only there, a solver tells every cell its shortest ways to the goal.

Axes: B mazes, n cells a side, C channels, M trace, R readings, K steps on the lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from modgrad import functional as F
from modgrad import nn
from modgrad.errors import UsageError
from modgrad.program import Tensor

MOVES = 5  # up, down, left, right, wait
TICKS = 16  # of the command line, where it says none
WHOLE = 10  # of these, for as many of the lattice as it has cells
CERTAIN = 1e-6  # keeps the logarithm of a way that is thought impossible finite


@dataclass(frozen=True)
class SpatialConfig:
    """What a model is made of; every field is an ordinary argument to turn."""

    size: int = 21  # pixels a side
    ticks: int = TICKS  # tenths of the lattice's cells
    channels: int = 32
    memory: int = 4
    kept: int = 32  # ticks that the gradient reaches back
    longest: int = 1 << 14  # ticks of a thought in training, at most
    gate_bias: float = -1.0  # activations start slow
    retention: float = 0.5  # of pairs, at first
    most_retained: float = 0.9  # and at most: what never forgets drifts in long thoughts


def cells_a_side(size: int) -> int:
    """Of the lattice of a maze."""
    return (size - 1) // 2


class SpatialModel(nn.Module):
    """pixels f32[B, 3, S, S] → logits f32[B, R, 5] of the whole route."""

    def __init__(self, config: SpatialConfig) -> None:
        channels, memory = config.channels, config.memory
        if channels % 4 or channels < 4:
            raise UsageError(f"--d-model {channels} is not a multiple of 4, one part a direction")
        if config.ticks < 1:
            raise UsageError(f"--ticks {config.ticks}: a thought has at least one")
        self.config = config
        self.stem = nn.Linear(27, 2 * channels, bias=True)
        assert self.stem.bias is not None
        self.stem.bias.value[channels:] = config.gate_bias
        self.start = nn.Parameter(np.zeros((memory, channels), np.float32))
        pairs = 2 * channels
        self.synapse = nn.Parameter(nn.normal((pairs, pairs), pairs**-0.5))
        # A neuron starts as one that reports its latest activation.
        neuron = nn.normal((memory, 2, channels), 0.1)
        neuron[-1, 0] += 2.0
        self.neuron = nn.Parameter(neuron)
        self.neuron_bias = nn.Parameter(np.zeros((2, channels), np.float32))
        self.decay = nn.Parameter(np.full(pairs, -np.log(config.retention), np.float32))
        self.head = nn.Linear(pairs, MOVES, bias=True)

    def policy(
        self,
        pixels: Tensor,
        reads: Tensor | None = None,
        noise: Tensor | None = None,
        *,
        ticks: int,
        kept: int = 0,
    ) -> Tensor:
        """Logits of every cell [B, R, n, n, 5] after the ticks of `reads`, or the last.

        `noise` [B, n, n, 2C] is added to what drives the synapses, at every tick the same.
        """
        retention = (-F.maximum(self.decay, -math.log(self.config.most_retained))).exp()
        weights = (self.start, self.synapse, self.neuron, self.neuron_bias, retention)
        drive = self.stem(patches(pixels) - 0.5)
        if noise is not None:
            drive = drive + noise
        return self.head(F.spatial_think(drive, *weights, reads, ticks=ticks, kept=kept))

    def loss(self, pixels: Tensor, ways: Tensor, reads: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """−ln of the probability of a right way; ways f32[B, n, n, 5] are 1 where right,
        0 at all moves of a cell that is not asked."""
        logits = self.policy(pixels, reads, noise, ticks=self.config.longest, kept=self.config.kept)
        batch, readings, height, width, moves = logits.shape
        ways = ways.reshape(batch, 1, height, width, moves)
        right = (F.softmax(logits) * ways).sum(-1)
        asked = ways.max(-1)
        losses = -(right + (1.0 - asked) + CERTAIN).log()
        # The mean over cells that were asked, of each reading.
        ticks = losses.transpose(1, 0, 2, 3).reshape(readings, -1).sum(-1) / asked.sum()
        return {"loss": ticks.mean(), "ticks": ticks}

    def score(self, pixels: Tensor) -> dict[str, Tensor]:
        """The program that a checkpoint holds and the evaluator runs, for mazes of the
        size of `pixels`."""
        side = cells_a_side(pixels.shape[-1])
        ticks = -(-self.config.ticks * side * side // WHOLE)
        policy = self.policy(pixels, ticks=ticks)
        batch, _, height, width, moves = policy.shape
        policy = policy.reshape(batch, height, width, moves)
        # The start is the only floor without blue and green.
        start = pixels[:, 0, 1::2, 1::2] - pixels[:, 1, 1::2, 1::2]
        steps = F.walk(policy, start, side * side - 1)
        # A step on the lattice is two in pixels.
        twice = steps.reshape(batch, -1, 1, moves).broadcast_to(batch, steps.shape[1], 2, moves)
        return {"logits": twice.reshape(batch, -1, moves)}


def patches(pixels: Tensor) -> Tensor:
    """[B, 3, S, S] → the 3 × 3 pixels around each cell [B, n, n, 27]."""
    size = pixels.shape[-1]
    taps = [
        pixels[:, :, y : size - 2 + y : 2, x : size - 2 + x : 2] for y in range(3) for x in range(3)
    ]
    return F.concat(taps, axis=1).transpose(0, 2, 3, 1)


def make_model(
    size: int, route_length: int, *, ticks: int = TICKS, d_model: int = 32
) -> SpatialModel:
    """A model for the command line: `d_model` channels, `ticks` of `WHOLE`. It predicts
    whole routes whatever `route_length`."""
    return SpatialModel(SpatialConfig(size=size, ticks=ticks, channels=d_model))
