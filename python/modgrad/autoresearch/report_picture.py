"""progress.png: the score over the experiments, the kept ones as a staircase.

Only this file needs matplotlib (`pip install "modgrad[report]"`).
"""

from __future__ import annotations

import math
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modgrad.autoresearch import results
from modgrad.autoresearch.report_frame import frame, summary
from modgrad.autoresearch.report_labels import Surroundings
from modgrad.autoresearch.results import plain, score
from modgrad.autoresearch.state import Experiment, State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
KEEP, DISCARD, CRASH, HOLDOUT = "#0b7a4b", "#8b95a1", "#c2412d", "#6b4fc8"
_INK, _FAINT = "#1c2128", "#5b6570"
_LABELS = 8
_LABEL_CHARACTERS = 30  # a line; a label has two
_DOTS_PER_INCH = 160


def draw(state: State, path: Path) -> None:
    """Writes the picture; an ImportError where matplotlib is missing."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The user's settings of matplotlib have no say, nor glyphs that its font lacks.
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(12, 6.75), dpi=_DOTS_PER_INCH, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0.075, 0.085, 0.86, 0.735))
        _set_up(axes, state)
        _titles(figure, state)
        _points(axes, state)
        _lines(axes, state)
        legend = axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.008, 1.0),
            ncols=9,
            frameon=False,
            fontsize=9,
            labelcolor=_FAINT,
            handletextpad=0.4,
            columnspacing=1.4,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        _margin(axes, state)
        canvas.draw()  # type: ignore[no-untyped-call]
        _labels(axes, state)
        figure.savefig(path, format="png", metadata={"Software": None})


def _set_up(axes: Axes, state: State) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    view = frame(state)
    last = max(len(state.experiments) - 1, 1)
    axes.set_ylim(view.low, view.high)
    axes.set_xlim(-0.015 * last - 0.2, last * 1.015 + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8))
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c3c9d0")
    axes.tick_params(length=0, labelsize=9.5, labelcolor=_FAINT, pad=6)
    axes.set_xlabel("experiment", fontsize=10, color=_FAINT)
    axes.set_ylabel("val_bpb (lower is better)", fontsize=10, color=_FAINT, labelpad=8)


def _titles(figure: Figure, state: State) -> None:
    title, line = summary(state)
    style: dict[str, Any] = {"ha": "left", "va": "top", "parse_math": False}
    figure.text(0.02, 0.965, title, fontsize=15, fontweight="bold", color=_INK, **style)
    figure.text(0.02, 0.912, line, fontsize=10.5, color=_FAINT, **style)


def _points(axes: Axes, state: State) -> None:
    view = frame(state)
    over = results.decided(state)
    many = len(over) > 400
    size, opacity = (9, 0.4) if many else (26, 0.75)
    if len(over) > 4000:
        size, opacity = 4, 0.3
    scored = [(one, found) for one in over if (found := score(one)) is not None]

    discards = [(one.number, found) for one, found in scored if one.status == "discard"]
    inside = [(x, y) for x, y in discards if y <= view.high]
    beyond = [x for x, y in discards if y > view.high]
    if inside:
        xs, ys = zip(*inside, strict=True)
        axes.scatter(xs, ys, size, DISCARD, alpha=opacity, linewidths=0, label="discard", zorder=2)
    if beyond:
        axes.scatter(
            beyond,
            [0.988] * len(beyond),
            16 if many else 30,
            DISCARD,
            marker="^",
            alpha=opacity,
            linewidths=0,
            transform=axes.get_xaxis_transform(),
            label="off the scale",
            zorder=2,
        )
    for kind, color, name in (("crash", CRASH, "crash"), ("discard", DISCARD, "not scored")):
        ticks = [one.number for one in over if one.status == kind and score(one) is None]
        if ticks:
            axes.plot(
                ticks,
                [0.018] * len(ticks),
                "|",
                color=color,
                markersize=9,
                markeredgewidth=0.6 if many else 1.4,
                alpha=0.6 if many else 0.9,
                transform=axes.get_xaxis_transform(),
                label=name,
                zorder=3,
            )
    for provisional, face, name in ((False, KEEP, "keep"), (True, "white", "provisional keep")):
        chosen = [
            (one.number, found)
            for one, found in scored
            if one.status == "keep" and one.provisional is provisional
        ]
        if chosen:
            xs, ys = zip(*chosen, strict=True)
            axes.scatter(
                xs,
                ys,
                26 if many else 46,
                face,
                edgecolors=KEEP,
                linewidths=1.4,
                label=name,
                zorder=9,
            )


def _lines(axes: Axes, state: State) -> None:
    keeps = [state.experiments[number] for number in state.kept]
    stairs = [(one.number, found) for one in keeps if (found := score(one)) is not None]
    if not stairs:
        return
    last = max(len(state.experiments) - 1, 1)
    xs, ys = zip(*[*stairs, (last, stairs[-1][1])], strict=True)
    axes.plot(xs, ys, drawstyle="steps-post", color=KEEP, linewidth=1.8, zorder=5)
    axes.axhline(ys[0], color=_FAINT, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
    if state.sigma:
        axes.fill_between(
            xs,
            [y - 2 * state.sigma for y in ys],
            [y + 2 * state.sigma for y in ys],
            step="post",
            color=KEEP,
            alpha=0.13,
            linewidth=0,
            label="±2σ of the tip",
            zorder=1,
        )
    shift = frame(state).shift
    held = [(one.number, one.holdout_bpb) for one in keeps if one.holdout_bpb is not None]
    if shift is not None and held:
        held.append((last, held[-1][1]))
        xs, ys = zip(*[(x, y - shift) for x, y in held], strict=True)
        name = f"holdout of keeps, drawn {abs(shift):.4f} {'lower' if shift > 0 else 'higher'}"
        axes.plot(
            xs,
            ys,
            drawstyle="steps-post",
            color=HOLDOUT,
            lw=1.2,
            ls=(0, (4, 2)),
            label=name,
            zorder=4,
        )


def _margin(axes: Axes, state: State) -> None:
    """Says at the right edge where the lines end, one below the other."""
    known, view = results.figures(state), frame(state)
    if known.baseline is None or known.tip is None:
        return
    ends = [(known.tip, f"{known.tip:.4f}", KEEP)]
    if known.gain:
        ends.append((known.baseline, f"{known.baseline:.4f}", _FAINT))
    if view.shift is not None and known.tip_gap is not None:
        holdout = known.tip + known.tip_gap
        ends.append((holdout - view.shift, f"{holdout:.4f}", HOLDOUT))
    above = math.inf
    for value, text, color in sorted(ends, reverse=True):
        height = min((value - view.low) / (view.high - view.low), above - 0.035)
        above = height
        axes.annotate(
            text,
            (1.008, height),
            xycoords="axes fraction",
            fontsize=9.5,
            fontweight="bold" if color == KEEP else "normal",
            color=color,
            va="center",
        )


def _labels(axes: Axes, state: State) -> None:
    """Names the biggest keeps, each where its label covers the least."""
    gains = results.deltas(state)
    scores = {n: found for n in state.kept if (found := score(state.experiments[n])) is not None}
    chosen = sorted((n for n in scores if gains.get(n, 0.0) < 0), key=lambda n: gains[n])
    sure = [n for n in chosen if not state.experiments[n].provisional]
    canvas = _surroundings(axes, state, scores)
    for number in sorted((sure or chosen)[:_LABELS]):  # along the staircase, so leaders stay apart
        place: dict[str, Any] = {"fontsize": 8.5, "color": _INK, "ha": "center", "va": "center"}
        text = _label(state.experiments[number], gains[number])
        point: tuple[float, float] = tuple(axes.transData.transform((number, scores[number])))
        note = axes.annotate(text, (number, scores[number]), parse_math=False, **place)
        extent = note.get_window_extent()
        note.remove()
        box = canvas.place(point, extent.width + 10, extent.height + 8)
        if box is None:
            continue
        left, bottom, right, top = box
        end = canvas.leaders[-1][1]
        axes.annotate(
            text,
            point,
            ((left + right) / 2, (bottom + top) / 2),
            xycoords="figure pixels",
            textcoords="figure pixels",
            linespacing=1.25,
            zorder=8,
            parse_math=False,
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
            arrowprops={
                "arrowstyle": "-",
                "color": _FAINT,
                "lw": 0.7,
                "shrinkA": 0,
                "shrinkB": 5,
                "relpos": ((end[0] - left) / (right - left), (end[1] - bottom) / (top - bottom)),
            },
            **place,
        )


def _surroundings(axes: Axes, state: State, scores: dict[int, float]) -> Surroundings:
    """What labels should leave in sight, in pixels."""
    last = max(len(state.experiments) - 1, 1)
    stairs = list(scores.items())
    corners = stairs[:1]
    for x, level in [*stairs[1:], *((last, level) for _, level in stairs[-1:])]:
        corners += [(x, corners[-1][1]), (x, level)]
    dots = [
        (float(one.number), y) for one in results.decided(state) if (y := score(one)) is not None
    ]
    shift = frame(state).shift
    held = [(n, h) for n in scores if (h := state.experiments[n].holdout_bpb) is not None]
    if shift is not None:
        ends = [n for n, _ in held[1:]] + [last]
        for (n, h), end in zip(held, ends, strict=True):
            dots += [(n + (end - n) * step / 8, h - shift) for step in range(9)]
    area = axes.get_window_extent()
    return Surroundings(
        area=(area.x0, area.y0 + 20, area.x1, area.y1),
        stairs=axes.transData.transform(corners or [(0, 0)]),
        dots=axes.transData.transform(dots or [(-1, -1)]),
    )


def _label(one: Experiment, gain: float) -> str:
    name = plain(one.hypothesis) or f"experiment {one.number}"
    lines = textwrap.wrap(name, _LABEL_CHARACTERS, max_lines=2, placeholder=" …")
    return "\n".join(lines) + f"  −{-gain:.4f}"
