"""The loop in its small world: what people, agents, machines and bad luck do to it.

Every training here is a few lines of shell and every score a number in a file;
all else (git, journal, processes, decisions, recovery) is the product's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from modgrad.autoresearch import __main__ as command_line
from modgrad.autoresearch import loop, results, sandbox, scoring, setup, tags
from modgrad.autoresearch.errors import (
    EnvironmentFault,
    JournalError,
    RepositoryError,
    ResearcherError,
    ResearcherGone,
    UsageError,
)
from modgrad.autoresearch.experiment import advance, plan
from modgrad.autoresearch.journal import Journal
from modgrad.autoresearch.lab import Lab, Options
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.loop import Limits, Stop, only_one, run_loop
from modgrad.autoresearch.processes import Finished
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.researchers.base import Briefing, Failure, Proposal
from modgrad.autoresearch.researchers.command import AgentFailed
from modgrad.autoresearch.scoring import Score
from modgrad.autoresearch.state import Experiment, State

from tests.fault_harness import describe_checkout, leftovers
from tests.loop_world import (
    CONTRACT,
    Recipes,
    git,
    ignore,
    make_repository,
    open_world,
    read_score,
    research,
    set_up,
)

Step = Callable[[Path], Any]


class Scripted:
    """Does one step after another in the workspace; what a step raises, it raises."""

    name = "scripted"

    def __init__(self, *steps: Step | str, mend: Step | None = None) -> None:
        self.steps = [recipe(step) if isinstance(step, str) else step for step in steps]
        self.mend = mend
        self.asked: list[Briefing] = []
        self.failures: list[Failure] = []

    def base(self, briefing: Briefing) -> str | None:
        return None

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        self.asked.append(briefing)
        if len(self.asked) > len(self.steps):
            raise ResearcherGone("no steps are left")
        result = self.steps[len(self.asked) - 1](workspace)
        return result if isinstance(result, Proposal) else Proposal(f"step {len(self.asked)}")

    def repair(self, workspace: Path, briefing: Briefing, failure: Failure) -> Proposal | None:
        self.failures.append(failure)
        if self.mend is None:
            return None
        self.mend(workspace)
        return Proposal("mended")


def recipe(text: str) -> Step:
    """A step that writes a recipe."""

    def step(workspace: Path) -> None:
        (workspace / "recipe.py").write_text(text)

    return step


def fails(error: Exception) -> Step:
    """A step that raises."""

    def step(workspace: Path) -> None:
        raise error

    return step


def run(
    folder: Path,
    researcher: Any,
    *,
    fallback: Callable[[], Any] | None = None,
    prepare: Callable[[Lab], Any] = ignore,
    stop: Stop | None = None,
    options: Options | None = None,
    tag: str = "t",
    **limits: Any,
) -> tuple[Lab, str]:
    """`loop` with a researcher and limits, until it ends by itself."""
    given = {"failures": 3, "when_gone": "stop", **limits}
    _, layout = tags.find(tag, folder)
    with only_one(layout.lock, "the loop"):
        lab = open_world(folder, tag)
        lab.options = options or Options()
        prepare(lab)
        stop = stop or Stop()
        with stop.listening(ignore):
            reason = run_loop(
                lab, researcher, fallback or (lambda: researcher), Limits(**given), stop
            )
    return lab, reason


def records(folder: Path, kind: str | None = None, tag: str = "t") -> list[dict[str, Any]]:
    layout = Layout(folder / ".git", tag)
    found = Journal(layout.journal, layout.key).read()
    return [record for record in found if kind in (None, record["kind"])]


def told(lab: Lab) -> list[tuple[int, str | None, str | None]]:
    """(number, status, crash class) of each experiment but the baseline."""
    return [(one.number, one.status, one.crash) for one in lab.state.experiments[1:]]


def rows(lab: Lab) -> list[str]:
    table = results.parse((lab.layout.worktree / "results-language.tsv").read_text())
    return [row.status for row in table]


def sound(folder: Path, lab: Lab) -> None:
    """What holds whenever the loop has ended."""
    unfinished = lab.state.current is not None
    assert lab.state.tip is not None
    assert lab.repository.ref(lab.layout.branch) == lab.state.tip.candidate
    assert git(lab.layout.worktree, "rev-parse", "HEAD") == lab.state.tip.candidate
    refs = lab.repository.refs(lab.layout.candidates)
    for one in lab.state.experiments[1:]:
        if one.candidate is not None:
            assert refs[lab.layout.candidate(one.number)] == one.candidate
    assert [line for line in leftovers(lab.layout) if not (unfinished and "/work/" in line)] == []
    assert State.replay(records(folder, tag=lab.layout.tag)).kept == lab.state.kept


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting takes no time, and is noted."""
    noted: list[float] = []

    def wait(seconds: float, stop: Stop) -> None:
        noted.append(seconds)

    monkeypatch.setattr(loop, "_wait", wait)
    return noted


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "world"
    make_repository(folder)
    set_up(folder)
    return folder


