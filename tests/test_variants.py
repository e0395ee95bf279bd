"""`python -m benches.variants`, as it is run: a model so small that a run takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = (
    "model.width=16 model.hidden=16 model.layers=1 model.recurrence=4 model.context=24 "
    "model.last_bytes=3 recipe.time=24"
)


def variants(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    text = b"the cat sat on a mat; then the cat sat by the door. " * 40
    (folder / "text").write_bytes(text)
    data = str(folder / "text")
    command = [sys.executable, "-m", "benches.variants", str(folder / "runs.jsonl"), *names]
    command += ["--text", "cats", data, data, "--seeds", "2", "--steps", "3", "--jobs", "1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_runs_are_kept_compared_with_the_base_and_not_repeated(tmp_path: Path) -> None:
    first = variants(tmp_path, f"base:{SMALL}")
    assert first.returncode == 0, first.stderr
    both = variants(tmp_path, f"base:{SMALL}", f"one window:{SMALL} recipe.batch=1 steps=6")
    assert both.returncode == 0, both.stderr
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    kept = [(run["variant"], run["text"], run["seed"]) for run in runs]
    assert kept == [(name, "cats", seed) for name in ("base", "one window") for seed in (0, 1)]
    base, other = ([r["bits_per_byte"] for r in runs[at : at + 2]] for at in (0, 2))
    gains = [other[seed] - base[seed] for seed in (0, 1)]
    error = abs(gains[0] - gains[1]) / 2
    row = both.stdout.splitlines()[-1]
    assert row == (f"| one window | {sum(other) / 2:.4f} ({sum(gains) / 2:+.4f} ± {error:.4f}) |")


def test_a_run_that_fails_is_told(tmp_path: Path) -> None:
    done = variants(tmp_path, f"typo:{SMALL} recipe.batches=2")
    assert done.returncode == 1
    assert "batches" in done.stderr and not (tmp_path / "runs.jsonl").exists()
