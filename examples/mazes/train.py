"""Training a model of mazes: the loop that people edit.

Everything that a researcher may want to turn stands in `Recipe`, in `model.py`, or
in the loop below. The budget, the checkpoint, the mazes and the score are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from modgrad import nn, optim, spec, trace
from modgrad.maze_bank import Source
from modgrad.program import Array, Tensor
from modgrad.run import Run
from modgrad.schedule import warmdown
from modgrad.training import Training

SCORED_MAZES = 40  # that the evaluator's program takes at once


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    batch: int = 32  # mazes a step
    learning_rate: float = 2e-3
    beta2: float = 0.95
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    warmup: float = 0.02  # share of the budget over which the rate rises
    cooldown: float = 0.6  # and over which it falls to zero
    average_from: float = 0.8  # fraction of the budget at which averaging begins
    average_decay: float = 0.99


RECIPES: dict[str, Recipe] = {"mazes": Recipe(), "mazes-brain": Recipe()}


class Model(Protocol):
    """What can be trained: see `MazeModel`."""

    def loss(self, pixels: Tensor, targets: Tensor, ways: Tensor) -> Mapping[str, Tensor]: ...

    def score(self, pixels: Tensor) -> Mapping[str, Tensor]: ...

    def parameters(self) -> list[nn.Parameter]: ...


def train(
    path: Path,
    mazes: Source,
    model: Model,
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
    recipe = RECIPES[task]
    recipe = replace(recipe, batch=batch or recipe.batch)
    recipe = replace(recipe, learning_rate=learning_rate or recipe.learning_rate)
    settings = {**settings, "batch": recipe.batch, "learning_rate": recipe.learning_rate}
    run = Run(path, task=task, settings=settings, budget=budget, steps=steps, unit=" moves")

    size, cells = mazes.size, ((mazes.size - 1) // 2) ** 2
    training = Training(
        model.loss,
        make_optimizers(model, recipe),
        inputs={
            "pixels": spec((recipe.batch, 3, size, size)),
            "targets": spec((recipe.batch, mazes.route_length), "u8"),
            "ways": spec((recipe.batch, cells), "u8"),
        },
        clip_norm=recipe.clip_norm,
        precision=precision,
        threads=threads,
        seed=seed,
        device=device,
    )

    programs = {"score": trace(model.score, pixels=spec((SCORED_MAZES, 3, size, size)))}
    if (watch := getattr(model, "watch", None)) is not None:  # for pictures
        programs["watch"] = trace(watch, pixels=spec((1, 3, size, size)))
    run.begin(training, programs)
    while run.continues():
        drawn = mazes.draw(training.steps, recipe.batch)
        loss = training.backward(
            pixels=drawn.pixels, targets=drawn.targets, ways=ways_of_cells(drawn.directions)
        )
        training.step(warmdown(run.fraction, warmup=recipe.warmup, cooldown=recipe.cooldown))
        if run.fraction >= recipe.average_from:
            training.average(recipe.average_decay)
        run.record(loss, drawn.targets.size)
    run.finish()
    return run, training


def make_optimizers(model: Model, recipe: Recipe) -> list[optim.Optimizer]:
    """AdamW, decaying matrices only."""
    parameters = [p for p in model.parameters() if p.trainable]
    matrices = [p for p in parameters if p.value.ndim >= 2]
    vectors = [p for p in parameters if p.value.ndim < 2]
    rate, betas = recipe.learning_rate, (0.9, recipe.beta2)
    return [
        optim.AdamW(matrices, rate, betas, weight_decay=recipe.weight_decay),
        optim.AdamW(vectors, rate, betas),
    ]


# The lowest move of a set of right ones; WAIT where there is none, behind walls.
LOWEST = np.array([4] + [(bits & -bits).bit_length() - 1 for bits in range(1, 32)], np.uint8)


def ways_of_cells(directions: Array) -> Array:
    """Sets of right moves u8[B, S, S] of all pixels → one move of every cell, u8[B, L]."""
    return LOWEST[directions[:, 1::2, 1::2]].reshape(len(directions), -1)
