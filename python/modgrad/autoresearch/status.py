"""What a loop does now and how far it has come, for a terminal or as lines of text.

Everything is read from the state, so it is the same from any process and for a
loop that no longer runs. What researchers wrote is shown as plain text: neither
escape sequences nor rich's markup in it take effect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modgrad.autoresearch import results, sandbox
from modgrad.autoresearch.results import count, duration, plain
from modgrad.autoresearch.state import Experiment, Measurement, Settings, State

LAST = 5  # experiments in the table
REFRESH_SECONDS = 0.5
_BAR_WIDTH = 40
_STYLES = {
    "keep": "green",
    "provisional": "yellow",
    "discard": "dim",
    "skip": "dim",
    "crash": "red",
}
_TRAINING = ("training", "confirming")


@dataclass(frozen=True)
class _Line:
    label: str
    text: str
    style: str = ""
    done: float | None = None  # share of a progress bar that follows the text


def phase(one: Experiment) -> str:
    """What an unfinished experiment waits for: proposing, checking, rehearsing,
    training, evaluating, confirming, deciding or recording."""
    run = running_measurement(one)
    if run is not None:
        if run.role in ("confirm", "tip"):
            return "confirming"
        return "evaluating" if run.trained else "training"
    if one.status is not None:
        return "recording"
    if one.candidate is None:
        return "proposing"
    if one.main is not None and one.main.finished:
        confirmed = any(other.role in ("confirm", "tip") for other in one.measurements)
        return "confirming" if confirmed else "deciding"
    if not one.checked:
        return "checking"
    return "training" if one.rehearsed else "rehearsing"


def running_measurement(one: Experiment) -> Measurement | None:
    """The training run or evaluation that an experiment is in."""
    return next((run for run in reversed(one.measurements) if not run.finished), None)


def render(state: State, now: float, *, running: bool) -> RenderableType:
    """The status for a terminal. `now` is in seconds since the epoch; `running` says
    whether a loop holds the tag's lock, which the journal can't know."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for line in _lines(state, now, running):
        grid.add_row(line.label, Text(line.text, style=line.style))
        if line.done is not None:
            grid.add_row("", ProgressBar(total=1.0, completed=line.done, width=_BAR_WIDTH))
    parts: list[RenderableType] = [Text(_title(state.settings), style="bold"), Text(), grid]
    rows = list(_rows(state))
    if rows:
        last = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("n", "commit", "val_bpb", "to tip"):
            last.add_column(name, justify="left" if name == "commit" else "right", no_wrap=True)
        last.add_column("status", no_wrap=True)
        last.add_column("hypothesis", no_wrap=True, overflow="ellipsis", ratio=1)
        for row in rows:
            last.add_row(*(Text(cell) for cell in row), style=_STYLES.get(row[4], ""))
        parts += [Text(), last]
    return Group(*parts)


def as_lines(state: State, now: float, *, running: bool) -> list[str]:
    """The same as lines of text, for files, pipes and mails."""
    lines = [_title(state.settings), ""]
    for line in _lines(state, now, running):
        bar = ""
        if line.done is not None:
            full = round(line.done * _BAR_WIDTH)
            bar = f" [{'#' * full}{'.' * (_BAR_WIDTH - full)}]"
        lines.append(f"{line.label:<12}{line.text}{bar}")
    rows = list(_rows(state))
    if rows:
        header = ("n", "commit", "val_bpb", "to tip", "status", "hypothesis")
        form = "{:>6}  {:<7}  {:>9}  {:>9}  {:<11}  {}"
        lines += ["", *(form.format(*row) for row in [header, *rows])]
    return lines


