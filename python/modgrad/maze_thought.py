"""What a checkpoint thinks of one maze, tick by tick.

A checkpoint may hold a program `watch`, made for pictures and for nothing else:
`pixels` f32[B, 3, S, S] to `logits` f32[B, T, R, 5], and, where the model has them,
`certainty` f32[B, T] and `attention` f32[B, T, L]. Without it, `score` is watched,
which shows the one tick that counts.

Axes: B mazes, T ticks, R steps of a route, L tokens, S pixels a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modgrad import _core, checkpoint
from modgrad.errors import CheckpointError, UsageError
from modgrad.mazes import Algorithm, Layout, generate
from modgrad.program import Array
from modgrad.training_curve import Point, points_of

MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])  # in rows and columns
WAIT = 4
MOST_TICKS = 256  # more would take minutes to draw


@dataclass(frozen=True)
class Thought:
    """A maze and what was thought of it."""

    pixels: Array  # [S, S, 3], 0 to 1
    target: Array  # [R]: the moves of a shortest path, cut at R
    logits: Array  # [T, R, 5]
    certainty: Array  # [T], 0 to 1
    attention: Array | None  # [T, L], rows that sum to 1
    curve: list[Point]  # of the training

    @property
    def ticks(self) -> int:
        """How many there are."""
        return len(self.logits)

    def route(self, tick: int) -> tuple[Array, bool]:
        """(the cells that the moves of a tick lead through, [n, 2] of rows and
        columns; whether they end in a wall)."""
        return _walk(self.pixels, self.logits[tick].argmax(-1))

    def solution(self) -> Array:
        """The cells of the target, [n, 2]."""
        return _walk(self.pixels, self.target)[0]

    def right_steps(self, tick: int) -> int:
        """How many moves from the start on are the target's, waits at its end included."""
        wrong = self.logits[tick].argmax(-1) != self.target
        return int(wrong.argmax()) if wrong.any() else len(self.target)


def watch(
    path: Path,
    *,
    size: int | None = None,
    layout: Layout = "open",
    algorithm: Algorithm = "dfs",
    loops: float = 0.0,
    seed: int = 0,
    maze: int = 0,
    threads: int = 1,
) -> Thought:
    """Runs a checkpoint on maze number `maze` of a seed.

    Raises `CheckpointError` in one line where the checkpoint has nothing to watch,
    and `UsageError` where it has nothing for mazes of that size.
    """
    saved = checkpoint.load(path)
    name, program = _choose(path, saved, size)
    batch, side = _input(path, name, program)
    session = _core.Session(program, list(program.outputs), "f32", threads)
    session.set_parameters({one: saved.weights[one] for one, *_ in program.parameters()})
    steps = _shape(path, name, program, "logits")[-2]
    kind: dict[str, Any] = {"size": side, "layout": layout, "algorithm": algorithm, "loops": loops}
    made = generate(1, seed=seed, first=maze, route_len=steps, **kind)
    seen = session.run({"pixels": np.repeat(made.pixels, batch, 0)})
    logits = seen["logits"][0]
    if logits.ndim == 2:
        logits = logits[None]
    for what, values in seen.items():
        if not np.isfinite(values).all():
            raise CheckpointError(f"{path}: `{what}` of the program `{name}` is not finite")
    return Thought(
        pixels=made.pixels[0].transpose(1, 2, 0),
        target=made.targets[0].astype(np.int64),
        logits=logits,
        certainty=seen["certainty"][0] if "certainty" in seen else _certainty(logits),
        attention=seen["attention"][0] if "attention" in seen else None,
        curve=points_of(saved.meta.get("curve")),
    )


def _choose(path: Path, saved: checkpoint.Checkpoint, size: int | None) -> tuple[str, Any]:
    """The program to watch: of the size that is asked for, `watch` before `score`."""
    names = [one for one in saved.programs if one.split("_")[0] in ("watch", "score")]
    if not names:
        raise CheckpointError(f"{path}: holds no program `watch` or `score`: nothing to watch")
    ranked = sorted(names, key=lambda one: (not one.startswith("watch"), len(one), one))
    for name in ranked:
        if size is None or _input(path, name, saved.programs[name])[1] == size:
            return name, saved.programs[name]
    raise UsageError(f"--size {size}: {path} holds no program for mazes of that size")


def _input(path: Path, name: str, program: Any) -> tuple[int, int]:
    """(mazes at once, pixels a side) that a program takes; its outputs are as promised."""
    shape: tuple[int, ...] = ()
    dtype, inputs = "", program.inputs
    if set(inputs) == {"pixels"}:
        shape, dtype = program.spec(inputs["pixels"])
    if dtype != "f32" or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise CheckpointError(f"{path}: the program `{name}` does not map mazes to routes")
    logits = _shape(path, name, program, "logits")
    ticks = logits[1:-2]
    expected = {"certainty": (shape[0], *ticks), "attention": (shape[0], *ticks)}
    right = logits[0] == shape[0] and logits[-1] == 5 and len(ticks) == name.startswith("watch")
    for what, leading in expected.items():
        if what in program.outputs and ticks:
            found = _shape(path, name, program, what)
            right &= found[:2] == leading and len(found) == (2 if what == "certainty" else 3)
    if not right or (ticks and not 1 <= ticks[0] <= MOST_TICKS):
        raise CheckpointError(f"{path}: the outputs of the program `{name}` are not those of ticks")
    return int(shape[0]), int(shape[2])


def _shape(path: Path, name: str, program: Any, output: str) -> tuple[int, ...]:
    """Of an output of at least two axes more than none, in f32."""
    if output not in program.outputs:
        raise CheckpointError(f"{path}: the program `{name}` has no output `{output}`")
    shape, dtype = program.spec(program.outputs[output])
    if dtype != "f32" or len(shape) < (2 if output == "certainty" else 3):
        raise CheckpointError(f"{path}: `{output}` of the program `{name}` has a wrong shape")
    return tuple(shape)


def _certainty(logits: Array) -> Array:
    """logits [T, R, 5] → [T]: 1 − entropy / ln 5, averaged over the route."""
    shifted = logits - logits.max(-1, keepdims=True)
    logarithm = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    entropy = -(np.exp(logarithm) * logarithm).sum(-1).mean(-1)
    certainty: Array = 1.0 - entropy / math.log(logits.shape[-1])
    return certainty


def _walk(pixels: Array, moves: Array) -> tuple[Array, bool]:
    """From the start until a wait, a wall or the end of the moves."""
    red = (pixels == (1, 0, 0)).all(-1)
    position = np.argwhere(red)[0]
    cells = [position]
    for move in moves:
        if move == WAIT:
            break
        position = position + MOVES[move]
        cells.append(position)
        if not pixels[tuple(position)].any():
            return np.array(cells), True
    return np.array(cells), False
