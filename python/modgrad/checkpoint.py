"""Checkpoints: one file with programs, weights, optimiser state and meta data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modgrad import _core
from modgrad.program import Array, Program


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: every digest, shape and weight was verified."""

    path: Path
    programs: dict[str, _core.Program]
    weights: dict[str, Array]
    state: dict[str, Array]
    meta: dict[str, Any]


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint; raises `CheckpointError` naming the file and the reason."""
    programs, weights, state, meta = _core.load_checkpoint(path)
    return Checkpoint(path, programs, weights, state, json.loads(meta))


def save(
    path: Path,
    *,
    programs: Mapping[str, Program],
    weights: Mapping[str, Array],
    state: Mapping[str, Array],
    meta: Mapping[str, object],
) -> str:
    """Writes a checkpoint in one piece, or leaves the old one whole.

    Returns the SHA-256 of the file.
    """
    cores = {name: program.core for name, program in programs.items()}
    return _core.save_checkpoint(path, cores, dict(weights), dict(state), json.dumps(meta))