def live(
    read: Callable[[], tuple[State, bool]],
    *,
    console: Console | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Shows the status, refreshed, until ^C. `read` gives the state and whether a
    loop runs; what it raises ends the display."""
    state, running = read()
    first = render(state, clock(), running=running)
    with Live(first, console=console, auto_refresh=False, vertical_overflow="crop") as display:
        try:
            while True:
                display.update(render(state, clock(), running=running), refresh=True)
                sleep(REFRESH_SECONDS)
                state, running = read()
        except KeyboardInterrupt:
            pass


def _title(settings: Settings | None) -> str:
    if settings is None:
        return "setup has not finished"
    parts = (settings.tag, settings.task, f"{settings.budget:g} s of training", settings.machine)
    return " · ".join(plain(part) for part in parts)


def _lines(state: State, now: float, running: bool) -> Iterator[_Line]:
    known = results.figures(state)
    yield from _now(state, now, running)
    yield from _scores(state, known)
    if known.finished:
        rate = "" if known.per_hour is None else f" · {known.per_hour:.1f} an hour"
        yield _Line("experiments", f"{known.finished:,} in {duration(known.hours * 3600)}{rate}")
        keeps = count(known.keeps, "keep")
        if known.provisional:
            keeps += f" ({known.provisional:,} provisional: gained under 2σ)"
        rest = f"{count(known.discards, 'discard')} · {count(known.crashes, 'crash')}"
        skips = f" · {known.skips:,} skipped as tried before" if known.skips else ""
        yield _Line("", f"{keeps} · {rest}{skips}")
    tip = state.tip
    if tip is not None and tip.number > 0 and tip.finished is not None:
        since = sum(one.number > tip.number for one in results.decided(state))
        ago = duration(now - tip.finished)
        yield _Line("last keep", f"{ago} ago · {count(since, 'experiment')} since")
    yield from _researcher(state)
    yield _Line("sandbox", sandbox.LEVEL, "yellow" if sandbox.LEVEL == "off" else "")


def _now(state: State, now: float, running: bool) -> Iterator[_Line]:
    one = state.current
    if not running:
        text = "not running"
        if state.stops and state.stops[-1][0] >= state.last_time:
            when, reason = state.stops[-1]
            text = f"stopped {duration(now - when)} ago: {plain(reason)}"
        yield _Line("now", text)
        if one is not None:
            text = f"experiment {one.number} ended while {phase(one)}; it goes on with the loop"
            yield _Line("", text, "yellow")
        return
    if state.paused is not None:
        yield _Line("paused", plain(state.paused), "yellow")
    if one is None:
        run = next((run for run in _remeasuring(state) if not run.finished), None)
        if run is None:
            yield _Line("now", "between two experiments")
        else:
            yield _progress(f"measuring {run.commit[:7]} again", run, state.settings, now)
        return
    run = running_measurement(one)
    name = f"experiment {one.number} · {phase(one)}"
    if run is not None and phase(one) == "confirming":
        name += f" ({'the tip' if run.role == 'tip' else 'the candidate'}, seed {run.seed})"
    if one.number == 0 and run is not None and state.settings is not None:
        of = f"{len(one.measurements)} of {state.settings.baseline_runs}"
        name = f"baseline, run {of} · {phase(one)}"
    if run is not None and phase(one) in _TRAINING and not run.trained:
        yield _progress(name, run, state.settings, now)
    else:
        yield _Line("now", name, "bold")
    if one.hypothesis:
        yield _Line("", plain(one.hypothesis) + (" (repaired)" if one.repaired else ""))


def _remeasuring(state: State) -> Iterator[Measurement]:
    """Runs that measure a commit anew and began after the last experiment; an older
    one that has no end was cut short."""
    over = [one.finished for one in results.decided(state) if one.finished is not None]
    for runs in state.remeasured.values():
        yield from (run for run in runs if run.started >= max(over, default=0.0))


def _progress(name: str, run: Measurement, settings: Settings | None, now: float) -> _Line:
    if settings is None or settings.budget <= 0:
        return _Line("now", name, "bold")
    seconds = max(now - run.started, 0.0)
    text = f"{name} · {seconds:.0f} of {settings.budget:.0f} s"
    return _Line("now", text, "bold", min(seconds / settings.budget, 1.0))


def _scores(state: State, known: results.Figures) -> Iterator[_Line]:
    if known.baseline is None or known.tip is None or known.gain is None:
        yield _Line("best", "nothing is measured yet")
        return
    unit = known.evaluator.short
    sigma = "σ was not measured" if known.sigma is None else f"σ {known.sigma:.6f}"
    if state.tip is state.baseline:
        yield _Line("best", f"{known.tip:.6f}{unit} · the baseline, nothing better yet · {sigma}")
    else:
        times = "" if known.gain_in_sigma is None else f" ({known.gain_in_sigma:.1f}σ)"
        number = state.kept[-1]
        yield _Line("best", f"{known.tip:.6f}{unit} · experiment {number}", "bold green")
        yield _Line("", f"{known.gain:.6f} below the baseline's {known.baseline:.6f}{times}")
        yield _Line("", sigma)
    if known.tip_gap is not None:
        drift = f" · drift {known.drift:+.6f} since the baseline" if known.drift else ""
        holdout = known.tip + known.tip_gap
        yield _Line("holdout", f"{holdout:.6f}{unit} · {known.tip_gap:+.6f} to val{drift}")
    warning = results.drift_warning(known)
    if warning is not None:
        yield _Line("warning", warning, "bold red")


def _researcher(state: State) -> Iterator[_Line]:
    named = [one.researcher for one in state.experiments if one.number > 0]
    if named:
        yield _Line("researcher", plain(named[-1]))
    if state.fallback is not None:
        yield _Line("fallback", f"the built-in search took over: {plain(state.fallback)}", "yellow")
    if state.failures:
        yield _Line("failures", f"{state.failures} of the researcher in a row", "yellow")
    if state.cost > 0:
        yield _Line("cost", f"${state.cost:,.2f}")


def _rows(state: State) -> Iterator[tuple[str, ...]]:
    """The last experiments, the newest first."""
    deltas = results.deltas(state)
    for one in reversed(results.decided(state)[-LAST:]):
        mine, delta = results.score(one), deltas.get(one.number)
        yield (
            str(one.number),
            (one.candidate or one.base)[:7],
            "–" if mine is None else f"{mine:.6f}",
            "–" if delta is None else f"{delta:+.6f}",
            "provisional" if one.status == "keep" and one.provisional else str(one.status),
            plain(one.hypothesis)[:200],
        )
