"""The eight regions look at a maze and say the route.

The cells of the maze, told what stands around them by a small encoder and where they
are by a learned code, are tokens that do not change from tick to tick. The regions
"input" and "hippocampus" attend to all of them; where an edge takes the observation,
it is the tokens pooled to one. After every outer tick the route is read from the
synchronisation of neurons of all regions, and the exit strategy picks the tick that
counts. Nothing but the route is learned from, unless `solver_weight` says otherwise:
then the encoder is asked at every cell for the way to the goal, which a solver told.

Axes: B mazes, L cells, F features of a cell, T outer ticks, R steps of a route.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model import MOVES, Backbone
from model import MazeConfig as EncoderConfig
from modgrad import functional as F
from modgrad import nn
from modgrad.ctm import at_tick, certainty, make_exit, maze_losses
from modgrad.program import Tensor

from isis.brain import Brain, BrainConfig


@dataclass(frozen=True)
class MazeConfig:
    """What a model is made of; every field is an ordinary argument to turn."""

    size: int = 21  # pixels a side
    route_length: int = 20
    exit: str = "none"  # see modgrad.ctm.STRATEGIES
    ticks: int = 16  # outer ones
    # The published graph has 16 inner ticks; what it observes does not change in between.
    brain: BrainConfig = field(default_factory=lambda: BrainConfig(iterations=2))
    features: int = 32
    encoder_steps: int = 2  # cells away that a cell hears of before the regions look
    pooled: int = 32
    solver_weight: float = 0.0


class MazeBrain(nn.Module):
    """pixels f32[B, 3, S, S] → logits f32[B, R, 5]."""

    def __init__(self, config: MazeConfig) -> None:
        self.config = config
        encoder = EncoderConfig(
            size=config.size, features=config.features, backbone_steps=config.encoder_steps
        )
        features = 2 * config.features + 2
        self.encoder = Backbone(encoder)
        self.position = nn.Parameter(nn.normal((encoder.cells_a_side**2, features), 0.5))
        if config.solver_weight:
            self.way = nn.Linear(config.features, MOVES, bias=True)
        self.pool = nn.Linear(features, config.pooled, bias=True)
        self.brain = Brain(config.brain, config.pooled, tokens=features)
        self.head = nn.Linear(config.brain.pairs, config.route_length * MOVES, bias=True)
        self.exit = make_exit(config.exit, config.brain.pairs)

    def think(self, seen: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """The logits after every outer tick, [B, T, R, 5], and the synchrony that they
        are read from, [B, T, pairs], of what the encoder gives."""
        tokens = F.concat([seen, heard]) + self.position  # [B, L, 2F + 2]
        pooled = F.relu(self.pool(tokens)).mean(1)
        states = self.brain.think([pooled] * self.config.ticks, tokens)
        synchrony = self.brain.synchrony(states)
        logits = self.head(synchrony)
        return logits.reshape(*logits.shape[:2], self.config.route_length, MOVES), synchrony

    def score(self, pixels: Tensor) -> dict[str, Tensor]:
        """The program that a checkpoint holds and the evaluator runs."""
        logits, synchrony = self.think(*self.encoder(pixels))
        return {"logits": at_tick(logits, self.exit.tick(certainty(logits), synchrony))}

    def watch(self, pixels: Tensor) -> dict[str, Tensor]:
        """For pictures: the route after every outer tick, and how certain it is."""
        logits, _ = self.think(*self.encoder(pixels))
        return {"logits": logits, "certainty": certainty(logits)}

    def loss(self, pixels: Tensor, targets: Tensor, ways: Tensor) -> dict[str, Tensor]:
        """targets u8[B, R] is the route; ways u8[B, L] the solver's move from every cell."""
        seen, heard = self.encoder(pixels)
        logits, synchrony = self.think(seen, heard)
        losses = maze_losses(logits, targets)
        loss = self.exit.loss(losses, certainty(logits), synchrony)
        if self.config.solver_weight:
            solved = F.cross_entropy(self.way(heard), ways).mean()
            loss = loss + solved * self.config.solver_weight
        return {"loss": loss}


def make_model(size: int, route_length: int, *, ticks: int = 16, exit: str = "none") -> MazeBrain:
    """The model of the command line's flags; the sizes of its regions are fixed."""
    return MazeBrain(MazeConfig(size=size, route_length=route_length, ticks=ticks, exit=exit))
