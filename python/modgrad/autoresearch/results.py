"""What a tag's experiments come to: the table of results, and the figures that
`status` and the report both show.

A view of the state, made again at any time. In a `State` a missing score is
None; it is a zero only in the table, in rows that nothing is compared with.
"""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
from dataclasses import dataclass

from modgrad.autoresearch import evaluators
from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.evaluators import Evaluator
from modgrad.autoresearch.state import Experiment, State

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
STATUSES = ("keep", "discard", "crash")

# A gain, or a drift of the holdout, of fewer standard deviations may be chance.
SIGNIFICANT = 2.0

# Terminals act on escape sequences, so they go as a whole, not only their first byte.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# Marks that reorder the text around them, so that a line reads as another one.
REORDERING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Row:
    """A line of the table of results."""

    commit: str
    val_bpb: float
    memory_gb: float
    status: str
    description: str


@dataclass(frozen=True)
class Figures:
    """The figures of a tag; None where there is nothing to say."""

    finished: int  # experiments beside the baseline
    keeps: int
    provisional: int  # of the keeps
    discards: int
    crashes: int
    skips: int  # that were not run, for they had been tried before; not experiments
    hours: float  # that experiments took, pauses between them left out
    baseline: float | None
    tip: float | None
    gain: float | None  # positive where the tip is better
    sigma: float | None  # see State.spread
    gain_in_sigma: float | None
    baseline_gap: float | None  # holdout minus val
    tip_gap: float | None
    drift: float | None  # of the gap, since the baseline
    drifted: bool  # by more than chance
    evaluator: Evaluator  # for the words

    @property
    def per_hour(self) -> float | None:
        """Experiments in an hour of work."""
        return self.finished / self.hours if self.finished and self.hours > 0 else None


def plain(text: str) -> str:
    """One line of text that is safe to print and to write: control characters and
    marks of direction become spaces, halves of surrogate pairs a replacement."""
    text = _ESCAPE.sub(" ", text)
    return "".join(map(_plain_character, text)).strip()


def count(number: int, noun: str) -> str:
    """`1 keep`, `2 keeps`; crashes and other nouns that end in `sh` take `es`."""
    ending = "" if number == 1 else "es" if noun.endswith("sh") else "s"
    return f"{number:,} {noun}{ending}"


