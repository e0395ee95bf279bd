"""Subprocesses, for the loop: started under a supervisor that ends the whole tree."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from modgrad.autoresearch.errors import EnvironmentFault
from modgrad.autoresearch.faults import point

SUPERVISOR = Path(__file__).with_name("supervise.py")
# Marks the processes of an experiment, so that survivors of a crash are found.
MARKER = "MODGRAD_EXPERIMENT"
TICK = 0.5


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int | None  # negative: killed by that signal; None: it never started
    wall_seconds: float
    peak_rss_mb: float
    timed_out: bool = False
    stopped: bool = False  # by `watch`
    out_of_memory: bool = False
    survivors: int = 0  # processes that it left behind, killed since
    error: str = ""  # why it never started
    log_error: str = ""  # why its log is not whole


def run(
    command: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    limit_seconds: float,
    memory_bytes: int,
    file_bytes: int,
    stdin: Path | None = None,
    started: Callable[[int], None] | None = None,
    watch: Callable[[float], bool] | None = None,
) -> Finished:
    """Runs a command to its end, or to the end of its time, and kills all it started.

    `started` is told the process id; `watch` is called about twice a second with
    the seconds since the start, and ends the run by returning True.
    """
    point("spawn of a process")
    supervisor = subprocess.Popen(
        [sys.executable, "-I", str(SUPERVISOR)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert supervisor.stdin is not None and supervisor.stdout is not None
    request = {
        "command": command,
        "cwd": str(cwd),
        "env": dict(env),
        "log": str(log),
        "limit_seconds": limit_seconds,
        "memory_bytes": memory_bytes,
        "file_bytes": file_bytes,
        "stdin": str(stdin or "/dev/null"),
    }
    try:
        supervisor.stdin.write(json.dumps(request).encode() + b"\n")
        supervisor.stdin.flush()
        begun = _read_line(supervisor.stdout)
        start = time.monotonic()
        if started is not None and begun.get("pid"):
            started(int(begun["pid"]))
        while not select.select([supervisor.stdout], [], [], TICK)[0]:
            if watch is not None and watch(time.monotonic() - start):
                supervisor.stdin.close()
                break
        result = _read_line(supervisor.stdout)
    except BrokenPipeError:
        result = {}
    finally:
        # Without its asker the supervisor kills the tree, also after an exception.
        with contextlib.suppress(BrokenPipeError):
            supervisor.stdin.close()
        supervisor.stdout.close()
        supervisor.wait()
    if not result:
        # Nobody is left to end what it had started.
        if MARKER in env:
            kill_marked(env[MARKER])
        raise EnvironmentFault(f"the supervisor of `{command[0]}` was killed from outside")
    if result.get("error"):
        return Finished(None, 0.0, 0.0, error=result["error"])
    return Finished(
        code=result["code"],
        wall_seconds=result["wall_seconds"],
        peak_rss_mb=result["peak_rss_mb"],
        timed_out=result["timed_out"],
        stopped=result["stopped"],
        out_of_memory=result["out_of_memory"],
        survivors=result["survivors"],
        log_error=result["log_error"],
    )


def kill_marked(marker: str) -> int:
    """Kills processes that a crashed loop left behind; how many there were."""
    wanted = f"{MARKER}={marker}".encode()
    killed = 0
    for process in psutil.process_iter():
        try:
            content = Path(f"/proc/{process.pid}/environ").read_bytes()
            if process.pid != os.getpid() and wanted in content.split(b"\0"):
                process.kill()
                killed += 1
                process.wait(5)
        except (OSError, psutil.Error):
            continue
    return killed


def _read_line(stream: Any) -> dict[str, Any]:
    line = stream.readline()
    result: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return result
