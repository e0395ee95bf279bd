"""The FFN cerebellum: a feed-forward byte language model.

Three forms, all a stack of pre-norm gated feed-forward blocks with residuals:

- plain (the seed sizes): the embedding of the present byte is all that a
  position knows, so no training takes it below the entropy of byte pairs;
- with memory of its context: the last bytes side by side, plus hashed n-grams
  and words of the window looked up in large tables, feed the same blocks;
- counted: what followed each context of the training text is counted before
  training begins, and the blocks learn how far to trust which count; hashed
  n-grams (`orders`) can stand beside the counts.

Axes: B batch, T time, K context bytes or experts, S hashed slots, W width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from modgrad import functional as F
from modgrad import nn
from modgrad.errors import UsageError
from modgrad.memory import EARLIER, LEADING, STATISTICS, CountedMemory, Rows
from modgrad.program import Tensor

VOCABULARY = 256
# Experts agree, so that a step of all gates moves logits far: they go at a smaller pace.
GATE_PACE = 0.05


@dataclass(frozen=True)
class Counts:
    """Which contexts of the text are counted; see `modgrad.memory`."""

    orders: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 11, 16, 24)  # never empty
    words: tuple[str, ...] = ("prefix", "previous_word_and_prefix")  # never empty
    base_order: int = 3
    orders_in_window: tuple[int, ...] = (2, 3, 4, 6, 11)
    words_in_window: tuple[str, ...] = ("prefix", "previous_word_and_prefix")
    entries: int = 48
    mixers: tuple[str, ...] = ("depth", "certainty", "last_byte")  # never empty
    mixer_rate: float = 3e-4


@dataclass(frozen=True)
class FFNConfig:
    """What a model is made of; every field is an ordinary argument to turn."""

    width: int = 128
    hidden: int = 512
    layers: int = 4
    context: int = 64
    activation: str = "swiglu"  # swiglu, geglu, gelu or relu_squared
    norm: str = "rms"  # rms or layer
    norm_position: str = "pre"  # pre or post
    tied_head: bool = False
    # Memory of the context; all zero or empty in the plain form.
    last_bytes: int = 0
    byte_width: int = 32
    orders: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    rows: int = 1 << 18  # of the table, for each order and kind of word
    row_width: int = 32
    slot_dropout: float = 0.0
    dropout: float = 0.0
    # Channels of a recurrence through the window, in the counted form; none in others.
    recurrence: int = 0


PRESETS: dict[str, FFNConfig] = {
    "small": FFNConfig(width=128, hidden=512, layers=4, context=64),
    "medium": FFNConfig(width=384, hidden=1536, layers=8, context=128),
    "large": FFNConfig(width=1024, hidden=5120, layers=12, context=256),
    "xl": FFNConfig(width=1536, hidden=6144, layers=16, context=512),
    "memory": FFNConfig(
        width=320,
        hidden=640,
        layers=3,
        context=256,
        last_bytes=16,
        byte_width=24,
        orders=(2, 3, 4, 5, 6, 8),
        words=("folded_prefix", "previous_word_and_prefix"),
        slot_dropout=0.25,
    ),
    "counted": FFNConfig(
        width=128,
        hidden=256,
        layers=2,
        context=1280,
        last_bytes=16,
        byte_width=24,
        recurrence=384,
    ),
}

# The presets of the counted form.
COUNTS: dict[str, Counts] = {
    "counted": Counts(
        words=("prefix", "previous_word_and_prefix"),
        words_in_window=("prefix", "previous_word_and_prefix"),
    ),
}

DEFAULT_PRESET = "counted"


def make_norm(config: FFNConfig) -> nn.RMSNorm | nn.LayerNorm:
    """The norm that the configuration names."""
    if config.norm not in ("rms", "layer"):
        raise UsageError(f"norm {config.norm!r} is not one of rms, layer")
    return nn.RMSNorm(config.width) if config.norm == "rms" else nn.LayerNorm(config.width)


def config_from(preset: str, context: int | None = None) -> FFNConfig:
    """A preset, with another context length where one is given."""
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset} is not one of {', '.join(PRESETS)}")
    config = PRESETS[preset]
    return config if context is None else replace(config, context=context)


class Block(nn.Module):
    """norm → up → activation → down, added to its input."""

    def __init__(self, config: FFNConfig, index: int) -> None:
        self.gated = config.activation in ("swiglu", "geglu")
        if not self.gated and config.activation not in ("gelu", "relu_squared"):
            raise UsageError(
                f"activation {config.activation!r} is not one of swiglu, geglu, gelu, relu_squared"
            )
        self.activation = config.activation
        self.pre_norm = config.norm_position == "pre"
        self.dropout, self.stream = config.dropout, index
        self.norm = make_norm(config)
        self.up = nn.Linear(config.width, config.hidden * (2 if self.gated else 1))
        # Residual branches start small, so that depth does not add up at first.
        self.down = nn.Linear(config.hidden, config.width, gain=config.layers**-0.5)

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        branch = self._activate(self.up(self.norm(x) if self.pre_norm else x))
        branch = self.down(branch)
        if training:
            branch = F.dropout(branch, self.dropout, stream=self.stream)
        return x + branch if self.pre_norm else self.norm(x + branch)

    def _activate(self, x: Tensor) -> Tensor:
        if self.activation == "swiglu":
            return F.glu(x, "silu")
        if self.activation == "geglu":
            return F.glu(x, "gelu")
        return F.gelu(x) if self.activation == "gelu" else F.relu_squared(x)


class Memory(nn.Module):
    """Rows of a large table, one for each hashed slot of a position, mixed to
    the model's width.

    A row that was seen once knows its own target by heart; in training whole
    slots are dropped at random, so that the model does not lean on any one.
    """

    def __init__(self, config: FFNConfig, slots: int, stream: int) -> None:
        self.slots, self.width, self.stream = slots, config.row_width, stream
        self.dropout = config.slot_dropout
        self.rows = nn.Embedding(config.rows * slots, config.row_width, deviation=0.0, sparse=True)
        self.mix = nn.Linear(slots * config.row_width, config.width)

    def __call__(self, indices: Tensor, training: bool) -> Tensor:
        batch, time, slots = indices.shape
        rows = self.rows(indices)  # [B, T, S, row width]
        if training and self.dropout:
            kept = F.dropout(F.full((batch, time, slots, 1), 1.0), self.dropout, self.stream)
            rows = rows * kept
        return self.mix(rows.reshape(batch, time, slots * self.width))


class FFN(nn.Module):
    """tokens u8[B, T] → logits f32[B, T, 256] for the byte after each position."""

    def __init__(self, config: FFNConfig) -> None:
        self.config = config
        if config.last_bytes:
            self.embedding = nn.Embedding(VOCABULARY + 1, config.byte_width)
            self.join = nn.Linear(config.last_bytes * config.byte_width, config.width)
        else:
            self.embedding = nn.Embedding(VOCABULARY, config.width)
        if config.orders:
            self.ngrams = Memory(config, len(config.orders), stream=1000)
        if config.words:
            self.words = Memory(config, len(config.words), stream=1001)
        self.blocks = [Block(config, index) for index in range(config.layers)]
        self.norm = make_norm(config)
        if not config.tied_head:
            self.head = nn.Linear(config.width, VOCABULARY, gain=0.5)
        elif config.last_bytes:
            raise UsageError("a tied head needs the plain form's embedding")

    def logits(self, tokens: Tensor, training: bool = False) -> Tensor:
        """The model itself."""
        x = self.embed(tokens, training)
        for block in self.blocks:
            x = block(x, training)
        x = self.norm(x)
        if self.config.tied_head:
            return F.linear(x, self.embedding.table) * float(self.config.width**-0.5)
        return self.head(x)

    def embed(self, tokens: Tensor, training: bool) -> Tensor:
        """What a position knows: [B, T, W]."""
        config = self.config
        batch, time = tokens.shape
        if config.last_bytes:
            recent = self.embedding(F.byte_context(tokens, config.last_bytes))  # [B, T, K, width]
            x = self.join(recent.reshape(batch, time, config.last_bytes * config.byte_width))
        else:
            x = self.embedding(tokens)
        if config.orders:
            slots = F.ngram_hash(tokens, config.orders, config.rows)
            x = x + self.ngrams(slots, training)
        if config.words:
            slots = F.word_hash(tokens, config.words, config.rows)
            x = x + self.words(slots, training)
        return x

    def score(self, tokens: Tensor) -> dict[str, Tensor]:
        """The program that a checkpoint holds and the evaluator runs."""
        return {"logits": self.logits(tokens)}

    def loss(self, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The mean loss in nats, and each window's own."""
        losses = F.cross_entropy(self.logits(tokens, training=True), targets)
        return {"loss": losses.mean(), "windows": losses.mean(-1)}


