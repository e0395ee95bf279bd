"""The eight regions on bytes: what they observe, and how a byte is read from them.

A window's bytes are observed one after another, `ticks` outer ticks each. States and
traces go on from byte to byte, and so does the synchronisation from which the next
byte is read: with retentions from 0 to 1 it is a memory of every length. A window
starts afresh, as the evaluator's do.

Axes: B batch, T bytes of a window, K outer ticks a byte, S pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from modgrad import functional as F
from modgrad import nn
from modgrad.ctm import at_tick, certainty, make_exit, tick_losses
from modgrad.errors import UsageError
from modgrad.program import Tensor

from isis.brain import EDGES, Brain, BrainConfig, sized

VOCABULARY = 256


@dataclass(frozen=True)
class ByteConfig:
    """What a model is made of; every field is an ordinary argument to turn."""

    brain: BrainConfig = field(default_factory=BrainConfig)
    embedding: int = 32
    ticks: int = 1  # outer ticks a byte
    exit: str = "none"  # which of a byte's ticks is read; see modgrad.ctm.STRATEGIES
    context: int = 256


OBSERVANT = {name: replace(edge, observed=True) for name, edge in EDGES.items()}

PRESETS: dict[str, ByteConfig] = {
    "small": ByteConfig(context=64),
    "medium": ByteConfig(BrainConfig(sized(256, 32, 64, 16, 8)), 64, context=64),
    "large": ByteConfig(BrainConfig(sized(512, 64, 128, 32, 8), pairs=1024), 128, context=64),
    "xl": ByteConfig(BrainConfig(sized(1024, 128, 128, 64, 8), pairs=1024), 128, context=64),
    # Every region observes the byte, and neurons remember little: short steps, more bytes.
    "bytes": ByteConfig(
        BrainConfig(sized(192, 48, 96, 32, 2), OBSERVANT, pairs=512, read_activations=True), 64
    ),
}

DEFAULT_PRESET = "bytes"


def config_from(preset: str, context: int | None = None) -> ByteConfig:
    """A preset, with another context length where one is given."""
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset} is not one of {', '.join(PRESETS)}")
    config = PRESETS[preset]
    return config if context is None else replace(config, context=context)


class ByteBrain(nn.Module):
    """tokens u8[B, T] → logits f32[B, T, 256] for the byte after each position."""

    def __init__(self, config: ByteConfig) -> None:
        if config.ticks < 1:
            raise UsageError(f"{config.ticks} ticks a byte leave nothing to read: at least 1")
        self.config = config
        self.embedding = nn.Embedding(VOCABULARY, config.embedding)
        self.brain = Brain(config.brain, config.embedding)
        self.head = nn.Linear(config.brain.pairs, VOCABULARY, bias=True, gain=0.5)
        if config.brain.read_activations:
            self.activations = nn.Linear(self.brain.neurons, VOCABULARY, gain=0.5)
        if config.ticks > 1:
            self.exit = make_exit(config.exit, config.brain.pairs)

    def logits(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """After every outer tick, [B, T, K, 256], and the synchrony behind them."""
        batch, time = tokens.shape
        seen = self.embedding(tokens)
        observations = [seen[:, at] for at in range(time) for _ in range(self.config.ticks)]
        states = self.brain.think(observations)
        synchrony = self.brain.synchrony(states)
        logits = self.head(synchrony)
        if self.config.brain.read_activations:
            logits = logits + self.activations(states)
        shape = batch, time, self.config.ticks
        return logits.reshape(*shape, VOCABULARY), synchrony.reshape(*shape, -1)

    def score(self, tokens: Tensor) -> dict[str, Tensor]:
        """The program that a checkpoint holds and the evaluator runs."""
        logits, synchrony = self.logits(tokens)
        batch, time, ticks, _ = logits.shape
        if ticks == 1:
            return {"logits": logits[:, :, 0]}
        logits = logits.reshape(batch * time, ticks, VOCABULARY)
        synchrony = synchrony.reshape(batch * time, ticks, -1)
        read = at_tick(logits, self.exit.tick(certainty(logits), synchrony))
        return {"logits": read.reshape(batch, time, VOCABULARY)}

    def loss(self, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The loss in nats, and each window's mean: that of the byte's tick, or what
        the exit strategy makes of several."""
        logits, synchrony = self.logits(tokens)
        batch, time, ticks, _ = logits.shape
        if ticks == 1:
            losses = F.cross_entropy(logits[:, :, 0], targets)
            return {"loss": losses.mean(), "windows": losses.mean(-1)}
        logits = logits.reshape(batch * time, ticks, VOCABULARY)
        losses = tick_losses(logits, targets.reshape(batch * time))
        synchrony = synchrony.reshape(batch * time, ticks, -1)
        loss = self.exit.loss(losses, certainty(logits), synchrony)
        return {"loss": loss, "windows": losses.reshape(batch, time * ticks).mean(-1)}
