"""Counted memory: what followed each context of a training text, as rows of experts.

    memory = CountedMemory()
    memory.count(data)                      # before anything is traced
    rows = memory(tokens)                   # in a model
    logits = F.mix_rows(logits, gates, rows.mixed)

An expert is a kind of context: the last n bytes, a word and what stands before it.
For each position it gives a row of 256 probabilities, by what followed the same context
in the training text or earlier in the window, backing off to shorter contexts. A last
expert is an online mixer of all others. Rows have no gradient; how experts back off
and how the mixer begins is learned on the way, by `learn`.

Axes: B windows, T positions, K experts, E entries (see `modgrad_ffn::memory::Rows`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modgrad import _core, nn
from modgrad.errors import UsageError
from modgrad.machine import resolve_threads
from modgrad.nn import Array, Parameter
from modgrad.program import Operand, Tensor, current_graph
from modgrad.training import Training

STATISTICS = 5  # of an expert's context; see `modgrad_ffn::memory::Rows`
LEADING = 3  # the likeliest bytes that are named
EARLIER = 64  # bytes before what is taken out, read for the contexts that reach there


def expert_names(program: _core.Program) -> list[str]:
    """Names of the experts of a program's counted memory, in their order; none where it
    has no such memory."""
    for node in json.loads(program.to_json())["nodes"]:
        memory = node["do"].get("memory")
        if node["do"]["op"] == "counted_rows":
            names = [_name(kind) for kind in memory["kinds"]]
            inside = [f"{names[kind]}, window" for kind in memory["in_window"]]
            mixers = [f"mixer by {sets.replace('_', ' ')}" for sets in memory["mixers"]]
            return names[memory["base"] :] + inside + mixers
    return []


def _name(kind: dict[str, object]) -> str:
    (what, value), *_ = kind.items()
    if what == "skip" and isinstance(value, list):
        return f"{value[1]} bytes, {value[0]} before"
    return str(value).replace("_", " ") if what == "word" else f"{what} {value}"


@dataclass
class Rows:
    """The rows of all experts at every position of some windows."""

    base: Tensor  # f32[B, T, 256]
    entries: Tensor  # i32[B, T, E]
    difference: Tensor  # f32[B, T, K, E]
    multiple: Tensor  # f32[B, T, K]
    statistics: Tensor  # f32[B, T, K, 5]
    leading: Tensor  # i32[B, T, 3], the likeliest bytes
    lessons: Tensor  # f32[B, L]

    @property
    def mixed(self) -> list[Operand]:
        """What `F.mix_rows` takes."""
        return [self.base, self.entries, self.difference, self.multiple]


class CountedMemory(nn.Module):
    """A module whose parameters are counted and learned without gradients."""

    def __init__(
        self,
        *,
        orders: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 11, 16, 24),
        words: Sequence[str] = ("prefix", "previous_word_and_prefix"),
        skips: Sequence[tuple[int, int]] = (),
        base_order: int = 3,
        orders_in_window: Sequence[int] = (2, 3, 4, 6),
        words_in_window: Sequence[str] = ("prefix", "previous_word_and_prefix"),
        entries: int = 48,
        mixers: Sequence[str] = ("depth", "certainty", "last_byte"),
        mixer_rate: float = 3e-4,
    ) -> None:
        """`orders` are counts of last bytes, `skips` pairs (bytes left out, bytes taken
        before them), `words` kinds of words (see `F.word_hash`). Raises `UsageError`
        where a kind in the window is not among them, `ProgramError` for what cannot be.
        """
        if base_order not in orders:
            raise UsageError(f"base order {base_order} is not among the orders {list(orders)}")
        kinds: list[dict[str, object]] = [{"order": order} for order in orders]
        kinds += [{"word": word} for word in words]
        kinds += [{"skip": list(skip)} for skip in skips]
        inside: list[dict[str, object]] = [{"order": order} for order in orders_in_window]
        inside += [{"word": word} for word in words_in_window]
        missing = [kind for kind in inside if kind not in kinds]
        if missing:
            raise UsageError(f"{missing[0]} is counted in the window but not in the text")
        self.config: dict[str, object] = {
            "kinds": kinds,
            "base": list(orders).index(base_order),
            "in_window": [kinds.index(kind) for kind in inside],
            "entries": entries,
            "mixers": list(mixers),
            "mixer_rate": mixer_rate,
        }
        self.core = _core.CountedMemory(json.dumps(self.config))
        weights = self.core.weights()
        self.tables = Parameter(np.zeros(0, np.uint8), trainable=False)
        self.back_off = Parameter(weights["back_off"], trainable=False)
        self.mixer = Parameter(weights["mixer"], trainable=False)
        self.mixers = len(mixers)
        self.experts = len(kinds) - list(orders).index(base_order) + len(inside) + self.mixers

    def count(
        self,
        text: Array,
        *,
        memory_mb: int = 1000,
        seconds: float = 60.0,
        threads: int | None = None,
    ) -> int:
        """Counts u8 bytes of text, as many from its end as `seconds` allow and a quarter of
        `memory_mb` holds; returns how many. Where the tables outgrow `memory_mb`, rare
        contexts give way; while they are made, they take up to six times as much."""
        tables, counted = self.core.count(
            text, memory_mb * 1_000_000, seconds, resolve_threads(threads)
        )
        self.tables.value = tables
        return counted

    def __call__(self, tokens: Operand) -> Rows:
        """tokens u8[B, T] → rows; position t knows bytes 0 to t of its window."""
        return self._rows(tokens, 0, 0)

    def taken_out(self, stretch: Operand, margin: int) -> Rows:
        """stretch u8[B, EARLIER + margin + T + margin] of the counted text → the rows of T,
        as if windows and margins had not been counted, and what they teach."""
        return self._rows(stretch, EARLIER, margin)

    def _rows(self, tokens: Operand, earlier: int, margin: int) -> Rows:
        operands = [tokens, self.tables, self.back_off, self.mixer]
        outputs = current_graph().push(
            "counted_rows", *operands, memory=self.config, earlier=earlier, margin=margin
        )
        return Rows(*outputs)

    def learn(self, training: Training, lessons: str = "lessons") -> None:
        """Learns from the output `lessons` of the last backward pass of `training`."""
        self.core.learn(training.output(lessons))
        self._hand_over(training)

    def _hand_over(self, training: Training) -> None:
        weights = self.core.weights()
        names = {"back_off": self.back_off.name, "mixer": self.mixer.name}
        training.core.set_parameters({str(names[key]): weights[key] for key in names})

    def state(self) -> dict[str, Array]:
        """What an exact resume needs beside the parameters."""
        return self.core.state()

    def restore(self, state: dict[str, Array]) -> None:
        """Continues from what `state` gave."""
        self.core.restore(state["logits"], state["information"], state["mixer"])
