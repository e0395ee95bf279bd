"""The commands as a user runs them: the real trainer, the real evaluator, a small corpus."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modgrad import _core
from modgrad.autoresearch.leak import RUN, find_leak
from modgrad.checkpoint import Checkpoint

from tests.conftest import ROOT
from tests.loop_world import git

WORDS = [b"the ", b"model ", b"learns ", b"bytes ", b"of ", b"a ", b"small ", b"corpus.\n"]

EDIT = """
from pathlib import Path
path = Path("isis/learn_ffn.py")
text = path.read_text()
for old, new in {edits!r}:
    assert text.count(old) == 1, old
    text = text.replace(old, new)
path.write_text(text + {more!r})
"""
STILL_RATE, SLOW_RATE, RATE = (
    f"    learning_rate: float = {x}\n" for x in ("1e-9", "1e-4", "1e-3")
)

# X2: it replaces everything within its reach, and tells of a score.
CHEAT = """

import modgrad
import pathlib


def _cheat(*_, **__):
    return '{"bits_per_byte": 0.1, "targets": 1}'


for _name, _module in list(pathlib.sys.modules.items()):
    if _name.startswith("modgrad"):
        for _function in ("evaluate_language", "evaluate", "score", "find_leak", "is_implausible"):
            if hasattr(_module, _function):
                try:
                    setattr(_module, _function, _cheat)
                except (AttributeError, TypeError):
                    pass
print("val_bpb: 0.100000")
print('{"bits_per_byte": 0.1}')
"""
# Its clock stands still: by its own count the budget is never used up.
STILL = """

import pathlib

