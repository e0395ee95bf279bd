"""Proves modgrad on a GPU: what scripts/prove_gpu.sh runs once it is built.

    python scripts/prove_gpu.py --device cuda|hip [--help]

Each part writes its full output to a file of its own; a table of what came out ends the run.
Exit status 1 if a check failed. `--device emulated --quick` tries the script itself: a few
small steps of everything.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modgrad import _core, nn, optim, spec  # noqa: E402
from modgrad.errors import ModgradError  # noqa: E402
from modgrad.machine import find_libraries, resolve_device  # noqa: E402
from modgrad.training import Training  # noqa: E402

from benches.ctm import step_milliseconds  # noqa: E402


@dataclass
class Report:
    """What came out, row by row, and where the rest is written."""

    folder: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, found: str, good: bool | None) -> None:
        verdict = "" if good is None else "ok" if good else "FAILED"
        found = " ".join(found.split())
        self.rows.append((what, found, verdict))
        print(f"{what}: {found} {verdict}", flush=True)

    def keep(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def table(self) -> str:
        widths = [max(len(row[column]) for row in self.rows) for column in (0, 1)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in self.rows]
        return "\n".join(line.rstrip() for line in lines)


def op_table(report: Report, device: str) -> None:
    """Every op against the f64 reference."""
    rows, failures, seconds = _core.self_test(device)
    report.keep("op-table.txt", "\n".join(failures) + "\n")
    said = f"{2 * rows} rows in f32 and bf16, {len(failures)} failures, {seconds:.1f} s"
    report.add("op table", said, not failures)


def text() -> np.ndarray:
    """Bytes to learn: this repository's own sources."""
    paths = sorted((ROOT / "python").rglob("*.py")) + sorted((ROOT / "docs").glob("*.md"))
    return np.frombuffer(b"".join(path.read_bytes() for path in paths), np.uint8)


def batches(batch: int, length: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    data = text()
    for step in range(steps):
        starts = np.random.default_rng(step).integers(0, data.size - length - 1, batch)
        windows = np.stack([data[start : start + length + 1] for start in starts])
        yield np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])


def models() -> dict[str, Callable[[], Any]]:
    from isis.byte_brain import ByteBrain
    from isis.byte_brain import config_from as brain_config
    from isis.ffn import FFN, PRESETS

    return {
        "ffn small": lambda: FFN(PRESETS["small"]),
        "brain small": lambda: ByteBrain(brain_config("small", None)),
    }


def curve(
    make: Callable[[], Any], device: str, precision: str, shape: tuple[int, int], steps: int
) -> np.ndarray:
    """Bits per byte of each step of a training."""
    nn.manual_seed(0)
    model = make()
    model.name_parameters()
    tokens = spec(shape, "u8")
    training = Training(
        model.loss,
        [optim.AdamW([p for p in model.parameters() if p.trainable], 1e-3)],
        inputs={"tokens": tokens, "targets": tokens},
        clip_norm=1.0,
        precision=precision,
        device=device,
    )
    losses = []
    for x, y in batches(*shape, steps):
        losses.append(training.backward(tokens=x, targets=y) / math.log(2))
        training.step()
    return np.array(losses)


def curves(report: Report, device: str, quick: bool) -> None:
    """Trainings on the device beside the same on the CPU."""
    shape, steps = ((2, 16), 2) if quick else ((8, 64), 200)
    for name, make in models().items():
        for precision in ("f32", "bf16"):
            what = f"{name}, {precision}, {steps} steps"
            with noting(report, what):
                ours = curve(make, device, precision, shape, steps)
                cpu = curve(make, "cpu", precision, shape, steps)
                lines = [f"{a:.6f} {b:.6f}" for a, b in zip(ours, cpu, strict=True)]
                file = f"curve-{name.replace(' ', '-')}-{precision}.txt"
                report.keep(file, f"# {device} cpu\n" + "\n".join(lines) + "\n")
                if precision == "f32":
                    off = float(np.max(np.abs(ours / cpu - 1)))
                    found, good = f"largest relative difference {off:.1e} (1e-3)", off < 1e-3
                else:
                    end = [float(losses[-20:].mean()) for losses in (ours, cpu)]
                    found = f"at the end {end[0]:.4f}, on the CPU {end[1]:.4f} bits per byte (0.01)"
                    good = abs(end[0] - end[1]) < 0.01
                report.add(what, found, good)
                again = curve(make, device, precision, shape, min(steps, 20))
                same = np.array_equal(again, ours[: len(again)])
                report.add("  again", "the same bits" if same else "other bits", same)


@contextmanager
def noting(report: Report, what: str) -> Iterator[None]:
    """What a part runs into must not hide the others."""
    try:
        yield
    except ModgradError as error:
        report.add(what, str(error), False)


