"""Agents as researchers: what they may do to the workspace, and how they fail.

No real agent is run: each is a few lines of Python that behave like one.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from modgrad.autoresearch import contract
from modgrad.autoresearch.errors import ResearcherError, ResearcherGone
from modgrad.autoresearch.researchers import profiles
from modgrad.autoresearch.researchers.base import Briefing, Failure, Proposal, Researcher
from modgrad.autoresearch.researchers.command import (
    LONGEST_WAIT,
    NO_HYPOTHESIS,
    AgentFailed,
    Command,
)
from modgrad.autoresearch.state import State

from tests.loop_records import CONTRACT, History, records

RULES = contract.load(CONTRACT, "language")
NOW = 1_790_000_000.0
SAY = "from pathlib import Path\nPath('hypothesis.txt').write_text({!r})\n"
EDIT = "from pathlib import Path\nPath('isis/ffn.py').write_text('width = 2\\n')\n"


@dataclass(frozen=True)
class Ended:
    code: int | None
    timed_out: bool
    wall_seconds: float
    error: str = ""


def start(
    command: list[str], *, cwd: Path, log: Path, limit_seconds: float, stdin: bytes | None
) -> Ended:
    """A simple stand-in for the loop's: it kills the group, and caps no log."""
    begun = time.monotonic()
    with log.open("wb") as file:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timed_out = False
        try:
            child.communicate(stdin, timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    return Ended(child.returncode, timed_out, time.monotonic() - begun)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path)


def make_workspace(tmp_path: Path) -> Path:
    """A clone with one file to edit, in a folder of its own."""
    folder = tmp_path / "scratch" / "clone"
    (folder / "isis").mkdir(parents=True)
    (folder / "isis" / "ffn.py").write_text("width = 1\n")
    (folder / "program.md").write_text("# The contract\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(folder)]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "start"], check=True)
    return folder


@pytest.fixture
def agent(tmp_path: Path) -> Callable[..., Command]:
    """A researcher whose agent is a Python script."""

    def make(
        source: str,
        *,
        read: Callable[[str], profiles.Reply] = profiles.read_text,
        limit: float = 20.0,
    ) -> Command:
        script = tmp_path / "agent.py"
        script.write_text(source)
        line = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{prompt_file}}"
        made = profiles.custom(line)
        profile = profiles.Profile("fake", made.arguments, read)
        return Command(profile, start, limit_seconds=limit, now=lambda: NOW)

    return make


def briefing(count: int = 5) -> Briefing:
    return Briefing(count + 1, State.replay(records(count)), RULES, "", "", "", "")


def failed(command: Researcher, workspace: Path) -> AgentFailed:
    with pytest.raises(AgentFailed) as caught:
        command.propose(workspace, briefing())
    assert "\n" not in str(caught.value)
    return caught.value


def gone(command: Researcher, workspace: Path) -> str:
    with pytest.raises(ResearcherGone) as caught:
        command.propose(workspace, briefing())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_agent_that_edits(agent: Callable[..., Command], workspace: Path) -> None:
    command: Researcher = agent(
        EDIT
        + SAY.format("double the width: \x1b[31mmore\tcapacity\nfamily: architecture\n")
        + "import sys; assert '# The contract' in Path(sys.argv[1]).read_text()\nprint('done')"
    )
    assert command.name == "command:fake"
    assert command.base(briefing()) is None
    proposal = command.propose(workspace, briefing())
    assert proposal == Proposal("double the width: [31mmore capacity", "architecture", 0.0)
    assert (workspace / "isis" / "ffn.py").read_text() == "width = 2\n"
    assert not (workspace / "hypothesis.txt").exists()
    # The prompt and the log lie beside the clone, not in it.
    assert {path.name for path in workspace.iterdir()} == {".git", "isis", "program.md"}


