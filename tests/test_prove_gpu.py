"""The script that proves modgrad on a card, tried on the emulated device."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.skipif(not (ROOT / ".venv" / "bin" / "python").is_file(), reason="needs ./.venv")
def test_the_script_runs_on_the_emulated_device(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "prove_gpu.sh", "emulated", "--quick"],
        env={**os.environ, "BUILD": "0", "LOGS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "table.txt").read_text(encoding="utf-8")
    assert done.stdout.endswith(table)
    rows = [line.split("  ")[0] for line in table.splitlines()]
    for row in ("card", "op table", "ffn small, f32, 2 steps", "time"):
        assert row in rows
    assert "small, 8 positions, bf16" in table and "FAILED" not in table
    assert (tmp_path / "curve-ffn-small-bf16.txt").read_text(encoding="utf-8").count("\n") == 3