def duration(seconds: float) -> str:
    """A time span in the two units that matter."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    if hours < 2:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def score(one: Experiment) -> float | None:
    """What an experiment may be compared by: nothing where it crashed or never ran."""
    if one.status == "crash" or one.val_bpb is None or not math.isfinite(one.val_bpb):
        return None
    return one.val_bpb


def decided(state: State) -> list[Experiment]:
    """The experiments that are over, in order."""
    return [one for one in state.experiments if one.finished is not None]


def deltas(state: State) -> dict[int, float]:
    """By number: the score less that of the tip it was compared with."""
    by_commit = {state.experiments[n].candidate: score(state.experiments[n]) for n in state.kept}
    found: dict[int, float] = {}
    for one in decided(state):
        mine, tip = score(one), by_commit.get(one.parent)
        if one.number > 0 and mine is not None and tip is not None:
            found[one.number] = mine - tip
    return found


def gap(one: Experiment | None) -> float | None:
    """How much worse an experiment is on the holdout, which no researcher ever sees."""
    mine = score(one) if one else None
    if one is None or mine is None or one.holdout_bpb is None:
        return None
    return one.holdout_bpb - mine


def figures(state: State) -> Figures:
    """The figures of a tag."""
    over = [one for one in decided(state) if one.number > 0 and one.status != "skip"]
    keeps = [state.experiments[number] for number in state.kept if number > 0]
    baseline = score(state.baseline) if state.baseline else None
    tip = score(state.tip) if state.tip else None
    sigma = state.sigma or None  # runs that are equal to the bit tell of no spread
    gain = baseline - tip if baseline is not None and tip is not None else None
    first, last = gap(state.baseline), gap(state.tip)
    drift = last - first if first is not None and last is not None else None
    return Figures(
        finished=len(over),
        keeps=len(keeps),
        provisional=sum(one.provisional for one in keeps),
        discards=sum(one.status == "discard" for one in over),
        crashes=sum(one.status == "crash" for one in over),
        skips=sum(one.status == "skip" for one in decided(state)),
        hours=sum(one.wall_seconds for one in over) / 3600,
        baseline=baseline,
        tip=tip,
        gain=gain,
        sigma=sigma,
        gain_in_sigma=gain / sigma if gain is not None and sigma else None,
        baseline_gap=first,
        tip_gap=last,
        drift=drift,
        drifted=bool(drift is not None and sigma and abs(drift) > SIGNIFICANT * sigma),
        evaluator=evaluators.of(state.settings),
    )


def drift_warning(known: Figures) -> str | None:
    """One line where val and holdout have come apart since the baseline."""
    if not known.drifted or known.drift is None or known.sigma is None:
        return None
    words = known.evaluator
    amount = f"{abs(known.drift):.6f}{words.short} ({abs(known.drift) / known.sigma:.1f}σ)"
    if known.drift > 0:
        return (
            f"the holdout has gained {amount} less than val since the baseline: part of the "
            f"gain may be fitted to {words.fitted_to}"
        )
    return f"the holdout has gained {amount} more than val since the baseline: look into why"


def table(state: State) -> str:
    """The tab-separated table: a header, and a row for each experiment that was run."""
    lines = ["\t".join(COLUMNS)]
    for one in decided(state):
        if one.status not in STATUSES:
            continue
        mine = score(one)
        lines.append(
            "\t".join(
                (
                    (one.candidate or one.base)[:7],
                    f"{0.0 if mine is None else mine:.6f}",
                    f"{one.memory_gb:.1f}",
                    one.status,
                    _cell(one.hypothesis),
                )
            )
        )
    return "\n".join(lines) + "\n"


def parse(text: str) -> list[Row]:
    """The rows of a table, or a `UsageError` that names the line."""
    header, *lines = text.removesuffix("\n").split("\n")
    if tuple(header.split("\t")) != COLUMNS:
        raise UsageError(f"line 1: expected the header {' '.join(COLUMNS)}")
    rows: list[Row] = []
    for number, line in enumerate(lines, start=2):
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            raise UsageError(f"line {number}: expected {len(COLUMNS)} columns, found {len(cells)}")
        commit, val_bpb, memory_gb, status, description = cells
        if status not in STATUSES or not re.fullmatch(r"[0-9a-f]{7}", commit):
            raise UsageError(f"line {number}: `{commit}` `{status}` is no commit and status")
        try:
            rows.append(Row(commit, float(val_bpb), float(memory_gb), status, description))
        except ValueError as error:
            raise UsageError(f"line {number}: {error}") from None
    return rows


def spread(scores: list[float]) -> tuple[float, float | None]:
    """(mean, standard deviation); the latter None for a single score."""
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None


def p_value(left: list[float], right: list[float]) -> float | None:
    """Welch's two-sided test of equal means; None with fewer than two scores a side."""
    if min(len(left), len(right)) < 2:
        return None
    errors = [statistics.variance(scores) / len(scores) for scores in (left, right)]
    squared_error = sum(errors)
    difference = statistics.fmean(left) - statistics.fmean(right)
    if squared_error == 0:
        return 1.0 if difference == 0 else 0.0
    freedom = squared_error**2 / sum(
        error**2 / (len(scores) - 1) for error, scores in zip(errors, (left, right), strict=True)
    )
    t_squared = difference**2 / squared_error
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t_squared))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction
    (Abramowitz and Stegun, 26.5.8)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - _incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x)) / a
    numerator, denominator = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = denominator
    for m in range(1, 200):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            denominator = 1 / (1 + term * denominator)
            numerator = 1 + term / numerator
            value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-12:
            break
    return front * value


def _plain_character(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp") or character in REORDERING:
        return " "
    return "\ufffd" if category == "Cs" else character


def _cell(hypothesis: str) -> str:
    """A description that is one cell to any reader: a quotation mark that opens a
    cell would make readers of quoted tables look for its end in later rows."""
    text = plain(hypothesis)
    return "'" + text[1:] if text.startswith('"') else text
