"""Devices as Python sees them: trainings on the emulated one, and what is said of cards."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from modgrad import _core, nn, optim, spec
from modgrad import functional as F
from modgrad.errors import UsageError
from modgrad.machine import (
    card_lines,
    resolve_device,
    resolve_precision,
    self_test_lines,
)
from modgrad.program import Tensor
from modgrad.training import Training

from tests.conftest import Isis

needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="the emulated device needs a C++ compiler"
)


class Network(nn.Module):
    """Two layers with a norm between them."""

    def __init__(self) -> None:
        nn.manual_seed(5)
        self.up = nn.Linear(12, 40)
        self.norm = nn.RMSNorm(40)
        self.down = nn.Linear(40, 3)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return ((self.down(self.norm(F.silu(self.up(x)))) - y) ** 2).mean()


def losses(device: str, precision: str) -> tuple[list[float], dict[str, np.ndarray]]:
    model = Network()
    training = Training(
        model.loss,
        [optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)],
        inputs={"x": spec((33, 12)), "y": spec((33, 3))},
        clip_norm=0.5,
        precision=precision,
        threads=1,
        device=device,
    )
    found = []
    for step in range(10):
        generator = np.random.default_rng(step)
        x = generator.standard_normal((33, 12)).astype(np.float32)
        found.append(training.backward(x=x, y=np.ascontiguousarray(np.sin(x[:, :3]))))
        training.step()
    assert training.device == device
    return found, training.weights()


@needs_compiler
@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-5), ("bf16", 1e-2)])
def test_a_training_on_the_emulated_device_follows_the_cpu(
    precision: str, tolerance: float
) -> None:
    ours, weights = losses("emulated", precision)
    cpu, expected = losses("cpu", precision)
    np.testing.assert_allclose(ours, cpu, rtol=tolerance)
    assert ours[-1] < 0.8 * ours[0]
    for name, weight in expected.items():
        off = np.linalg.norm(weights[name] - weight) / np.linalg.norm(weight)
        assert off < tolerance, name
    assert _core.peak_vram_mb() > 0
    # Every sum has one order: a run repeats itself to the last bit.
    again, same = losses("emulated", precision)
    assert again == ours
    assert all(np.array_equal(same[name], weights[name]) for name in weights)


@needs_compiler
@pytest.mark.slow
def test_the_self_test_passes_on_the_emulated_device() -> None:
    compiler, tested, *rest = card_lines("emulated")
    assert compiler.startswith("C++ compiler ")
    assert re.fullmatch(r"self-test: \d+ rows of ops in f32 and bf16 pass \([0-9.]+ s\)", tested)
    assert not rest


def test_a_failed_self_test_shows_its_first_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ([f"Bf16, row {row}: off" for row in range(5)], 0.25)
    monkeypatch.setattr(_core, "self_test", lambda device: (100, *found))
    assert self_test_lines("cuda") == [
        "self-test: 5 of 200 rows of ops FAIL, the first:",
        *(f"Bf16, row {row}: off" for row in range(3)),
    ]
    monkeypatch.setattr(_core, "self_test", lambda device: (100, [], 0.25))
    assert self_test_lines("cuda") == ["self-test: 200 rows of ops in f32 and bf16 pass (0.2 s)"]


@needs_compiler
def test_the_peak_of_a_device_is_measured() -> None:
    assert _core.device_peak("emulated", "f32") > 1e8


def test_precision_follows_the_device() -> None:
    assert resolve_precision("auto", "cuda") == "bf16"
    assert resolve_precision("auto", "emulated") == "f32"
    assert resolve_precision("f32", "hip") == "f32"


def test_auto_is_the_cpu() -> None:
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["cuda", "hip"])
def test_what_there_is_is_said(device: str) -> None:
    lines = card_lines(device)
    assert lines and all("\n" not in line for line in lines)
    if not any("MiB" in line for line in lines):
        with pytest.raises(UsageError, match=f"^--device {device}: "):
            resolve_device(device)


@needs_compiler
def test_a_run_on_a_device_tells_its_memory_and_share_of_the_peak(
    isis: Isis, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_bytes(bytes(range(32, 127)) * 40)
    flags = ["--small", "--context", 2, "--steps", 1, "--threads", 1, "--device", "emulated"]
    done = isis("learn-ffn", *flags, "--val-data", text, tmp_path / "model.ckpt", text)
    assert done.returncode == 0, done.stderr
    block = dict(line.split(None, 1) for line in done.stdout.splitlines() if ": " in line)
    assert block["device:"] == "emulated"
    # 0.9 million weights, their gradients, two moments and buffers of 64 positions.
    assert 13.0 < float(block["peak_vram_mb:"]) < 30.0
    assert 0.0 < float(block["mfu_percent:"]) < 100.0
