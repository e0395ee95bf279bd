"""Runs one command in a process tree that is gone when this program ends.

Run as a script, isolated, by `processes.py`: it reads a line of JSON from stdin,
starts the command in a session of its own, writes `{"pid": ...}` and in the end
one line of results to stdout. It is the reaper of whatever the command leaves
behind, so that a process that left its group or its parent is found too. The end
of stdin means that whoever asked is gone, or wants an end: the tree is killed.

The log keeps the first MiB and the last four, however much is written.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import psutil

HEAD = 1 << 20
TAIL = 4 << 20
TICK = 0.2  # seconds between looks at the clock and the memory
SCAN = 1.0  # seconds between looks at the whole tree, which cost milliseconds
_PR_SET_CHILD_SUBREAPER = 36


class Log:
    """A file with the head of what was written, and its tail once there is more."""

    def __init__(self, path: Path) -> None:
        # A new file, whatever a candidate may have put in its place.
        path.unlink(missing_ok=True)
        self._file: BinaryIO = path.open("xb", buffering=0)
        self._written = 0
        self._tail = bytearray()
        self._left_out = 0
        self.failed = ""

    def write(self, block: bytes) -> None:
        """Takes a block in; never fails, never blocks the one who writes."""
        head = block[: max(0, HEAD - self._written)]
        if head:
            self._put(head)
            self._written += len(head)
        self._tail += block[len(head) :]
        if len(self._tail) > 2 * TAIL:
            self._trim()

    def _trim(self) -> None:
        surplus = max(0, len(self._tail) - TAIL)
        self._left_out += surplus
        del self._tail[:surplus]

    def close(self) -> None:
        """Writes the tail."""
        self._trim()
        if self._left_out:
            self._put(b"\n[%d bytes left out]\n" % self._left_out)
        if self._tail:
            self._put(bytes(self._tail))
        self._file.close()

    def _put(self, block: bytes) -> None:
        try:
            self._file.write(block)
        except OSError as error:
            self.failed = str(error)


def main() -> int:
    """Reads the request, runs it, reports."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = int(request["file_bytes"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    log = Log(Path(request["log"]))
    start = time.monotonic()
    try:
        with Path(request["stdin"]).open("rb") as stdin:
            child = subprocess.Popen(
                request["command"],
                cwd=request["cwd"],
                env=request["env"],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        log.close()
        _say({"pid": 0})
        _say({"error": f"{request['command'][0]}: {error.strerror}"})
        return 0
    _say({"pid": child.pid})
    result = _watch(child, log, start, request)
    log.close()
    _say({**result, "log_error": log.failed})
    return 0


def _watch(
    child: subprocess.Popen[bytes], log: Log, start: float, request: dict[str, Any]
) -> dict[str, Any]:
    output = child.stdout
    assert output is not None
    os.set_blocking(output.fileno(), False)
    selector = selectors.DefaultSelector()
    selector.register(output, selectors.EVENT_READ, "output")
    selector.register(sys.stdin.buffer, selectors.EVENT_READ, "asker")
    # Readable when the child ends; Linux 5.3.
    ended = os.pidfd_open(child.pid)
    selector.register(ended, selectors.EVENT_READ, "ended")
    deadline = start + float(request["limit_seconds"])
    result: dict[str, Any] = {"timed_out": False, "stopped": False, "out_of_memory": False}
    peak, last_scan, status, usage = 0, start, None, None
    next_tick = start
    while status is None:
        for key, _ in selector.select(max(0.0, next_tick - time.monotonic())):
            if key.data == "asker":
                result["stopped"] = True
            elif key.data == "output" and not _drain(output, log, most=1 << 20):
                selector.unregister(output)
        now = time.monotonic()
        if now >= next_tick:
            next_tick = now + TICK
            peak = max(peak, _peak_of(child.pid))
            if now - last_scan >= SCAN:
                last_scan = now
                held = _held_by_tree()
                peak = max(peak, held)
                result["out_of_memory"] = held > request["memory_bytes"]
        pid, code, spent = os.wait4(child.pid, os.WNOHANG)
        if pid:
            status, usage = code, spent
            break
        result["timed_out"] = now >= deadline
        if result["timed_out"] or result["stopped"] or result["out_of_memory"]:
            break
    wall = time.monotonic() - start
    if status is None:
        os.kill(child.pid, signal.SIGKILL)
        _, status, usage = os.wait4(child.pid, 0)
    os.close(ended)
    survivors = _kill_tree()
    _drain(output, log, most=TAIL)
    if usage is not None:
        peak = max(peak, usage.ru_maxrss * 1024)
    child.returncode = os.waitstatus_to_exitcode(status)
    return {
        **result,
        "code": child.returncode,
        "wall_seconds": wall,
        "peak_rss_mb": peak / (1 << 20),
        "survivors": survivors,
    }


def _drain(output: Any, log: Log, most: int) -> bool:
    """Moves up to `most` bytes into the log; False at the end of the output."""
    moved = 0
    while moved < most:
        try:
            block = os.read(output.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        if not block:
            return False
        log.write(block)
        moved += len(block)
    return True


def _peak_of(pid: int) -> int:
    """The most resident memory that a process has held, in bytes."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _held_by_tree() -> int:
    held = 0
    for process in psutil.Process().children(recursive=True):
        try:
            held += process.memory_info().rss
        except psutil.Error:
            continue
    return held


def _kill_tree() -> int:
    """Kills every descendant and sees it gone; how many there were to kill."""
    seen: set[int] = set()
    for attempt in range(200):
        left = []
        for process in psutil.Process().children(recursive=True):
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
            except psutil.Error:
                continue
        # Stopped first, so that none can have children while the others are killed.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in left:
                try:
                    process.send_signal(number)
                except psutil.Error:
                    continue
        seen.update(process.pid for process in left)
        _reap()
        if not left:
            break
        time.sleep(min(0.05, 0.002 * (attempt + 1)))
    return len(seen)


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever asked is gone; the tree is killed all the same.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