class Recurrence(nn.Module):
    """norm → retain, value, gate → gated recurrence → down, added to its input.

    A minGRU (arXiv 2410.01201): see `F.gated_recurrence`. Channels begin with memories of two
    to four hundred bytes.
    """

    def __init__(self, width: int, channels: int) -> None:
        self.norm = nn.RMSNorm(width)
        self.up = nn.Linear(width, 3 * channels)
        self.retention = nn.Parameter(np.linspace(0.0, 6.0, channels).astype(np.float32))
        self.down = nn.Linear(channels, width, gain=0.5)

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        return x + self.down(F.gated_recurrence(self.up(self.norm(x)), self.retention))


def make_blocks(config: FFNConfig) -> list[Block | Recurrence]:
    """The blocks, with a recurrence behind the first where there is to be one."""
    blocks: list[Block | Recurrence] = [Block(config, index) for index in range(config.layers)]
    if config.recurrence:
        blocks.insert(1, Recurrence(config.width, config.recurrence))
    return blocks


class CountedFFN(nn.Module):
    """tokens u8[B, T] → logits f32[B, T, 256], mixed of counts' rows by a small net.

    logits = head(h) + Σ_k gate_k · ln p_k over the experts of a `CountedMemory`, the
    gates linear in the net's h and in what is known of each expert's context. At first
    the head is zero and the only gates that are open are the online mixers', evenly.
    Where it is scored, all that was learned beside that is scaled by a share, which
    `isis.held_out` fits.
    """

    def __init__(self, config: FFNConfig, counts: Counts) -> None:
        if not config.last_bytes:
            raise UsageError("a counted model needs `last_bytes`")
        self.config = config
        self.memory = CountedMemory(**asdict(counts))
        statistics = self.memory.experts * STATISTICS
        self.embedding = nn.Embedding(VOCABULARY + 1, config.byte_width)
        self.join = nn.Linear(config.last_bytes * config.byte_width, config.width)
        self.known = nn.Linear(statistics, config.width)
        self.likeliest = nn.Linear(LEADING * config.byte_width, config.width)
        if config.orders:
            self.ngrams = Memory(config, len(config.orders), stream=1000)
        self.blocks = make_blocks(config)
        self.norm = make_norm(config)
        self.head = nn.Linear(config.width, VOCABULARY, gain=0.0)
        self.gates = nn.Linear(config.width, self.memory.experts, gain=0.0)
        self.trust = nn.Linear(statistics, self.memory.experts, gain=0.0)
        even = np.zeros(self.memory.experts, np.float32)
        even[-self.memory.mixers :] = 1.0 / self.memory.mixers
        self.shares = nn.Parameter(even)
        self.first_shares = nn.Parameter(even, trainable=False)
        self.learned_share = nn.Parameter(np.ones(1, np.float32), trainable=False)

    def read(self, tokens: Tensor, rows: Rows, training: bool = False) -> tuple[Tensor, Tensor]:
        """The net itself: the logits that it adds [B, T, 256], and the gates [B, T, K]."""
        config = self.config
        batch, time = tokens.shape
        recent = self.embedding(F.byte_context(tokens, config.last_bytes))  # [B, T, K, width]
        statistics = rows.statistics.reshape(batch, time, -1)
        x = self.join(recent.reshape(batch, time, config.last_bytes * config.byte_width))
        x = x + self.known(statistics)
        leading = self.embedding(rows.leading)  # [B, T, 3, width]
        x = x + self.likeliest(leading.reshape(batch, time, LEADING * config.byte_width))
        if config.orders:
            x = x + self.ngrams(F.ngram_hash(tokens, config.orders, config.rows), training)
        for block in self.blocks:
            x = block(x, training)
        x = self.norm(x)
        gates = (self.gates(x) + self.trust(statistics)) * GATE_PACE + self.shares
        return self.head(x), gates

    def score(self, tokens: Tensor) -> dict[str, Tensor]:
        """The program that a checkpoint holds and the evaluator runs."""
        return {"logits": self.watch(tokens)["logits"]}

    def watch(self, tokens: Tensor) -> dict[str, Tensor]:
        """The same with its gates, for pictures."""
        rows = self.memory(tokens)
        logits, gates = self.read(tokens, rows)
        gates = (gates - self.first_shares) * self.learned_share + self.first_shares
        logits = F.mix_rows(logits * self.learned_share, gates, rows.mixed)
        return {"logits": logits, "gates": gates}

    def loss(self, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The mean loss in nats, each window's own, and what the memory learns from.

        `tokens` come with the text around the windows, which is taken out of the counts
        so that what is trained on looks like any other text.
        """
        length = targets.shape[1]
        margin = (tokens.shape[1] - length - EARLIER) // 2
        rows = self.memory.taken_out(tokens, margin)
        window = tokens[:, EARLIER + margin : EARLIER + margin + length]
        logits, gates = self.read(window, rows, training=True)
        losses = F.cross_entropy(F.mix_rows(logits, gates, rows.mixed), targets)
        return {"loss": losses.mean(), "windows": losses.mean(-1), "lessons": rows.lessons}


def make_model(preset: str, config: FFNConfig) -> FFN | CountedFFN:
    """The form that the preset has."""
    return CountedFFN(config, COUNTS[preset]) if preset in COUNTS else FFN(config)
