"""The table of results, and the figures that the views share."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from modgrad.autoresearch import results
from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.state import State

from tests.loop_records import BASELINE_BPB, History, records


def state_with(hypothesis: str) -> State:
    """Two keeps, the first with that hypothesis."""
    history = History()
    history.begin()
    history.experiment("keep")
    next(one for one in reversed(history.records) if one["kind"] == "proposed")["hypothesis"] = (
        hypothesis
    )
    history.experiment("keep")
    return State.replay(history.records)


def with_holdout(gaps: list[float]) -> State:
    """A baseline and keeps, each with that much between holdout and val."""
    history = History()
    history.begin()
    for _ in gaps[1:]:
        history.experiment("keep")
    left = iter(gaps)
    for record in history.records:
        if record["kind"] == "decided":
            record["holdout_bpb"] = record["val_bpb"] + next(left)
    return State.replay(history.records)


def test_the_table_is_a_header_and_a_row_for_each_experiment_that_is_over() -> None:
    state = State.replay(records(60)[:-1])  # the last is not logged yet
    lines = results.table(state).splitlines()
    assert lines[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert len(lines) == 1 + 60
    assert lines[1] == "66512b6\t1.700000\t1.3\tkeep\tthe code as it was at setup"
    for row, one in zip(results.parse(results.table(state)), state.experiments, strict=False):
        assert one.candidate is not None
        assert row.commit == one.candidate[:7]
        assert (row.status, row.description) == (one.status, one.hypothesis)
        assert row.val_bpb == (one.val_bpb or 0.0)


def test_a_crash_has_a_zero_in_the_table_and_is_compared_with_nothing() -> None:
    history = History()
    history.begin()
    history.experiment("crash")
    # Were a crash ever journalled with a score, it would still be none.
    history.records[-3]["val_bpb"] = 0.0
    state = State.replay(history.records)
    assert results.table(state).splitlines()[-1].split("\t")[1:4] == ["0.000000", "1.3", "crash"]
    assert results.score(state.experiments[-1]) is None
    assert results.deltas(state) == {}
    assert results.figures(state).tip == BASELINE_BPB


def test_a_candidate_that_was_not_run_has_no_row() -> None:
    history = History()
    history.begin()
    history.plan()
    history.propose("0" * 40, "once more", family="", cost=0.0)
    history.decide("skip", None, reason="the same as experiment 0")
    state = State.replay(history.records)
    assert len(results.parse(results.table(state))) == 1
    known = results.figures(state)
    assert (known.finished, known.skips, known.crashes) == (0, 1, 0)


@given(st.text(st.characters(codec=None), max_size=60))
@example('"opens a quotation')
@example("a\tb\nc\rd\x0be\x0cf\x1cg\x85h\u2028i\u2029j\0k\ud800l")
@example("\x1b[31mred\x1b[0m \x1b]0;title\x07")
@settings(max_examples=100, deadline=None)
def test_any_hypothesis_gives_exactly_five_columns(hypothesis: str) -> None:
    text = results.table(state_with(hypothesis))
    text.encode()  # no halves of surrogate pairs
    lines = text.splitlines()
    assert len(lines) == 4
    assert all(line.count("\t") == 4 for line in lines)
    assert [len(row) for row in csv.reader(io.StringIO(text), delimiter="\t")] == [5] * 4
    assert len(results.parse(text)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("commit\tval_bpb\n", "line 1"),
        ("{header}\nabcdef1\t1.0\t1.0\tkeep\n", "line 2: expected 5 columns, found 4"),
        ("{header}\nabcdef1\t1.0\t1.0\tkept\tx\n", "line 2: `abcdef1` `kept`"),
        ("{header}\nabcdef1\tone\t1.0\tkeep\tx\n", "line 2: could not convert"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        results.parse(text.replace("{header}", "\t".join(results.COLUMNS)))


def test_plain_text_is_one_line_without_commands_to_a_terminal() -> None:
    assert results.plain(" a\x1b[2Jb\x1b]0;x\x07c\td\n") == "a b c d"
    assert results.plain("\u202eabc\ud800") == "abc\ufffd"
    assert results.plain("σ 640 → 704 [red]") == "σ 640 → 704 [red]"


def test_deltas_are_to_the_tip_of_that_time() -> None:
    history = History()
    history.begin()
    for outcome, delta in (("keep", -0.01), ("discard", 0.002), ("crash", 0.0), ("keep", -0.02)):
        history.experiment(outcome, delta)
    found = results.deltas(State.replay(history.records))
    assert {n: round(delta, 6) for n, delta in found.items()} == {1: -0.01, 2: 0.002, 4: -0.02}


def test_figures_count_what_followed_the_baseline() -> None:
    known = results.figures(State.replay(records(200)))
    assert known.finished == 200 == known.keeps + known.discards + known.crashes
    assert 0 < known.provisional < known.keeps
    assert known.gain is not None and known.sigma is not None
    assert known.gain_in_sigma == pytest.approx(known.gain / known.sigma)
    assert known.per_hour == pytest.approx(200 / known.hours)


def test_figures_of_nothing_are_none() -> None:
    for state in (State(), State.replay(records(0)[:1]), State.replay(records(0)[:5])):
        known = results.figures(state)
        assert (known.baseline, known.tip, known.gain, known.drift) == (None,) * 4
        assert known.per_hour is None and not known.drifted


@pytest.mark.parametrize(
    ("gaps", "warning"),
    [
        ([0.05, 0.05], None),
        ([0.05, 0.052], None),  # σ is 0.00185
        ([0.05, 0.2, 0.05], None),  # only where the tip stands counts
        ([0.05, 0.06], "gained 0.010000 bpb .5.4σ. less than val"),
        ([0.05, 0.03], "gained 0.020000 bpb .10.8σ. more than val"),
    ],
)
def test_a_drift_of_the_holdout_beyond_two_sigma_is_warned_of(
    gaps: list[float], warning: str | None
) -> None:
    found = results.drift_warning(results.figures(with_holdout(gaps)))
    if warning is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(warning, found)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        # scipy.stats.ttest_ind(left, right, equal_var=False).pvalue
        ([1, 2, 3, 4, 5], [2, 4, 6, 8, 11], 0.11499016),
        ([1.0, 1.0], [1.0, 1.0], 1.0),
        ([1.0, 1.0], [2.0, 2.0], 0.0),
        ([1.0], [2.0, 2.1], None),
    ],
)
def test_the_comparison_of_two_samples(
    left: list[float], right: list[float], expected: Any
) -> None:
    found = results.p_value(left, right)
    assert found == (expected if expected is None else pytest.approx(expected, abs=1e-8))
    assert results.p_value(right, left) == found


def test_durations_have_the_units_that_matter() -> None:
    times = [-3, 0, 119, 120, 7199, 7200, 11_000, 172_800, 180_000 * 3]
    assert [results.duration(one) for one in times] == [
        *("0 s", "0 s", "119 s", "2 min", "119 min", "2 h 00 min", "3 h 03 min"),
        *("2 d 0 h", "6 d 6 h"),
    ]
