"""Commands run to their end, or to the end of their time, and nothing outlives them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from modgrad.autoresearch import crashes, processes, sandbox
from modgrad.autoresearch.errors import EnvironmentFault
from modgrad.autoresearch.processes import Finished
from modgrad.autoresearch.supervise import HEAD, TAIL

from tests.conftest import ROOT

# Leaves its group, its session and its parent, and says where it is.
DAEMON = """
import os, sys, time
if os.fork():
    time.sleep({linger})
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
if {hidden}:
    os.execve(sys.executable, [sys.executable, "-c", {body!r}], {{"HIDDEN": "yes"}})
exec({body!r})
"""
WAIT = "import os, time; open('daemon', 'w').write(str(os.getpid())); time.sleep(60)"


def run(folder: Path, command: list[str], **given: Any) -> Finished:
    settings: dict[str, Any] = {
        "cwd": folder,
        "env": {"PATH": os.environ["PATH"], processes.MARKER: f"test@{folder}"},
        "log": folder / "log",
        "limit_seconds": 20.0,
        "memory_bytes": 8 << 30,
        "file_bytes": 1 << 30,
        **given,
    }
    return processes.run(command, **settings)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def read_pid(path: Path) -> int:
    """Waits for a process id that is written there."""
    assert wait_until(lambda: path.is_file() and path.read_text() != "")
    return int(path.read_text())


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_ends_with_its_status(tmp_path: Path, code: int) -> None:
    told: list[int] = []
    done = run(
        tmp_path, ["sh", "-c", f"echo words; echo >&2 more; exit {code}"], started=told.append
    )
    assert (done.code, done.timed_out, done.stopped, done.survivors) == (code, False, False, 0)
    assert (tmp_path / "log").read_text() == "words\nmore\n"
    assert len(told) == 1
    assert done.peak_rss_mb > 0


def test_a_trainer_that_ignores_to_be_told_is_killed_in_time(tmp_path: Path) -> None:
    """F16."""
    code = (
        "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)"
    )
    start = time.monotonic()
    done = run(tmp_path, python(code), limit_seconds=1.0)
    assert time.monotonic() - start < 4
    assert done.timed_out
    assert done.code == -signal.SIGKILL
    assert 1.0 <= done.wall_seconds < 2.5
    assert crashes.classify(done, "")[0] == "time-out"


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "of another environment"])
def test_a_daemon_does_not_outlive_the_command(tmp_path: Path, hidden: bool) -> None:
    """F17: it left group, session and parent, and perhaps the mark in its environment."""
    done = run(tmp_path, python(DAEMON.format(linger=1.5, hidden=hidden, body=WAIT)))
    assert done.code == 0
    assert done.survivors >= 1
    assert not is_alive(int((tmp_path / "daemon").read_text()))


def test_a_daemon_does_not_outlive_a_command_that_is_killed(tmp_path: Path) -> None:
    code = DAEMON.format(linger=60, hidden=True, body=WAIT)
    done = run(tmp_path, python(code), limit_seconds=1.0)
    assert done.timed_out
    assert not is_alive(int((tmp_path / "daemon").read_text()))


def test_a_late_writer_is_dead_before_the_checkpoint_is_read(tmp_path: Path) -> None:
    """X13: a daemon that rewrites the checkpoint once the training has ended."""
    body = "import time\nwhile True: open('checkpoint', 'ab').write(b'late'); time.sleep(0.01)"
    code = "open('checkpoint', 'wb').write(b'honest')\n" + DAEMON.format(
        linger=0.4, hidden=True, body=body
    )
    done = run(tmp_path, python(code))
    assert done.code == 0
    content = (tmp_path / "checkpoint").read_bytes()
    assert content.endswith(b"late")  # it was at work
    time.sleep(0.2)
    assert (tmp_path / "checkpoint").read_bytes() == content


def test_a_flood_of_output_neither_fills_the_disk_nor_blocks(tmp_path: Path) -> None:
    """F20: the head and the tail are kept."""
    most = []

    def watch(seconds: float) -> bool:
        most.append((tmp_path / "log").stat().st_size)
        return False

    command = "echo first; head -c 300000000 /dev/zero; echo; echo last"
    done = run(tmp_path, ["sh", "-c", command], watch=watch, limit_seconds=60.0)
    assert done.code == 0
    content = (tmp_path / "log").read_bytes()
    assert len(content) <= HEAD + TAIL + 100
    assert max(most, default=0) <= HEAD + TAIL + 100
    assert content.startswith(b"first\n")
    assert content.endswith(b"\nlast\n")
    assert b" bytes left out]\n" in content


def test_a_flood_that_never_ends_is_ended(tmp_path: Path) -> None:
    done = run(tmp_path, ["sh", "-c", "while :; do echo yes; done"], limit_seconds=1.0)
    assert done.timed_out
    assert done.wall_seconds < 3
    assert (tmp_path / "log").stat().st_size <= HEAD + TAIL + 100


def test_the_log_goes_into_a_new_file(tmp_path: Path) -> None:
    """What stood there may be a link to something of the user's, or a pipe."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "log").symlink_to(precious)
    run(tmp_path, ["echo", "words"])
    assert precious.read_text() == "mine"
    assert (tmp_path / "log").read_text() == "words\n"
    (tmp_path / "log").unlink()
    os.mkfifo(tmp_path / "log")
    run(tmp_path, ["echo", "words"])
    assert (tmp_path / "log").read_text() == "words\n"


