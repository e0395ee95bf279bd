"""Pictures of a thought about a maze: a PNG, and a GIF with a frame for each tick.

    python -m modgrad.mazes picture CHECKPOINT --out route.png route.gif

Shown are the maze with where the model looks (yellow), the route that it would say at
that tick (blue; it ends in a cross where it runs into a wall) over the shortest one
(grey dots), how certain it is, and how its training went. matplotlib and Pillow are
the extra `report`.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modgrad.errors import UsageError
from modgrad.machine import resolve_threads
from modgrad.maze_thought import Thought, watch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_TICKS = 6  # side by side in the PNG
FRAME_MILLISECONDS = 400
LAST_FRAME_MILLISECONDS = 2000
_ROUTE, _SOLUTION, _RIGHT, _FAINT = "#1f5fd0", "#8a8a8a", "#2a8a3a", "#6b6b6b"


def main(arguments: list[str]) -> None:
    """Draws what a checkpoint thinks of one maze."""
    parser = argparse.ArgumentParser(
        prog="python -m modgrad.mazes picture", description=main.__doc__
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--out",
        type=Path,
        nargs="+",
        help="a .png, a .gif, or both (the checkpoint's name with both endings)",
    )
    parser.add_argument("--size", type=int, help="pixels a side (those of the program)")
    parser.add_argument("--layout", default="open", help="open or corner (%(default)s)")
    parser.add_argument("--algorithm", default="dfs", help="dfs, kruskal or wilson (%(default)s)")
    parser.add_argument("--loops", type=float, default=0.0, help="the share of walls opened")
    parser.add_argument("--seed", type=int, default=0, help="of the mazes (%(default)s)")
    parser.add_argument("--maze", type=int, default=0, help="its number (%(default)s)")
    parser.add_argument("--threads", type=int)
    given = vars(parser.parse_args(arguments))
    path, out = given.pop("checkpoint"), given.pop("out")
    targets = out or [path.with_suffix(ending) for ending in (".png", ".gif")]
    for target in targets:
        if target.suffix.lower() not in (".png", ".gif"):
            raise UsageError(f"--out {target}: name a file that ends in .png or .gif")
        if not target.parent.is_dir():
            raise UsageError(f"{target.parent}: no such folder to write the picture to")
        if target.is_dir():
            raise UsageError(f"{target}: is a folder; name a file for the picture")
    require_matplotlib()
    given["threads"] = resolve_threads(given["threads"])
    thought = watch(path, **given)
    for target in targets:
        drawn = draw(thought) if target.suffix.lower() == ".png" else animate(thought)
        target.write_bytes(drawn)
        print(target)


def require_matplotlib() -> None:
    """Raises `UsageError` in one line where pictures cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f'no picture without {error.name}: pip install "modgrad[report]"'
        ) from None


def draw(thought: Thought) -> bytes:
    """A PNG: some ticks side by side, certainty and training below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ticks = shown_ticks(thought)
    columns = max(len(ticks), 2)
    figure = Figure(figsize=(2.6 * columns, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, columns, height_ratios=(3, 2))
    for column, tick in enumerate(ticks):
        _draw_maze(figure.add_subplot(grid[0, column]), thought, tick)
    half = columns // 2
    _draw_certainty(figure.add_subplot(grid[1, :half]), thought, thought.ticks)
    _draw_curve(figure.add_subplot(grid[1, half:]), thought)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def animate(thought: Thought) -> bytes:
    """A GIF with one frame a tick: the maze, and certainty as far as it is known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    frames = []
    for tick in range(thought.ticks):
        figure = Figure(figsize=(4.2, 5.6), dpi=80, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        above, below = figure.subplots(2, height_ratios=(3, 1))
        _draw_maze(above, thought, tick)
        _draw_certainty(below, thought, tick + 1)
        canvas.draw()
        frames.append(Image.fromarray(_pixels(canvas)).convert("P", palette=Image.Palette.ADAPTIVE))
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_FRAME_MILLISECONDS]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    return buffer.getvalue()


