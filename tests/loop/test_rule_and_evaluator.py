"""The rule, the evaluator and its machine, journal and views."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from modgrad.autoresearch import judge as judge_process
from modgrad.autoresearch import sandbox, scoring
from modgrad.autoresearch.errors import EnvironmentFault, JournalError
from modgrad.autoresearch.lab import Lab, Options
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.processes import Finished
from modgrad.autoresearch.scoring import Score

from tests.loop.tools import Scripted, records, run, sound, told
from tests.loop_world import Recipes, git, make_repository, open_world, read_score, research, set_up


def test_equal_with_less_code_is_kept_where_that_is_asked_for(world: Path) -> None:
    longer, shorter = "a = 1\nb = 2\nscore = 1.9\n", "score = 1.9\n"
    lab = research(world, Recipes([longer, shorter]), 2)
    assert [status for _, status, _ in told(lab)] == ["keep", "discard"]
    lab = research(world, Recipes(["", "", "a = 1\nscore = 1.9\n"]), 3, accept_simpler=True)
    assert told(lab)[-1] == (3, "keep", None)
    sound(world, lab)


def test_a_jump_that_does_not_hold_is_discarded(world: Path) -> None:
    scores = iter([1.0, 1.9, 1.9])

    def prepare(lab: Lab) -> None:
        lab.evaluate = lambda *_, **__: Score(next(scores), "", 0.0)

    lab, _ = run(world, Scripted("score = 1\n"), prepare=prepare, experiments=1)
    assert told(lab) == [(1, "discard", None)]
    assert "a jump that did not hold" in lab.state.experiments[1].reason


def test_a_jump_that_holds_is_kept(world: Path) -> None:
    calls: list[str] = []

    def prepare(lab: Lab) -> None:
        def evaluate(layout: Any, settings: Any, path: Path, data: Any, **_: Any) -> Score:
            calls.append(data.name)
            return read_score(layout, settings, path, data)

        lab.evaluate = evaluate

    lab, _ = run(world, Scripted("score = 1\n"), prepare=prepare, experiments=1)
    assert told(lab) == [(1, "keep", None)]
    assert calls == ["val.txt", "val.txt", "val.txt", "holdout.txt"]


def test_a_scout_stops_what_is_hopeless(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    curve = 'run = sleep 0.7; echo "step 2  loss 2.0 bits"; sleep 0.5\n'
    (world / "recipe.py").write_text(f"{curve}score = 2.0\n")
    git(world, "commit", "--quiet", "--all", "--message", "slower")
    set_up(world, baseline_runs=3, budget=30.0)
    bad = 'run = echo "step 2  loss 9.0 bits"; sleep 25\nscore = 1\n'
    good = 'run = echo "step 2  loss 1.0 bits"; sleep 0.7\nscore = 1.9\n'
    start = time.monotonic()
    lab, _ = run(world, Scripted(bad, good), options=Options(scout=0.4), experiments=2)
    assert time.monotonic() - start < 10
    assert [status for _, status, _ in told(lab)] == ["discard", "keep"]
    assert "its loss lay above the tip's" in lab.state.experiments[1].reason
    sound(world, lab)


# The evaluator and the machine


class Judge:
    """The evaluator's process is played; `scoring.score` itself is the real one."""

    def __init__(self, *ends: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends = list(ends)
        self.started = 0
        start = sandbox.start_trainer

        def played(command: list[str], *, log: Path, **given: Any) -> Finished:
            if "modgrad.autoresearch.judge" not in command:
                return start(command, log=log, **given)
            self.started += 1
            code = self.ends.pop(0) if self.ends else 0
            log.write_text('{"val_bpb": 1.5}\n' if code == 0 else "")
            if code == -100:  # it worked, and its log could not be written
                return Finished(0, 0.1, 10.0, log_error="[Errno 27] File too large")
            return Finished(code, 0.1, 10.0, out_of_memory=code == -99)

        monkeypatch.setattr(sandbox, "start_trainer", played)

    def prepare(self, lab: Lab) -> None:
        lab.evaluate = scoring.score


def test_an_evaluator_that_is_killed_once_is_started_again(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F3."""
    judge = Judge(-9, monkeypatch=monkeypatch)
    lab, _ = run(world, Scripted("score = 1\n"), prepare=judge.prepare, experiments=1)
    assert lab.state.experiments[1].val_bpb == 1.5
    assert records(world, "paused") == []


def test_an_evaluator_that_is_killed_twice_pauses_the_loop(
    world: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    # The tip, scored again to tell what is to blame, is not scored either.
    judge = Judge(*([-9] * 8), monkeypatch=monkeypatch)
    lab, reason = run(world, Scripted("score = 1\n"), prepare=judge.prepare, experiments=1)
    assert told(lab) == [(1, "keep", None)]
    assert reason == "1 experiments were asked for"
    paused = [record["reason"] for record in records(world, "paused")]
    assert paused == ["the evaluator failed: ended with -9"] * 2
    assert waits == [5.0, 10.0]
    assert len([r for r in records(world, "train_started") if r["n"] == 1]) == 1  # not again


def test_what_kills_the_evaluator_alone_is_refused(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(-6, -6, 0, monkeypatch=monkeypatch)
    lab, _ = run(world, Scripted("score = 1\n"), prepare=judge.prepare, experiments=1)
    assert told(lab) == [(1, "crash", "refused")]
    assert "only this checkpoint is not scored" in lab.state.experiments[1].reason
    assert judge.started == 3
    sound(world, lab)


def test_what_breaks_compiled_code_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class PanicException(BaseException):
        """As PyO3 raises it."""

    def breaks(*_: Any) -> Any:
        raise PanicException("index out of bounds")

    data = tmp_path / "data"
    data.write_bytes(b"text")
    monkeypatch.setitem(judge_process.SCORES, "language", breaks)
    digest = hashlib.sha256(b"text").hexdigest()
    monkeypatch.setattr(sys, "argv", ["judge", "x.ckpt", str(data), "--sha256", digest])
    assert judge_process.main() == 0
    assert "index out of bounds" in json.loads(capsys.readouterr().out)["refused"]


def test_an_evaluator_whose_log_is_lost_is_started_again(
    world: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    judge = Judge(-100, -100, monkeypatch=monkeypatch)
    lab, _ = run(world, Scripted("score = 1\n"), prepare=judge.prepare, experiments=1)
    assert told(lab) == [(1, "keep", None)]
    [paused] = records(world, "paused")
    assert "File too large" in paused["reason"]


def test_an_evaluator_that_never_works_ends_the_loop(
    world: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    judge = Judge(*([-9] * 100), monkeypatch=monkeypatch)
    lab, reason = run(world, Scripted("score = 1\n"), prepare=judge.prepare, experiments=1)
    assert reason.startswith("the machine failed 20 times in a row")
    assert told(lab) == [(1, None, None)]
    assert max(waits) == 300.0


def test_a_checkpoint_that_is_too_much_for_the_evaluator_is_refused(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(-99, monkeypatch=monkeypatch)
    lab, _ = run(world, Scripted("score = 1\n"), prepare=judge.prepare, experiments=1)
    assert told(lab) == [(1, "crash", "refused")]
    assert "more memory" in lab.state.experiments[1].reason


def test_a_changed_trusted_copy_scores_nothing(world: Path) -> None:
    lab = open_world(world)
    (lab.layout.trusted / "modgrad" / "run.py").write_text("")
    with pytest.raises(EnvironmentFault, match="missing or was changed"):
        scoring.score(lab.layout, lab.settings, Path("x"), lab.settings.val, marker="m")


def test_changed_data_is_noticed(world: Path, invoke: Callable[..., Result]) -> None:
    data = world / ".git" / "modgrad" / "t" / "data" / "val.txt"
    data.write_bytes(data.read_bytes() + b"x")
    ended = invoke(world, "loop", "--experiments", "1", researcher=Scripted("score = 1\n"))
    assert ended.exit_code == 1
    assert "not as it was pinned" in ended.output


# Journal and views


def test_a_flipped_bit_refuses_the_loop(world: Path, invoke: Callable[..., Result]) -> None:
    """F8."""
    research(world, Recipes(["score = 1.9\n"]), 1)
    journal = Layout(world / ".git", "t").journal
    content = bytearray(journal.read_bytes())
    content[len(content) // 3] ^= 1
    journal.write_bytes(content)
    for words in (["loop", "--experiments", "1"], ["status", "--once"], ["verify"]):
        ended = invoke(world, *words, researcher=Scripted("score = 1\n"))
        assert ended.exit_code == 1
        assert re.search(r"error: .*journal\.jsonl: line \d+ .*another --tag\n", ended.output)
    assert journal.read_bytes() == content


@pytest.mark.parametrize("deed", ["delete", "edit", "forge"])
def test_the_table_is_made_again(world: Path, deed: str, invoke: Callable[..., Result]) -> None:
    """F9, and X15's forged row."""
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    table = lab.layout.worktree / "results-language.tsv"
    honest = table.read_text()
    if deed == "delete":
        table.unlink()
    elif deed == "edit":
        table.write_text(honest.replace("1.900000", "0.100000"))
    else:
        table.write_text(honest + honest.splitlines()[-1].replace("1.900000", "0.100000") + "\n")
    seen = invoke(world, "verify")
    assert seen.exit_code == (0 if deed == "delete" else 1)
    assert ("is not what the journal says" in seen.output) == (deed != "delete")
    lab, _ = run(world, Scripted(), experiments=0)
    assert table.read_text() == honest
    assert lab.state.tip is not None
    assert lab.state.tip.val_bpb == 1.9


def test_a_forged_record_refuses_the_loop(world: Path) -> None:
    """X15: somebody without the key copies a record and betters it."""
    research(world, Recipes(["score = 1.9\n"]), 1)
    journal = Layout(world / ".git", "t").journal
    lines = journal.read_bytes().splitlines(keepends=True)
    decided = next(line for line in reversed(lines) if b'"kind":"decided"' in line)
    journal.write_bytes(b"".join(lines) + decided.replace(b"1.9", b"0.1"))
    with pytest.raises(JournalError, match=rf"line {len(lines) + 1} "):
        open_world(world)
