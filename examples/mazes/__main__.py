"""The command line of the maze task: `python examples/mazes --help`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from modgrad.command_line import Number, OneCommand

STARTED = time.monotonic()

PATH = click.Path(path_type=Path)
PINNED_MAZES = 200  # that `val_bpb` is formed over

# --model NAME → (the module that makes it, the module that trains it, its task).
# The first has `make_model(size, route_length, *, …)`, with an argument for every flag
# that means something for the model; the second `train` as in train.py.
MODELS = {
    "ctm": ("model", "train", "mazes"),
    "brain": ("brain", "train", "mazes-brain"),
    "spatial": ("spatial", "train_spatial", "mazes"),
}


@click.command(cls=OneCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", type=int, default=21, show_default=True, help="Pixels a side: odd, from 5.")
@click.option("--ticks", type=int, help="Of the thought; 16 if left out.")
@click.option(
    "--budget",
    type=Number(min=0, min_open=True),
    metavar="SECONDS",
    help="Wall clock of training; absent: until --steps, or ^C, which saves.",
)
@click.option("--steps", type=click.IntRange(min=0), help="Stop after so many updates.")
@click.option("--batch", type=click.IntRange(min=1), help="Mazes a step.")
@click.option(
    "--d-model",
    type=int,
    metavar="N",
    help="Neurons of the machine, 256 if left out; of a cell with --model spatial, 32.",
)
@click.option("--brain", is_flag=True, help="The graph of eight regions: --model brain.")
@click.option(
    "--model",
    type=click.Choice(list(MODELS)),
    help="ctm, the default: one machine that attends to the whole maze. spatial: one at every "
    "cell, that sees its neighbours.",
)
@click.option(
    "--layout",
    type=click.Choice(["open", "corner"]),
    default="open",
    show_default=True,
    help="Start and goal anywhere, at least two ways from the start; or the published layout, "
    "whose first step is read from one pixel.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["dfs", "kruskal", "wilson"]),
    default="dfs",
    show_default=True,
    help="How walls are placed.",
)
@click.option(
    "--loops",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="The share of inner walls that is opened; any shortest path is then right.",
)
@click.option(
    "--route-len",
    type=int,
    default=20,
    show_default=True,
    metavar="R",
    help="Steps that are predicted.",
)
@click.option(
    "--exit",
    "exit_strategy",
    type=click.Choice(["none", "certainty", "adaptive"]),
    help="Which tick is read: the most certain one (none, the default), the first that is "
    "certain enough, or the one where a learned gate opens.",
)
@click.option(
    "--lr",
    "learning_rate",
    type=Number(min=0, min_open=True),
    help="Peak learning rate.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=int, help="Default: every core this process may use.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    metavar="auto|f32|bf16",
    help="How matrix products are formed; auto is bf16 where the processor has it.",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|hip")
@click.option(
    "--load-mazes",
    "bank",
    type=PATH,
    metavar="FILE",
    help="Train on the mazes of this file, which `python -m modgrad.mazes generate` wrote, "
    "instead of ever new ones.",
)
@click.option(
    "--checkpoint",
    type=PATH,
    metavar="FILE",
    help="Where the model is kept; one that exists is resumed. "
    "Default: mazes.ckpt (mazes-brain.ckpt, mazes-spatial.ckpt) in the current folder.",
)
@click.option(
    "--mazes",
    "scored",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="How many the table is formed over.",
)
@click.option("--no-score", is_flag=True, help="Train only.")
@click.option(
    "--autoresearch-summary",
    "summary",
    is_flag=True,
    help=f"Instead of the table, the summary block, over the {PINNED_MAZES} pinned mazes.",
)
def main(
    size: int,
    ticks: int | None,
    budget: float | None,
    steps: int | None,
    batch: int | None,
    d_model: int | None,
    brain: bool,
    model: str | None,
    layout: Any,
    algorithm: Any,
    loops: float,
    route_len: int,
    exit_strategy: str | None,
    learning_rate: float | None,
    seed: int,
    threads: int | None,
    precision: str,
    device: str,
    bank: Path | None,
    checkpoint: Path | None,
    scored: int,
    no_score: bool,
    summary: bool,
) -> None:
    """Train a model that sees a maze and says the route, then score it.

    \b
    Begin with:
      python examples/mazes --size 11 --budget 60
      python examples/mazes --budget 300 --autoresearch-summary

    The model is scored by compiled code in a process of its own, on mazes that no
    seed makes for training, beside predictors that are no model at all. ^C saves,
    and the same command goes on.
    """
    from modgrad.errors import UsageError
    from modgrad.machine import resolve_device, resolve_threads
    from modgrad.mazes import evaluate

    device = resolve_device(device)
    if brain and model not in (None, "brain"):
        raise UsageError(f"--brain and --model {model} are two models; name one")
    if model is None:
        model = "brain" if brain else "ctm"
    if checkpoint is None:
        checkpoint = Path("mazes.ckpt" if model == "ctm" else f"mazes-{model}.ckpt")
    kind = {"layout": layout, "algorithm": algorithm, "loops": loops}
    source = _source(size, kind, route_len, seed, resolve_threads(threads), bank)
    make_model, train, task = _find(model)
    flags = {"ticks": ticks, "d_model": d_model, "exit": exit_strategy}
    arguments = _accepted(make_model, model, flags)
    settings = {"model": model, "size": size, "route_len": route_len, "seed": seed, **arguments}

    from modgrad import nn

    nn.manual_seed(seed)
    run, training = train(
        checkpoint,
        source,
        make_model(size, route_len, **arguments),
        task=task,
        settings={**settings, **source.describe()},
        budget=budget,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        threads=resolve_threads(threads),
        precision=precision,
        device=device,
    )
    if run.interrupted:
        sys.exit(130)
    if no_score:
        return
    click.echo(f"scoring {run.path}", err=True)
    count = PINNED_MAZES if summary else scored
    score = evaluate(run.path, threads=training.threads, size=size, mazes=count, **kind)
    if summary:
        _print_summary(run, training, score, seed)
    else:
        _print_table(run, training, score)


def _source(
    size: int, kind: dict[str, Any], route_len: int, seed: int, threads: int, bank: Path | None
) -> Any:
    """Where the mazes come from, proven by making one."""
    from modgrad.maze_bank import Bank, Stream

    stream = Stream(size=size, route_length=route_len, seed=seed, threads=threads, **kind)
    stream.draw(0, 1)
    if bank is None:
        return stream
    symmetric = kind["layout"] == "open"
    return Bank.load(
        bank, size=size, route_length=route_len, seed=seed, symmetric=symmetric, threads=threads
    )


def _find(model: str) -> tuple[Callable[..., Any], Callable[..., Any], str]:
    """The functions `make_model` and `train` of a model, and its task."""
    from importlib import import_module, util

    from modgrad.errors import UsageError

    here = Path(__file__).resolve().parent
    # What a model is made of may stand beside this folder, in isis/.
    sys.path[:0] = [place for place in (str(here), str(here.parents[1])) if place not in sys.path]
    maker, trainer, task = MODELS[model]
    for name in (maker, trainer):
        if util.find_spec(name) is None:
            raise UsageError(f"--model {model}: examples/mazes/{name}.py is not there yet")
    return import_module(maker).make_model, import_module(trainer).train, task


def _accepted(make: Callable[..., Any], model: str, flags: dict[str, Any]) -> dict[str, Any]:
    """The model's arguments, from flags and its own defaults; None is a flag not given."""
    import inspect

    from modgrad.errors import UsageError

    known = inspect.signature(make).parameters
    for name, value in flags.items():
        if value is not None and name not in known:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} means nothing for --model {model}; leave it out")
    # What is left out is a setting too: a resumed run must not change it.
    return {
        name: known[name].default if value is None else value
        for name, value in flags.items()
        if name in known
    }


