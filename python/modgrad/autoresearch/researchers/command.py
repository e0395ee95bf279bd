"""Any agent's command line as a researcher.

The agent gets the prompt, edits files in the workspace and ends; what it did to
git there has no effect. Its output is read for three things only: what it cost,
its last words where it left no hypothesis, and why it failed. Nothing in the
output can make a proposal out of a failure.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from modgrad.autoresearch import digest, files, prompt
from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.errors import ResearcherError, ResearcherGone
from modgrad.autoresearch.researchers import profiles
from modgrad.autoresearch.researchers.base import FAMILIES, Briefing, Failure, Proposal
from modgrad.autoresearch.researchers.profiles import Profile, Reply

LIMIT_SECONDS = 900.0
LONGEST_WAIT = 7 * 86_400.0  # that any limit of a service is taken to last
NO_HYPOTHESIS = "a change that its author did not explain"

_LOG_HEAD, _LOG_TAIL = 1 << 20, 4 << 20  # bytes of a log that are read
_LAST_WORDS = 4096  # characters of the output in which a reason is looked for
_HYPOTHESIS_BYTES = 4096
_SPELLINGS = {"optimizer": "optimiser", "regularization": "regularisation"}
_NOT_FOUND = (126, 127)  # what a wrapper returns for a program that it cannot run


class Finished(Protocol):
    """How a command ended."""

    @property
    def code(self) -> int | None: ...  # negative: a signal; None: never started
    @property
    def timed_out(self) -> bool: ...
    @property
    def wall_seconds(self) -> float: ...


class Start(Protocol):
    """Runs a command to its end or its limit, kills all that it started, and caps
    the log, which holds stdout and stderr together."""

    def __call__(
        self, command: list[str], *, cwd: Path, log: Path, limit_seconds: float, stdin: bytes | None
    ) -> Finished: ...


class AgentFailed(ResearcherError):
    """The agent gave no proposal this time.

    retry_after: seconds to wait, where its output says so; cost: US dollars that
    it took all the same.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, cost: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.cost = cost