@pytest.fixture
def world(template: Path, tmp_path: Path) -> Path:
    """A repository of which the baseline was measured; it may stand anywhere, and
    git's note of where the worktree is goes with it."""
    folder = tmp_path / "world"
    shutil.copytree(template, folder, symlinks=True)
    (folder / ".git" / "modgrad" / "t" / "worktree" / ".git").write_text(
        f"gitdir: {folder}/.git/worktrees/worktree\n"
    )
    (folder / ".git" / "worktrees" / "worktree" / "gitdir").write_text(
        f"{folder}/.git/modgrad/t/worktree/.git\n"
    )
    return folder


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The commands as a user calls them, scoring aside."""
    load = tags.load

    def patched(repository: Repository, layout: Layout) -> Lab:
        lab = load(repository, layout)
        lab.evaluate = read_score
        return lab

    monkeypatch.setattr(tags, "load", patched)

    def call(folder: Path, *words: str, researcher: Any = None) -> Result:
        monkeypatch.chdir(folder)
        if researcher is not None:
            monkeypatch.setattr(command_line, "_researcher", lambda *_: researcher)
        return CliRunner().invoke(command_line.main, list(words), prog_name="autoresearch")

    return call


# What a candidate does


def test_keep_discard_and_crash(world: Path) -> None:
    before = describe_checkout(world)
    lab = research(world, Recipes(["score = 1.9\n", "score = 1.95\n", "crash = True\n"]), 3)
    assert told(lab) == [(1, "keep", None), (2, "discard", None), (3, "crash", "usage")]
    assert rows(lab) == ["keep", "keep", "discard", "crash"]
    assert describe_checkout(world) == before
    sound(world, lab)


def test_a_killed_trainer_is_a_crash_and_the_base_stays(world: Path) -> None:
    """F2."""
    lab = research(world, Recipes(["run = kill -9 $$\nscore = 1\n", "score = 1.9\n"]), 2)
    one = lab.state.experiments[1]
    assert (one.status, one.crash) == ("crash", "out of memory")
    assert "signal 9" in one.reason
    assert lab.state.experiments[2].parent == lab.settings.baseline
    sound(world, lab)


@pytest.mark.parametrize("score", ["nan"])
def test_a_score_that_is_no_number_is_a_crash(world: Path, score: str) -> None:
    """F15."""
    lab = research(world, Recipes([f"score = {score}\n", "score = 1.9\n"]), 2)
    assert told(lab) == [(1, "crash", "non-finite"), (2, "keep", None)]
    assert lab.state.experiments[1].val_bpb is None
    line = (lab.layout.worktree / "results-language.tsv").read_text().splitlines()[2]
    assert "\t0.000000\t" in line
    sound(world, lab)


def test_what_is_printed_or_written_is_no_score(world: Path) -> None:
    """X3."""
    forge = (
        'run = echo "val_bpb: 0.1"; echo \'{"bits_per_byte": 0.1}\'; '
        "echo val_bpb=0.1 > results-language.tsv; "
        "cp ../../worktree/results-language.tsv r; sed -i s/2.000000/0.100000/ r; "
        "cp r ../../worktree/results-language.tsv; "
        'echo \'{"val_bpb": 0.1}\' > "$2.json"\n'
    )
    lab = research(world, Recipes([forge + "score = 1.99\n"]), 1)
    assert lab.state.experiments[1].val_bpb == 1.99
    table = (lab.layout.worktree / "results-language.tsv").read_text()
    assert table == results.table(lab.state)
    assert "0.100000" not in table
    sound(world, lab)


@pytest.mark.parametrize(
    "leave",
    [
        'rm -f "$2"; mkfifo "$2"; exit 0',
        'mkdir "$2"; exit 0',
        'ln -s /etc/passwd "$2"; exit 0',
        "exit 0",
        "mkfifo ../pipe; mkdir -p ../deep/er; chmod 0 ../deep; exit 0",
    ],
)
def test_what_is_left_instead_of_a_checkpoint_is_a_crash(world: Path, leave: str) -> None:
    lab = research(world, Recipes([f"run = {leave}\nscore = 1\n", "score = 1.9\n"]), 2)
    assert told(lab) == [(1, "crash", "error"), (2, "keep", None)]
    assert lab.state.experiments[1].reason == "ended without a checkpoint"
    sound(world, lab)


def test_a_full_disk_that_only_the_candidate_sees_is_its_crash(
    world: Path, waits: list[float]
) -> None:
    said = "OSError: [Errno 30] Read-only file system: '/proc/x'"
    lab = research(world, Recipes([f'run = echo "{said}"; exit 1\n', "score = 1.9\n"]), 2)
    assert told(lab) == [(1, "crash", "error"), (2, "keep", None)]
    assert waits == []


def test_a_full_disk_pauses(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True, True, False]
    monkeypatch.setattr("modgrad.autoresearch.files.is_writable", lambda folder: not full.pop(0))
    said = "OSError: [Errno 28] No space left on device"
    go = world / ".git" / "modgrad" / "t" / "go"
    text = f'run = [ -e ../../go ] || {{ echo "{said}"; exit 1; }}\nscore = 1.9\n'

    def wait(seconds: float, stop: Stop) -> None:
        if len(full) == 1:
            go.touch()

    monkeypatch.setattr(loop, "_wait", wait)
    lab = research(world, Recipes([text]), 1)
    assert told(lab) == [(1, "keep", None)]
    assert len(records(world, "paused")) == 2


def test_a_full_disk_under_git_pauses_too(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    flag = tmp_path / "full"
    flag.touch()
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *commit-tree*) if [ -e {flag} ]; then rm {flag}; '
        'echo "fatal: unable to write file: No space left on device" >&2; exit 128; fi;; esac\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    assert told(lab) == [(1, "keep", None)]
    assert [record["reason"] for record in records(world, "paused")] == ["the disk is full"]


SITE = "import sys\nsys.stdout.write('mine')\n"


@pytest.mark.parametrize(
    "name",
    [
        "sitecustomize.py",
        "numpy.py",
        "modgrad/__init__.py",
        "isis/nn.py",
        "x.pth",
        "parts/sitecustomize.py",
        "parts/x.pth",
        "parts/conftest.py",
    ],
)
def test_a_file_that_would_act_elsewhere_never_gets_into_a_candidate(
    world: Path, name: str
) -> None:
    """X6: it is left behind, said, and the rest of the edit is taken."""

    def step(workspace: Path) -> None:
        (workspace / "recipe.py").write_text("score = 1.9\n")
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SITE)

    lab, _ = run(world, Scripted(step), experiments=1)
    one = lab.state.experiments[1]
    assert one.status == "keep"
    assert one.candidate is not None
    assert set(lab.repository.tree(one.candidate)) == set(lab.repository.tree(one.base))
    assert f"left behind: {name}" in one.notes


def replace_by_link(workspace: Path) -> None:
    (workspace / "recipe.py").unlink()
    (workspace / "recipe.py").symlink_to("/etc/passwd")


def replace_by_pipe(workspace: Path) -> None:
    (workspace / "recipe.py").unlink()
    os.mkfifo(workspace / "recipe.py")


def edit_trainer(workspace: Path) -> None:
    (workspace / "trainer.sh").write_text('echo "0.1 0" > "$2"\n')


def remove_all(workspace: Path) -> None:
    shutil.rmtree(workspace)


def link_all(workspace: Path) -> None:
    shutil.rmtree(workspace)
    workspace.symlink_to("/etc")


def write_huge(workspace: Path) -> None:
    with (workspace / "recipe.py").open("wb") as file:
        file.truncate(1 << 40)


def import_socket(workspace: Path) -> None:
    (workspace / "recipe.py").write_text("import socket\nscore = 1\n")


@pytest.mark.parametrize(
    "step",
    [
        replace_by_link,
        replace_by_pipe,
        edit_trainer,
        remove_all,
        link_all,
        write_huge,
        import_socket,
    ],
)
def test_a_violation_is_a_crash_and_is_shown_once(world: Path, step: Step) -> None:
    researcher = Scripted(step, "score = 1.9\n")
    lab, _ = run(world, researcher, experiments=2)
    assert told(lab) == [(1, "crash", "violation"), (2, "keep", None)]
    shown = [] if step in (remove_all, link_all) else ["violation"]  # no place is left
    assert [failure.crash for failure in researcher.failures] == shown
    assert {record["n"] for record in records(world, "train_started")} == {0, 2}
    sound(world, lab)


def test_a_violation_may_be_mended(world: Path) -> None:
    def mend(workspace: Path) -> None:
        git(workspace, "checkout", "--quiet", "trainer.sh")

    def step(workspace: Path) -> None:
        edit_trainer(workspace)
        (workspace / "recipe.py").write_text("score = 1.9\n")

    lab, _ = run(world, Scripted(step, mend=mend), experiments=1)
    assert told(lab) == [(1, "keep", None)]
    assert lab.state.experiments[1].repaired


def test_a_slip_is_mended_once_and_kept_if_it_is_better(world: Path) -> None:
    researcher = Scripted("crash = True\n", mend=recipe("score = 1.9\n"))
    lab, _ = run(world, researcher, experiments=1)
    assert told(lab) == [(1, "keep", None)]
    assert "error: it broke" in researcher.failures[0].log_tail
    sound(world, lab)


def test_a_slip_that_stays_one_is_not_shown_twice(world: Path) -> None:
    researcher = Scripted("crash = True\n", mend=recipe("crash = True\nx = 1\n"))
    lab, _ = run(world, researcher, experiments=1)
    assert told(lab) == [(1, "crash", "usage")]
    assert len(researcher.failures) == 1


def test_a_slip_mended_into_nothing_is_not_trained(world: Path) -> None:
    """Else a lucky draw of the same code could be kept."""
    researcher = Scripted("crash = True\n", "score = 1.9\n", mend=recipe("# mended\nscore = 2.0\n"))
    lab, _ = run(world, researcher, experiments=1)
    assert told(lab) == [(1, "skip", None), (2, "keep", None)]
    assert lab.state.experiments[1].reason == "changes comments or layout only"


def into_folder(workspace: Path) -> None:
    (workspace / "parts" / "a.py").unlink()
    (workspace / "parts" / "a.py").mkdir()
    (workspace / "parts" / "a.py" / "b.py").write_text("x = 1\n")
    (workspace / "recipe.py").write_text("score = 1.8\n")


def into_file(workspace: Path) -> None:
    shutil.rmtree(workspace / "parts" / "a.py")
    (workspace / "parts" / "a.py").write_text("x = 1\n")
    (workspace / "recipe.py").write_text("score = 1.7\n")


def add_part(workspace: Path) -> None:
    (workspace / "parts").mkdir()
    (workspace / "parts" / "a.py").write_text("x = 0\n")
    (workspace / "recipe.py").write_text("score = 1.9\n")


def odd_names(workspace: Path) -> None:
    parts = workspace / "parts"
    for name in (".GIT/x.py", "git~1/x.py", "a\nb.py", os.fsdecode(b"\xff.py"), "a\\.git\\x.py"):
        (parts / name).parent.mkdir(parents=True, exist_ok=True)
        (parts / name).write_text("x = 1\n")
    (parts / "with, comma and é.py").write_text("x = 1\n")
    (workspace / "recipe.py").write_text("score = 1.6\n")


def test_files_become_folders_and_folders_files(world: Path) -> None:
    lab, _ = run(world, Scripted(add_part, into_folder, into_file, odd_names), experiments=4)
    assert [status for _, status, _ in told(lab)] == ["keep"] * 4
    tip = lab.state.tip
    assert tip is not None
    assert tip.candidate is not None
    assert [p for p in lab.repository.tree(tip.candidate) if p.startswith("parts")] == [
        "parts/a.py",
        "parts/with, comma and é.py",
    ]
    sound(world, lab)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda workspace: None, "changes nothing"),
        (recipe("# a comment\nscore = 2.0\n"), "changes comments or layout only"),
        (recipe("score =  2.0\n\n\n"), "changes comments or layout only"),
        (recipe("score = 2.5  # again\n"), "is what experiment 1 tried: discard with 2.500000"),
        (recipe("seed = 2\nscore = 1.9\n"), "changes the seed only"),
        (recipe("seed = 0\nscore = 1.9  # again\n"), "is what experiment 2 tried: keep"),
    ],
)
def test_what_teaches_nothing_is_not_run(world: Path, step: Step, reason: str) -> None:
    first = recipe("score = 2.5\n")
    second = recipe("seed = 0\nscore = 1.9\n")
    third = recipe("score = 1.8\n")
    before: list[Step] = [first]
    if "seed" in reason:
        before = [first, second]
    if "experiment 2" in reason:
        before = [first, second, third]
    lab, _ = run(world, Scripted(*before, step))
    one = lab.state.experiments[len(before) + 1]
    assert one.status == "skip"
    assert one.reason.startswith(reason)
    assert one.number not in {record["n"] for record in records(world, "train_started")}
    assert len(rows(lab)) == len(before) + 1
    sound(world, lab)


def test_a_crash_may_be_tried_again(world: Path) -> None:
    lab = research(world, Recipes(["crash = True\n", "crash = True\n"]), 2)
    assert [status for _, status, _ in told(lab)] == ["crash", "crash"]


def test_deep_code_ends_nothing(world: Path) -> None:
    deep = "x = " + "+".join(["1"] * 1500) + "\nscore = 1.9\n"
    lab = research(world, Recipes([deep, deep.replace("1.9", "1.8")]), 2)
    assert [status for _, status, _ in told(lab)] == ["keep", "keep"]


# The rule


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
    judge = Judge(-9, -9, -9, -9, monkeypatch=monkeypatch)
    lab, reason = run(world, Scripted("score = 1\n"), prepare=judge.prepare, experiments=1)
    assert told(lab) == [(1, "keep", None)]
    assert reason == "1 experiments were asked for"
    paused = [record["reason"] for record in records(world, "paused")]
    assert paused == ["the evaluator failed: ended with -9"] * 2
    assert waits == [5.0, 10.0]
    assert len([r for r in records(world, "train_started") if r["n"] == 1]) == 1  # not again


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


# ^C


def interrupt_when(lab: Lab, *, says: str = "", trains: int = 0) -> None:
    """Presses ^C when the loop says something, and when something is in training."""

    def say(line: str) -> None:
        if says and says in line:
            os.kill(os.getpid(), signal.SIGINT)

    left = [trains]

    def progress(what: str, seconds: float, budget: float) -> None:
        if left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGINT)

    lab.say, lab.progress = say, progress


def test_once_interrupted_the_experiment_is_finished(world: Path) -> None:
    """F21."""
    lab, reason = run(
        world,
        Scripted("score = 1.9\n", "score = 1.8\n"),
        prepare=lambda lab: interrupt_when(lab, says="asking"),
    )
    assert reason == "^C"
    assert told(lab) == [(1, "keep", None)]
    assert records(world)[-1]["reason"] == "^C"
    sound(world, lab)


def test_twice_interrupted_it_is_killed_and_goes_on_later(world: Path) -> None:
    lab, reason = run(
        world,
        Scripted("stall = True\nscore = 1.9\n"),
        prepare=lambda lab: interrupt_when(lab, trains=4),  # impatient
    )
    assert reason == "interrupted"
    assert [record["kind"] for record in records(world)[-2:]] == ["interrupted", "stopped"]
    assert told(lab) == [(1, None, None)]
    candidate = lab.state.experiments[1].candidate
    assert not [line for line in leftovers(lab.layout) if "process" in line or "lock" in line]
    (lab.layout.root / "go").touch()
    lab, _ = run(world, Scripted(), experiments=1)
    assert told(lab) == [(1, "keep", None)]
    assert lab.state.experiments[1].candidate == candidate
    sound(world, lab)


def test_exit_status_of_an_interrupt(world: Path, invoke: Callable[..., Result]) -> None:
    def step(workspace: Path) -> None:
        (workspace / "recipe.py").write_text("score = 1.9\n")
        os.kill(os.getpid(), signal.SIGINT)

    def twice(workspace: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    once = invoke(world, "loop", "--yes", researcher=Scripted(step, "score = 1.8\n"))
    assert once.exit_code == 0, once.output
    assert "stopped: ^C" in once.output
    killed = invoke(world, "loop", "--yes", researcher=Scripted(twice))
    assert killed.exit_code == 130, killed.output
    assert "stopped: interrupted" in killed.output
    again = invoke(world, "loop", "--experiments", "1", researcher=Scripted("score = 1.8\n"))
    assert again.exit_code == 0, again.output


def test_twice_interrupted_while_it_waits(world: Path) -> None:
    def prepare(lab: Lab) -> None:
        def say(line: str) -> None:
            if "asking again" in line:
                for _ in range(3):
                    os.kill(os.getpid(), signal.SIGINT)

        lab.say = say

    _, reason = run(world, Scripted(fails(ResearcherError("not now"))), prepare=prepare)
    assert reason == "interrupted"
    assert records(world)[-1]["kind"] == "stopped"


@pytest.mark.parametrize("word", ["update-ref", "commit-tree", "reset", "cat-file"])
def test_interrupted_inside_git(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """Each time git is called for something, ^C is pressed twice meanwhile."""
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *" {word} "*)\n'
        "kill -INT $PPID; sleep 0.05; kill -INT $PPID;; esac\n"
        f'exec {shutil.which("git")} "$@"\n'
    )
    fake.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{fake.parent}:{path}")
    researcher = Scripted("score = 1.9\n", "score = 1.9\n", "score = 1.9\n")
    lab, reason = run(world, researcher, experiments=1)
    assert reason in ("^C", "interrupted")  # two at a time count once
    assert records(world)[-1]["kind"] == "stopped"
    monkeypatch.setenv("PATH", path)
    if not lab.state.experiments[1:] or lab.state.current is not None:
        lab, _ = run(world, researcher, experiments=1)
    assert told(lab) == [(1, "keep", None)]
    assert lab.state.tip is not None
    assert lab.state.tip.val_bpb == 1.9
    sound(world, lab)


# git, and what people do to it


def test_stale_locks_of_ours_are_healed(world: Path) -> None:
    """F22."""
    git_folder = world / ".git"
    ours = [
        git_folder / "worktrees" / "worktree" / "index.lock",
        git_folder / "worktrees" / "worktree" / "HEAD.lock",
        git_folder / "refs" / "heads" / "autoresearch" / "t.lock",
        git_folder / "refs" / "modgrad" / "t" / "1.lock",
    ]
    theirs = git_folder / "index.lock"
    for lock in (*ours, theirs):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    assert told(lab) == [(1, "keep", None)]
    assert not any(lock.exists() for lock in ours)
    assert theirs.exists()
    [healed] = records(world, "healed")
    assert sorted(healed["locks"]) == sorted(map(str, ours))


@pytest.mark.parametrize("lost", ["pointer", "folder", "private", "foreign"])
def test_a_lost_worktree_is_made_again(world: Path, lost: str) -> None:
    """Without its .git file, a search for the repository would end at the user's."""
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    before = describe_checkout(world)
    worktree = lab.layout.worktree
    if lost == "pointer":
        (worktree / ".git").unlink()
    elif lost == "folder":
        shutil.rmtree(worktree)
    elif lost == "private":
        shutil.rmtree(world / ".git" / "worktrees")
    else:
        (worktree / ".git").write_text(f"gitdir: {world}/.git\n")
    lab = research(world, Recipes(["", "score = 1.8\n"]), 2)
    assert told(lab)[-1] == (2, "keep", None)
    assert describe_checkout(world) == before
    sound(world, lab)


