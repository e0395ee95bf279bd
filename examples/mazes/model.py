"""A Continuous Thought Machine that looks at a maze and says the route.

What happens to a maze of S × S pixels, cell by cell on its lattice of
L = ((S − 1) / 2)² cells:

1. a stem reads the 3 × 3 pixels around each cell: its walls, and whether it is
   start or goal, which also goes to the tokens as it is, made large;
2. a backbone lets cells exchange what they know with their four neighbours, a few
   times over with one set of weights (other CTMs have a ResNet here). After k
   times a cell has heard of walls k cells away;
3. the cells, with a learned code of where they are, are the tokens that a single,
   global Continuous Thought Machine attends to; it says R moves after every one of
   its ticks, and its exit strategy picks the tick that counts.

In training, and only there, the backbone is also asked at every cell for the way
to the goal, which a solver told; `solver_weight` 0 leaves that out.

Axes: B mazes, L cells, F features of a cell, T ticks, R steps of a route.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from modgrad import functional as F
from modgrad import nn
from modgrad.ctm import ContinuousThoughtMachine, at_tick, certainty, make_exit, maze_losses
from modgrad.ctm.attention_map import attention_map
from modgrad.program import Tensor

MOVES = 5  # up, down, left, right, wait


@dataclass(frozen=True)
class MazeConfig:
    """What a model is made of; every field is an ordinary argument to turn."""

    size: int = 21  # pixels a side
    route_length: int = 20
    exit: str = "none"  # see modgrad.ctm.STRATEGIES
    # The machine.
    ticks: int = 16
    neurons: int = 256
    width: int = 128
    memory: int = 16
    hidden: int = 16
    heads: int = 4
    pairs: int = 256
    largest_decay: float = 2.0  # pairs start to forget at rates from 0 to this, a tick
    # What its tokens are made of.
    features: int = 32
    backbone_steps: int = 16
    mark: float = 4.0  # how much start and goal stand out of the tokens
    first_questions: float = 2.0  # deviation of what heads ask for before they have learned
    solver_weight: float = 1.0

    @property
    def cells_a_side(self) -> int:
        """Of the lattice."""
        return (self.size - 1) // 2


class Backbone(nn.Module):
    """pixels [B, 3, S, S] → what each cell saw itself, [B, L, F + 2], and what it has
    heard, [B, L, F]."""

    def __init__(self, config: MazeConfig) -> None:
        self.side, self.steps = config.cells_a_side, config.backbone_steps
        features, self.mark = config.features, config.mark
        self.stem = nn.Linear(3 * 9, features, bias=True)
        self.recall = nn.Linear(features, 2 * features)
        nearly_closed = np.repeat(np.array([0.0, -1.0], np.float32), features)
        self.recall_bias = nn.Parameter(nearly_closed)
        self.exchange = nn.Linear(5 * features, 2 * features)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.patches(pixels)
        # Red less green of the pixel in the middle: 1 at the start, −1 at the goal.
        end = (patches[:, :, 12:13] - patches[:, :, 13:14]) * self.mark
        seen = F.relu(self.stem(patches))
        heard = seen
        recalled = self.recall(seen) + self.recall_bias
        for _ in range(self.steps):
            heard = self.step(heard, recalled)
        return F.concat([seen, end, -end]), heard

    def patches(self, pixels: Tensor) -> Tensor:
        """The 3 × 3 pixels around each cell, [B, L, 27], 9 positions of 3 channels."""
        side = self.side
        shifted = [
            pixels[:, :, row : row + 2 * side - 1 : 2, column : column + 2 * side - 1 : 2]
            for row in range(3)
            for column in range(3)
        ]
        together = F.concat(shifted, 1)  # [B, 27, side, side]
        return together.reshape(-1, 27, side * side).transpose(0, 2, 1)

    def step(self, heard: Tensor, recalled: Tensor) -> Tensor:
        """Moves each cell towards what its neighbours say, as far as its gate is open.

        Cells stand row by row, so that a row's last has the next one's first for a
        neighbour; there is a wall between them like any other.
        """
        around = [F.shift(heard, amount) for amount in (1, -1, self.side, -self.side)]
        proposed = self.exchange(F.concat([heard, *around])) + recalled
        features = heard.shape[-1]
        value, gate = proposed[:, :, :features], proposed[:, :, features:]
        return heard + gate.sigmoid() * (value.tanh() - heard)


class MazeModel(nn.Module):
    """pixels f32[B, 3, S, S] → logits f32[B, R, 5]."""

    def __init__(self, config: MazeConfig) -> None:
        self.config = config
        features = 2 * config.features + 2
        self.backbone = Backbone(config)
        self.way = nn.Linear(config.features, MOVES, bias=True)
        cells = config.cells_a_side**2
        self.position = nn.Parameter(nn.normal((cells, features), 0.5))
        self.machine = ContinuousThoughtMachine(
            features,
            config.route_length * MOVES,
            neurons=config.neurons,
            width=config.width,
            ticks=config.ticks,
            memory=config.memory,
            hidden=config.hidden,
            heads=config.heads,
            action_pairs=config.pairs,
            output_pairs=config.pairs,
        )
        # Heads that each look for something from the start: one of them happens upon the
        # cell where the route begins, where even attention would take long to find it.
        asked = self.machine.attention[0].bias
        assert asked is not None
        asked.value = nn.normal(asked.value.shape, config.first_questions)
        for pairs in (self.machine.action, self.machine.output):
            pairs.decay.value = nn.uniform((config.pairs,), config.largest_decay / 2)
            pairs.decay.value += np.float32(config.largest_decay / 2)
        self.exit = make_exit(config.exit, config.pairs)

    def think(self, seen: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """The logits after every tick, [B, T, R, 5], and the synchrony they are read
        from, [B, T, pairs]."""
        states, _ = self.machine.think(self.tokens(seen, heard))
        return self.read(states)

    def tokens(self, seen: Tensor, heard: Tensor) -> Tensor:
        """What the machine attends to: [B, L, 2F + 2]."""
        return F.concat([seen, heard]) + self.position

    def read(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """What `think` returns, of the states [B, T, neurons]."""
        synchrony = self.machine.synchrony(states)
        logits = self.machine.head(synchrony)
        return logits.reshape(*logits.shape[:2], -1, MOVES), synchrony

    def score(self, pixels: Tensor) -> dict[str, Tensor]:
        """The program that a checkpoint holds and the evaluator runs."""
        logits, synchrony = self.think(*self.backbone(pixels))
        tick = self.exit.tick(certainty(logits), synchrony)
        return {"logits": at_tick(logits, tick)}

    def watch(self, pixels: Tensor) -> dict[str, Tensor]:
        """For pictures: the route after every tick, how certain it is, where it looked."""
        tokens = self.tokens(*self.backbone(pixels))
        states, _ = self.machine.think(tokens)
        logits, _ = self.read(states)
        seen = attention_map(self.machine, tokens, states)
        return {"logits": logits, "certainty": certainty(logits), "attention": seen}

    def loss(self, pixels: Tensor, targets: Tensor, ways: Tensor) -> dict[str, Tensor]:
        """targets u8[B, R] is the route; ways u8[B, L] the solver's move from every cell.

        The route's loss is that of the paper (two ticks, a growing stretch of the
        route), or what the exit strategy makes of it.
        """
        seen, heard = self.backbone(pixels)
        logits, synchrony = self.think(seen, heard)
        losses = maze_losses(logits, targets)
        route = self.exit.loss(losses, certainty(logits), synchrony)
        outputs = {"loss": route, "route": route}
        if self.config.solver_weight:
            solved = F.cross_entropy(self.way(heard), ways).mean()
            outputs |= {"loss": route + solved * self.config.solver_weight, "ways": solved}
        return outputs


def make_model(
    size: int, route_length: int, *, ticks: int = 16, d_model: int = 256, exit: str = "none"
) -> MazeModel:
    """The model that the command line asks for."""
    return MazeModel(
        MazeConfig(size=size, route_length=route_length, ticks=ticks, neurons=d_model, exit=exit)
    )