def throughput(report: Report, device: str, pytorch: str | None, quick: bool) -> None:
    """Seed sizes by positions a step, beside PyTorch where it is."""
    cases = (("small", 8),) if quick else (("small", 64), ("small", 16384), ("large", 16384))
    for size, positions in cases:
        what = f"{size}, {positions} positions, bf16"
        seconds = "0" if quick else "10"
        command = [sys.executable, "-m", "benches.gpu", device, size, str(positions), seconds]
        ours = bench(report, what, command)
        if ours is None:
            continue
        found = f"{ours['milliseconds']:.2f} ms, {ours['positions_per_second']:,.0f} positions/s"
        report.add(what, found, None)
        share = 100 * ours["flops_per_second"] / ours["peak"]
        found = f"{share:.1f} % of the {ours['peak'] / 1e12:.2f} TFLOP/s that products reach"
        report.add("  MFU", f"{found}, {ours['peak_vram_mb']:.0f} MB", None)
        for mode in ("eager", "compiled") if pytorch else ():
            peer = str(ROOT / "benches" / "peers" / "pytorch_gpu.py")
            words = [pytorch or "", peer, size, str(positions), mode, seconds]
            theirs = bench(report, f"  PyTorch {mode}, {size} {positions}", words)
            if theirs is not None:
                ratio = theirs["milliseconds"] / ours["milliseconds"]
                found = f"{theirs['milliseconds']:.2f} ms with {theirs['torch']}, "
                found += f"modgrad is {ratio:.2f}x as fast"
                report.add(f"  PyTorch {mode}", found, None)


def machine(
    report: Report, device: str, pytorch: str | None, sakana: Path | None, quick: bool
) -> None:
    """The step of a Continuous Thought Machine, beside the published one where it is."""
    batch = 1 if quick else 32
    what = f"CTM step, batch {batch}, f32"
    with noting(report, what):
        times = step_milliseconds(batch, 1, 1 if quick else 50, "f32", device)
        report.add(what, f"{statistics.median(times):.2f} ms", None)
        if pytorch and sakana:
            peer = str(ROOT / "benches" / "peers" / "sakana_module.py")
            words = [pytorch, peer, "time", "--checkout", str(sakana), "--batch", str(batch)]
            if not quick:
                words += ["--device", "cuda"]
            theirs = bench(report, "  Sakana's module", words)
            if theirs is not None:
                median = statistics.median(theirs["milliseconds"])
                ratio = median / statistics.median(times)
                report.add("  Sakana's module", f"{median:.2f} ms: {ratio:.1f}x", None)


def bench(report: Report, what: str, command: list[str]) -> dict[str, Any] | None:
    """The object that a measurement prints last."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    name = "-".join(re.findall(r"\w+", what))
    report.keep(f"throughput-{name}.txt", done.stdout + done.stderr)
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        report.add(what, last[:120], False)
        return None
    return found


def python_with_torch() -> str | None:
    """The python3 of the PATH, if it has torch for a card."""
    check = "import torch; assert torch.cuda.is_available()"
    try:
        done = subprocess.run(["python3", "-c", check], capture_output=True, check=False)
    except OSError:
        return None
    return "python3" if done.returncode == 0 else None


def corpus(report: Report, device: str, folder: Path, seconds: int) -> None:
    """The default preset, and the score that the CPU's evaluator gives it."""
    command = [sys.executable, "-m", "isis", "learn-ffn", "--device", device]
    command += ["--budget", str(seconds), "--val-data", str(folder / "val.txt")]
    command += [str(report.folder / "model.ckpt"), *map(str, sorted(folder.glob("train_*.txt")))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report.keep("corpus.txt", done.stdout + done.stderr)
    wanted = ("val_bpb", "peak_vram_mb", "mfu_percent", "num_steps")
    lines = [line for line in done.stdout.splitlines() if line.startswith(wanted)]
    found = ", ".join(" ".join(line.split()) for line in lines)
    report.add(f"counted, {seconds} s on {folder}", found, done.returncode == 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", required=True)
    parser.add_argument("--pytorch", help="a Python that has torch for this card")
    parser.add_argument("--sakana", type=Path, help="a checkout of continuous-thought-machines")
    parser.add_argument("--corpus", type=Path, help="a folder of isis prepare")
    parser.add_argument("--seconds", type=int, default=120, help="of training on the corpus")
    parser.add_argument("--logs", type=Path, default=Path("prove-gpu"))
    parser.add_argument("--quick", action="store_true", help="a few steps of each")
    arguments = parser.parse_args()
    arguments.logs.mkdir(parents=True, exist_ok=True)
    report = Report(arguments.logs)
    start = time.monotonic()
    device, quick = arguments.device, arguments.quick
    with noting(report, f"--device {device}"):
        find_libraries()
        card = _core.open_device(resolve_device(device))
        versions = ", ".join(f"{name} {version}" for name, version in card["versions"])
        report.add("card", f"{card['name']}, {card['architecture']}, {versions}", None)
        pytorch = arguments.pytorch or (None if quick else python_with_torch())
        if pytorch is None:
            report.add("PyTorch", "not found: no comparison", None)
        with noting(report, "op table"):
            op_table(report, device)
        curves(report, device, quick)
        throughput(report, device, pytorch, quick)
        machine(report, device, pytorch, arguments.sakana, quick)
        if arguments.corpus is not None:
            corpus(report, device, arguments.corpus, arguments.seconds)
    report.add("time", f"{time.monotonic() - start:.0f} s; full logs in {report.folder}/", None)
    report.keep("table.txt", report.table() + "\n")
    print("\n" + report.table())
    return 1 if any(row[2] == "FAILED" for row in report.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