@pytest.mark.parametrize("where", ["itself", "a child"])
def test_a_memory_hog_is_ended(tmp_path: Path, where: str) -> None:
    hog = "import time; b = bytearray(300 << 20); time.sleep(60)"
    if where == "a child":
        hog = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hog!r}])"
    done = run(tmp_path, python(hog), memory_bytes=200 << 20)
    assert done.out_of_memory
    assert done.wall_seconds < 10
    assert done.peak_rss_mb >= 200
    assert crashes.classify(done, "")[0] == "out of memory"


def test_memory_below_the_limit_is_none_of_our_business(tmp_path: Path) -> None:
    code = "import time; b = bytearray(100 << 20); time.sleep(1.5)"
    done = run(tmp_path, python(code), memory_bytes=200 << 20)
    assert (done.code, done.out_of_memory) == (0, False)
    assert 100 <= done.peak_rss_mb < 200


def test_a_file_may_not_grow_without_end(tmp_path: Path) -> None:
    done = run(tmp_path, ["sh", "-c", "cat /dev/zero > big"], file_bytes=1 << 20)
    assert done.code != 0
    assert (tmp_path / "big").stat().st_size <= 1 << 20


def test_watch_may_end_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, ["sleep", "60"], watch=lambda seconds: seconds > 0.3)
    assert done.stopped
    assert not done.timed_out
    assert done.wall_seconds < 5


def test_an_exception_of_the_asker_kills_the_tree(tmp_path: Path) -> None:
    pids: list[int] = []

    def watch(seconds: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["sleep", "60"], started=pids.append, watch=watch)
    assert not is_alive(pids[0])


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_trainer_dies_with_the_loop(tmp_path: Path, end: signal.Signals) -> None:
    """The end of the supervisor's stdin is its life line."""
    daemon = DAEMON.format(linger=60, hidden=True, body=WAIT)
    asker = f"""
import sys
from pathlib import Path
from modgrad.autoresearch import processes
folder = Path({str(tmp_path)!r})
processes.run([sys.executable, "-c", {daemon!r}], cwd=folder, env={{}}, log=folder / "log",
    limit_seconds=60, memory_bytes=1 << 33, file_bytes=1 << 30,
    started=lambda pid: (folder / "pid").write_text(str(pid)))
"""
    loop = subprocess.Popen([sys.executable, "-c", asker], cwd=ROOT)
    trainer, daemon_pid = read_pid(tmp_path / "pid"), read_pid(tmp_path / "daemon")
    assert is_alive(trainer)
    assert is_alive(daemon_pid)
    loop.send_signal(end)
    loop.wait()
    assert wait_until(lambda: not is_alive(trainer) and not is_alive(daemon_pid), 5)


def test_a_killed_supervisor_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    pids: list[int] = []

    def started(pid: int) -> None:
        pids.append(pid)
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)

    with pytest.raises(EnvironmentFault, match="was killed from outside"):
        run(tmp_path, ["sleep", "60"], started=started)
    assert not is_alive(pids[0])  # it would write its checkpoint beside the next one's


def test_a_killed_command_is_known_by_its_signal(tmp_path: Path) -> None:
    """F2, as far as this module goes."""
    done = run(tmp_path, ["sleep", "60"], started=lambda pid: os.kill(pid, signal.SIGKILL))
    assert done.code == -signal.SIGKILL
    assert not done.timed_out
    assert crashes.classify(done, "")[1].startswith("was killed by signal 9")


