"""Training the byte language model: the loop that people edit.

Everything that a researcher may want to turn stands in `Recipe`, in `ffn.py`,
or in the loop below. The budget, the checkpoint and the score are not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from modgrad import nn, optim, spec, trace
from modgrad.data import Bytes, Windows, fingerprint
from modgrad.memory import EARLIER, CountedMemory
from modgrad.run import Run
from modgrad.schedule import warmdown
from modgrad.training import Training

from isis.ffn import FFN, CountedFFN, config_from, make_model
from isis.held_out import fit_learned_share, steps_to_fit

SCORED_BYTES = 8192  # that the evaluator's program takes at once


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    batch: int = 8  # windows a step
    time: int = 128  # bytes a window
    learning_rate: float = 1e-3
    table_learning_rate: float = 0.1
    # Times `learning_rate`: the rate of the embedding of bytes, whose entries are of unit
    # size, those of matrices a tenth of that.
    embedding_pace: float = 1.0
    weight_decay: float = 0.1
    # Passes over a megabyte of data that decayed weights remember, in place of
    # `weight_decay` (arXiv 2405.13698), growing as the root of the size; 0: as that says.
    remembered_passes: float = 0.0
    clip_norm: float = 1.0
    cooldown: float = 0.6  # share of the budget over which the rates fall to zero
    dream_windows: int = 256  # the worst-predicted windows that are remembered
    # Bytes on either side of a window that are taken out of the counts with it: the rest
    # of its document, which knows its names as no new text does.
    margin: int = 16384
    # Windows that tell how far to trust the net: a sixty-fourth of a small text, but a batch.
    held_out: int = 16
    counting: float = 0.15  # share of the budget that counting a text may take
    passes: int = 0  # over the data at most, where only time is limited; 0: any number


RECIPES: dict[str, Recipe] = {
    "small": Recipe(batch=32, time=64),
    "medium": Recipe(batch=16, time=128, learning_rate=1e-3),
    "large": Recipe(batch=16, time=256, learning_rate=4e-4),
    "xl": Recipe(batch=8, time=512, learning_rate=3e-4),
    "memory": Recipe(),
    "counted": Recipe(
        batch=2,
        time=1024,
        learning_rate=2e-3,
        embedding_pace=12.0,
        remembered_passes=0.66,
        passes=10,
    ),
}
COUNTING_SECONDS = 1e9  # without a budget, so that steps can be repeated
LEAST_MARGINS = 32  # that a text holds: of a small one, less is taken out
WINDOWS_FOR_ONE = 64  # that a text holds for each that is held out, beyond a first batch
LEAST_STEPS = 1000  # however small the data
MOST_DECAY = 3.0  # however small the data


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
    memory_mb: int = 1000,
) -> tuple[Run, Training]:
    """Trains until the budget is used, and saves a checkpoint at `path`."""
    config, recipe = config_from(preset, context), RECIPES[preset]
    if learning_rate is not None:
        recipe = replace(recipe, learning_rate=learning_rate)
    recipe = replace(recipe, time=min(recipe.time, config.context))
    pass_steps = data.size / (recipe.batch * recipe.time)
    if recipe.remembered_passes:
        remembered = recipe.remembered_passes * pass_steps * (data.size / 1e6) ** 0.5
        decay = 1.0 / (recipe.learning_rate * remembered)
        recipe = replace(recipe, weight_decay=min(decay, MOST_DECAY))
    if recipe.passes and steps is None and budget is not None:
        # What is read too often is learned by heart, which no budget makes good.
        steps = max(int(recipe.passes * pass_steps), LEAST_STEPS)
    settings = {"preset": preset, "context": config.context, "seed": seed}
    settings |= {"dream_every": dream_every, "learning_rate": recipe.learning_rate}
    settings["data"] = fingerprint(data)
    run = Run(path, task="language", settings=settings, budget=budget, steps=steps)

    nn.manual_seed(seed)
    model = make_model(preset, config)
    windows = Windows(data, recipe.batch, recipe.time, seed)
    learner = None
    if isinstance(model, CountedFFN):
        seconds = recipe.counting * budget if budget else COUNTING_SECONDS
        # Windows are taken out of the counts, so they come from what was counted.
        data = count(run, model.memory, data, memory_mb, seconds, threads)
        margin = min(recipe.margin, data.size // LEAST_MARGINS)
        before, after = EARLIER + margin, margin
        windows = Windows(
            data,
            recipe.batch,
            recipe.time,
            seed,
            before=before,
            after=after,
            held_out=held_out_windows(recipe, data.size - before - after),
        )
        learner = model.memory
    length = windows.before + recipe.time + windows.after
    tokens = spec((recipe.batch, length), "u8")
    targets = spec((recipe.batch, recipe.time), "u8")
    training = Training(
        model.loss,
        make_optimizers(model, recipe),
        inputs={"tokens": tokens, "targets": targets},
        clip_norm=recipe.clip_norm,
        precision=precision,
        threads=threads,
        seed=seed,
        device=device,
    )
    scored = spec((max(1, SCORED_BYTES // config.context), config.context), "u8")
    programs = {"score": trace(model.score, tokens=scored)}
    if isinstance(model, CountedFFN):
        programs["watch"] = trace(model.watch, tokens=spec((1, config.context), "u8"))
    dream = Dream(recipe.dream_windows)  # starts anew when a run is resumed

    run.leave(steps_to_fit(windows))
    run.begin(training, programs, learner)
    while run.continues():
        step = training.steps
        if dream_every and step % dream_every == dream_every - 1 and dream.starts.size:
            starts = dream.recall(recipe.batch, seed, step)
        else:
            starts = windows.starts(step)
        x, y = windows.at(starts)
        loss = training.backward(tokens=x, targets=y)
        training.step(warmdown(run.fraction, cooldown=recipe.cooldown))
        if dream_every:
            dream.remember(starts, training.output("windows"))
        if learner is not None:
            learner.learn(training)
        run.record(loss, y.size)
    if isinstance(model, CountedFFN) and windows.held_out.size:
        if run.interrupted:
            run.save()  # at once: the second ^C does not wait
        fit_learned_share(model, training, windows)
        share = float(model.learned_share.value[0])
        if share < 1.0:
            run.say(f"keeps {share} of what the net adds to the counts, by text held out")
    run.finish()
    return run, training


def held_out_windows(recipe: Recipe, size: int) -> int:
    """How many windows of so many bytes are held out: whole batches, and none of few."""
    there = size // recipe.time
    if not recipe.held_out or there < 8 * recipe.batch:
        return 0
    most = min(recipe.held_out, there // WINDOWS_FOR_ONE)
    return max(1, most // recipe.batch) * recipe.batch


def count(
    run: Run,
    memory: CountedMemory,
    data: Bytes,
    memory_mb: int,
    seconds: float,
    threads: int | None,
) -> Bytes:
    """Counts the text within the budget, or takes up the counts of a resumed run;
    returns the part of it that is counted, its end."""
    run.start_clock()
    saved = run.saved_weight("memory.tables")
    if saved is None:
        counted = memory.count(data, memory_mb=memory_mb, seconds=seconds, threads=threads)
        size = memory.tables.value.nbytes / 1e6
        run.say(f"counted {counted} of {data.size} bytes in {run.seconds:.1f} s: {size:.0f} MB")
    else:
        memory.tables.value = saved
        counted = run.saved_setting("counted") or data.size
    run.settings["counted"] = counted
    return data[-counted:]


def make_optimizers(model: FFN | CountedFFN, recipe: Recipe) -> list[optim.Optimizer]:
    """Row-wise Adagrad for tables; AdamW for the rest, decaying matrices only, and the
    embedding of bytes at a pace of its own."""
    embedding = model.embedding.table
    parameters = [p for p in model.parameters() if p.trainable and p is not embedding]
    tables = [p for p in parameters if p.sparse]
    matrices = [p for p in parameters if not p.sparse and p.value.ndim == 2]
    vectors = [p for p in parameters if not p.sparse and p.value.ndim != 2]
    rate, pace, betas = recipe.learning_rate, recipe.embedding_pace, (0.9, 0.98)
    decay = recipe.weight_decay
    return [
        optim.AdamW(matrices, rate, betas, weight_decay=decay),
        # Decay goes with the rate, so that this one's is as the others'.
        optim.AdamW([embedding], rate * pace, betas, weight_decay=decay / pace),
        optim.AdamW(vectors, rate, betas),
        optim.RowwiseAdagrad(tables, recipe.table_learning_rate),
    ]


class Dream:
    """The dream phase: replay of the windows that were predicted worst."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.starts = np.zeros(0, np.int64)
        self.losses = np.zeros(0, np.float32)

    def remember(self, starts: np.ndarray, losses: np.ndarray) -> None:
        """Keeps the worst of what it knows and what it is shown."""
        fresh = ~np.isin(self.starts, starts)
        self.starts = np.concatenate([self.starts[fresh], starts])
        self.losses = np.concatenate([self.losses[fresh], losses])
        worst = np.argsort(-self.losses, kind="stable")[: self.capacity]
        self.starts, self.losses = self.starts[worst], self.losses[worst]

    def recall(self, count: int, seed: int, step: int) -> np.ndarray:
        """`count` of the remembered windows, at random."""
        return np.random.default_rng((seed, step)).choice(self.starts, count)
