"""What a score is made of, as a user asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from modgrad.evaluate import evaluate

from isis.anatomy import KINDS, dissect, kind_of
from isis.learn_ffn import train

TEXT = np.frombuffer(b"One cat, 2 cats;\n\tthree \xc3\xa9t\xc3\xa9s.\n" * 300, np.uint8)


def test_kinds_of_bytes() -> None:
    found = [KINDS[kind] for kind in kind_of(np.frombuffer(b"aZ5 \t\n\r;\x00\x7f\xc3", np.uint8))]
    assert found == ["letter"] * 2 + ["digit"] + ["space"] * 2 + ["line end"] * 2 + [
        "punctuation",
        "other",
        "other",
        "other",
    ]


@pytest.mark.parametrize("preset", ["small", "counted"])
def test_the_parts_add_up_to_the_evaluators_score(tmp_path: Path, preset: str) -> None:
    path, val = tmp_path / "m.ckpt", tmp_path / "val.txt"
    train(path, TEXT, preset=preset, context=32, steps=3, threads=1)
    val.write_bytes(TEXT[:2000].tobytes())
    anatomy = dissect(path, TEXT[:2000], threads=1)
    score = evaluate(path, val, threads=1)
    assert anatomy.costs.mean() == pytest.approx(score["bits_per_byte"], abs=1e-6)
    for rows in (anatomy.by_position(), anatomy.by_kind()):
        assert sum(count for _, count, _ in rows) == 1999
        total = sum(count * bits for _, count, bits in rows)
        assert total == pytest.approx(anatomy.costs.sum())
    names = [name for name, _, _ in anatomy.by_position()]
    assert names == ["0", "1", "2–3", "4–7", "8–15", "16–31"]
    if preset == "counted":
        assert anatomy.gates is not None
        assert anatomy.gates.shape == (3, len(anatomy.experts))
        assert "order 16" in anatomy.experts
        assert "mixer by last byte" in anatomy.experts
    else:
        assert anatomy.gates is None


def test_the_command_prints_and_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path, val, plot = tmp_path / "m.ckpt", tmp_path / "val.txt", tmp_path / "m.png"
    train(path, TEXT, preset="counted", context=32, steps=1, threads=1)
    val.write_bytes(TEXT[:600].tobytes())
    command = [sys.executable, "-m", "isis", "eval", str(path), str(val), "--plot"]
    done = subprocess.run([*command, str(plot)], capture_output=True, text=True, check=True)
    assert "mixer by depth" in done.stdout
    assert "line end" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    refused = subprocess.run([*command, "m.txt"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert ".png" in refused.stderr
