"""What `status` prints: snapshots of it, and the phase of an experiment."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from modgrad.autoresearch import status
from modgrad.autoresearch.state import State
from rich.console import Console

from tests.loop_records import SIGMA, History, Record, commit, records


def history() -> History:
    """A baseline, two keeps, a discard and a crash, with a holdout near val."""
    made = History()
    made.begin()
    for outcome, delta in (
        ("keep", -0.02),
        ("discard", 0.003),
        ("crash", 0.0),
        ("keep", -SIGMA / 2),
    ):
        made.experiment(outcome, delta)
    for record in made.records:
        if record["kind"] == "decided" and record["status"] == "keep":
            record["holdout_bpb"] = record["val_bpb"] + 0.05
    return made


def lines(of: list[Record], after: float = 0.0, *, running: bool = True) -> list[str]:
    """The status that many seconds after the last record."""
    state = State.replay(of)
    return status.as_lines(state, state.last_time + after, running=running)


def terminal(state: State, *, width: int = 100) -> str:
    """What a terminal shows, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    console.print(status.render(state, state.last_time + 150, running=True))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def training(made: History) -> History:
    """The same, with the next experiment in its training."""
    made.plan()
    made.propose(commit("next"), "use RMS norms", family="architecture", cost=0.05)
    made.add("checked", n=made.number)
    made.add("rehearsed", n=made.number)
    key = {"role": "main", "commit": commit("next"), "seed": 0}
    made.add("train_started", n=made.number, **key, pid=1)
    return made


def test_lines_while_training() -> None:
    assert lines(training(history()).records, 75) == EXPECTED_TRAINING.splitlines()


EXPECTED_TRAINING = """\
test · language · 300 s of training · 2 cores, AVX-512, 8 GB

now         experiment 5 · training · 75 of 300 s [##########..............................]
            use RMS norms
best        1.678500 bpb · experiment 4
            0.021500 below the baseline's 1.700000 (11.6σ)
            σ 0.001854
holdout     1.728500 bpb · +0.050000 to val
experiments 4 in 15 min · 15.1 an hour
            2 keeps (1 provisional: gained under 2σ) · 1 discard · 1 crash
last keep   80 s ago · 0 experiments since
researcher  search
cost        $0.25
sandbox     off

     n  commit     val_bpb     to tip  status       hypothesis
     4  33fea0a   1.678500  -0.001500  provisional  begin the cooldown at half of the budget
     3  a187ade          –          –  crash        drop table slots less often: 0.25 → 0.15
     2  2549231   1.683000  +0.003000  discard      halve the batch and double the updates
     1  390863c   1.680000  -0.020000  keep         fold the two table look-ups into one pass
     0  66512b6   1.700000          –  keep         the code as it was at setup
"""


def test_terminal_while_training() -> None:
    assert terminal(State.replay(training(history()).records)) == EXPECTED_TERMINAL.rstrip("\n")


EXPECTED_TERMINAL = """\
test · language · 300 s of training · 2 cores, AVX-512, 8 GB

now          experiment 5 · training · 150 of 300 s
             ━━━━━━━━━━━━━━━━━━━━
             use RMS norms
best         1.678500 bpb · experiment 4
             0.021500 below the baseline's 1.700000 (11.6σ)
             σ 0.001854
holdout      1.728500 bpb · +0.050000 to val
experiments  4 in 15 min · 15.1 an hour
             2 keeps (1 provisional: gained under 2σ) · 1 discard · 1 crash
last keep    2 min ago · 0 experiments since
researcher   search
cost         $0.25
sandbox      off

n  commit    val_bpb     to tip  status       hypothesis
4  33fea0a  1.678500  -0.001500  provisional  begin the cooldown at half of the budget
3  a187ade         –          –  crash        drop table slots less often: 0.25 → 0.15
2  2549231  1.683000  +0.003000  discard      halve the batch and double the updates
1  390863c  1.680000  -0.020000  keep         fold the two table look-ups into one pass
0  66512b6  1.700000          –  keep         the code as it was at setup
"""


def test_lines_of_a_loop_that_stopped() -> None:
    made = history()
    made.add("stopped", reason="4 experiments done (--experiments 4)")
    assert lines(made.records, 7300, running=False)[2] == (
        "now         stopped 2 h 01 min ago: 4 experiments done (--experiments 4)"
    )
    cut_short = training(history())
    assert lines(cut_short.records, running=False)[2:4] == [
        "now         not running",
        "            experiment 5 ended while training; it goes on with the loop",
    ]


def test_what_went_wrong_is_shown() -> None:
    made = history()
    for _ in range(3):
        made.add("researcher_failed", reason="no answer", cost=0.5)
    made.add("paused", reason="the disk is full")
    shown = lines(made.records)
    assert "failures    3 of the researcher in a row" in shown
    assert "paused      the disk is full" in shown
    assert "cost        $1.70" in shown
    made.add("fallback", reason="no answer 5 times")
    assert "fallback    the built-in search took over: no answer 5 times" in lines(made.records)


