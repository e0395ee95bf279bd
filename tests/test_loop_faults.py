"""The loop is struck at every fault point, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a file system: syncing a disk a thousand times
    takes longer than all the rest."""
    memory = "/dev/shm"
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


def strike(folder: Path, kind: str, every: int = 1) -> str:
    command = [sys.executable, "-m", "tests.fault_harness", str(folder), kind, str(every)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_killed_at_every_point_the_loop_goes_on_as_if_nothing_had_happened(folder: Path) -> None:
    faults = int(strike(folder, "kill").split()[0])
    assert faults > 100


@pytest.mark.parametrize("kind", ["eio", "enospc"])
def test_a_failing_disk_loses_nothing(folder: Path, kind: str) -> None:
    strike(folder, kind, every=11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eio", "enospc"])
def test_a_disk_that_fails_at_any_point_loses_nothing(folder: Path, kind: str) -> None:
    strike(folder, kind)