def shown_ticks(thought: Thought) -> list[int]:
    """At most `SHOWN_TICKS`, evenly spread, with the first, the last and the most certain."""
    ticks = thought.ticks
    if ticks <= SHOWN_TICKS:
        return list(range(ticks))
    certain = int(thought.certainty.argmax())
    spread = {round(index * (ticks - 1) / (SHOWN_TICKS - 1)) for index in range(SHOWN_TICKS)}
    if certain not in spread:
        inner = spread - {0, ticks - 1}
        spread.remove(min(inner, key=lambda tick: abs(tick - certain)))
        spread.add(certain)
    return sorted(spread)


def _draw_maze(axes: Axes, thought: Thought, tick: int) -> None:
    side = len(thought.pixels)
    axes.imshow(thought.pixels, interpolation="nearest")
    if thought.attention is not None:
        _draw_attention(axes, thought.attention[tick], side)
    for colour, name in (((1, 0, 0), "red"), ((0, 1, 0), "limegreen")):
        row, column = np.argwhere((thought.pixels == colour).all(-1))[0]
        axes.plot(column, row, "s", color=name, markersize=6)
    solution = thought.solution()
    axes.plot(solution[:, 1], solution[:, 0], ".", color=_SOLUTION, markersize=3)
    cells, in_wall = thought.route(tick)
    axes.plot(cells[:, 1], cells[:, 0], "-", color=_ROUTE, linewidth=2)
    axes.plot(*cells[-1, ::-1], "x" if in_wall else "o", color=_ROUTE, markersize=5)
    steps = len(thought.target)
    mark = " (most certain)" if tick == int(thought.certainty.argmax()) else ""
    axes.set_title(
        f"tick {tick + 1} of {thought.ticks}{mark}\n{thought.right_steps(tick)} of {steps} right",
        fontsize=9,
    )
    axes.set_axis_off()


def _draw_attention(axes: Axes, weights: Any, side: int) -> None:
    """Tokens that form a square lie over the maze; other ones have no place in it."""
    across = math.isqrt(len(weights))
    if across * across != len(weights):
        return
    picture = weights.reshape(across, across) / max(float(weights.max()), 1e-12)
    # Cells of the lattice are 2 x 2 pixels around odd ones; other squares cover the maze.
    border = 0.0 if 2 * across + 1 == side else -0.5
    box = (border, side - 1 - border, side - 1 - border, border)
    axes.imshow(
        picture, cmap="YlOrBr", alpha=0.75 * picture, extent=box, interpolation="nearest", vmin=0
    )
    axes.set_xlim(-0.5, side - 0.5)
    axes.set_ylim(side - 0.5, -0.5)


def _draw_certainty(axes: Axes, thought: Thought, known: int) -> None:
    """Of the first `known` ticks."""
    ticks = range(1, known + 1)
    right = [thought.right_steps(tick) / len(thought.target) for tick in range(known)]
    axes.plot(ticks, thought.certainty[:known], ".-", color=_ROUTE, label="certainty")
    axes.plot(ticks, right, ".--", color=_RIGHT, linewidth=1, label="right from the start")
    axes.set_xlim(0.5, thought.ticks + 0.5)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("tick", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, loc="best", frameon=False)


def _draw_curve(axes: Axes, thought: Thought) -> None:
    axes.set_title("training loss in bits", fontsize=9)
    axes.set_xlabel("seconds", fontsize=8)
    axes.tick_params(labelsize=8)
    if not thought.curve:
        axes.text(0.5, 0.5, "the checkpoint holds no curve", ha="center", color=_FAINT, fontsize=8)
        return
    axes.plot(
        [seconds for seconds, _, _ in thought.curve],
        [bits for *_, bits in thought.curve],
        "-",
        color=_ROUTE,
        linewidth=1,
    )


def _pixels(canvas: Any) -> Any:
    """[height, width, 3] of what was drawn."""
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
