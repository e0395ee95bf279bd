"""Why a training run has no score: one of a few classes, and one line."""

from __future__ import annotations

import re

from modgrad.autoresearch.processes import Finished

# Shown to the researcher once, for repair: a slip, not a bad idea.
REPAIRABLE = frozenset({"syntax", "import", "name", "shape", "usage", "violation"})

_BY_EXCEPTION = (
    ("syntax", re.compile(r"^(?:SyntaxError|IndentationError|TabError)\b")),
    ("import", re.compile(r"^(?:ImportError|ModuleNotFoundError)\b")),
    ("name", re.compile(r"^(?:NameError|AttributeError|TypeError|KeyError|UnboundLocalError)\b")),
    ("out of memory", re.compile(r"^(?:MemoryError|numpy\.\S*MemoryError)\b|Cannot allocate")),
    ("non-finite", re.compile(r"NonFiniteError|not finite|non-finite|\bNaN\b")),
    ("shape", re.compile(r"ShapeError|ProgramError|\bshapes?\b")),
    ("environment", re.compile(r"(?i)no space left|quota exceeded|read-only file system")),
    ("usage", re.compile(r"^error: ")),
)


def classify(done: Finished, log_tail: str) -> tuple[str, str]:
    """(class, one line) of a run that failed."""
    if done.timed_out:
        return "time-out", f"was killed after {done.wall_seconds:.0f} s: over the budget"
    if done.out_of_memory:
        return "out of memory", "held more memory than the machine can give"
    line = _last_line(log_tail)
    if done.code is not None and done.code < 0:
        kind = "out of memory" if done.code == -9 else "killed"
        return kind, f"was killed by signal {-done.code}" + (f" ({line})" if line else "")
    for kind, pattern in _BY_EXCEPTION:
        if pattern.search(line):
            return kind, line
    return "error", line or f"ended with status {done.code}"


def _last_line(log: str) -> str:
    """The last line that says something: an exception's, or the log's."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return "".join(character if character.isprintable() else " " for character in text)[:300]