def detach(world: Path) -> None:
    git(world, "checkout", "--quiet", "--detach")


def dirty(world: Path) -> None:
    (world / "recipe.py").write_text("half a thought")
    (world / "new.txt").write_text("mine")
    git(world, "add", "new.txt")


@pytest.mark.parametrize("deed", [detach, dirty])
def test_a_checkout_in_any_state_is_left_as_it_is(
    tmp_path: Path, deed: Callable[[Path], None]
) -> None:
    """F23: the loop works beside it."""
    world = make_repository(tmp_path / "world")
    deed(world)
    status = git(world, "status", "--porcelain=v2", "--branch")
    set_up(world)
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    assert told(lab) == [(1, "keep", None)]
    assert git(world, "status", "--porcelain=v2", "--branch") == status


def test_a_repository_amid_a_rebase_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    git(world, "checkout", "--quiet", "-b", "other")
    (world / "recipe.py").write_text("score = 1\n")
    git(world, "commit", "--quiet", "--all", "--message", "one")
    git(world, "checkout", "--quiet", "main")
    (world / "recipe.py").write_text("score = 3\n")
    git(world, "commit", "--quiet", "--all", "--message", "two")
    for words, what in ((["rebase", "other"], "a rebase"), (["merge", "other"], "a merge")):
        with pytest.raises(Exception, match="returned non-zero"):
            git(world, *words)
        status = git(world, "status", "--porcelain=v2")
        with pytest.raises(UsageError, match=f"{what} is going on; finish or abort it first"):
            set_up(world)
        assert git(world, "status", "--porcelain=v2") == status
        git(world, words[0], "--abort")
    assert told(set_up(world)) == []