def _print_summary(run: Any, training: Any, score: dict[str, Any], seed: int) -> None:
    from modgrad.summary import summary

    block = summary(
        run,
        training,
        val_bpb=score["val_bpb"],
        n_targets=score["mazes"],
        context=score["route_length"],
        seed=seed,
        started=STARTED,
    )
    click.echo(block, nl=False)


def _print_table(run: Any, training: Any, score: dict[str, Any]) -> None:
    """Our figures with their 95 % intervals, beside those of predictors that are no model."""
    steps = score["route_length"]
    click.echo(
        f"{score['mazes']} mazes of {score['size']}x{score['size']} pixels, layout "
        f"{score['layout']}, {score['algorithm']}, loops {score['loops']:g}; the first {steps} "
        f"steps of routes of {score['mean_length']:.0f} on average; "
        f"{training.parameters_count} parameters, {training.steps} updates in "
        f"{run.trained_seconds:.0f} s"
    )
    columns = {
        "first step": ("first_step", 3),
        "per step": ("per_step", 3),
        "prefix": ("correct_prefix", 2),
        f"all {steps}": ("scored_route", 3),
        "whole route": ("whole_route", 3),
    }
    rows = [
        ("this model", score),
        *((one["name"].replace("_", " "), one) for one in score["trivial"]),
    ]
    width = max(len(name) for name, _ in rows)
    click.echo(" " * width + "".join(f"  {title:<19}" for title in columns).rstrip())
    for name, figures in rows:
        cells = (_estimate(figures[field], places) for field, places in columns.values())
        click.echo(f"{name:<{width}}" + "".join(f"  {cell:<19}" for cell in cells).rstrip())


def _estimate(estimate: dict[str, float], places: int) -> str:
    low, high = estimate["low"], estimate["high"]
    return f"{estimate['value']:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


if __name__ == "__main__":
    main()