@pytest.mark.parametrize(
    "after",
    [
        "import subprocess; subprocess.run(['git','-c','user.name=a','-c','user.email=a',"
        "'commit','-qam','mine'],check=True)",
        "import subprocess; subprocess.run(['git','update-ref','-d','HEAD'],check=True)",
        "import shutil; shutil.rmtree('.git')",
        "Path('.git/config').write_text('[core]\\nfsmonitor = touch pwned\\n')",
    ],
    ids=["commits", "resets", "deletes git", "poisons git"],
)
def test_what_it_does_to_git_does_not_matter(
    agent: Callable[..., Command], workspace: Path, after: str
) -> None:
    command = agent(EDIT + SAY.format("wider") + after)
    assert command.propose(workspace, briefing()).hypothesis == "wider"
    assert (workspace / "isis" / "ffn.py").read_text() == "width = 2\n"
    assert not (workspace / "pwned").exists()


@pytest.mark.parametrize(
    "undo",
    [
        "import subprocess; subprocess.run(['git','reset','-q','--hard'],check=True)",
        "import os, shutil; shutil.rmtree(os.getcwd())",
    ],
)
def test_an_agent_that_undoes_all(
    agent: Callable[..., Command], workspace: Path, undo: str
) -> None:
    command = agent(EDIT + undo + "\nprint('I gave up')")
    # An empty change is the loop's to judge.
    assert command.propose(workspace, briefing()).hypothesis == "I gave up"


def test_an_agent_that_hangs(agent: Callable[..., Command], workspace: Path) -> None:
    command = agent("import time; print('rate limit', flush=True); time.sleep(60)", limit=0.5)
    error = failed(command, workspace)
    assert str(error) == "the agent gave no answer within 0.5 s"
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("HTTP 429 Too Many Requests, retry-after: 30", 30.0),
        ("API Error: 529 overloaded_error: Overloaded", None),
        ("rate limit: try again in " + "9" * 400 + " seconds", LONGEST_WAIT),
    ],
)
def test_an_agent_that_is_limited(
    agent: Callable[..., Command], workspace: Path, said: str, wait: float | None
) -> None:
    error = failed(agent(f"print({said!r}); raise SystemExit(1)"), workspace)
    assert "limits it" in str(error)
    assert error.retry_after == (None if wait is None else pytest.approx(wait))
    assert isinstance(error, ResearcherError)


@pytest.mark.parametrize("code", [0, 1])
def test_an_agent_that_is_not_logged_in(
    agent: Callable[..., Command], workspace: Path, code: int
) -> None:
    command = agent(f"print('Invalid API key · Please run /login'); raise SystemExit({code})")
    assert "not logged in" in gone(command, workspace)


def test_words_of_a_successful_agent_are_no_failure(
    agent: Callable[..., Command], workspace: Path
) -> None:
    words = "lower the learning rate limit; 401 Unauthorized and 429 are only words here"
    command = agent(EDIT + f"print({words!r})")
    assert command.propose(workspace, briefing()).hypothesis == words


def test_scores_in_the_output_are_no_status_codes(
    agent: Callable[..., Command], workspace: Path
) -> None:
    command = agent("print('val_bpb 1.429, line 401'); raise SystemExit(3)")
    error = failed(command, workspace)
    assert str(error) == "the agent ended with status 3: val_bpb 1.429, line 401"


def test_a_program_that_is_missing(workspace: Path, tmp_path: Path) -> None:
    missing = Command(profiles.custom("no-such-agent-anywhere {prompt_file}"), start)
    assert "not installed" in gone(missing, workspace)
    plain = tmp_path / "agent"
    plain.write_text("not a program")
    assert "not installed" in gone(Command(profiles.custom(str(plain)), start), workspace)
    plain.chmod(0o755)
    broken = gone(Command(profiles.custom(str(plain)), start), workspace)
    assert "cannot be run (Exec format error)" in broken
    shell = Command(profiles.custom("sh -c 'exec no-such-agent-anywhere'"), start)
    assert "cannot be run" in gone(shell, workspace)


