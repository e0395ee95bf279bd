"""The maze example, run as a user runs it, and its model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modgrad import checkpoint, mazes, nn, spec, trace
from modgrad.errors import DataError
from modgrad.maze_bank import Bank, Stream, solve, turned

from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "mazes"

SUMMARY = re.compile(
    r"""---
val_bpb:          (?P<bpb>\d\.\d{6})
training_seconds: \d+\.\d
total_seconds:    \d+\.\d
peak_vram_mb:     0\.0
mfu_percent:      \d+\.\d\d
total_tokens_m:   \d+\.\d
num_steps:        (?P<steps>\d+)
num_params_m:     \d+\.\d
peak_rss_mb:      \d+\.\d
device:           cpu
threads:          1
seed:             (?P<seed>\d+)
task:             mazes
n_targets:        200
context:          6
\Z"""
)

TINY = ("--size", 7, "--ticks", 3, "--batch", 4, "--d-model", 16, "--threads", 1, "--route-len", 6)


def example(
    folder: Path, *arguments: object, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs the example from a folder that is not the repository."""
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module model.py, and with it train.py, as the example imports them."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in ("model", "train"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import model  # type: ignore[import-not-found, unused-ignore]

    return model


def test_train_score_and_summary(tmp_path: Path) -> None:
    done = example(tmp_path, *TINY, "--steps", 5, "--seed", 3, "--autoresearch-summary")
    assert done.returncode == 0, done.stderr
    match = SUMMARY.match(done.stdout)
    assert match and (match["steps"], match["seed"]) == ("5", "3"), done.stdout
    path = tmp_path / "mazes.ckpt"
    score = mazes.evaluate(path, threads=1)
    assert float(match["bpb"]) == pytest.approx(score["val_bpb"], abs=1e-6)
    assert (score["size"], score["layout"], score["mazes"]) == (7, "open", 200)
    # The same again resumes what is finished, and says so.
    again = example(tmp_path, *TINY, "--steps", 5, "--seed", 3, "--mazes", 50)
    assert "resumed mazes.ckpt at step 5" in again.stderr
    lines = again.stdout.splitlines()
    assert lines[0].startswith("50 mazes of 7x7 pixels, layout open, dfs, loops 0; the first 6 ")
    assert re.match(r"this model +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]  ", lines[2])
    assert len(lines) == 3 + len(score["trivial"])