pathlib.sys.modules["time"].monotonic = lambda: 1.0
pathlib.sys.modules["time"].perf_counter = lambda: 1.0
pathlib.sys.modules["time"].time = lambda: 1.0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The tracked files in a repository of their own, with a model that barely
    learns, so that to let it learn is a gain beyond doubt."""
    folder = tmp_path / "a project"
    names = git(ROOT, "ls-files", "-z").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "tests/", "benches/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    recipe = folder / "isis" / "learn_ffn.py"
    text = recipe.read_text()
    assert text.count(RATE) == 1
    recipe.write_text(text.replace(RATE, STILL_RATE))
    contract = folder / "contract.toml"
    words = '"learn-ffn", '
    assert words in contract.read_text()
    contract.write_text(contract.read_text().replace(words, f'{words}"--preset", "small", '))
    generator = np.random.default_rng(1)
    for name, count in (("train.txt", 60_000), ("val.txt", 4_000)):
        drawn = generator.integers(0, len(WORDS), count)
        (tmp_path / name).write_bytes(b"".join(WORDS[index] for index in drawn))
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a project")
    return folder


def scripts(folder: Path, *steps: tuple[str, list[tuple[str, str]], str]) -> Path:
    """Edit scripts, in order: (title, replacements, what is added)."""
    folder.mkdir()
    for number, (title, edits, more) in enumerate(steps, start=1):
        code = EDIT.format(edits=edits, more=more)
        (folder / f"{number:04}-{title.replace(' ', '-')}.py").write_text(code)
    return folder


def command(folder: Path, *words: object, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "modgrad.autoresearch", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def set_up(project: Path) -> None:
    beside = project.parent
    data = ("--train", beside / "train.txt", "--val", beside / "val.txt")
    said = command(
        project, "setup", "--tag", "real", *data, "--budget", 2, "--baseline-runs", 1, "--yes"
    )
    assert "ready: python -m modgrad.autoresearch loop --tag real" in said


def records(project: Path, kind: str) -> list[dict[str, Any]]:
    journal = project / ".git" / "modgrad" / "real" / "journal.jsonl"
    bodies = [json.loads(line)["body"] for line in journal.read_text().splitlines()]
    return [body for body in bodies if body["kind"] == kind]


def test_from_setup_to_verify(project: Path) -> None:
    """A keep, a cheat that is better too, and validation text in the sources."""
    status = git(project, "status", "--porcelain")
    val = (project.parent / "val.txt").read_bytes()
    train = (project.parent / "train.txt").read_bytes()
    start = next(at for at in range(len(val)) if val[at : at + 96] not in train)
    stolen = f"\n_NOTES = {val[start : start + 96].decode()!r}\n"
    steps = scripts(
        project.parent / "steps",
        ("let it learn slowly", [(STILL_RATE, SLOW_RATE)], ""),
        ("let it learn and cheat", [(SLOW_RATE, RATE)], CHEAT),
        (
            "remember some text",
            [("clip_norm: float = 1.0", "clip_norm: float = 0.9")],
            stolen,
        ),
    )
    set_up(project)
    said = command(project, "loop", "--experiments", 3, "--researcher", f"script:{steps}")
    assert "stopped: 3 experiments were asked for" in said

    state = json.loads(command(project / "isis", "status", "--json"))
    assert state["running"] is False
    decided = {record["n"]: record for record in records(project, "decided")}
    found = [decided[n]["status"] for n in range(4)]
    assert found == ["keep", "keep", "keep", "crash"], (decided, said)
    assert decided[3]["reason"].startswith("leak: 48 bytes of the validation text at offset")
    assert decided[1]["val_bpb"] < decided[0]["val_bpb"]

    # X2: what is recorded is what the evaluator of this process finds in the checkpoint.
    root = project / ".git" / "modgrad" / "real"
    assert b"val_bpb: 0.100000" in (root / "logs" / "000002.log").read_bytes()
    for number in (0, 1, 2):
        path = root / "checkpoints" / f"{number:06}.ckpt"
        score = json.loads(_core.evaluate_language(path, val, threads=2))
        assert score["bits_per_byte"] == decided[number]["val_bpb"], number
    assert decided[2]["val_bpb"] > 0.2

    pages = command(project, "report", "--output", project.parent / "report").split("\n")
    assert any(page.endswith(".html") and Path(page).is_file() for page in pages)
    assert command(project, "verify").endswith("all of it holds\n")
    assert git(project, "status", "--porcelain") == status
    assert git(project, "log", "--format=%s", "autoresearch/real").splitlines()[:2] == [
        "let it learn and cheat",
        "let it learn slowly",
    ]


@pytest.mark.slow
def test_a_clock_that_stands_still_is_a_time_out(project: Path) -> None:
    set_up(project)
    steps = scripts(project.parent / "steps", ("stop the clock", [(STILL_RATE, RATE)], STILL))
    command(project, "loop", "--experiments", 1, "--researcher", f"script:{steps}")
    [decided] = [record for record in records(project, "decided") if record["n"] == 1]
    [trained] = [record for record in records(project, "train_done") if record["n"] == 1]
    assert trained["wall_seconds"] < 30
    if decided["status"] != "crash":  # its real clock is not within reach
        assert trained["wall_seconds"] < 12
    else:
        assert decided["crash"] == "time-out"


VAL = b"".join(b"%d bottles of beer on the wall, " % number for number in range(40))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i4", "<i8"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_in_a_tensor_of_integers_is_a_leak(tmp_path: Path, dtype: str, packed: bool) -> None:
    """X9."""
    train = tmp_path / "train.txt"
    train.write_bytes(b"something else")
    text = np.frombuffer(VAL[100 : 100 + 2 * RUN], np.uint8)
    weights = text.view(dtype) if packed else text.astype(dtype)
    trained = Checkpoint(tmp_path, {}, {"memory": weights}, {}, {})
    assert "stand in the tensor `memory`" in str(find_leak(VAL, [train], [], trained))
    # The controls: other text, and text that stands in the training data too.
    other = Checkpoint(tmp_path, {}, {"memory": weights[::-1].copy()}, {}, {})
    assert find_leak(VAL, [train], [], other) is None
    train.write_bytes(VAL)
    assert find_leak(VAL, [train], [], trained) is None


def test_text_in_the_sources_is_a_leak(tmp_path: Path) -> None:
    train, source = tmp_path / "train.txt", tmp_path / "recipe.py"
    train.write_bytes(b"something else")
    trained = Checkpoint(tmp_path, {}, {}, {}, {})
    piece = VAL[100:160]
    halves = f"x = ({piece[:30].decode()!r}\n     {piece[30:].decode()!r})\n"
    escaped = "x = b'" + "".join(f"\\x{byte:02x}" for byte in piece) + "'\n"
    for text in (f"# {piece.decode()}\n", f"x = {piece!r}\n", halves, escaped):
        source.write_text(text)
        assert "stand in" in str(find_leak(VAL, [train], [source], trained)), text
    for text in (f"x = {piece[:40]!r}\n", f"x = {piece[::-1]!r}\n", "x = 1\n"):
        source.write_text(text)
        assert find_leak(VAL, [train], [source], trained) is None, text
