"""The command line of the language task: `python -m isis --help`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from modgrad.command_line import Commands, Number

STARTED = time.monotonic()

PATH = click.Path(path_type=Path)

Command = Callable[..., None]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Byte language models that train in minutes, scored by compiled code.

    \b
    Begin with:
      python -m isis prepare                   write a corpus into ./data
      python -m isis learn-ffn --budget 60 --val-data data/val.txt model.ckpt data/train_stdlib.txt
      python -m isis generate model.ckpt --prompt "def "
    """


def _preset_flag(name: str) -> Callable[[Command], Command]:
    return click.option(f"--{name}", "preset", flag_value=name, help=f"The seed size {name}.")


def _options_of_training(default_preset: str, presets: str) -> Callable[[Command], Command]:
    """What every command takes that trains a byte model."""
    options: list[Callable[[Command], Command]] = [
        click.argument("checkpoint", type=PATH),
        click.argument("data", type=PATH, nargs=-1, required=True),
        click.option(
            "--budget",
            type=Number(min=0, min_open=True),
            metavar="SECONDS",
            help="Wall clock of training; absent: until --steps, or ^C, which saves.",
        ),
        click.option("--steps", type=click.IntRange(min=0), help="Stop after so many updates."),
        click.option(
            "--val-data",
            type=PATH,
            metavar="FILE",
            help="Score the checkpoint on this file at the end and print the summary.",
        ),
        click.option("--context", type=click.IntRange(min=1), help="Bytes of a scored window."),
        click.option(
            "--vocab", type=click.Choice(["256"]), default="256", help="Bytes; nothing else."
        ),
        *map(_preset_flag, ("small", "medium", "large", "xl")),
        click.option(
            "--preset",
            "preset",
            metavar="NAME",
            default=default_preset,
            show_default=True,
            help=f"A model by name; see PRESETS in {presets}.",
        ),
        click.option(
            "--lr",
            "learning_rate",
            type=Number(min=0, min_open=True),
            help="Peak learning rate of the dense parameters.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
        click.option("--threads", type=int, help="Default: every core this process may use."),
        click.option(
            "--precision",
            default="auto",
            show_default=True,
            metavar="auto|f32|bf16",
            help="How matrix products are formed; auto is bf16 where the processor has it.",
        ),
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|hip"),
        click.option(
            "--dream-every",
            type=click.IntRange(min=2),
            metavar="N",
            help="Every N steps, replay the windows that were predicted worst; a resumed run "
            "looks for them anew.",
        ),
    ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@main.command("learn-ffn")
@_options_of_training("counted", "isis/ffn.py")
@click.option(
    "--memory-mb",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="That the counts of a counted model may take; rare contexts give way, "
    "and of text of more than a quarter of that, only the end is read.",
)
def learn_ffn(**flags: Any) -> None:
    """Train a byte model on DATA and keep it in CHECKPOINT.

    An existing CHECKPOINT is resumed. ^C saves, and the same command goes on. The
    seed sizes are the plain form, without memory of its context.
    """
    from isis.learn_ffn import train

    _learn(train, **flags)


@main.command()
@_options_of_training("bytes", "isis/byte_brain.py")
def learn(**flags: Any) -> None:
    """Train the eight-region brain on the bytes of DATA.

    It reads byte by byte and remembers what it has read of a window. Flags, CHECKPOINT
    and score are those of learn-ffn; what counting alone would score stands beside it.
    """
    from isis.learn import train

    _learn(train, baselines=True, **flags)


def _learn(
    train: Callable[..., tuple[Any, Any]],
    *,
    checkpoint: Path,
    data: tuple[Path, ...],
    val_data: Path | None,
    vocab: str,
    seed: int,
    threads: int | None,
    device: str,
    dream_every: int | None,
    baselines: bool = False,
    **settings: Any,
) -> None:
    from modgrad.data import read_bytes
    from modgrad.errors import UsageError
    from modgrad.machine import resolve_device, resolve_threads

    device = resolve_device(device)
    if val_data is not None and not val_data.is_file():
        raise UsageError(f"--val-data {val_data}: no such file")
    if val_data is not None and val_data.stat().st_size < 2:
        raise UsageError(f"--val-data {val_data}: nothing to score: at least 2 bytes")
    read = read_bytes(data)
    run, training = train(
        checkpoint,
        read,
        seed=seed,
        threads=resolve_threads(threads),
        device=device,
        dream_every=dream_every or 0,
        **settings,
    )
    if run.interrupted:
        sys.exit(130)
    if val_data is not None:
        _print_summary(run, training, val_data, seed)
        if baselines:
            _print_baselines(read, read_bytes([val_data]))


def _print_baselines(training: Any, scored: Any) -> None:
    from modgrad.counts import bits_per_byte

    first, second, third = bits_per_byte(training, scored)
    click.echo(
        f"counts of the training data score {first:.3f} bits per byte after one byte, "
        f"{second:.3f} after two, {third:.3f} after three (Witten–Bell)",
        err=True,
    )


def _print_summary(run: Any, training: Any, val_data: Path, seed: int) -> None:
    from modgrad.evaluate import evaluate
    from modgrad.summary import summary

    click.echo(f"scoring {run.path} on {val_data}", err=True)
    score = evaluate(run.path, val_data, threads=training.threads)
    block = summary(
        run,
        training,
        val_bpb=score["bits_per_byte"],
        n_targets=score["n_targets"],
        context=score["context"],
        seed=seed,
        started=STARTED,
    )
    click.echo(block, nl=False)


@main.command("eval")
@click.argument("checkpoint", type=PATH)
@click.argument("data", type=PATH, nargs=-1, required=True)
@click.option(
    "--context", type=click.IntRange(min=1), help="Refuse a checkpoint of any other context."
)
@click.option("--max-bytes", type=click.IntRange(min=2), help="Score only the first bytes.")
@click.option("--threads", type=int, help="Default: every core this process may use.")
@click.option(
    "--plot", type=PATH, help="A .png of what the score is made of, with one file of DATA."
)
def evaluate_command(
    checkpoint: Path,
    data: tuple[Path, ...],
    context: int | None,
    max_bytes: int | None,
    threads: int | None,
    plot: Path | None,
) -> None:
    """Score CHECKPOINT on each file of DATA, in bits per byte.

    With --plot also the cost of bytes by their position in the window and by kind,
    and the gates of a counted model's experts, as a table and a picture.
    """
    from modgrad.errors import UsageError
    from modgrad.evaluate import evaluate
    from modgrad.machine import resolve_threads

    if plot is not None and (len(data) != 1 or plot.suffix.lower() != ".png"):
        raise UsageError("--plot takes the name of one .png, and one file of DATA")
    if plot is not None and not plot.parent.is_dir():
        raise UsageError(f"--plot {plot}: no such folder")

    for path in data:
        score = evaluate(
            checkpoint, path, threads=resolve_threads(threads), context=context, max_bytes=max_bytes
        )
        click.echo(
            f"{path}: {score['bits_per_byte']:.6f} bits per byte over {score['n_targets']} bytes "
            f"(context {score['context']}, {score['probes']} probes of causality, "
            f"{score['seconds']:.1f} s)"
        )
    if plot is not None:
        _print_anatomy(checkpoint, data[0], resolve_threads(threads), plot)


def _print_anatomy(checkpoint: Path, data: Path, threads: int, plot: Path) -> None:
    from modgrad.data import read_bytes

    from isis.anatomy import dissect, draw

    anatomy = dissect(checkpoint, read_bytes([data]), threads=threads)
    draw(anatomy, f"{checkpoint.name} on {data.name}", plot)
    for heading, rows in (
        ("position in the window", anatomy.by_position()),
        ("kind of byte", anatomy.by_kind()),
    ):
        click.echo(f"\n{heading:<24}{'bytes':>9}{'bits':>8}")
        for name, count, bits in rows:
            click.echo(f"{name:<24}{count:>9}{bits:>8.3f}")
    if anatomy.gates is not None:
        click.echo(f"\n{'expert':<36}{'gate':>8}{'10 %':>8}{'90 %':>8}")
        for name, gate in zip(anatomy.experts, anatomy.gates.T, strict=True):
            click.echo(f"{name:<36}{gate[0]:>8.3f}{gate[1]:>8.3f}{gate[2]:>8.3f}")
    click.echo(f"\nwrote {plot}")


@main.command()
@click.argument("checkpoint", type=PATH)
@click.option("--prompt", default="", help="Text to go on from.")
@click.option("--bytes", "count", type=click.IntRange(min=0), default=400, show_default=True)
@click.option(
    "--temperature",
    type=Number(min=0),
    default=0.8,
    show_default=True,
    help="0 always takes the likeliest byte.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=int, help="Default: every core this process may use.")
def generate(
    checkpoint: Path,
    prompt: str,
    count: int,
    temperature: float,
    seed: int,
    threads: int | None,
) -> None:
    """Sample text from CHECKPOINT, byte by byte."""
    from modgrad.machine import resolve_threads

    from isis.generate import sample

    output = sys.stdout.buffer
    output.write(prompt.encode("utf-8", "surrogateescape"))
    for byte in sample(
        checkpoint,
        prompt.encode("utf-8", "surrogateescape"),
        count=count,
        temperature=temperature,
        seed=seed,
        threads=resolve_threads(threads),
    ):
        output.write(bytes([byte]))
        output.flush()
    output.write(b"\n")


@main.command()
@click.option("--device", "only", hidden=True, help="This one's lines only; may be emulated.")
def devices(only: str | None) -> None:
    """Say what this machine has and what will be used."""
    from modgrad import _core
    from modgrad.machine import card_lines, processor_name, resolve_precision, resolve_threads

    if only is not None:
        for line in card_lines(only):
            click.echo(f"{f'--device {only}: ':<18}{line}")
        return
    threads = resolve_threads(None)
    used, found = _core.instruction_set(), _core.detected_instruction_set()
    lowered = "" if used == found else f" (MODGRAD_ISA lowers it from {found})"
    click.echo(f"processor:        {processor_name()}")
    click.echo(f"threads:          {threads}")
    click.echo(f"instruction set:  {used}{lowered}")
    for precision in ("f32", "bf16"):
        rate = _core.measured_peak(threads, precision) / 1e9
        click.echo(f"{precision + ' products:':<18}{rate:.0f} GFLOP/s measured")
    click.echo(f"--precision auto: {resolve_precision('auto')}")
    click.echo("--device auto:    cpu (a GPU is used where it is asked for)")
    for device in ("cuda", "hip"):
        for line in card_lines(device):
            click.echo(f"{f'--device {device}:':<18}{line}")


@main.command()
@click.option(
    "--source",
    multiple=True,
    default=("stdlib",),
    show_default=True,
    metavar="stdlib|climbmix|PATH",
    help="What to read; files and folders may be given several times.",
)
@click.option("--output", type=PATH, default=Path("data"), show_default=True, help="The folder.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Shuffles the documents.",
)
@click.option("--max-bytes", type=click.IntRange(min=1), help="Take no more than this.")
def prepare(source: tuple[str, ...], output: Path, seed: int, max_bytes: int | None) -> None:
    """Write a corpus: train_*.txt, val.txt (262144 bytes, cut once), corpus.json."""
    from isis.prepare import prepare as prepare_corpus

    prepare_corpus(
        output,
        list(source),
        seed=seed,
        max_bytes=max_bytes,
        report=lambda line: click.echo(line, err=True),
    )


if __name__ == "__main__":
    main()
