"""What the report's page carries as data: packed JSON that its script unpacks.

The rows of all experiments are one block. Diffs, logs and curves are many blocks of
a few experiments each, unpacked when a row is opened; keeps come first, then the
newest, until the page would be too large to open at once.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from modgrad.autoresearch import results
from modgrad.autoresearch.errors import ModgradError
from modgrad.autoresearch.report_frame import frame
from modgrad.autoresearch.results import plain, score
from modgrad.autoresearch.state import Experiment, Measurement, State

# Of an experiment's diff the start, of its log the end, in characters.
LONGEST_DIFF = 100_000
LONGEST_LOG = 20_000
# Of all details together, packed: a browser opens a file of this size in a second.
LARGEST_DETAILS = 24 << 20
_BLOCK = 24  # experiments whose details are packed together, for they resemble each other

_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# What acts on the text around it is shown by a sign of its own.
_VISIBLE: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **{code: f"⟨U+{code:04X}⟩" for code in (*range(0x80, 0xA0), *map(ord, results.REORDERING))},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


@dataclass(frozen=True)
class Details:
    """What the journal does not hold of an experiment."""

    diff: str  # from the commit that its researcher was given to its own
    log_tail: str


@dataclass(frozen=True)
class Block:
    """Packed JSON: gzip, then base64."""

    name: str
    packed: bytes


def visible(text: str) -> str:
    """Text of several lines in which nothing acts: colours are dropped, control
    characters and marks of direction become signs."""
    return _COLOURS.sub("", text.replace("\r\n", "\n")).translate(_VISIBLE)


def blocks(state: State, details: Callable[[int], Details]) -> Iterator[Block]:
    """All blocks; that of the rows comes last, for it says where the details are."""
    over = results.decided(state)
    keeps = [one for one in over if one.status == "keep"]
    order = keeps + [one for one in reversed(over) if one.status != "keep"]
    where: dict[int, int] = {}
    total = 0
    for index, start in enumerate(range(0, len(order), _BLOCK)):
        members = order[start : start + _BLOCK]
        block = _pack(f"details-{index}", {one.number: _detail(one, details) for one in members})
        total += len(block.packed)
        if total > LARGEST_DETAILS:
            break
        where |= {one.number: index for one in members}
        yield block
    yield _pack("rows", _rows(state, over, where))


def _rows(state: State, over: list[Experiment], where: dict[int, int]) -> dict[str, Any]:
    view, deltas = frame(state), results.deltas(state)
    columns: dict[str, list[Any]] = {
        "number": [one.number for one in over],
        "commit": [one.candidate or one.base for one in over],
        "val_bpb": [_rounded(score(one)) for one in over],
        "delta": [_rounded(deltas.get(one.number)) for one in over],
        "holdout_bpb": [_rounded(one.holdout_bpb) for one in over],
        "memory": [round(one.memory_gb, 2) if one.main else None for one in over],
        "status": [one.status for one in over],
        "provisional": [one.provisional and one.status == "keep" for one in over],
        "family": [plain(one.family) for one in over],
        "researcher": [plain(one.researcher) for one in over],
        "seconds": [round(one.wall_seconds, 1) for one in over],
        "hypothesis": [plain(one.hypothesis) for one in over],
        "reason": [plain(one.reason) for one in over],
        "crash": [plain(one.crash or "") for one in over],
        "block": [where.get(one.number) for one in over],
    }
    meta = {"low": view.low, "high": view.high, "shift": view.shift, "sigma": state.sigma}
    return {"meta": meta, "columns": columns}


def _detail(one: Experiment, details: Callable[[int], Details]) -> dict[str, Any]:
    failed = ""
    try:
        found = details(one.number)
    except (ModgradError, OSError) as error:
        # One experiment without its diff is better than no report.
        found, failed = Details("", ""), visible(str(error))
    diff, log = found.diff, found.log_tail
    if len(diff) > LONGEST_DIFF:
        diff = diff[:LONGEST_DIFF] + "\n… cut here; `git show` has all of it"
    if len(log) > LONGEST_LOG:
        log = "…\n" + log[-LONGEST_LOG:]
    curve = one.main.curve if one.main else []
    return {
        "diff": visible(diff),
        "log": visible(log),
        "failed": failed,
        "notes": visible(one.notes),
        "curve": [[round(seconds, 1), round(loss, 4)] for seconds, loss in curve],
        "runs": [_run(run) for run in one.measurements],
    }


def _run(run: Measurement) -> dict[str, Any]:
    end = run.crash or ("stopped early" if run.scouted else "")
    return {
        "role": run.role,
        "commit": run.commit[:7],
        "seed": run.seed,
        "val_bpb": _rounded(run.val_bpb),
        "seconds": round(run.wall_seconds, 1),
        "end": plain(f"{end}: {run.reason}" if end and run.reason else end),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _pack(name: str, content: Any) -> Block:
    # Characters beyond ASCII as escapes: no encoding can go wrong on the way.
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Block(name, base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)))
