"""Mazes from Python, and their evaluator as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import modgrad
import numpy as np
import pytest
from modgrad import _core, mazes
from modgrad.errors import EvaluationError, MazeError, UsageError
from modgrad.program import Tensor

STEPS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])


def first_way(pixels: Tensor) -> Tensor:
    """Logits [B, 20, 5] for the way that is open from the first corner."""
    batch = pixels.shape[0]
    red = pixels[:, 0]
    down, right = red[:, 2, 1].reshape(batch, 1), red[:, 1, 2].reshape(batch, 1)
    none = down * 0.0
    logits = modgrad.functional.concat([none, down, none, right, none - 1.0], 1)
    return logits.reshape(batch, 1, 5).broadcast_to(batch, 20, 5)


def save(path: Path, *sizes: int) -> Path:
    def program(size: int) -> _core.Program:
        spec = modgrad.spec((8, 3, size, size), "f32")
        return modgrad.trace(lambda pixels: {"logits": first_way(pixels)}, pixels=spec).core

    programs = {f"score_{size}": program(size) for size in sizes}
    programs["score"] = programs.pop(f"score_{sizes[0]}")
    _core.save_checkpoint(path, programs, {}, {}, "{}")
    return path


def test_targets_lead_from_start_to_goal() -> None:
    batch = mazes.generate(50, size=15, algorithm="wilson", loops=0.1, route_len=200, threads=2)
    assert batch.pixels.shape == (50, 3, 15, 15) and batch.pixels.dtype == np.float32
    assert batch.directions.shape == (50, 15, 15)
    for pixels, targets, length, optimal, directions in zip(
        batch.pixels, batch.targets, batch.lengths, batch.optimal, batch.directions, strict=True
    ):
        colours = pixels.transpose(1, 2, 0)
        (position,) = np.argwhere((colours == (1, 0, 0)).all(-1))
        (goal,) = np.argwhere((colours == (0, 1, 0)).all(-1))
        assert (targets[:length] != mazes.WAIT).all() and (targets[length:] == mazes.WAIT).all()
        for target, right in zip(targets[:length], optimal, strict=False):
            assert right == directions[tuple(position)] and right >> target & 1
            position = position + STEPS[target]
            assert colours[tuple(position)].any(), "no route leads into a wall"
        assert (position == goal).all()
        assert ((directions == 0) == ~colours.any(-1)).all()
        assert directions[tuple(goal)] == 1 << mazes.WAIT


def test_a_maze_is_the_same_in_every_batch() -> None:
    whole = mazes.generate(20, seed=7)
    part = mazes.generate(5, seed=7, first=11, threads=3)
    assert (part.pixels == whole.pixels[11:16]).all()
    assert (mazes.generate(20, seed=8).pixels != whole.pixels).any()
    published = mazes.generate(2, layout="corner", seed=42, stream="sequential")
    assert published.lengths.tolist() == [56, 80]


def test_impossible_mazes_are_refused_in_one_line() -> None:
    for size in (4, 22, 3, 1001):
        with pytest.raises(MazeError, match=f"^a maze of {size}x{size} pixels is impossible"):
            mazes.generate(1, size=size)
    with pytest.raises(MazeError, match="loops 2 is not a share"):
        mazes.generate(1, loops=2.0)
    with pytest.raises(MazeError, match="ask for fewer"):
        mazes.generate(10**9)
    with pytest.raises(MazeError, match="cannot start at maze 3"):
        mazes.generate(1, first=3, stream="sequential")
    with pytest.raises(MazeError, match="`prim` is no maze algorithm"):
        mazes.generate(1, algorithm="prim")  # type: ignore[arg-type]
    for options in ({"size": -5}, {"seed": -1}, {"first": -1}, {"route_len": 0}):
        with pytest.raises(UsageError):
            mazes.generate(1, **options)  # type: ignore[arg-type]


def test_the_evaluator_scores_a_checkpoint_at_several_sizes(tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", 21, 39)
    score = mazes.evaluate(path, threads=1, layout="corner")
    assert (score["val_bpb"], score["size"], score["program"]) == (0.0, 21, "score")
    assert score["first_step"]["low"] == pytest.approx(0.981, abs=0.001)
    larger = mazes.evaluate(path, threads=2, size=39, layout="corner", mazes=50, route_len=10)
    assert (larger["program"], larger["mazes"], larger["route_length"]) == ("score_39", 50, 10)
    options = {"algorithm": "kruskal", "loops": 0.05, "seed": 3}
    other = mazes.evaluate(path, threads=1, layout="open", **options)  # type: ignore[arg-type]
    assert {name: other[name] for name in options} == options
    assert other["val_bpb"] > 0.3 and len(other["trivial"]) == 9


def test_the_evaluator_tells_its_progress(tmp_path: Path) -> None:
    path, told = save(tmp_path / "model.ckpt", 9), []
    _core.evaluate_mazes(path, threads=1, mazes=8, progress=lambda *now: told.append(now))
    # Eight mazes, then the same and eight others.
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_refusals_of_the_evaluator_are_one_line(tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", 21)
    with pytest.raises(EvaluationError, match="no program `score` for mazes of 23x23"):
        mazes.evaluate(path, threads=1, size=23)
    with pytest.raises(EvaluationError, match="`centre` is no maze layout: there are corner, open"):
        mazes.evaluate(path, threads=1, layout="centre")  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[:-1])
    for arguments, status in ([], 1), (["--size", "-21"], 2), (["--mazes", "many"], 2):
        command = [sys.executable, "-m", "modgrad.mazes", str(path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status and "Traceback" not in done.stderr
        assert "error: " in done.stderr.splitlines()[-1] and not done.stdout


def test_the_command_prints_one_line_of_json(tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", 9)
    command = [sys.executable, "-m", "modgrad.mazes", str(path), "--mazes", "7", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and json.loads(done.stdout)["mazes"] == 7
