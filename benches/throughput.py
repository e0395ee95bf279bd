"""Training throughput of the seed sizes, against PyTorch on the same machine.

    python -m benches.throughput                              modgrad alone
    python -m benches.throughput --pytorch ENV/bin/python     and PyTorch's best mode

A step is forward, backward, clipping to global norm 1 and AdamW over N random
bytes, the same in both. PyTorch runs from an environment of its own, in turn
with modgrad, so that a drift of the machine's speed touches both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
from modgrad import _core, nn, optim, spec
from modgrad.training import Training

from isis.ffn import FFN, PRESETS

PEER = Path(__file__).parent / "peers" / "pytorch_ffn.py"


def measure(size: str, positions: int, precision: str, threads: int, seconds: float) -> dict:
    """The median step of `size` at a batch of `positions`."""
    nn.manual_seed(0)
    model = FFN(PRESETS[size])
    model.name_parameters()
    time_steps = min(positions, 64)
    tokens = spec((positions // time_steps, time_steps), "u8")
    training = Training(
        model.loss,
        [optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)],
        inputs={"tokens": tokens, "targets": tokens},
        clip_norm=1.0,
        precision=precision,
        threads=threads,
    )
    generator = np.random.default_rng(0)
    batches = [
        {name: generator.integers(0, 256, tokens.shape, np.uint8) for name in ("tokens", "targets")}
        for _ in range(8)
    ]
    durations: list[float] = []
    start = time.perf_counter()
    while len(durations) < 30 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        training.backward(**batches[len(durations) % len(batches)])
        training.step()
        durations.append(time.perf_counter() - before)
    median = statistics.median(durations[5:])
    return {
        "milliseconds": median * 1e3,
        "positions_per_second": positions / median,
        "gflops": training.core.flops / median / 1e9,
    }


def pytorch(
    python: str, modes: str | None, size: str, positions: int, threads: int, seconds: float
) -> dict:
    """PyTorch's best mode for the same step."""
    command = [python, str(PEER), "--best", "--sizes", size, "--positions", str(positions)]
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    command += [] if modes is None else ["--modes", modes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not rows:
        raise SystemExit(f"error: PyTorch gave no figure: {done.stderr.strip()[-300:]}")
    return rows[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="small,medium")
    parser.add_argument("--positions", default="64,2048")
    parser.add_argument("--precisions", default="f32,bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--pytorch", metavar="PYTHON", help="a Python that can import torch")
    parser.add_argument("--pytorch-modes", help="only these; default: all that the peer measures")
    given = parser.parse_args()
    precisions = given.precisions.split(",")
    peaks = {p: _core.measured_peak(given.threads, p) / 1e9 for p in precisions}
    print(f"{given.threads} threads, {_core.instruction_set()}; GEMM peak measured: ", end="")
    print(", ".join(f"{p} {rate:.0f} GFLOP/s" for p, rate in peaks.items()))
    if given.pytorch is None:
        print("PyTorch: not measured; --pytorch names a Python that can import torch")
    print("size    positions precision   ms/step  positions/s  GFLOP/s  of peak  vs PyTorch")
    for size in given.sizes.split(","):
        for positions in map(int, given.positions.split(",")):
            peer = None
            if given.pytorch is not None:
                peer = pytorch(
                    given.pytorch,
                    given.pytorch_modes,
                    size,
                    positions,
                    given.threads,
                    given.seconds,
                )
            for precision in precisions:
                ours = measure(size, positions, precision, given.threads, given.seconds)
                line = (
                    f"{size:<8}{positions:>9} {precision:<9}{ours['milliseconds']:>10.3f}"
                    f"{ours['positions_per_second']:>13.0f}{ours['gflops']:>9.0f}"
                    f"{100 * ours['gflops'] / peaks[precision]:>8.0f}%"
                )
                if peer is not None:
                    ratio = ours["positions_per_second"] / peer["positions_per_second"]
                    disturbed = ", disturbed" if peer["disturbed"] else ""
                    line += f"  {ratio:>6.2f}x ({peer['mode']}{disturbed})"
                print(line, flush=True)


if __name__ == "__main__":
    main()
