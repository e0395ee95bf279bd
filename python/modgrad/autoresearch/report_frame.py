"""What a picture of a tag shows, whoever draws it: its scale, its title."""

from __future__ import annotations

from dataclasses import dataclass

from modgrad.autoresearch import results
from modgrad.autoresearch.results import count, plain, score
from modgrad.autoresearch.state import State


@dataclass(frozen=True)
class Frame:
    """What is in view."""

    low: float
    high: float
    # Added to val to draw the holdout of the baseline on its val: then the two lines
    # part where the gap drifts. None where the holdout was never scored.
    shift: float | None


def frame(state: State) -> Frame:
    """All keeps with their band of noise, and as much of the rest as leaves the
    staircase readable."""
    keeps = [state.experiments[number] for number in state.kept]
    shift = next((gap for gap in map(results.gap, keeps) if gap is not None), None)
    scores = [found for found in map(score, keeps) if found is not None]
    if shift is not None:
        scores += [one.holdout_bpb - shift for one in keeps if one.holdout_bpb is not None]
    others = sorted(
        found
        for one in results.decided(state)
        if one.status == "discard" and (found := score(one)) is not None
    )
    if not scores:
        return Frame(0.0, 1.0, None) if not others else Frame(others[0], others[-1] + 1e-6, None)
    sigma = state.sigma or 0.0
    low, high = min(scores) - 2 * sigma, max(scores) + 2 * sigma
    if others:
        span = max(high - low, 6 * sigma, 2 * abs(others[len(others) // 2] - scores[-1]), 1e-5)
        most = high + span / 2
        usual = others[-1] if others[-1] <= most else others[int(len(others) * 0.95)]
        high = max(high, min(usual, most))
        low = min(low, others[0])
    margin = max((high - low) * 0.06, 1e-6)
    return Frame(low - 2 * margin, high + margin, shift)


def summary(state: State) -> tuple[str, str]:
    """A title and a line of figures below it."""
    known, settings = results.figures(state), state.settings
    title = "no setup"
    if settings is not None:
        title = f"{plain(settings.tag)} · {settings.task} · {settings.budget:g} s an experiment"
    keeps = count(known.keeps, "keep")
    if known.provisional:
        keeps += f" ({known.provisional:,} provisional)"
    line = (
        f"{count(known.finished, 'experiment')}: {keeps}, {count(known.discards, 'discard')}, "
        f"{count(known.crashes, 'crash')}"
    )
    if known.gain is not None:
        if not known.gain:
            line += f"   ·   {known.tip:.6f} {known.evaluator.unit}"
        else:
            line += f"   ·   {known.baseline:.6f} → {known.tip:.6f} {known.evaluator.unit}"
            times = "" if known.gain_in_sigma is None else f", {known.gain_in_sigma:.1f}σ"
            line += f"  (−{known.gain:.6f}{times})"
    return title, line