def test_a_branch_that_exists_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    git(world, "branch", "autoresearch/t")
    with pytest.raises(UsageError, match="the branch autoresearch/t exists; choose another --tag"):
        set_up(world)
    assert set_up(world, "u").state.tip is not None
    with pytest.raises(UsageError, match="was set up already"):
        set_up(world, "u")


def test_no_repository_a_bare_one_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    world = make_repository(tmp_path / "world")
    git(tmp_path, "clone", "--quiet", "--bare", str(world), "bare.git")
    git(tmp_path, "init", "--quiet", "unborn")
    with pytest.raises(UsageError, match="run `git init` first"):
        set_up(tmp_path / "empty")
    with pytest.raises(UsageError, match="is in a bare repository"):
        set_up(tmp_path / "bare.git")
    with pytest.raises(UsageError, match="no commit yet"):
        set_up(tmp_path / "unborn")


def test_a_branch_that_somebody_moved_refuses_the_loop(
    world: Path, invoke: Callable[..., Result]
) -> None:
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    tip = lab.repository.ref(lab.layout.branch)
    moved = git(world, "commit-tree", "-m", "mine", "-p", "HEAD", "HEAD^{tree}")
    git(world, "update-ref", lab.layout.branch, moved)
    ended = invoke(world, "loop", "--experiments", "1", researcher=Scripted("score = 1\n"))
    assert ended.exit_code == 1
    assert ended.output.count("\n") == 1
    assert f"git update-ref refs/heads/autoresearch/t {tip}" in ended.output
    assert lab.repository.ref(lab.layout.branch) == moved
    git(world, "update-ref", lab.layout.branch, str(tip))
    lab = research(world, Recipes(["", "score = 1.8\n"]), 2)
    assert told(lab)[-1] == (2, "keep", None)


