"""Changes of structure, which are more than a value."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from modgrad.autoresearch.researchers.base import FAMILIES
from modgrad.autoresearch.researchers.moves import Move, moves
from modgrad.autoresearch.researchers.sources import LINE_LENGTH, fits

from tests.conftest import ROOT
from tests.search.world import (
    FAKE,
    LANGUAGE,
    ODD,
    TODAY,
    fill,
)


@pytest.mark.parametrize("move", moves(TODAY), ids=lambda move: move.name)
def test_every_move_applies_to_todays_files(move: Move) -> None:
    edited = move.apply(TODAY)
    assert edited is not None
    changed = [path for path in TODAY if edited[path] != TODAY[path]]
    assert changed
    assert edited.keys() == TODAY.keys()
    for path in changed:
        assert LANGUAGE.allows(path)
        assert len(ast.parse(edited[path]).body) == len(ast.parse(TODAY[path]).body)
        assert max(map(len, edited[path].splitlines())) <= LINE_LENGTH
    assert move.family in FAMILIES


def test_what_is_never_empty_is_not_left_out() -> None:
    text = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    parts: tuple[int, ...] = (1, 2)  # never empty
    extras: tuple[int, ...] = (3,)
"""
    names = [move.name for move in moves({"a.py": text})]
    assert "without-extras" in names
    assert "without-parts" not in names


def test_moves_leave_other_files_alone() -> None:
    for text in ("", "x = 1\n", FAKE, ODD):
        for move in moves({"a.py": text}):
            edited = move.apply({"a.py": text})
            assert edited is None or fits({"a.py": text}, edited)
    assert all(move.apply({"a.py": "x = 1\n"}) is None for move in moves(TODAY))


def test_a_move_is_not_made_twice() -> None:
    for move in moves(TODAY):
        edited = move.apply(TODAY)
        assert edited is not None
        again = move.apply(edited)
        if move.name not in ("shorter-windows", "longer-windows", "soft-cap", "skip"):
            assert again is None


@pytest.mark.slow
@pytest.mark.parametrize("move", moves(TODAY), ids=lambda move: move.name)
def test_every_move_trains(move: Move, corpus: tuple[Path, Path], tmp_path: Path) -> None:
    edited = move.apply(TODAY)
    assert edited is not None
    fill(tmp_path, {str(one.relative_to(ROOT)): one.read_text() for one in ROOT.glob("isis/*.py")})
    fill(tmp_path, edited)
    done = subprocess.run(
        [sys.executable, "-m", "isis", "learn-ffn", "--steps", "2", "model.ckpt", str(corpus[0])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
