"""Mazes to train on, and the evaluator for them: `python -m modgrad.mazes --help`.

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
    arguments = [str(checkpoint), f"--threads={threads}"]
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
    return isolated("modgrad.mazes", arguments)


def main(arguments: list[str] | None = None) -> int:
    """The evaluator as a command: prints the score as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m modgrad.mazes", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size", type=int, help="pixels a side; those of `score` if left out")
    parser.add_argument("--layout", help="open or corner")
    parser.add_argument("--algorithm", help="dfs, kruskal or wilson")
    parser.add_argument("--loops", type=float, help="the share of walls that is opened")
    parser.add_argument("--mazes", type=int, help="how many")
    parser.add_argument("--seed", type=int, help="which ones")
    parser.add_argument("--route-len", type=int, help="score only so many steps")
    given = vars(parser.parse_args(arguments))
    for name in ("size", "mazes", "seed", "route_len"):
        if given[name] is not None and given[name] < 0:
            parser.error(f"--{name.replace('_', '-')} {given[name]} must not be negative")
    try:
        threads = resolve_threads(given.pop("threads"))
        print(_core.evaluate_mazes(given.pop("checkpoint"), threads=threads, **given))
    except ModgradError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