class Command:
    """Proposes by running an agent in the workspace."""

    def __init__(
        self,
        profile: Profile,
        start: Start,
        *,
        model: str | None = None,
        limit_seconds: float = LIMIT_SECONDS,
        program: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`program` is the text of program.md; without it the workspace's is taken."""
        self.name = f"command:{profile.name}"
        self._profile, self._start, self._model = profile, start, model
        self._limit, self._program, self._now = limit_seconds, program, now

    def base(self, briefing: Briefing) -> str | None:
        """Always the branch's tip."""
        return None

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        """Asks the agent for one experiment."""
        text = prompt.build(briefing, program=self._program or _program(workspace))
        reply = self._run(workspace, briefing, text, f"{briefing.number:06}")
        said, family = read_hypothesis(workspace)
        hypothesis = said or digest.one_line(reply.message) or NO_HYPOTHESIS
        return Proposal(hypothesis, family, reply.cost)

    def repair(self, workspace: Path, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Shows the agent why its edits did not run; the hypothesis may stay."""
        text = prompt.mend(briefing, failure)
        reply = self._run(workspace, briefing, text, f"{briefing.number:06}-repair")
        said, family = read_hypothesis(workspace)
        current = briefing.state.current
        before = digest.one_line(current.hypothesis) if current else ""
        hypothesis = said or before or digest.one_line(reply.message) or NO_HYPOTHESIS
        return Proposal(hypothesis, family, reply.cost)

    def _run(self, workspace: Path, briefing: Briefing, text: str, name: str) -> Reply:
        beside = workspace.resolve().parent
        prompt_file, log = beside / f"prompt-{name}.md", beside / f"agent-{name}.log"
        content = text.encode(errors="replace")
        files.write_atomically(prompt_file, content)
        log.unlink(missing_ok=True)
        _forget_hypothesis(workspace)
        values = {
            "prompt": text,
            "prompt_file": str(prompt_file),
            "workspace": str(workspace.resolve()),
            "model": self._model,
            "beside": str(beside),
        }
        command = self._profile.command(values, briefing.contract.tunable)
        command[0] = _program_path(command[0])
        before = _editable(workspace, briefing.contract)
        try:
            finished = self._start(
                command,
                cwd=workspace,
                log=log,
                limit_seconds=self._limit,
                stdin=content if self._profile.prompt_on_stdin else None,
            )
        except OSError as error:
            gone = (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC, errno.EPERM)
            if error.errno in gone:
                reason = f"the agent `{command[0]}` cannot be run ({error.strerror})"
                raise ResearcherGone(reason) from None
            raise
        reply = self._profile.read(_read_log(log))
        unchanged = _editable(workspace, briefing.contract) == before
        self._judge(finished, reply, unchanged)
        return reply

    def _judge(self, finished: Finished, reply: Reply, unchanged: bool) -> None:
        """Raises where the run gave no proposal.

        Some agents end with success when their service refused them; so where
        nothing was edited, what they said last is read like a failure's.
        """
        failed = finished.code != 0 or bool(reply.error)
        said = reply.error or reply.text[-_LAST_WORDS:]
        if finished.timed_out:
            reason = f"the agent gave no answer within {self._limit:g} s"
            raise AgentFailed(reason, cost=reply.cost)
        if failed or unchanged:
            if hit := profiles.RATE_LIMIT.search(said):
                reason = f"the agent's service limits it: {_line_at(said, hit)}"
                wait = profiles.retry_after(said, self._now())
                if wait is not None:
                    wait = min(wait, LONGEST_WAIT)
                raise AgentFailed(reason, retry_after=wait, cost=reply.cost)
            if hit := profiles.AUTHENTICATION.search(said):
                raise ResearcherGone(f"the agent is not logged in: {_line_at(said, hit)}")
        words = digest.one_line(reply.error or reply.message or "it printed nothing")
        if finished.code in _NOT_FOUND or finished.code is None:
            why = digest.one_line(str(getattr(finished, "error", "") or words))
            raise ResearcherGone(f"the agent's program cannot be run: {why}")
        if failed:
            how = f"ended with status {finished.code}" if finished.code else "reported an error"
            raise AgentFailed(f"the agent {how}: {words}", cost=reply.cost)


def read_hypothesis(workspace: Path) -> tuple[str, str | None]:
    """(sentence or nothing, family) from the agent's file, which is taken away:
    it is no part of the candidate."""
    path = workspace / prompt.HYPOTHESIS
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:  # none, a link, or the whole workspace is gone
        _forget_hypothesis(workspace)
        return "", None
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        content = os.read(descriptor, _HYPOTHESIS_BYTES) if regular else b""
    finally:
        os.close(descriptor)
    _forget_hypothesis(workspace)
    lines = [digest.one_line(line) for line in content.decode(errors="replace").splitlines()]
    family = None
    for line in lines:
        if named := re.fullmatch(r"family\s*[:=]\s*(.+)", line, re.IGNORECASE):
            word = named[1].strip("`'\"*. ").lower().replace("_", " ").replace("-", " ")
            word = _SPELLINGS.get(word, word)
            family = word if word in FAMILIES else None
    sentences = (line for line in lines if line and not line.lower().startswith("family"))
    return next(sentences, ""), family


def _forget_hypothesis(workspace: Path) -> None:
    path = workspace / prompt.HYPOTHESIS
    if path.is_symlink() or path.exists():
        files.remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _program(workspace: Path) -> str:
    try:
        return (workspace / "program.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResearcherGone(f"program.md: cannot be read ({error})") from None


def _program_path(program: str) -> str:
    """The program's own path: the workspace is the working folder, and nothing in
    it may stand in for the agent."""
    found = shutil.which(program)
    if found is None:
        raise ResearcherGone(
            f"the agent `{program}` is not installed; install it, put it on PATH, or name another "
            "one with --agent-command"
        )
    return str(Path(found).absolute())


def _editable(workspace: Path, contract: Contract) -> dict[str, str]:
    """What stands in the files that may be changed, without asking git."""
    found: dict[str, str] = {}
    for folder, below, names in os.walk(workspace):
        below[:] = [name for name in below if name not in (".git", "target", ".venv")]
        for name in names:
            path = Path(folder, name)
            relative = path.relative_to(workspace).as_posix()
            if contract.allows(relative):
                found[relative] = _signature(path, contract.largest_file)
    return found


def _signature(path: Path, largest: int) -> str:
    """What tells one content from another; of a file that is too large, its size."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
            return f"{status.st_mode} {status.st_size}"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "unreadable"


def _read_log(log: Path) -> str:
    """The beginning and the end of a log, which may be of any size."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            content = file.read(_LOG_HEAD)
            if size > _LOG_HEAD:
                file.seek(max(_LOG_HEAD, size - _LOG_TAIL))
                content += b"\n" + file.read(_LOG_TAIL)
    except OSError:
        return ""
    return content.decode(errors="replace")


def _line_at(text: str, hit: re.Match[str]) -> str:
    """The line in which something was found."""
    start = text.rfind("\n", 0, hit.start()) + 1
    end = text.find("\n", hit.end())
    line = text[start : end if end >= 0 else len(text)]
    # Of a very long line, the part around the words that were found.
    return digest.one_line(line[max(0, hit.start() - start - 80) :], 160)
