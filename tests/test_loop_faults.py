"""The loop is struck at every fault point, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def strike(folder: Path, kind: str, every: int = 1) -> str:
    command = [sys.executable, "-m", "tests.fault_harness", str(folder), kind, str(every)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_killed_at_every_point_the_loop_loses_nothing(memory_folder: Path) -> None:
    faults = int(strike(memory_folder, "kill").split()[0])
    assert faults > 100


@pytest.mark.parametrize("kind", ["eio", "enospc"])
def test_a_failing_disk_loses_nothing(memory_folder: Path, kind: str) -> None:
    strike(memory_folder, kind, every=11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eio", "enospc"])
def test_a_disk_that_fails_at_any_point_loses_nothing(memory_folder: Path, kind: str) -> None:
    strike(memory_folder, kind)
