"""The loop on mazes as a user runs it: the real trainer, the real evaluator, the search."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from modgrad import _core
from modgrad.autoresearch import contract
from modgrad.autoresearch.files import sha256_of
from modgrad.maze_thought import watch

from tests.conftest import ROOT
from tests.loop_world import git
from tests.test_real_loop import command, records


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The tracked files in a repository of their own, with a machine of few neurons."""
    folder = tmp_path / "a project"
    for name in filter(None, git(ROOT, "ls-files", "-z").split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "tests/", "benches/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    contract = folder / "contract.toml"
    words = '"--size", "{size}", '
    contract.write_text(contract.read_text().replace(words, f'"--d-model", "32", {words}'))
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a project")
    return folder


def test_mazes_from_setup_to_verify(project: Path) -> None:
    chosen = ("--task", "mazes", "--size", 7, "--budget", 1, "--baseline-runs", 1)
    said = command(project, "setup", "--tag", "real", *chosen, "--yes")
    assert "mazes:     7x7 pixels, layout open; ever new ones to train on" in said
    assert "ready: python -m modgrad.autoresearch loop --tag real" in said

    said = command(project, "loop", "--experiments", 2)
    assert "stopped: 2 experiments were asked for" in said
    decided = {record["n"]: record for record in records(project, "decided")}
    assert {decided[n]["status"] for n in range(3)} <= {"keep", "discard"}, (decided, said)
    assert 0.0 < decided[0]["val_bpb"] < 1.0

    # What is recorded is what the evaluator of this process finds in the checkpoint.
    root = project / ".git" / "modgrad" / "real"
    held_out = json.loads((root / "data" / "holdout.json").read_text())
    for number, record in decided.items():
        path = root / "checkpoints" / f"{number:06}.ckpt"
        assert path.is_file() == (record["status"] == "keep")
        if path.is_file():
            score = json.loads(_core.evaluate_mazes(path, size=7, threads=1))
            assert score["mazes"] == 200 and score["val_bpb"] == record["val_bpb"]
            other = json.loads(_core.evaluate_mazes(path, threads=1, **held_out))
            assert other["mazes"] == 2000 and other["val_bpb"] == record["holdout_bpb"]

    rows = (root / "worktree" / "results-mazes.tsv").read_text().splitlines()
    assert len(rows) == 4 and rows[1].split("\t")[3] == "keep"
    state = json.loads(command(project, "status", "--json"))
    assert state["task"] == "mazes" and state["mazes"]["size"] == 7
    assert str(held_out["seed"]) not in json.dumps(state)
    pages = command(project, "report", "--output", project.parent / "report").split("\n")
    assert any(page.endswith(".html") and Path(page).is_file() for page in pages)
    assert command(project, "verify").endswith("all of it holds\n")
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("task", ["mazes", "mazes-brain"])
def test_a_rehearsal_leaves_what_can_be_scored_and_drawn(tmp_path: Path, task: str) -> None:
    rules = contract.load((ROOT / "contract.toml").read_text(), task)
    path = tmp_path / "one.ckpt"
    values: dict[str, str | list[str]] = {
        "python": sys.executable,
        "size": "7",
        "layout": "open",
        "seed": "0",
        "checkpoint": str(path),
    }
    words = [*contract.fill(rules.rehearse, values), "--threads", "1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    which = tmp_path / "which.json"
    which.write_text('{"size": 7, "layout": "open", "mazes": 200}')
    judge = [sys.executable, "-m", "modgrad.autoresearch.judge", str(path), str(which)]
    judge += ["--evaluator", "mazes", "--rehearse", "--sha256", sha256_of(which)]
    done = subprocess.run(judge, capture_output=True, text=True, check=False)
    score = json.loads(done.stdout)
    assert (score["mazes"], score["size"]) == (16, 7) and 0 <= score["val_bpb"] <= 1
    thought = watch(path)
    assert thought.ticks == 16 and len(thought.curve) == 1
    # Another size than what is pinned is refused.
    which.write_text('{"size": 21, "layout": "open", "mazes": 200}')
    judge[-1] = sha256_of(which)
    done = subprocess.run(judge, capture_output=True, text=True, check=False)
    assert "no program `score` for mazes of 21x21" in json.loads(done.stdout)["refused"]


def test_the_check_knows_what_mazes_may_change(project: Path) -> None:
    for name, code in (
        ("examples/mazes/train.py", 0),
        ("crates/modgrad-ctm/src/lib.rs", 0),
        ("isis/ffn.py", 1),
        ("examples/mazes/__main__.py", 1),
        ("crates/modgrad-training/src/eval_mazes.rs", 1),
    ):
        path = project / name
        comment = "# a word\n" if name.endswith(".py") else "// a word\n"
        path.write_text(path.read_text() + comment)
        git(project, "commit", "--quiet", "--all", "--message", "a word")
        said = command(project, "check", "HEAD", "--task", "mazes", code=code)
        assert (said == "") == (code == 0)
        if name == "examples/mazes/train.py":
            command(project, "check", "HEAD", "--task", "language", code=1)