@pytest.mark.parametrize(
    ("command", "folder"),
    [(["no-such-program"], "."), (["sleep", "1"], "no-such-folder"), (["./log"], ".")],
)
def test_what_cannot_be_started_says_why(tmp_path: Path, command: list[str], folder: str) -> None:
    told: list[int] = []
    done = run(tmp_path, command, cwd=tmp_path / folder, started=told.append)
    assert done.code is None
    assert command[0] in done.error
    assert told == []


def test_stdin_is_a_file_or_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, ["cat"]).code == 0
    (tmp_path / "given").write_text("words")
    run(tmp_path, ["cat"], stdin=tmp_path / "given")
    assert (tmp_path / "log").read_text() == "words"


def test_survivors_of_a_crash_are_found_by_their_mark(tmp_path: Path) -> None:
    def orphan(marker: str) -> psutil.Process:
        # Its parent is gone, as after a crash: nobody here may wait for it.
        shell = ["sh", "-c", "sleep 60 >/dev/null & echo $!"]
        env = {processes.MARKER: marker, "PATH": os.environ["PATH"]}
        return psutil.Process(int(subprocess.check_output(shell, env=env)))

    mine, other = orphan(f"a@{tmp_path}"), orphan(f"ab@{tmp_path}")
    try:
        assert processes.kill_marked(f"a@{tmp_path}") == 1
        assert not runs(mine)
        assert runs(other)
        assert processes.kill_marked(f"a@{tmp_path}") == 0
    finally:
        other.kill()


def runs(process: psutil.Process) -> bool:
    """Whether it does, and is no zombie that nobody waits for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


HOSTILE = {
    "LD_PRELOAD": "",
    "LD_LIBRARY_PATH": "/hostile",
    "PYTHONPATH": "/hostile",
    "PYTHONSTARTUP": "/hostile",
    "PYTHONINSPECT": "",
    "GIT_DIR": "/hostile",
    "GIT_CONFIG_PARAMETERS": "'core.fsmonitor=hostile'",
    "ANTHROPIC_API_KEY": "key",
    "OPENAI_API_KEY": "key",
    "AWS_SECRET_ACCESS_KEY": "key",
    "HF_TOKEN": "key",
    "SSH_AUTH_SOCK": "/hostile",
    "MODGRAD_FAULT": "",
    "BASH_ENV": "/hostile",
    "http_proxy": "http://hostile",
}


def seen(folder: Path) -> dict[str, str]:
    result: dict[str, str] = json.loads((folder / "seen").read_text())
    return result


PRINT_ENVIRONMENT = "import json, os; json.dump(dict(os.environ), open('seen', 'w'))"


def test_a_trainer_sees_little_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    done = sandbox.start_trainer(
        python(PRINT_ENVIRONMENT),
        cwd=tmp_path,
        scratch=tmp_path / "scratch",
        python_path=tmp_path / "trusted",
        marker="t@here",
        log=tmp_path / "log",
        limit_seconds=20,
    )
    assert done.code == 0, (tmp_path / "log").read_text()
    found = seen(tmp_path)
    assert not set(HOSTILE) - {"PYTHONPATH"} & set(found)
    assert found["PYTHONPATH"] == str(tmp_path / "trusted")
    assert found["HOME"] == str(tmp_path / "scratch" / "home")
    assert found["TMPDIR"] == str(tmp_path / "scratch" / "tmp")
    assert found[processes.MARKER] == "t@here"
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["PATH"] == os.environ["PATH"]


def test_a_researcher_keeps_its_keys_and_nothing_that_acts_on_its_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    done = sandbox.start_researcher(
        python(PRINT_ENVIRONMENT),
        cwd=tmp_path,
        scratch=tmp_path / "scratch",
        marker="t@here",
        log=tmp_path / "log",
        limit_seconds=20,
    )
    assert done.code == 0, (tmp_path / "log").read_text()
    found = seen(tmp_path)
    assert found["ANTHROPIC_API_KEY"] == "key"
    assert found["HOME"] == os.environ["HOME"]
    dropped = {name for name in HOSTILE if name.startswith(("LD_", "PYTHON", "GIT_", "MODGRAD_"))}
    assert not dropped & set(found)