def test_a_branch_that_is_moved_meanwhile_stops_the_loop(
    world: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    moved = git(world, "commit-tree", "-m", "mine", "-p", "HEAD", "HEAD^{tree}")

    def step(workspace: Path) -> None:
        (workspace / "recipe.py").write_text("score = 1.9\n")
        git(world, "update-ref", "refs/heads/autoresearch/t", moved)

    told_to = tmp_path / "stopped"
    ended = invoke(
        world,
        *("loop", "--yes", "--on-stop", f'echo "$MODGRAD_REASON" > {told_to}'),
        researcher=Scripted(step),
    )
    assert ended.exit_code == 1
    assert "somebody moved it" in ended.output
    assert "somebody moved it" in told_to.read_text()
    assert "somebody moved it" in records(world, "stopped")[-1]["reason"]
    git(world, "update-ref", "refs/heads/autoresearch/t", git(world, "rev-parse", "main"))
    lab, _ = run(world, Scripted(), experiments=1)
    assert told(lab) == [(1, "keep", None)]
    sound(world, lab)


def test_a_second_loop_on_the_tag_is_refused_at_once(
    world: Path, invoke: Callable[..., Result]
) -> None:
    """F24."""
    before = records(world)
    with only_one(Layout(world / ".git", "t").lock, "the first"):
        for words in (["loop", "--yes"], ["verify"], ["run"], ["report", "--remeasure", "1"]):
            start = time.monotonic()
            ended = invoke(world, *words, researcher=Scripted("score = 1\n"))
            assert time.monotonic() - start < 1
            assert ended.exit_code == 2
            assert "the loop of t is at work already" in ended.output
        assert json.loads(invoke(world, "status", "--json").output)["running"] is True
    assert json.loads(invoke(world, "status", "--json").output)["running"] is False
    assert records(world) == before


def test_two_loops_side_by_side(world: Path) -> None:
    set_up(world, "u")
    recipes = {"t": ["score = 1.9\n", "score = 1.8\n"], "u": ["score = 1.7\n", "score = 1.75\n"]}
    labs: dict[str, Lab] = {}

    def work(tag: str) -> None:
        labs[tag] = research(world, Recipes(recipes[tag]), 2, tag)

    threads = [threading.Thread(target=work, args=[tag]) for tag in recipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for _, status, _ in told(labs["t"])] == ["keep", "keep"]
    assert [status for _, status, _ in told(labs["u"])] == ["keep", "discard"]
    for lab in labs.values():
        sound(world, lab)


def plant(world: Path, pwned: Path) -> None:
    """Hooks and programs that note that they ran, write into the tree, and fail."""
    script = f'#!/bin/sh\necho "$0" >> {pwned}\necho mess > mess.txt\nexit 1\n'
    hooks = world / "my-hooks"
    names = ("pre-commit", "commit-msg", "post-commit", "reference-transaction", "post-checkout")
    for name in (
        *names,
        "post-index-change",
        "pre-auto-gc",
        "prepare-commit-msg",
        "gpg",
        "monitor",
    ):
        for folder in (hooks, world / ".git" / "hooks"):
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)


SIGNING = {
    "commit.gpgsign": "true",
    "tag.gpgsign": "true",
    "user.signingkey": "0xDEADBEEF",
}


