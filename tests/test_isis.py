"""The commands of the language task, run as a user runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from modgrad import checkpoint
from modgrad.evaluate import evaluate

from tests.conftest import ROOT, Isis

Corpus = tuple[Path, Path]

SUMMARY = re.compile(
    r"""---
val_bpb:          (?P<bpb>\d+\.\d{6})
training_seconds: \d+\.\d
total_seconds:    \d+\.\d
peak_vram_mb:     0\.0
mfu_percent:      \d+\.\d\d
total_tokens_m:   \d+\.\d
num_steps:        (?P<steps>\d+)
num_params_m:     \d+\.\d
"""
)


Done = subprocess.CompletedProcess[str]


def learn(isis: Isis, corpus: Corpus, path: Path, *flags: object) -> Done:
    return isis("learn-ffn", "--small", "--threads", 1, *flags, path, corpus[0])


def test_train_score_and_summary(isis: Isis, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    done = learn(isis, corpus, path, "--steps", 60, "--val-data", corpus[1])
    assert done.returncode == 0, done.stderr
    match = SUMMARY.match(done.stdout)
    assert match, done.stdout
    assert match["steps"] == "60"
    # Eight words: far fewer bits than eight once the bytes are learned.
    assert float(match["bpb"]) < 3.0
    assert "task:             language\n" in done.stdout
    again = isis("eval", path, corpus[1])
    assert f"{float(match['bpb']):.6f} bits per byte" in again.stdout


def test_a_budget_ends_the_run(isis: Isis, corpus: Corpus, tmp_path: Path) -> None:
    start = time.monotonic()
    done = learn(isis, corpus, tmp_path / "m", "--budget", 1.5)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 30
    seconds = checkpoint.load(tmp_path / "m").meta["seconds"]
    assert 1.5 <= seconds < 4


@pytest.mark.parametrize("preset", ["small", "memory"])
def test_resume_is_exact(isis: Isis, corpus: Corpus, tmp_path: Path, preset: str) -> None:
    # A short schedule by steps: the same total, once whole and once in two parts.
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = ["--preset", preset, "--threads", 1]
    assert isis("learn-ffn", *flags, "--steps", 8, whole, corpus[0]).returncode == 0
    script = (
        "import sys; from pathlib import Path; from isis.learn_ffn import train;"
        "from modgrad.data import read_bytes; from modgrad import run;"
        "stop = int(sys.argv[3]);"
        "original = run.Run.continues;"
        "run.Run.continues = lambda self: original(self) and self._training.steps != stop;"
        "data = read_bytes([sys.argv[2]]);"
        f"train(Path(sys.argv[1]), data, preset={preset!r}, steps=8, threads=1)"
    )
    for stop in (3, -1):
        command = [sys.executable, "-c", script, str(parts), str(corpus[0]), str(stop)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    one, two = checkpoint.load(whole), checkpoint.load(parts)
    assert two.meta["step"] == 8
    for kind in ("weights", "state"):
        for name, value in getattr(one, kind).items():
            np.testing.assert_array_equal(getattr(two, kind)[name], value, err_msg=name)


def test_interrupt_saves_and_says_so(isis: Isis, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    command = [sys.executable, "-m", "isis", "learn-ffn", "--small", str(path), str(corpus[0])]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    # Long enough for training to have begun; the handler is in place from then on.
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"saved {path} at step" in stderr
    assert "Traceback" not in stderr
    saved = checkpoint.load(path)
    assert saved.meta["step"] > 0
    resumed = learn(isis, corpus, path, "--steps", saved.meta["step"] + 1)
    assert f"resumed {path} at step {saved.meta['step']}" in resumed.stderr


def test_generate_continues_the_prompt(isis: Isis, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    learn(isis, corpus, path, "--steps", 40)
    once = isis("generate", path, "--prompt", "the ", "--bytes", 40)
    assert once.returncode == 0, once.stderr
    assert once.stdout.startswith("the ") and len(once.stdout) >= 40
    assert isis("generate", path, "--prompt", "the ", "--bytes", 40).stdout == once.stdout


def test_devices_names_what_is_used(isis: Isis) -> None:
    done = isis("devices")
    assert done.returncode == 0
    assert "instruction set:" in done.stdout and "GFLOP/s" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["learn-ffn", "--small", "{tmp}/m", "{tmp}/nothing"], 1, "no such file"),
        (["learn-ffn", "--small", "{tmp}/m", "{tmp}"], 1, "not a regular file"),
        (["learn-ffn", "--small", "{tmp}/m", "{tmp}/empty"], 1, "no bytes to read"),
        (["learn-ffn", "--small", "{tmp}/m", "{tmp}/short"], 1, "a window needs 65"),
        (["learn-ffn", "--small", "{tmp}/no/m", "{train}"], 2, "no such folder"),
        (["learn-ffn", "--small", "{tmp}", "{train}"], 2, "is a folder"),
        (["learn-ffn", "--preset", "huge", "{tmp}/m", "{train}"], 2, "is not one of small"),
        (["learn-ffn", "--threads", "0", "{tmp}/m", "{train}"], 2, "between 1 and 1024"),
        (["learn-ffn", "--precision", "f8", "{tmp}/m", "{train}"], 2, "not one of auto"),
        (["learn-ffn", "--device", "gpu", "{tmp}/m", "{train}"], 2, "is not one of auto, cpu"),
        (["learn-ffn", "--val-data", "{tmp}/no", "{tmp}/m", "{train}"], 2, "no such file"),
        (["learn-ffn", "--budget", "0", "{tmp}/m", "{train}"], 2, "--budget"),
        (["learn-ffn", "--budget", "nan", "{tmp}/m", "{train}"], 2, "no finite number"),
        (["learn-ffn", "--lr", "inf", "{tmp}/m", "{train}"], 2, "no finite number"),
        (["learn-ffn", "--seed", f"{10**30}", "{tmp}/m", "{train}"], 2, "too large"),
        (["learn-ffn", "--val-data", "{tmp}/empty", "{tmp}/m", "{train}"], 2, "nothing to score"),
        (["learn-ffn", "--small", "/proc/self/m", "{train}"], 2, "no checkpoint can be written"),
        (["learn-ffn", "{tmp}/m"], 2, "Missing argument"),
        (["learn-ffn", "--small", "{train}", "{train}"], 1, "{train}"),
        (["eval", "{tmp}/nothing", "{train}"], 1, "nothing"),
        (["eval", "{train}", "{train}"], 1, "{train}"),
        (["generate", "{train}"], 1, "{train}"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_bad_input_is_one_line(
    isis: Isis, corpus: Corpus, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "short").write_bytes(b"x" * 10)
    places = {"tmp": str(tmp_path), "train": str(corpus[0])}
    done = isis(*[argument.format(**places) for argument in arguments])
    assert done.returncode == code, done.stderr
    assert message.format(**places) in done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
    assert len(errors) == 1


@pytest.mark.parametrize(
    ("device", "library", "package"),
    [("cuda", "libcuda.so.1", "nvidia-driver"), ("hip", "libamdhip64.so", "hip-runtime-amd")],
)
def test_a_gpu_that_is_not_there_is_refused_in_one_line(
    isis: Isis, corpus: Corpus, tmp_path: Path, device: str, library: str, package: str
) -> None:
    done = isis("devices")
    assert f"--device {device}:" in done.stdout
    if " MiB (" in done.stdout:
        pytest.skip("there is a card")
    done = isis("learn-ffn", "--device", device, tmp_path / "m", corpus[0])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: --device {device}: ")
    if library in done.stderr:
        assert f"{library} is not here" in done.stderr and package in done.stderr
    else:
        # The library is here, as on a machine that compiles for cards.
        assert f"there is no {'NVIDIA' if device == 'cuda' else 'AMD'} card" in done.stderr


def test_an_instruction_set_that_is_not_there_is_refused(corpus: Corpus) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isis", "devices"],
        cwd=ROOT,
        env={**os.environ, "MODGRAD_ISA": "quantum"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "MODGRAD_ISA=quantum is not one of portable, avx2" in done.stderr


def test_a_checkpoint_of_another_preset_is_refused(
    isis: Isis, corpus: Corpus, tmp_path: Path
) -> None:
    path = tmp_path / "m"
    learn(isis, corpus, path, "--steps", 1)
    before = path.read_bytes()
    done = isis("learn-ffn", "--medium", path, corpus[0])
    assert done.returncode == 2 and "was made with preset = small" in done.stderr
    assert path.read_bytes() == before


def test_a_checkpoint_of_other_data_is_refused(isis: Isis, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "m"
    learn(isis, corpus, path, "--steps", 1)
    done = isis("learn-ffn", "--small", "--steps", 2, path, corpus[1])
    assert done.returncode == 2 and "was made with data = " in done.stderr


def test_a_checkpoint_may_be_called_what_it_will(
    isis: Isis, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(isis, corpus, tmp_path / "-d.ckpt", "--steps", 1)
    monkeypatch.chdir(tmp_path)
    score = evaluate(Path("-d.ckpt"), corpus[1], threads=1)
    assert 0 < score["bits_per_byte"] < 9


def test_scores_are_bitwise_equal(corpus: Corpus, isis: Isis, tmp_path: Path) -> None:
    path = tmp_path / "m"
    learn(isis, corpus, path, "--steps", 5)
    scores = []
    for threads in (1, 2):
        command = [sys.executable, "-m", "modgrad.evaluate", str(path), str(corpus[1])]
        done = subprocess.run(
            [*command, "--threads", str(threads)], capture_output=True, check=True, text=True
        )
        scores.append(json.loads(done.stdout)["bits_per_byte"])
    assert scores[0] == scores[1]


def test_help_and_import_are_quick() -> None:
    # No timed assertion: what must not be imported is what would make them slow.

    script = (
        "import sys; from click.testing import CliRunner; from isis.__main__ import main;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "assert not {'numpy', 'modgrad._core', 'modgrad.program'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    script = (
        "import sys; before = set(sys.modules); import modgrad;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outside = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert {name for name in outside if not name.startswith("_")} <= {"modgrad", "numpy"}
