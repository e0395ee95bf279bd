"""Training the machine with neurons at every cell: the loop that people edit.

Everything that a researcher may want to turn stands in `Recipe`, in `spatial.py`, or
in the loop below. The budget, the checkpoint, the mazes and the score are not here.

In training a solver tells every cell its shortest ways; see `Recipe` for the kinds of
mazes. Axes: B mazes, n cells a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from modgrad import optim, spec, trace
from modgrad.maze_bank import Source, Stream
from modgrad.mazes import Mazes
from modgrad.program import Array, Program
from modgrad.run import Run
from modgrad.schedule import warmdown
from modgrad.training import Training
from numpy.random import Generator
from spatial import MOVES, SpatialModel, cells_a_side

SCORED_SIZES = (21, 39, 99)  # that the checkpoint has programs for, beside its own
SCORED_PIXELS = 40 * 21 * 21  # that the evaluator's program takes at once


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    batch: int = 32  # mazes a step
    learning_rate: float = 4e-3
    beta2: float = 0.98
    clip_norm: float = 1.0
    warmup: float = 0.02  # share of the budget over which the rate rises
    cooldown: float = 0.6  # and over which it falls to zero
    average_from: float = 0.6  # fraction of the budget at which averaging begins
    average_decay: float = 0.99
    # Of mazes that are made as they are needed, not of those of a bank:
    small_until: float = 0.3  # fraction of the budget that goes to mazes of half the side
    with_loops: float = 0.4  # share of the steps whose mazes have loops as well
    loops: tuple[float, float] = (0.02, 0.2)  # the shares of walls that these lack
    # Ticks of a thought, by the cells of a maze:
    ticks: float = 1.2  # at most, most of the time
    long_share: float = 0.15  # of the steps, after which it is still to know the way
    long: float = 4.0  # and at most how many ticks these have
    # What makes it of use in mazes that are far larger than those it is trained on:
    news: float = 0.6  # cells that news goes a tick: whom none can have reached isn't asked
    noise: float = 0.25  # of what drives the synapses: at most its deviation, in a step


def train(
    path: Path,
    mazes: Source,
    model: SpatialModel,
    *,
    task: str = "mazes",
    settings: Mapping[str, object],
    budget: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    precision: str = "auto",
    device: str = "cpu",
) -> tuple[Run, Training]:
    """Trains until the budget is used, and saves a checkpoint at `path`.

    `settings` are what a run must share with the one it resumes.
    """
    recipe = Recipe()
    recipe = replace(recipe, batch=batch or recipe.batch)
    recipe = replace(recipe, learning_rate=learning_rate or recipe.learning_rate)
    settings = {**settings, "batch": recipe.batch, "learning_rate": recipe.learning_rate}
    run = Run(path, task=task, settings=settings, budget=budget, steps=steps, unit=" cells")
    side = cells_a_side(mazes.size)
    training = Training(
        model.loss,
        [optim.AdamW(model.parameters(), recipe.learning_rate, (0.9, recipe.beta2))],
        inputs={
            "pixels": spec((recipe.batch, 3, mazes.size, mazes.size)),
            "ways": spec((recipe.batch, side, side, MOVES)),
            "reads": spec((2,), "i32"),
            "noise": spec((recipe.batch, side, side, 2 * model.config.channels)),
        },
        clip_norm=recipe.clip_norm,
        precision=precision,
        threads=threads,
        seed=seed,
        device=device,
    )
    run.begin(training, scores(model, mazes.size))
    while run.continues():
        random = np.random.default_rng((seed, training.steps))
        small = run.fraction < recipe.small_until and isinstance(mazes, Stream) and side > 5
        drawn = draw(mazes, recipe, training.steps, random, small)
        ways = ways_of_cells(drawn.directions)
        reads = ticks_to_read(model, recipe, side, random, small)
        heard = distances(ways) <= max(1.0, recipe.news * reads[0])
        ways *= heard[..., None]
        noise = random.standard_normal((*heard.shape, 2 * model.config.channels), np.float32)
        noise *= np.float32(recipe.noise * random.random())
        loss = training.backward(pixels=drawn.pixels, ways=ways, reads=reads, noise=noise)
        training.step(warmdown(run.fraction, warmup=recipe.warmup, cooldown=recipe.cooldown))
        if run.fraction >= recipe.average_from:
            training.average(recipe.average_decay)
        run.record(loss, ways.size // MOVES)
    run.finish()
    return run, training


def ticks_to_read(
    model: SpatialModel, recipe: Recipe, side: int, random: Generator, small: bool
) -> Array:
    """The last tick of a thought, and one that the gradient reaches before it."""
    kept, cells = model.config.kept, side * side
    longest = int(max(kept, recipe.ticks * cells))
    last = int(random.integers(kept, longest + 1))
    if small:
        last = int(random.integers(max(1, 3 * kept // 4), kept + 1))
    elif random.random() < recipe.long_share:
        last = int(kept * max(1.0, recipe.long * cells / kept) ** random.random())
    last = min(last, model.config.longest)
    first = max(1, last - kept // 2)
    return np.array([random.integers(first, last + 1), last], np.int32)


def draw(mazes: Source, recipe: Recipe, step: int, random: Generator, small: bool) -> Mazes:
    """The mazes of a step: of the kind that was asked for, often with loops as well, so
    that the way is the shortest and not just the only one."""
    if not isinstance(mazes, Stream):
        return mazes.draw(step, recipe.batch)
    if random.random() < recipe.with_loops:
        mazes = replace(mazes, loops=float(random.uniform(*recipe.loops)))
    if not small:
        return mazes.draw(step, recipe.batch)
    # Four small mazes in the place of a large one: where news need not go far, a thought
    # of few ticks teaches how it goes on.
    half = cells_a_side(mazes.size) // 2
    drawn = replace(mazes, size=2 * half + 1).draw(step, 4 * recipe.batch)
    pixels = np.zeros((recipe.batch, 3, mazes.size, mazes.size), np.float32)
    directions = np.zeros((recipe.batch, mazes.size, mazes.size), np.uint8)
    for place in range(4):
        y, x = (half * 2 * (place // 2), half * 2 * (place % 2))
        corner = (..., slice(y, y + 2 * half + 1), slice(x, x + 2 * half + 1))
        # The borders of neighbours lie on one another.
        pixels[corner] = np.maximum(pixels[corner], drawn.pixels[place::4])
        directions[corner] |= drawn.directions[place::4]
    return replace(drawn, pixels=pixels, directions=directions)


def ways_of_cells(directions: Array) -> Array:
    """Sets of right moves u8[B, S, S] of all pixels → f32[B, n, n, 5] of all cells."""
    sets = directions[:, 1::2, 1::2, None] >> np.arange(MOVES, dtype=np.uint8)
    return (sets & 1).astype(np.float32)


def distances(ways: Array) -> Array:
    """Moves to the goal i64[B, n, n], from ways f32[B, n, n, 5]; 0 at cells without a way."""
    batch, side = ways.shape[:2]
    cells = side * side
    offsets = np.array([-side, side, -1, 1, 0])
    moves = ways.reshape(batch, cells, MOVES).argmax(-1)
    leads = ways.reshape(batch, cells, MOVES).max(-1) > 0
    place: Array = np.arange(cells) + np.where(leads, offsets[moves], 0)
    moved: Array = (place != np.arange(cells)).astype(np.int64)
    # The moves of twice as many, each time.
    for _ in range(cells.bit_length()):
        moved = moved + np.take_along_axis(moved, place, 1)
        place = np.take_along_axis(place, place, 1)
    return moved.reshape(batch, side, side)


def scores(model: SpatialModel, size: int) -> dict[str, Program]:
    """The programs of a checkpoint: one for mazes of `size`, and some others."""
    programs: dict[str, Program] = {}
    for other in (size, *SCORED_SIZES):
        pixels = spec((max(2, SCORED_PIXELS // other**2), 3, other, other))
        name = "score" if other == size else f"score_{other}"
        programs.setdefault(name, trace(model.score, pixels=pixels))
    return programs
