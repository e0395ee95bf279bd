"""^C, once and twice, wherever the loop is."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from modgrad.autoresearch.errors import ResearcherError
from modgrad.autoresearch.lab import Lab

from tests.fault_harness import leftovers
from tests.loop.tools import Scripted, fails, records, run, sound, told


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