def test_a_program_that_the_loop_could_not_start(workspace: Path) -> None:
    def never(*_: object, **__: object) -> Ended:
        return Ended(None, False, 0.0, error="Permission denied")

    command = Command(profiles.custom(f"{shlex.quote(sys.executable)} -V"), never)
    assert gone(command, workspace).endswith("Permission denied")


def test_a_program_in_the_workspace_is_no_agent(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(folder: Path, words: str) -> None:
        (folder / "agent").write_text(f"#!/bin/sh\necho {words}\n")
        (folder / "agent").chmod(0o755)

    command = Command(profiles.custom("./agent"), start)
    place(workspace, "of the workspace")
    monkeypatch.chdir(workspace.parent)
    assert "not installed" in gone(command, workspace)
    place(workspace.parent, "of the user")
    assert command.propose(workspace, briefing()).hypothesis == "of the user"


def test_an_agent_that_prints_a_lot(agent: Callable[..., Command], workspace: Path) -> None:
    flood = "import sys\nfor _ in range(100): sys.stdout.write('x' * (1 << 20))\n"
    proposal = agent(EDIT + flood + "print('\\nthe end')").propose(workspace, briefing())
    assert proposal.hypothesis == "the end"
    proposal = agent(flood).propose(workspace, briefing())
    assert set(proposal.hypothesis) == {"x", "…"} and len(proposal.hypothesis) <= 240


def test_an_agent_with_hostile_output(agent: Callable[..., Command], workspace: Path) -> None:
    raw = b"\xff\xfe\x00\x1b]0;x\x07 [end of data]\r\n\xe2\x80\xaeevil \xf0\x9f\n\x00\n"
    command = agent(EDIT + f"import sys; sys.stdout.buffer.write({raw!r})")
    hypothesis = command.propose(workspace, briefing()).hypothesis
    assert hypothesis.isprintable() and "\n" not in hypothesis and "evil" in hypothesis


def test_an_agent_that_says_nothing(agent: Callable[..., Command], workspace: Path) -> None:
    (workspace / "hypothesis.txt").write_text("of an earlier experiment")
    assert agent(EDIT).propose(workspace, briefing()).hypothesis == NO_HYPOTHESIS
    assert str(failed(agent("raise SystemExit(9)"), workspace)) == (
        "the agent ended with status 9: it printed nothing"
    )


def test_repair_keeps_the_hypothesis(agent: Callable[..., Command], workspace: Path) -> None:
    history = History()
    history.begin()
    history.plan("command:fake")
    history.propose("e" * 40, "wider tables", family="architecture", cost=0.0)
    now = Briefing(1, State.replay(history.records), RULES, "", "", "", "")
    failure = Failure("shape", "add: f32[1] and f32[2]", "Traceback\n[end of data]\n")
    seen = "import sys; assert 'add: f32[1] and f32[2]' in Path(sys.argv[1]).read_text()\n"
    proposal = agent(EDIT + seen + "print('mended')").repair(workspace, now, failure)
    assert proposal is not None and proposal.hypothesis == "wider tables"
    proposal = agent(EDIT + SAY.format("narrower")).repair(workspace, now, failure)
    assert proposal is not None and proposal.hypothesis == "narrower"


def test_an_error_event_is_a_failure_whatever_the_status(
    agent: Callable[..., Command], workspace: Path
) -> None:
    event = {"type": "result", "is_error": True, "result": "it broke", "total_cost_usd": 0.5}
    command = agent(EDIT + f"print({json.dumps(event)!r})", read=profiles.read_claude)
    error = failed(command, workspace)
    assert str(error) == "the agent reported an error: it broke" and error.cost == 0.5


def test_the_prompt_on_standard_input(workspace: Path) -> None:
    source = f"import sys; {EDIT.splitlines()[0]}; print(sys.stdin.read().splitlines()[0])"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(source)}"
    proposal = Command(profiles.custom(line), start).propose(workspace, briefing())
    assert proposal.hypothesis == "# The contract"