@pytest.mark.parametrize("where", ["folder", "default"])
def test_hooks_and_signing_of_the_user_stay_out_of_it(tmp_path: Path, where: str) -> None:
    """F25."""
    world, pwned = make_repository(tmp_path / "world"), tmp_path / "pwned"
    plant(world, pwned)
    for name, value in SIGNING.items():
        git(world, "config", name, value)
    git(world, "config", "gpg.program", str(world / "my-hooks" / "gpg"))
    git(world, "config", "core.fsmonitor", str(world / "my-hooks" / "monitor"))
    git(world, "config", "diff.external", str(world / "my-hooks" / "monitor"))
    if where == "folder":
        git(world, "config", "core.hooksPath", str(world / "my-hooks"))
    set_up(world)
    lab = research(world, Recipes(["score = 1.9\n", "score = 1.95\n"]), 2)
    assert [status for _, status, _ in told(lab)] == ["keep", "discard"]
    assert not pwned.exists(), pwned.read_text()
    assert not list(world.rglob("mess.txt"))
    lab.repository.run("fsck", "--strict")


@pytest.mark.parametrize("name", ["with spaces", "ключ 日本 é", "a'b\"c$d", "-dash"])
def test_names_of_folders(tmp_path: Path, name: str) -> None:
    world = make_repository(tmp_path / name)
    set_up(world / "data", "t")  # from a subfolder
    lab = research(world / "data", Recipes(["score = 1.9\n"]), 1)
    assert told(lab) == [(1, "keep", None)]
    sound(world, lab)


def test_commands_from_a_subfolder(world: Path, invoke: Callable[..., Result]) -> None:
    ended = invoke(
        world / "data", "loop", "--experiments", "1", researcher=Scripted("score = 1.9\n")
    )
    assert ended.exit_code == 0, ended.output
    assert "stopped: 1 experiments were asked for" in ended.output
    assert "1.900000" in invoke(world / "data", "status", "--once").output


# Researchers that fail


def test_failures_are_waited_out_and_count_as_no_experiment(
    world: Path, waits: list[float]
) -> None:
    """F28."""
    error = ResearcherError("no network")
    researcher = Scripted(
        fails(error), fails(error), "score = 1.9\n", fails(error), "score = 1.8\n"
    )
    lab, reason = run(world, researcher, experiments=2)
    assert reason == "2 experiments were asked for"
    assert told(lab) == [(1, "keep", None), (2, "keep", None)]
    assert waits == [5.0, 10.0, 5.0]
    assert lab.state.failures == 0
    assert rows(lab) == ["keep"] * 3


@pytest.mark.parametrize("when_gone", ["search", "stop", "wait"])
def test_a_researcher_that_is_gone(world: Path, waits: list[float], when_gone: str) -> None:
    deputy = Scripted("score = 1.9\n")
    deputy.name = "deputy"
    stop = Stop()
    researcher = Scripted(fails(ResearcherGone("no such program")), "score = 1.8\n")
    lab, reason = run(
        world,
        researcher,
        fallback=lambda: deputy,
        stop=stop,
        experiments=1,
        when_gone=when_gone,
    )
    if when_gone == "stop":
        assert reason == "the researcher is gone: no such program"
        assert told(lab) == [(1, None, None)]
        return
    assert reason == "1 experiments were asked for"
    assert lab.state.experiments[1].researcher == (
        "deputy" if when_gone == "search" else "scripted"
    )
    assert waits == ([] if when_gone == "search" else [300.0])
    assert lab.state.fallback == ("no such program" if when_gone == "search" else None)


def test_the_deputy_may_go_too(world: Path) -> None:
    gone = [Scripted(fails(ResearcherGone(name))) for name in ("first", "second")]
    _, reason = run(world, gone[0], fallback=lambda: gone[1], when_gone="search")
    assert reason == "the researcher is gone: second"


def test_so_many_failures_in_a_row_are_enough(world: Path, waits: list[float]) -> None:
    error = ResearcherError("no network")
    lab, reason = run(world, Scripted(*([fails(error)] * 9)), failures=4)
    assert "4 failures in a row, the last: no network" in reason
    assert len(waits) == 3
    assert told(lab) == [(1, None, None)]


def test_a_researcher_with_nothing_new_is_asked_less_and_less_and_replaced(
    world: Path, waits: list[float]
) -> None:
    """An agent that costs money and edits nothing would be asked without end."""
    deputy = Scripted("score = 1.9\n")
    idle = Scripted(*([lambda workspace: None] * 50))
    lab, reason = run(
        world, idle, fallback=lambda: deputy, failures=4, when_gone="search", experiments=1
    )
    assert reason == "1 experiments were asked for"
    assert len(idle.asked) == 4
    assert waits == [5.0, 10.0]
    assert lab.state.fallback is not None
    assert "nothing to run" in lab.state.fallback
    assert [status for _, status, _ in told(lab)] == ["skip"] * 4 + ["keep"]


def test_a_single_repeat_is_asked_again_at_once(world: Path, waits: list[float]) -> None:
    steps: list[Step | str] = [lambda w: None, "score = 1.9\n", lambda w: None, "score = 1.8\n"]
    lab, _ = run(world, Scripted(*steps), experiments=2, failures=2)
    assert [status for _, status, _ in told(lab)] == ["skip", "keep", "skip", "keep"]
    assert waits == []


def agent(folder: Path, body: str) -> str:
    """A program that behaves like an agent; it counts how often it was asked."""
    path = folder / "agent"
    path.write_text(
        f"#!{sys.executable}\nimport os, pathlib, subprocess, sys\n"
        f"count = pathlib.Path({str(folder / 'count')!r})\n"
        "number = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(number))\n" + body
    )
    path.chmod(0o755)
    return str(path)