def test_runs_are_the_same_and_a_resume_is_exact(tmp_path: Path) -> None:
    def weights(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        saved = checkpoint.load(tmp_path / name)
        assert saved.meta["step"] == 8
        return saved.weights, saved.state

    flags = [*TINY, "--steps", 8, "--no-score"]
    for name in ("one", "two"):
        done = example(tmp_path, *flags, "--checkpoint", name)
        assert done.returncode == 0, done.stderr
    stopped = (
        "import runpy, sys; from modgrad import run; original = run.Run.continues;"
        "run.Run.continues = lambda self: original(self) and self._training.steps != 5;"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    command = [sys.executable, "-c", stopped, str(EXAMPLE), *map(str, flags)]
    subprocess.run([*command, "--checkpoint", "parts"], cwd=tmp_path, check=True)
    assert checkpoint.load(tmp_path / "parts").meta["step"] == 5
    assert example(tmp_path, *flags, "--checkpoint", "parts").returncode == 0
    for name in ("two", "parts"):
        for found, expected in zip(weights(name), weights("one"), strict=True):
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_interrupt_saves_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), *map(str, TINY)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in stderr
    assert "saved mazes.ckpt at step" in stderr
    assert checkpoint.load(tmp_path / "mazes.ckpt").meta["step"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--size", "22"], 1, "a maze of 22x22 pixels is impossible"),
        (["--size", "3"], 1, "a maze of 3x3 pixels is impossible"),
        (["--size", "-7"], 2, "size -7 must not be negative"),
        (["--ticks", "0"], 2, "ticks 0"),
        (["--route-len", "0"], 2, "a route length of 0 leaves nothing to predict"),
        (["--loops", "2"], 1, "loops 2 is not a share"),
        (["--loops", "nan"], 1, "loops NaN is not a share"),
        (["--batch", "0"], 2, "--batch"),
        (["--budget", "0"], 2, "--budget"),
        (["--layout", "centre"], 2, "'centre' is not one of 'open', 'corner'"),
        (["--threads", "0"], 2, "between 1 and 1024"),
        (["--precision", "f8"], 2, "not one of auto"),
        (["--device", "gpu"], 2, "is not one of auto, cpu"),
        (["--brain", "--model", "ctm"], 2, "--brain and --model ctm are two models"),
        (["--d-model", "0"], 2, "neurons 0"),
        (["--checkpoint", "no/m"], 2, "no such folder"),
        (["--checkpoint", "."], 2, "is a folder"),
        (["--checkpoint", "text"], 1, "text"),
        (["--load-mazes", "nothing"], 1, "nothing: no such file"),
        (["--load-mazes", "."], 1, ".: not a regular file"),
        (["--load-mazes", "text"], 1, "text: not a bank of mazes"),
        (["nonsense"], 2, "unexpected extra argument"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "text").write_text("no bank, no checkpoint\n")
    done = example(tmp_path, *arguments, "--steps", 1, "--no-score")
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
    assert len(errors) == 1


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    assert example(tmp_path, *TINY, "--steps", 1, "--no-score").returncode == 0
    path = tmp_path / "mazes.ckpt"
    before = path.read_bytes()
    for flag, name in (("--seed", "seed = 0"), ("--ticks", "ticks = 3"), ("--batch", "batch = 4")):
        done = example(tmp_path, *TINY, "--steps", 2, flag, 7)
        assert done.returncode == 2 and f"was made with {name}, not 7" in done.stderr
    done = example(tmp_path, *TINY[:2], *TINY[4:], "--steps", 2)
    assert done.returncode == 2 and "was made with ticks = 3, not 16" in done.stderr
    Bank.of(mazes.generate(4, size=7)).save(tmp_path / "bank")
    done = example(tmp_path, *TINY, "--steps", 2, "--load-mazes", "bank")
    assert done.returncode == 2 and "was made with bank = None, not " in done.stderr
    path.write_bytes(before[: len(before) // 2])
    done = example(tmp_path, *TINY, "--steps", 2)
    assert done.returncode == 1 and "mazes.ckpt" in done.stderr and "Traceback" not in done.stderr


def test_help_loads_neither_numpy_nor_the_core() -> None:
    script = (
        "import runpy, sys; sys.argv = ['mazes', '--help']\n"
        f"try: runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'numpy', 'modgrad._core', 'modgrad.program'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


# ---- the model ----------------------------------------------------------------


def small(model: Any, **fields: Any) -> Any:
    nn.manual_seed(0)
    sizes = {"size": 9, "route_length": 5, "ticks": 4, "neurons": 32, "width": 16, "pairs": 32}
    made = model.MazeModel(model.MazeConfig(**{**sizes, "backbone_steps": 2, **fields}))
    made.name_parameters()
    return made


@pytest.mark.parametrize("strategy", ["none", "certainty", "adaptive"])
def test_the_goal_reaches_the_first_logits(model: Any, strategy: str) -> None:
    made = small(model, exit=strategy)
    program = trace(made.score, pixels=spec((1, 3, 9, 9)))
    maze = mazes.generate(1, size=9, seed=4).pixels
    moved = maze.copy()
    (goal,) = np.argwhere((maze[0].transpose(1, 2, 0) == (0, 1, 0)).all(-1))
    moved[0, :, goal[0], goal[1]] = 1.0
    before, after = (program.run(pixels=pixels)["logits"] for pixels in (maze, moved))
    assert before.shape == (1, 5, 5)
    assert np.abs(before - after)[0, 0].max() > 1e-5


def test_every_parameter_is_trained(model: Any) -> None:
    import train  # type: ignore[import-not-found, unused-ignore]
    from modgrad.training import Training

    made = small(model, exit="adaptive")
    before = {name: one.value.copy() for name, one in made.named_parameters() if one.trainable}
    inputs = {
        "pixels": spec((4, 3, 9, 9)),
        "targets": spec((4, 5), "u8"),
        "ways": spec((4, 16), "u8"),
    }
    training = Training(made.loss, train.make_optimizers(made, train.Recipe()), inputs=inputs)
    drawn = Stream(size=9, route_length=5).draw(0, 4)
    ways = train.ways_of_cells(drawn.directions)
    training.backward(pixels=drawn.pixels, targets=drawn.targets, ways=ways)
    training.step()
    after = training.weights()
    assert before.keys() <= after.keys()
    assert [name for name, value in before.items() if (after[name] == value).all()] == []


@pytest.mark.parametrize("layout", ["open", "corner"])
def test_eight_mazes_are_learned_by_heart(model: Any, layout: Any) -> None:
    import train
    from modgrad.training import Training

    nn.manual_seed(1)
    made = model.MazeModel(
        model.MazeConfig(size=7, route_length=8, ticks=6, neurons=64, width=32, solver_weight=0)
    )
    made.name_parameters()
    recipe = train.Recipe(batch=8, learning_rate=3e-3)
    inputs = {
        "pixels": spec((8, 3, 7, 7)),
        "targets": spec((8, 8), "u8"),
        "ways": spec((8, 9), "u8"),
    }
    optimizers = train.make_optimizers(made, recipe)
    training = Training(made.loss, optimizers, inputs=inputs, clip_norm=1.0, threads=1)
    drawn = mazes.generate(8, size=7, layout=layout, route_len=8)
    ways = train.ways_of_cells(drawn.directions)
    for step in range(1500):
        loss = training.backward(pixels=drawn.pixels, targets=drawn.targets, ways=ways)
        training.step(min(1.0, (step + 1) / 50))
        if loss < 0.001:
            break
    # With the whole route in the window of the loss, or it would be small for a part; and
    # well below it, or the last step could undo it.
    assert loss < 0.05 and step > 50
    score = trace(made.score, pixels=spec(drawn.pixels.shape))
    weights = {name: training.weights()[name] for name in score.parameters}
    logits = score.run(weights=weights, pixels=drawn.pixels)["logits"]
    assert (logits.argmax(-1) == drawn.targets).mean() > 0.97


def test_ways_of_cells_are_moves_of_the_route(model: Any) -> None:
    import train

    drawn = Stream(size=9, route_length=1).draw(0, 20)
    ways = train.ways_of_cells(drawn.directions).reshape(20, 4, 4)
    for pixels, target, way in zip(drawn.pixels, drawn.targets, ways, strict=True):
        colours = pixels.transpose(1, 2, 0)
        (start,) = np.argwhere((colours == (1, 0, 0)).all(-1))
        (goal,) = np.argwhere((colours == (0, 1, 0)).all(-1))
        assert way[tuple(start // 2)] == target[0]
        assert way[tuple(goal // 2)] == mazes.WAIT


# ---- banks --------------------------------------------------------------------


def generate(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modgrad.mazes", "generate", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_bank_is_made_and_trained_on(tmp_path: Path) -> None:
    flags = ["--mazes", 30, "--size", 7, "--algorithm", "wilson", "--seed", 5]
    assert generate(tmp_path, "bank.npz", *flags).returncode == 0
    bank = Bank.load(tmp_path / "bank.npz", size=7, route_length=6, symmetric=False)
    made = mazes.generate(30, size=7, algorithm="wilson", seed=5, route_len=6)
    again = solve(bank.walls, bank.ends, 6)
    for field in ("pixels", "targets", "lengths", "optimal", "directions"):
        np.testing.assert_array_equal(getattr(again, field), getattr(made, field))
    assert [path.name for path in tmp_path.iterdir()] == ["bank.npz"]
    done = example(tmp_path, *TINY, "--steps", 3, "--no-score", "--load-mazes", "bank.npz")
    assert done.returncode == 0, done.stderr
    other = generate(tmp_path, "other.npz", *flags[:-1], 6)
    assert other.returncode == 0
    done = example(tmp_path, *TINY, "--steps", 4, "--load-mazes", "other.npz")
    assert done.returncode == 2 and "was made with bank = " in done.stderr


def test_a_bank_shows_each_maze_once_before_any_comes_again() -> None:
    bank = Bank.of(mazes.generate(10, size=9, seed=1, route_len=4))
    plain = Bank(bank.walls, bank.ends, 4, seed=2, symmetric=False)
    drawn = np.concatenate([plain.draw(step, 4).pixels for step in range(5)])
    flat = [pixels.tobytes() for pixels in drawn]
    assert len(set(flat[:10])) == len(set(flat[10:])) == 10 and flat[:10] != flat[10:]
    again = Bank(bank.walls, bank.ends, 4, seed=2).draw(3, 4)
    np.testing.assert_array_equal(again.pixels, Bank(bank.walls, bank.ends, 4, 2).draw(3, 4).pixels)


def test_turned_mazes_are_the_same_mazes() -> None:
    bank = Bank.of(mazes.generate(64, size=9, seed=1))
    walls, ends = turned(bank.walls, bank.ends, np.random.default_rng(0))
    before, after = solve(bank.walls, bank.ends, 20), solve(walls, ends, 20)
    np.testing.assert_array_equal(after.lengths, before.lengths)
    changed = (after.pixels != before.pixels).any((1, 2, 3))
    assert 40 < changed.sum() < 64


def test_bad_banks_are_refused_in_one_line(tmp_path: Path) -> None:
    bank, path = Bank.of(mazes.generate(5, size=7)), tmp_path / "bank.npz"
    bank.save(path)
    whole = path.read_bytes()

    def refusal(**options: Any) -> str:
        with pytest.raises(DataError) as error:
            Bank.load(path, **options)
        assert "\n" not in str(error.value) and str(path) in str(error.value)
        return str(error.value)

    assert "holds mazes of 7x7 pixels, not of 21x21; say --size 7" in refusal(size=21)
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "damaged or cut short" in refusal() or "not a bank" in refusal()
    for place in range(60, len(whole), 53):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            Bank.load(path)  # some bytes of a zip mean nothing
        except DataError as error:
            assert "\n" not in str(error)
    np.savez(path, walls=bank.walls)
    with path.open("rb") as file:
        assert file.read(2) == b"PK"
    assert "it has no size, start, goal" in refusal()

    def keep(walls: Any, ends: Any) -> None:
        Bank(np.array(walls, np.uint8), np.array(ends, np.int32)).save(path)

    keep(bank.walls[:0], bank.ends[:0])
    assert "holds no mazes" in refusal()
    opened = bank.walls.copy()
    opened[3, 0, 2] = 0
    keep(opened, bank.ends)
    assert "maze 3: this is no maze: its outermost pixels are not all walls" in refusal()
    for end in (-1, 10**6, bank.ends[2, 1], 9):
        ends = bank.ends.copy()
        ends[2, 0] = end
        keep(bank.walls, ends)
        assert "maze 2: this is no maze: start and goal are not two open cells" in refusal()
    closed = bank.walls.copy()
    closed[1] = 1
    closed[1].flat[bank.ends[1]] = 0
    keep(closed, bank.ends)
    assert "maze 1: this is no maze: no way leads from start to goal" in refusal()
    keep(np.ones((2, 8, 8)), bank.ends[:2])
    assert "a maze of 8x8 pixels is impossible" in refusal()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bank", "--size", "8"], 1, "a maze of 8x8 pixels is impossible"),
        (["bank", "--mazes", "0"], 2, "--mazes 0 leaves nothing to keep"),
        (["no/bank"], 2, "no such folder"),
        (["."], 2, "is no regular file"),
        (["--seed", f"{10**30}", "bank"], 2, "too large"),
        (["bank", "--layout", "centre"], 1, "`centre` is no maze layout"),
        ([], 2, "required: file"),
    ],
)
def test_what_cannot_be_generated(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = generate(tmp_path, *arguments)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # stands for /dev/null, which must not be put at risk here
    done = generate(tmp_path, "--mazes", "2", "pipe")
    assert done.returncode == 2 and "is no regular file" in done.stderr
    assert pipe.is_fifo()
