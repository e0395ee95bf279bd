"""Training the eight regions on bytes: the loop that people edit.

Everything that a researcher may want to turn stands in `Recipe`, in `byte_brain.py`
and `brain.py`, or in the loop below. The budget, the checkpoint and the score are
not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from modgrad import nn, optim, spec, trace
from modgrad.data import Bytes, Windows, fingerprint
from modgrad.run import Run
from modgrad.schedule import warmdown
from modgrad.training import Training

from isis.byte_brain import ByteBrain, config_from
from isis.learn_ffn import Dream

SCORED_BYTES = 8192  # that the evaluator's program takes at once


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    batch: int = 32  # windows a step
    time: int = 64  # bytes a window, all of which gradients go back through
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    cooldown: float = 0.6  # share of the budget over which the rates fall to zero
    average_from: float = 0.5  # fraction of the budget at which averaging begins
    average_decay: float = 0.99
    dream_windows: int = 256  # the worst-predicted windows that are remembered


RECIPES: dict[str, Recipe] = {
    "small": Recipe(),
    "medium": Recipe(),
    "large": Recipe(learning_rate=1e-3),
    "xl": Recipe(time=32, learning_rate=5e-4),
    "bytes": Recipe(learning_rate=3e-3, average_decay=0.998),
}


def train(
    path: Path,
    data: Bytes,
    *,
    preset: str,
    context: int | None = None,
    budget: float | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    precision: str = "auto",
    device: str = "cpu",
    dream_every: int = 0,
) -> tuple[Run, Training]:
    """Trains until the budget is used, and saves a checkpoint at `path`."""
    config, recipe = config_from(preset, context), RECIPES[preset]
    if learning_rate is not None:
        recipe = replace(recipe, learning_rate=learning_rate)
    recipe = replace(recipe, time=min(recipe.time, config.context))
    settings = {"preset": f"brain {preset}", "context": config.context, "seed": seed}
    settings |= {"dream_every": dream_every, "learning_rate": recipe.learning_rate}
    settings["data"] = fingerprint(data)
    run = Run(path, task="language", settings=settings, budget=budget, steps=steps)
    windows = Windows(data, recipe.batch, recipe.time, seed)

    nn.manual_seed(seed)
    model = ByteBrain(config)
    tokens = spec((recipe.batch, recipe.time), "u8")
    training = Training(
        model.loss,
        make_optimizers(model, recipe),
        inputs={"tokens": tokens, "targets": tokens},
        clip_norm=recipe.clip_norm,
        precision=precision,
        threads=threads,
        seed=seed,
        device=device,
    )
    scored = spec((max(1, SCORED_BYTES // config.context), config.context), "u8")
    dream = Dream(recipe.dream_windows)  # starts anew when a run is resumed

    run.begin(training, {"score": trace(model.score, tokens=scored)})
    while run.continues():
        step = training.steps
        if dream_every and step % dream_every == dream_every - 1 and dream.starts.size:
            starts = dream.recall(recipe.batch, seed, step)
        else:
            starts = windows.starts(step)
        x, y = windows.at(starts)
        loss = training.backward(tokens=x, targets=y)
        training.step(warmdown(run.fraction, cooldown=recipe.cooldown))
        if run.fraction >= recipe.average_from:
            training.average(recipe.average_decay)
        if dream_every:
            dream.remember(starts, training.output("windows"))
        run.record(loss, x.size)
    run.finish()
    return run, training


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[optim.Optimizer]:
    """AdamW, decaying matrices only."""
    parameters = [p for p in model.parameters() if p.trainable]
    matrices = [p for p in parameters if p.value.ndim == 2]
    others = [p for p in parameters if p.value.ndim != 2]
    rate, betas = recipe.learning_rate, (0.9, 0.98)
    return [
        optim.AdamW(matrices, rate, betas, weight_decay=recipe.weight_decay),
        optim.AdamW(others, rate, betas),
    ]
