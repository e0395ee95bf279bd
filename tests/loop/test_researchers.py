"""Researchers that fail, go, or run wild."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from modgrad.autoresearch import __main__ as command_line
from modgrad.autoresearch import loop
from modgrad.autoresearch.errors import ResearcherError, ResearcherGone
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.loop import Stop

from tests.fault_harness import describe_checkout
from tests.loop.tools import Scripted, Step, fails, records, rows, run, sound, told
from tests.loop_world import git, make_repository, open_world


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
