"""Fault points: where tests kill the loop or make the disk fail.

`MODGRAD_FAULT=kill@N`, `eio@N` or `enospc@N` strikes at the N-th point that is
passed: each write, fsync, rename, unlink, spawn and update-ref of the loop has
one just before it. Without the variable a point costs a comparison.
"""

from __future__ import annotations

import errno
import os
import signal

_ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC}


class _Plan:
    def __init__(self, text: str) -> None:
        self.kind, _, number = text.partition("@")
        self.at = int(number) if number else 0
        self.passed = 0


_plan = _Plan(os.environ.get("MODGRAD_FAULT", ""))


def arm(text: str) -> None:
    """Plans a fault anew; an empty text plans none, but points are counted."""
    global _plan
    _plan = _Plan(text)


def passed() -> int:
    """How many points were passed since the plan was made."""
    return _plan.passed


def point(name: str) -> None:
    """A place where a fault may strike; `name` says which, in the error."""
    _plan.passed += 1
    if _plan.passed != _plan.at:
        return
    if _plan.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    number = _ERRORS[_plan.kind]
    raise OSError(number, f"{os.strerror(number)} (injected before {name})")
