"""Shared fixtures: a small corpus, and the commands as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent

Isis = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, Path]:
    """(train, val): text of a few words over and over, in random order."""
    words = [b"the ", b"model ", b"learns ", b"bytes ", b"of ", b"a ", b"small ", b"corpus.\n"]
    generator = np.random.default_rng(1)
    paths = (tmp_path / "train.txt", tmp_path / "val.txt")
    for path, count in zip(paths, (20_000, 1_000), strict=True):
        path.write_bytes(b"".join(words[i] for i in generator.integers(0, len(words), count)))
    return paths


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a file system: syncing a disk a thousand
    times takes longer than all the rest."""
    memory = "/dev/shm"
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


@pytest.fixture
def isis() -> Isis:
    """Runs `python -m isis` from the root of the repository."""

    def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "isis", *map(str, arguments)]
        # What a model writes need not be UTF-8.
        return subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )

    return run
