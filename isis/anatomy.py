"""What a score is made of: the cost of bytes by place and kind, and who predicts them.

    python -m isis eval model.ckpt val.txt --plot anatomy.png

Costs are formed from the program that the evaluator runs, without its checks: the score
itself is the evaluator's. A checkpoint may hold a program `watch` beside it, `tokens`
u8[B, T] to `logits` f32[B, T, 256] and `gates` f32[B, T, K]; its experts' gates are
shown as well.

Axes: N scored bytes, T positions of a window, K experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from modgrad import _core, checkpoint
from modgrad.data import Bytes
from modgrad.errors import CheckpointError, DataError, UsageError
from modgrad.memory import expert_names

Array = np.ndarray[Any, Any]
MOST_BYTES = 1 << 18  # of the data that are looked at
KINDS = ("letter", "digit", "space", "line end", "punctuation", "other")


@dataclass(frozen=True)
class Anatomy:
    """The cost of every byte, and the gates under which it was predicted."""

    costs: Array  # [N], in bits
    positions: Array  # [N], within the window
    targets: Array  # [N] u8
    gates: Array | None  # [3, K]: the mean and the tenth and ninetieth of a hundred
    experts: list[str]  # K names

    def by_position(self) -> list[tuple[str, int, float]]:
        """(positions, bytes, their mean cost), in stretches that double."""
        rows, first = [], 0
        while first <= self.positions.max(initial=-1):
            last = max(1, 2 * first) - 1 if first else 0
            inside = (self.positions >= first) & (self.positions <= last)
            name = str(first) if first == last else f"{first}–{last}"
            rows.append((name, int(inside.sum()), float(self.costs[inside].mean())))
            first = last + 1
        return rows

    def by_kind(self) -> list[tuple[str, int, float]]:
        """(kind, bytes, their mean cost) of the kinds that occur."""
        kinds = kind_of(self.targets)
        found = [(name, kinds == index) for index, name in enumerate(KINDS)]
        return [(n, int(m.sum()), float(self.costs[m].mean())) for n, m in found if m.any()]


def kind_of(targets: Array) -> Array:
    """The index in `KINDS` of each byte."""
    table = np.full(256, KINDS.index("punctuation"))
    for byte in range(256):
        if chr(byte).isascii() and chr(byte).isalpha():
            table[byte] = KINDS.index("letter")
        elif 48 <= byte < 58:
            table[byte] = KINDS.index("digit")
        elif byte >= 127 or (byte < 32 and byte not in (9, 10, 13)):
            table[byte] = KINDS.index("other")
    table[[9, 32]] = KINDS.index("space")
    table[[10, 13]] = KINDS.index("line end")
    return table[targets]


def dissect(path: Path, data: Bytes, *, threads: int) -> Anatomy:
    """Runs a checkpoint over the first bytes of `data`, in windows as the evaluator's.

    Raises `CheckpointError` for one that predicts no bytes, `DataError` for data shorter
    than two bytes.
    """
    if data.size < 2:
        raise DataError(f"{data.size} bytes are too few to score: at least 2")
    saved = checkpoint.load(path)
    program = saved.programs.get("watch", saved.programs.get("score"))
    if program is None or "tokens" not in program.inputs or "logits" not in program.outputs:
        raise CheckpointError(f"{path}: holds no program that predicts bytes")
    (batch, time), _ = program.spec(program.inputs["tokens"])
    watched = "gates" in program.outputs
    names = ["logits", "gates"] if watched else ["logits"]
    session = _core.Session(program, names, "f32", threads)
    own = {name for name, *_ in program.parameters()}
    session.set_parameters({name: saved.weights[name] for name in own})

    data = data[:MOST_BYTES]
    starts = np.arange(0, data.size - 1, time)
    costs, gates = [], []
    for first in range(0, len(starts), batch):
        tokens = np.zeros((batch, time), np.uint8)
        for row, start in enumerate(starts[first : first + batch]):
            tokens[row, : data.size - start] = data[start : start + time]
        found = session.run({"tokens": tokens})
        for row, start in enumerate(starts[first : first + batch]):
            targets = data[start + 1 : start + 1 + time]
            costs.append(_bits(found["logits"][row, : targets.size], targets))
            if watched:
                gates.append(found["gates"][row, : targets.size])
    all_gates = np.concatenate(gates) if watched else None
    spread = None
    if all_gates is not None:
        spread = np.stack([all_gates.mean(0), *np.percentile(all_gates, (10, 90), axis=0)])
    experts = expert_names(program) if watched else []
    positions = np.arange(data.size - 1) % time
    return Anatomy(np.concatenate(costs), positions, data[1:], spread, experts)


def _bits(logits: Array, targets: Bytes) -> Array:
    """−log2 p of the targets [T] under logits [T, 256]."""
    exact = logits.astype(np.float64)
    exact -= exact.max(-1, keepdims=True)
    own = np.take_along_axis(exact, targets[:, None].astype(np.int64), -1)[:, 0]
    bits: Array = (np.log(np.exp(exact).sum(-1)) - own) / np.log(2.0)
    return bits


def draw(anatomy: Anatomy, title: str, out: Path) -> None:
    """Draws it as a picture; needs matplotlib, the extra `report`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError('pictures need matplotlib: pip install "modgrad[report]"') from None
    parts = 2 if anatomy.gates is None else 3
    figure = Figure(figsize=(4.6 * parts, 4.2), layout="constrained")
    axes = figure.subplots(1, parts)
    figure.suptitle(f"{title}: {anatomy.costs.mean():.3f} bits per byte", fontsize=11)
    panels = [("position in the window", anatomy.by_position()), ("kind", anatomy.by_kind())]
    for axis, (name, rows) in zip(axes, panels, strict=False):
        axis.bar([row[0] for row in rows], [row[2] for row in rows], color="#1f5fd0")
        axis.set_ylabel("bits per byte")
        axis.set_xlabel(name)
        axis.tick_params("x", rotation=60)
        total = sum(row[1] for row in rows)
        for place, (_, count, bits) in enumerate(rows):
            axis.text(place, bits, f"{count / total:.0%}", ha="center", va="bottom", fontsize=7)
    if anatomy.gates is not None:
        mean, low, high = anatomy.gates
        places = np.arange(len(mean))
        axes[2].barh(places, mean, color="#1f5fd0")
        axes[2].hlines(places, low, high, color="#222222", linewidth=1)
        axes[2].set_yticks(places, anatomy.experts, fontsize=8)
        axes[2].invert_yaxis()
        axes[2].set_xlabel("gate: mean, and the middle eighty of a hundred")
    figure.savefig(out, dpi=130)
