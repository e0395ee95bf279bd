"""report.html: one file that holds all of a tag and opens without a network.

`report.html` and `report.js` beside this file are its template and its script. The
page's policy names the script by its hash and allows nothing else to run, so text
that slipped through as markup would still be harmless.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from modgrad.autoresearch import evaluators, results
from modgrad.autoresearch.report_data import Details, blocks
from modgrad.autoresearch.report_frame import frame
from modgrad.autoresearch.results import Figures, duration, plain, score
from modgrad.autoresearch.state import State

# A difference of the re-measured means with a smaller chance of being luck is called real.
_CHANCE = 0.01
_STOPS = 5  # reasons of stops that are shown


def pieces(state: State, details: Callable[[int], Details], now: float) -> Iterator[bytes]:
    """The page, piece by piece: with all its details it can be large."""
    folder = Path(__file__).parent
    script = (folder / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    known = results.figures(state)
    name = plain(state.settings.tag) if state.settings else "no setup"
    texts = {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "title": html.escape(f"{name} · modgrad report"),
        "headline": "".join(_headline(state, known, now)),
        "holdout_legend": _holdout_legend(state),
        "sections": "".join([*_kept(state, known), *_remeasured(state)]),
        "script": script,
    }
    template = (folder / "report.html").read_text(encoding="utf-8")
    for index, part in enumerate(re.split(r"\{\{(\w+)\}\}", template)):
        if index % 2 == 0:
            yield part.encode()
        elif part == "blocks":
            for block in blocks(state, details):
                yield f'<script type="application/gzip+base64" id="{block.name}">'.encode()
                yield block.packed + b"</script>\n"
        else:
            yield texts[part].encode()


def _text(value: str) -> str:
    """Text of others as markup that shows it."""
    return html.escape(plain(value))


def _headline(state: State, known: Figures, now: float) -> Iterator[str]:
    settings, words = state.settings, known.evaluator
    if settings is None:
        yield "<h1>No setup</h1>"
        return
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    yield f"<h1>{_text(settings.tag)} · {_text(settings.task)}</h1>"
    yield f'<p class="faint">{settings.budget:g} s of training an experiment · '
    yield f"{_text(settings.machine)} · as of {at}</p>"
    if known.baseline is not None and known.tip is not None and known.gain is not None:
        yield f'<p class="score">{known.baseline:.6f} → <span class="to">{known.tip:.6f}</span></p>'
        times = f", {known.gain_in_sigma:.1f}σ" if known.gain_in_sigma is not None else ""
        gain = f"gained {known.gain:.6f}{times}" if known.gain else "nothing better than it yet"
        yield f"<p>{words.title} (lower is better), from the baseline to the tip: {gain}</p>"
    rate = f" · {known.per_hour:.1f} an hour" if known.per_hour is not None else ""
    cards = [
        ("experiments", f"{known.finished:,}{rate}"),
        ("keeps", f"{known.keeps:,} ({known.provisional:,} provisional)"),
        ("discards", f"{known.discards:,}"),
        ("crashes", f"{known.crashes:,}"),
        ("time", duration(known.hours * 3600)),
        ("cost", f"${state.cost:,.2f}"),
        (
            "σ, seed to seed" if settings.mazes is None else "σ, of seeds or of mazes",
            "not measured" if known.sigma is None else f"{known.sigma:.6f}",
        ),
    ]
    if settings.mazes is None:
        cards.append(("val in the training data", f"{settings.overlap:.2%} of 32-grams"))
    else:
        cards.append(("mazes", evaluators.described(settings.mazes)))
    if known.skips:
        cards.insert(4, ("skipped as tried before", f"{known.skips:,}"))
    yield '<dl class="cards">'
    yield from (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cards)
    yield "</dl>"
    warnings = [results.drift_warning(known)]
    warnings.append(f"the loop is paused: {state.paused}" if state.paused else None)
    if state.fallback:
        warnings.append(f"the built-in search took over from the researcher: {state.fallback}")
    yield from (f'<p class="warning">{_text(line)}</p>' for line in warnings if line)
    for when, reason in reversed(state.stops[-_STOPS:]):
        at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))
        yield f'<p class="faint">Stopped {at}: {_text(reason)}</p>'


def _holdout_legend(state: State) -> str:
    shift = frame(state).shift
    if shift is None:
        return ""
    way = "lower" if shift > 0 else "higher"
    text = f"holdout of keeps, drawn {abs(shift):.6f} {way} so that it starts on val"
    return f'<span><b class="holdout">╌</b>{text}</span>'


def _kept(state: State, known: Figures) -> Iterator[str]:
    yield "<h2>Kept</h2>"
    two_sigma = "" if known.sigma is None else f" ({2 * known.sigma:.6f})"
    yield (
        "<p>The rule keeps whatever is strictly lower than the tip. A keep is marked "
        f"<strong>provisional</strong> where it gained less than 2σ{two_sigma}: another seed alone "
        "can do as much, so it is not known to be better.</p>"
    )
    if known.baseline_gap is None:
        yield "<p>The holdout was not scored.</p>"
    else:
        yield (
            f"<p>{known.evaluator.holdout} that no researcher sees, scored for keeps only. Its "
            "gap to val should stay what it was for the baseline; where it grows, gains are "
            f"fitted to {known.evaluator.fitted_to}.</p>"
        )
    titles = ("n", "val_bpb", "to the tip", "holdout", "gap", "drift", "")
    yield '<div class="kept" tabindex="0"><table><thead><tr>'
    yield "".join(f'<th class="number">{title}</th>' for title in titles[:-1])
    yield "<th>mark</th><th>hypothesis</th></tr></thead><tbody>"
    deltas = results.deltas(state)
    for number in reversed(state.kept):
        one = state.experiments[number]
        gap = results.gap(one)
        drift = None if gap is None or known.baseline_gap is None else gap - known.baseline_gap
        cells = (
            f'<a href="#{number}">{number}</a>',
            _number(score(one)),
            _number(deltas.get(number), signed=True),
            _number(one.holdout_bpb),
            _number(gap, signed=True),
            _number(drift, signed=True),
        )
        yield "<tr>" + "".join(f'<td class="number">{cell}</td>' for cell in cells)
        yield f"<td>{'provisional' if one.provisional else ''}</td>"
        yield f'<td class="text">{_text(one.hypothesis)}</td></tr>'
    yield "</tbody></table></div>"


def _remeasured(state: State) -> Iterator[str]:
    """The tip's score is the best of many tries, so luck is part of it; fresh seeds
    are not chosen by their score."""
    yield "<h2>Measured again</h2>"
    tip, baseline = state.tip, state.baseline
    if tip is None or baseline is None:
        yield "<p>Nothing is measured yet.</p>"
        return
    if not state.remeasured:
        yield (
            "<p>The tip's recorded score is the best of many tries, so luck is part of it. It "
            "has not been measured again on fresh seeds.</p>"
        )
        return
    yield '<div class="scroll"><table><thead><tr><th>commit</th><th class="number">recorded</th>'
    yield '<th class="number">mean of fresh seeds</th><th class="number">spread</th>'
    yield "<th>seeds</th></tr></thead><tbody>"
    by_commit = {state.experiments[n].candidate: state.experiments[n] for n in state.kept}
    for commit, runs in state.remeasured.items():
        one = by_commit.get(commit)
        name = "tip" if one is tip else "baseline" if one is baseline else ""
        scores = _scores(state, commit)
        mean, spread = results.spread(scores) if scores else (None, None)
        seeds = ", ".join(
            f"{run.seed}: {f'crash ({run.crash})' if run.crash else _number(run.val_bpb)}"
            for run in runs
            if run.finished
        )
        yield f"<tr><td>{html.escape(commit[:7])} {name}</td>"
        cells = (score(one) if one else None, mean, spread)
        yield "".join(f'<td class="number">{_number(cell)}</td>' for cell in cells)
        yield f"<td>{_text(seeds)}</td></tr>"
    yield f"</tbody></table></div><p>{_comparison(state)}</p>"


def _comparison(state: State) -> str:
    """Whether the tip is better than the baseline, on fresh seeds alone."""
    tip, baseline = state.tip, state.baseline
    if tip is None or baseline is None or tip is baseline:
        return "The tip is the baseline."
    new, old = _scores(state, tip.candidate), _scores(state, baseline.candidate)
    chance = results.p_value(new, old)
    if chance is None:
        return "Two fresh seeds of the tip and of the baseline are needed to compare them."
    gain = results.spread(old)[0] - results.spread(new)[0]
    unit = evaluators.of(state.settings).unit
    text = (
        f"On fresh seeds the tip is {abs(gain):.6f} {unit} "
        f"{'lower' if gain > 0 else 'higher'} than the baseline (Welch's two-sided test, "
        f"p {'&lt; 0.0001' if chance < 0.0001 else f'= {chance:.4f}'}): "
    )
    if chance >= _CHANCE:
        return text + "<strong>this may be chance</strong>."
    verdict = "a significant gain" if gain > 0 else "significantly worse"
    return text + f"<strong>{verdict}</strong> (p &lt; {_CHANCE})."


def _scores(state: State, commit: str | None) -> list[float]:
    runs = state.remeasured.get(commit or "", [])
    return [run.val_bpb for run in runs if run.val_bpb is not None and run.crash is None]


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    return (f"{value:+.6f}" if signed else f"{value:.6f}").replace("-", "−")
