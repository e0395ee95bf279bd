"""What a candidate does to the loop in its small world."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from modgrad.autoresearch import decision, loop, results, workspace
from modgrad.autoresearch.loop import Stop
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.researchers.base import Proposal

from tests.fault_harness import describe_checkout
from tests.loop.tools import Scripted, Step, recipe, records, rows, run, sound, told
from tests.loop_world import Recipes, git, research


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


HUGE = "x = 0x" + "f" * 3700 + "\nscore = 1.9\n"  # more digits than Python writes in decimal
ENDLESS = 'run = echo "step 1  loss ' + "9" * 400 + ' bits"\nscore = 1.9\n'
# Further than Python's recursion goes, and than a path may be long.
DEEP = (
    f"run = {sys.executable} -c \"import os; os.chdir(os.environ['TMPDIR']); "
    "[(os.mkdir('folder'), os.chdir('folder')) for _ in range(1500)]\"\nscore = 1.9\n"
)


@pytest.mark.parametrize("text", [HUGE, ENDLESS, DEEP], ids=["huge", "endless", "deep"])
def test_what_python_cannot_take_in_stops_nothing(world: Path, text: str) -> None:
    lab = research(world, Recipes([text, "score = 1.8\n"]), 2)
    assert told(lab) == [(1, "keep", None), (2, "keep", None)]
    sound(world, lab)


def test_what_nobody_foresaw_is_the_candidates_crash(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = decision.decide

    def breaks(score: float, *given: Any, **more: Any) -> Any:
        if score == 1.5:
            raise ZeroDivisionError("in the loop's own code")
        return decide(score, *given, **more)

    monkeypatch.setattr(decision, "decide", breaks)
    lab = research(world, Recipes(["score = 1.5\n", "score = 1.9\n"]), 2)
    assert told(lab) == [(1, "crash", "internal"), (2, "keep", None)]
    assert "ZeroDivisionError" in lab.state.experiments[1].reason
    sound(world, lab)


def test_an_edit_that_cannot_be_taken_in_is_the_researchers_failure(
    world: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    def breaks(*_: Any) -> Any:
        raise ValueError("what is this")

    monkeypatch.setattr(workspace, "collect", breaks)
    _, reason = run(world, Scripted(*["score = 1.9\n"] * 3))
    assert "what is this" in reason
    assert len(records(world, "researcher_failed")) == 3


def test_a_workspace_of_too_many_files_deletes_nothing(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_MOST_ENTRIES", 20)

    def litter(folder: Path) -> None:
        (folder / "a").mkdir()
        for number in range(30):
            (folder / "a" / str(number)).touch()

    lab, _ = run(world, Scripted(litter, "score = 1.9\n"), experiments=2)
    assert told(lab) == [(1, "crash", "violation"), (2, "keep", None)]
    assert "more than 20 files" in lab.state.experiments[1].reason


def test_no_space_elsewhere_is_waited_for_and_what_was_paid_is_noted(
    world: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    write, left = Repository.write, [3]

    def full(self: Repository, *given: Any) -> str:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return write(self, *given)

    def paid(folder: Path) -> Proposal:
        (folder / "recipe.py").write_text("score = 1.9\n")
        return Proposal("paid", cost=0.5)

    monkeypatch.setattr(Repository, "write", full)
    lab, _ = run(world, Scripted(*[paid] * 4), experiments=1)
    assert told(lab) == [(1, "keep", None)]
    assert lab.state.cost == 2.0
    assert waits == [5.0, 10.0, 20.0]


def test_a_training_that_finds_no_space_pauses_whatever_it_says(
    world: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    full = [True, False]
    monkeypatch.setattr("modgrad.autoresearch.files.is_writable", lambda folder: not full.pop(0))
    said = "error: checkpoint x: no space left to write it; free some space and save again"
    tried = world / ".git" / "modgrad" / "t" / "tried"
    text = f'run = [ -e {tried} ] || {{ touch {tried}; echo "{said}"; exit 1; }}\nscore = 1.9\n'
    lab = research(world, Recipes([text]), 1)
    assert told(lab) == [(1, "keep", None)]
    assert ["no space left" in record["reason"] for record in records(world, "paused")] == [True]


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
