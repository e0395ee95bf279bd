"""Mazes to train on, and the evaluator for them.

    python -m modgrad.mazes CHECKPOINT             score a checkpoint
    python -m modgrad.mazes generate FILE          keep mazes for `--load-mazes`
    python -m modgrad.mazes picture CHECKPOINT     draw what it thinks of one maze

The generator, the solver behind the labels and the evaluator are compiled
(`crates/modgrad-training`); what a maze, a route and a score are stands there.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modgrad import _core
from modgrad.errors import ModgradError, UsageError
from modgrad.evaluate import isolated
from modgrad.machine import resolve_threads

Layout = Literal["open", "corner"]
Algorithm = Literal["dfs", "kruskal", "wilson"]

# The codes of moves in targets, and their bits in `optimal` and `directions`.
UP, DOWN, LEFT, RIGHT, WAIT = range(5)

MADE_AT_ONCE = 4096  # mazes of a bank, so that their pixels fit in memory


@dataclass(frozen=True)
class Mazes:
    """N mazes of S × S pixels, with routes of R steps."""

    pixels: NDArray[np.float32]
    """[N, 3, S, S]: floor white, wall black, start red, goal green."""
    targets: NDArray[np.uint8]
    """[N, R]: the moves of a shortest path, cut at R, then waits."""
    lengths: NDArray[np.int32]
    """[N]: steps of the whole path."""
    optimal: NDArray[np.uint8]
    """[N, R]: bit m is set where move m lies on some shortest path at that step."""
    directions: NDArray[np.uint8]
    """[N, S, S]: the same for every pixel; 0 on walls, only WAIT's bit at the goal."""


def generate(
    count: int,
    *,
    size: int = 21,
    layout: Layout = "open",
    algorithm: Algorithm = "dfs",
    loops: float = 0.0,
    seed: int = 42,
    first: int = 0,
    route_len: int = 20,
    stream: Literal["indexed", "sequential"] = "indexed",
    threads: int = 1,
) -> Mazes:
    """The mazes number `first`, `first` + 1, … of a seed, on any number of threads.

    The stream "sequential" is the one of published experiments, where mazes follow
    from one another; it starts at its beginning. Raises `MazeError` for mazes that
    cannot be made.
    """
    for name, value in (("count", count), ("size", size), ("first", first), ("seed", seed)):
        if value < 0:
            raise UsageError(f"{name} {value} must not be negative")
    if route_len < 1:
        raise UsageError(f"a route length of {route_len} leaves nothing to predict: at least 1")
    arrays = _core.generate_mazes(
        count,
        size=size,
        layout=layout,
        algorithm=algorithm,
        loops=loops,
        seed=seed,
        first=first,
        route_len=route_len,
        stream=stream,
        threads=resolve_threads(threads),
    )
    return Mazes(**arrays)


def evaluate(
    checkpoint: Path,
    *,
    threads: int,
    size: int | None = None,
    layout: Layout | None = None,
    algorithm: Algorithm | None = None,
    loops: float | None = None,
    mazes: int | None = None,
    seed: int | None = None,
    route_len: int | None = None,
) -> dict[str, Any]:
    """Scores a checkpoint in a process of its own; returns the evaluator's figures.

    What is left out is as `val_bpb` is pinned. Raises `EvaluationError` with the
    evaluator's own line where it refuses.
    """
    arguments = [f"--threads={threads}"]
    for option, value in {
        "size": size,
        "layout": layout,
        "algorithm": algorithm,
        "loops": loops,
        "mazes": mazes,
        "seed": seed,
        "route-len": route_len,
    }.items():
        if value is not None:
            arguments.append(f"--{option}={value}")
    return isolated("modgrad.mazes", [*arguments, "--", str(checkpoint)])


def main(arguments: list[str] | None = None) -> int:
    """The commands of this module."""
    given = sys.argv[1:] if arguments is None else arguments
    command = _COMMANDS.get(given[0] if given else "", _evaluate)
    try:
        command(given)
    except (ModgradError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OverflowError as error:
        print(f"error: a number that was given is too large: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


def _evaluate(arguments: list[str]) -> None:
    """Scores a checkpoint and prints the figures as one line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m modgrad.mazes",
        description=_evaluate.__doc__,
        epilog="`generate FILE` keeps mazes to train on, `picture CHECKPOINT` draws what it "
        "thinks of one; each has its --help",
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size", type=int, help="pixels a side; those of `score` if left out")
    _add_kind(parser)
    parser.add_argument("--mazes", type=int, help="how many")
    parser.add_argument("--seed", type=int, help="which ones")
    parser.add_argument("--route-len", type=int, help="score only so many steps")
    given = _parsed(parser, arguments)
    threads = resolve_threads(given.pop("threads"))
    print(_core.evaluate_mazes(given.pop("checkpoint"), threads=threads, **given))


def _generate(arguments: list[str]) -> None:
    """Writes mazes to a file that `python examples/mazes --load-mazes FILE` trains on."""
    from modgrad.maze_bank import Bank

    parser = argparse.ArgumentParser(
        prog="python -m modgrad.mazes generate", description=_generate.__doc__
    )
    parser.add_argument("file", type=Path, help="an .npz; one that exists is replaced")
    parser.add_argument("--mazes", type=int, default=10_000, help="how many (%(default)s)")
    parser.add_argument("--size", type=int, default=21, help="pixels a side (%(default)s)")
    _add_kind(parser)
    parser.add_argument("--seed", type=int, default=0, help="which ones (%(default)s)")
    parser.add_argument("--threads", type=int)
    given = _parsed(parser, arguments[1:])
    path, count = given.pop("file"), given.pop("mazes")
    if count < 1:
        raise UsageError("--mazes 0 leaves nothing to keep: at least 1")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder to keep the mazes in")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is no regular file; name another for the mazes")
    kind = {name: value for name, value in given.items() if value is not None}
    parts = [
        Bank.of(generate(min(MADE_AT_ONCE, count - first), first=first, route_len=1, **kind))
        for first in range(0, count, MADE_AT_ONCE)
    ]
    walls = np.concatenate([part.walls for part in parts])
    Bank(walls, np.concatenate([part.ends for part in parts])).save(path)
    print(f"wrote {count} mazes to {path}", file=sys.stderr)


def _picture(arguments: list[str]) -> None:
    """Draws what a checkpoint thinks of one maze."""
    from modgrad.maze_picture import main as draw

    draw(arguments[1:])


_COMMANDS = {"generate": _generate, "picture": _picture}


def _add_kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layout", help="open or corner")
    parser.add_argument("--algorithm", help="dfs, kruskal or wilson")
    parser.add_argument("--loops", type=float, help="the share of walls that is opened")


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> dict[str, Any]:
    given = vars(parser.parse_args(arguments))
    for name in ("size", "mazes", "seed", "route_len"):
        if given.get(name) is not None and given[name] < 0:
            parser.error(f"--{name.replace('_', '-')} {given[name]} must not be negative")
    return given


if __name__ == "__main__":
    sys.exit(main())