def test_ten_minutes_of_429(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    waited = tmp_path / "waited"
    waited.write_text("0")

    def wait(seconds: float, stop: Stop) -> None:
        waited.write_text(str(float(waited.read_text()) + seconds))

    monkeypatch.setattr(loop, "_wait", wait)
    program = agent(
        tmp_path,
        f"if float(open({str(waited)!r}).read()) < 600:\n"
        "    print('API Error: 429 Too Many Requests'); sys.exit(1)\n"
        "open('recipe.py', 'w').write(f'score = 1.{9 - number % 2}\\n')\n",
    )
    ended = invoke(world, "loop", "--yes", "--experiments", "1", "--agent-command", program)
    assert ended.exit_code == 0, ended.output
    assert [record["n"] for record in records(world, "logged")] == [0, 1]
    failures = records(world, "researcher_failed")
    assert 3 <= len(failures) < 12
    assert all("429" in record["reason"] for record in failures)
    assert records(world, "fallback") == []


def test_an_agent_that_is_gone_for_good(
    world: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    monkeypatch.setattr(command_line, "_search", lambda: Scripted("score = 1.9\n"))
    words = [
        "loop",
        "--yes",
        "--experiments",
        "1",
        "--agent-command",
        "no-such-agent {prompt_file}",
    ]
    ended = invoke(world, *words)
    assert ended.exit_code == 0, ended.output
    shown = invoke(world, "status", "--once").output
    assert "the built-in search took over: the agent `no-such-agent` is not installed" in shown
    assert [record["n"] for record in records(world, "logged")] == [0, 1]


RAMPAGE = """
if number <= 2:
    pathlib.Path("recipe.py").write_text("score = 0.1\\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@a"]
    for words in (["add", "-A"], ["commit", "-qm", "x"], ["reset", "-q", "--hard", "HEAD~1"]):
        subprocess.run(["git", *identity, *words])
    subprocess.run("rm -rf .git", shell=True)
    subprocess.run("head -c 1000000000 /dev/zero", shell=True)
    import time
    time.sleep(60)
pathlib.Path("recipe.py").write_text("score = 1.9\\n")
subprocess.run("rm -rf .git", shell=True)
"""


def test_an_agent_that_runs_wild(
    world: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    before = describe_checkout(world)
    words = ["loop", "--yes", "--experiments", "1", "--agent-timeout", "3"]
    ended = invoke(world, *words, "--agent-command", agent(tmp_path, RAMPAGE))
    assert ended.exit_code == 0, ended.output
    assert [record["n"] for record in records(world, "logged")] == [0, 1]
    reasons = [record["reason"] for record in records(world, "researcher_failed")]
    assert reasons == ["the agent gave no answer within 3 s"] * 2
    lab = open_world(world)
    assert told(lab) == [(1, "keep", None)]
    assert lab.state.experiments[1].val_bpb == 1.9
    assert describe_checkout(world) == before
    sound(world, lab)


@pytest.mark.parametrize("deed", ["config", "file", "link", "submodule", "user's"])
def test_an_agent_s_git_runs_nothing_of_ours(world: Path, tmp_path: Path, deed: str) -> None:
    """X11."""
    pwned, before = tmp_path / "pwned", describe_checkout(world)
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\necho $0 $* >> {pwned}\ncat\n")
    script.chmod(0o755)
    config = (
        f"[core]\n\tfsmonitor = {script}\n\thooksPath = {tmp_path}\n\tsshCommand = {script}\n"
        f"\tpager = {script}\n\teditor = {script}\n\tworktree = {world}\n"
        f'[filter "evil"]\n\tclean = {script}\n\tsmudge = {script}\n\trequired = true\n'
        f'[diff "evil"]\n\ttextconv = {script}\n\tcommand = {script}\n'
        f"[alias]\n\treset = !{script}\n\tarchive = !{script}\n[gpg]\n\tprogram = {script}\n"
        f"[commit]\n\tgpgsign = true\n[uploadpack]\n\tpackObjectsHook = {script}\n"
    )
    hooks = ("post-checkout", "post-index-change", "reference-transaction", "pre-commit")

    def poison(folder: Path) -> None:
        (folder / "config").write_text((folder / "config").read_text() + config)
        (folder / "info").mkdir(exist_ok=True)
        (folder / "info" / "attributes").write_text("* filter=evil diff=evil\n")
        (folder / "hooks").mkdir(exist_ok=True)
        for name in hooks:
            (folder / "hooks" / name).write_text(script.read_text())
            (folder / "hooks" / name).chmod(0o755)

    def step(workspace: Path) -> None:
        (workspace / "recipe.py").write_text("score = 1.9\n")
        poison(workspace / ".git")
        if deed == "file":
            (workspace / ".git").rename(tmp_path / "elsewhere")
            (workspace / ".git").write_text(f"gitdir: {tmp_path}/elsewhere\n")
        elif deed == "link":
            (workspace / ".git").rename(tmp_path / "elsewhere")
            (workspace / ".git").symlink_to(tmp_path / "elsewhere")
        elif deed == "submodule":
            shutil.copytree(workspace / ".git", workspace / "parts" / "sub" / ".git")
            (workspace / ".gitmodules").write_text(
                f'[submodule "sub"]\n\tpath = parts/sub\n\turl = {script}\n\tupdate = !{script}\n'
            )
            (workspace / "parts" / "sub" / "x.py").write_text("x = 1\n")
        elif deed == "user's":
            shutil.rmtree(workspace / ".git")
            (workspace / ".git").write_text(f"gitdir: {world}/.git\n")

    lab, _ = run(world, Scripted(step, "score = 1.8\n"), experiments=2)
    assert [status for _, status, _ in told(lab)] == ["keep", "keep"]
    one = lab.state.experiments[1]
    assert one.candidate is not None
    assert lab.repository.file(one.candidate, "recipe.py") == b"score = 1.9\n"
    assert not pwned.exists(), pwned.read_text()
    assert describe_checkout(world) == before
    sound(world, lab)


def test_the_planted_git_configuration_would_have_run(tmp_path: Path) -> None:
    """The control of the test before: with plain git, it does run."""
    folder, pwned = make_repository(tmp_path / "clone"), tmp_path / "pwned"
    git(folder, "config", "core.fsmonitor", f"touch {pwned}; false")
    git(folder, "status")
    assert pwned.exists()


def test_what_the_user_writes_is_read_before_each_proposal(world: Path) -> None:
    layout = Layout(world / ".git", "t")

    def step(workspace: Path) -> None:
        (workspace / "recipe.py").write_text("score = 1.9\n")
        layout.ideas.write_bytes(b"wider \xff tables\n")
        layout.steer.write_text("leave the optimiser alone\n")

    researcher = Scripted(step, "score = 1.8\n")
    run(world, researcher, experiments=2)
    first, second = researcher.asked
    assert "One a line" in first.ideas
    assert first.steer == ""
    assert second.ideas == "wider � tables\n"
    assert second.steer == "leave the optimiser alone\n"


def test_commands_of_the_user_are_told(
    world: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    kept, stopped = tmp_path / "kept", tmp_path / "stopped"
    note = 'echo "$MODGRAD_TAG $MODGRAD_EXPERIMENT_NUMBER $MODGRAD_VAL_BPB $MODGRAD_HYPOTHESIS"'
    words = ["--on-keep", f"{note} >> {kept}", "--on-stop", f'echo "$MODGRAD_REASON" > {stopped}']
    researcher = Scripted("score = 1.9\n", "score = 1.95\n", "score = 1.8\n")
    ended = invoke(world, "loop", "--experiments", "3", *words, researcher=researcher)
    assert ended.exit_code == 0, ended.output
    assert kept.read_text() == "t 1 1.900000 step 1\nt 3 1.800000 step 3\n"
    assert stopped.read_text() == "3 experiments were asked for\n"


def test_a_command_of_the_user_that_fails_stops_nothing(
    world: Path, invoke: Callable[..., Result]
) -> None:
    researcher = Scripted("score = 1.9\n")
    ended = invoke(
        world, "loop", "--experiments", "1", "--on-keep", "exit 3", researcher=researcher
    )
    assert ended.exit_code == 0
    assert "the command `exit 3` failed" in ended.output


@pytest.mark.parametrize(
    ("words", "experiments", "reason"),
    [
        (["--until", "2020-01-01T00:00"], 0, "the time is up"),
        (["--hours", "0.0000001"], 0, "the time is up"),
        (["--experiments", "0"], 0, "0 experiments were asked for"),
        (["--experiments", "2"], 2, "2 experiments were asked for"),
        (["--max-cost", "1.5"], 2, "the researcher has cost $2.00"),
    ],
)
def test_limits(
    world: Path, words: list[str], experiments: int, reason: str, invoke: Callable[..., Result]
) -> None:
    asked: list[int] = []

    def step(workspace: Path) -> Proposal:
        asked.append(1)
        (workspace / "recipe.py").write_text(f"x = {len(asked)}\nscore = 2.0\n")
        return Proposal("more", cost=1.0)

    ended = invoke(world, "loop", *words, researcher=Scripted(*([step] * 5)))
    assert ended.exit_code == 0, ended.output
    assert ended.output.endswith(f"stopped: {reason}\n")
    assert len(records(world, "logged")) == 1 + experiments


def test_a_limit_that_is_no_time_is_wrong_usage(world: Path, invoke: Callable[..., Result]) -> None:
    ended = invoke(world, "loop", "--until", "noon", researcher=Scripted())
    assert ended.exit_code == 2
    assert "--until noon: is neither 07:30 nor" in ended.output


def test_max_failures(world: Path, invoke: Callable[..., Result]) -> None:
    researcher = Scripted(*([fails(AgentFailed("dead", cost=0.5))] * 9))
    ended = invoke(
        world, "loop", "--max-failures", "2", "--when-gone", "stop", researcher=researcher
    )
    assert ended.exit_code == 0
    assert "stopped: the researcher is gone: 2 failures in a row, the last: dead" in ended.output
    assert json.loads(invoke(world, "status", "--json").output)
    assert open_world(world).state.cost == 1.0


def test_skips_are_no_experiments_of_the_limit(world: Path) -> None:
    steps: list[Step | str] = [lambda w: None, "score = 1.9\n"]
    lab, _ = run(world, Scripted(*steps), experiments=1)
    assert [status for _, status, _ in told(lab)] == ["skip", "keep"]
    assert rows(lab) == ["keep", "keep"]


def test_run_takes_what_stands_in_the_worktree(world: Path, invoke: Callable[..., Result]) -> None:
    worktree = Layout(world / ".git", "t").worktree
    nothing = invoke(world, "run")
    assert nothing.exit_code == 2
    assert "nothing is changed there" in nothing.output
    (worktree / "recipe.py").write_text("score = 1.9\n")
    ended = invoke(world, "run", "--message", "by hand")
    assert ended.exit_code == 0, ended.output
    lab = open_world(world)
    assert told(lab) == [(1, "keep", None)]
    assert lab.state.experiments[1].hypothesis == "by hand"
    (worktree / "trainer.sh").write_text("exit 0\n")
    assert invoke(world, "run").exit_code in (0, 2)
    assert open_world(world).state.kept == [0, 1]
    sound(world, open_world(world))


def test_a_researcher_may_start_from_kept_commits_only(world: Path, waits: list[float]) -> None:
    class Elsewhere(Scripted):
        def base(self, briefing: Briefing) -> str | None:
            return "f" * 40

    _, reason = run(world, Elsewhere("score = 1\n"), failures=2)
    assert "wants to start from fffffff, no kept commit" in reason


def test_a_plan_goes_on_after_every_step(world: Path) -> None:
    """`advance` again and again on a fresh reading of the journal."""
    researcher = Scripted("score = 1.9\n")
    lab = open_world(world)
    one: Experiment = plan(lab, researcher)
    advance(lab, one, researcher)
    again = open_world(world)
    advance(again, again.state.experiments[1], researcher)
    assert told(again) == [(1, "keep", None)]
    assert len(records(world, "logged")) == 2


def test_setup_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    request = setup.Request("t", "language", budget=1.0, baseline_runs=1)
    setup.prepare(Repository(world), request, ignore)
    with pytest.raises(JournalError, match="setup did not finish"):
        open_world(world)
    lab, found = setup.prepare(Repository(world), request, ignore)
    assert "that was cut short" in found
    lab.evaluate, lab.say = read_score, ignore
    setup.measure_baseline(lab)
    assert open_world(world).state.kept == [0]


def test_a_baseline_without_a_score_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    (world / "recipe.py").write_text("crash = True\n")
    git(world, "commit", "--quiet", "--all", "--message", "broken")
    with pytest.raises(UsageError, match=r"the baseline has no score \(usage: error: it broke\)"):
        set_up(world)


def test_a_contract_that_is_not_committed_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world", CONTRACT)
    git(world, "rm", "--quiet", "--cached", "contract.toml")
    git(world, "commit", "--quiet", "--message", "without")
    with pytest.raises(UsageError, match="is not in commit"):
        set_up(world)


def test_a_sha_is_a_sha(world: Path) -> None:
    with pytest.raises(RepositoryError, match="is no commit"):
        Repository(world).move_ref("refs/modgrad/t/1", "--upload-pack=evil", None)
    with pytest.raises(UsageError, match="no such commit"):
        Repository(world).commit("--output=evil")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No test leaves a handler of ours behind."""
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) == before