def test_a_drift_of_the_holdout_is_shown() -> None:
    made = history()
    made.records[-3]["holdout_bpb"] += 0.02
    (warning,) = [line for line in lines(made.records) if line.startswith("warning")]
    assert "the holdout has gained 0.020000 bpb" in warning


def test_before_anything_is_measured() -> None:
    assert lines(records(0)[:1]) == [
        "test · language · 300 s of training · 2 cores, AVX-512, 8 GB",
        "",
        "now         between two experiments",
        "best        nothing is measured yet",
        "sandbox     off",
    ]
    empty = status.as_lines(State(), 0.0, running=False)
    assert empty[0] == "setup has not finished"


def test_the_baseline_is_measured_several_times() -> None:
    second = [i for i, one in enumerate(records(0)) if one["kind"] == "train_started"][1]
    shown = lines(records(0)[: second + 1], 30)
    assert shown[2].startswith("now         baseline, run 2 of 3 · training · 30 of 300 s [####.")


def test_every_phase_is_read_from_the_records() -> None:
    made = history()
    before = len(made.records)
    made.experiment("keep")
    found = {}
    for end in range(before + 1, len(made.records)):
        current = State.replay(made.records[:end]).current
        assert current is not None
        found[made.records[end - 1]["kind"]] = status.phase(current)
    assert found == {
        "planned": "proposing",
        "proposed": "checking",
        "checked": "rehearsing",
        "rehearsed": "training",
        "train_started": "training",
        "train_done": "evaluating",
        "eval_done": "deciding",
        "decided": "recording",
        "applied": "recording",
    }


def test_confirming_names_what_is_run() -> None:
    made = training(history())
    made.records.pop()
    made.measure("main", commit("next"), 0, 1.6)
    made.measure("confirm", commit("next"), 11, 1.61)
    made.add("train_started", n=made.number, role="tip", commit=made.tip, seed=11, pid=1)
    shown = lines(made.records, 290)
    assert shown[2].startswith(
        "now         experiment 5 · confirming (the tip, seed 11) · 290 of 300 s"
    )


def test_a_repaired_candidate_is_checked_again() -> None:
    made = training(history())
    key = {"n": made.number, "role": "main", "commit": commit("next"), "seed": 0}
    crashed: Record = {"crash": "shape", "reason": "x", "curve": [], "checkpoint_sha256": None}
    seconds = {"wall_seconds": 1.0, "build_seconds": 0.0, "peak_rss_mb": 1.0}
    made.add("train_done", **key, **crashed, **seconds)
    made.propose(commit("mended"), "use RMS norms", family="", cost=0.0)
    made.records[-1]["repair"] = True
    current = State.replay(made.records).current
    assert current is not None and status.phase(current) == "checking"
    assert "            use RMS norms (repaired)" in lines(made.records)


def test_a_candidate_that_was_tried_before_is_skipped() -> None:
    made = history()
    made.plan()
    made.propose(commit("candidate", 2), "once more", family="", cost=0.0)
    made.decide("skip", None, reason="the same as experiment 2")
    shown = lines(made.records)
    assert any(line.endswith("1 crash · 1 skipped as tried before") for line in shown)
    assert "experiments 4 in 15 min · 15.1 an hour" in shown
    assert "     5  2549231          –          –  skip         once more" in shown


def test_a_commit_that_is_measured_again() -> None:
    made = history()
    made.add("train_started", n=0, role="remeasure", commit=made.tip, seed=50, pid=1)
    assert f"measuring {made.tip[:7]} again · 12 of 300 s" in lines(made.records, 12)[2]


def test_hostile_text_is_shown_as_text() -> None:
    made = training(history())
    for record in made.records:
        if record["kind"] == "proposed":
            record["hypothesis"] = "[red]x[/red]\x1b[2J\n\0\ud800 [/] [link=file:///]y"
    shown = terminal(State.replay(made.records))
    assert "[red]x[/red]" in shown and "\x1b" not in shown and "\0" not in shown
    shown.encode()
    assert len(shown.splitlines()) == len(EXPECTED_TERMINAL.splitlines())
    "".join(lines(made.records)).encode()


@pytest.mark.parametrize("width", [20, 40, 200])
def test_any_width_of_terminal_will_do(width: int) -> None:
    shown = terminal(State.replay(training(history()).records), width=width)
    assert max(map(len, shown.splitlines())) <= width


def test_live_shows_until_interrupted() -> None:
    made = training(history())
    states: Iterator[State] = iter([State.replay(made.records[:end]) for end in (-2, -1)])
    naps: list[float] = []

    def read() -> tuple[State, bool]:
        state = next(states, None)
        if state is None:
            raise KeyboardInterrupt
        return state, True

    console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=True)
    status.live(read, console=console, clock=lambda: made.time, sleep=naps.append)
    assert naps == [status.REFRESH_SECONDS] * 2
    assert isinstance(console.file, io.StringIO)
    assert "experiment 5 · rehearsing" in console.file.getvalue()
