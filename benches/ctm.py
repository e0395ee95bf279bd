"""Milliseconds of a training step of a Continuous Thought Machine.

    python -m benches.ctm [--precision bf16]

256 neurons, 16 ticks, memory 16, hidden 16, 121 tokens of 128, exact gradients
through all ticks, clipping and AdamW. The published PyTorch module needs 60 to 75 ms
for the same on two cores without matrix tiles (batch 8; not measured here).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from modgrad import functional as F
from modgrad import nn, optim, spec
from modgrad.ctm import ContinuousThoughtMachine
from modgrad.machine import resolve_device, resolve_threads
from modgrad.program import Tensor
from modgrad.training import Training

TICKS, TOKENS, FEATURES, ROUTE, MOVES = 16, 121, 128, 20, 5


def step_milliseconds(
    batch: int, threads: int, repeats: int, precision: str = "f32", device: str = "cpu"
) -> list[float]:
    """The times of `repeats` steps after a warm-up."""
    nn.manual_seed(0)
    model = ContinuousThoughtMachine(FEATURES, ROUTE * MOVES, ticks=TICKS)
    model.name_parameters()

    def loss(features: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits = model(features).reshape(batch, TICKS, ROUTE, MOVES)
        return {"loss": F.cross_entropy(logits, targets).mean()}

    training = Training(
        loss,
        [optim.AdamW([one for one in model.parameters() if one.trainable], 1e-4)],
        inputs={
            "features": spec((batch, TOKENS, FEATURES)),
            "targets": spec((batch, TICKS, ROUTE), "u8"),
        },
        clip_norm=1.0,
        threads=threads,
        precision=precision,
        device=device,
    )
    generator = np.random.default_rng(0)
    features = generator.standard_normal((batch, TOKENS, FEATURES), dtype=np.float32)
    targets = generator.integers(0, MOVES, (batch, TICKS, ROUTE), dtype=np.uint8)
    times = []
    for _ in range(repeats + 5):
        start = time.perf_counter()
        training.backward(features=features, targets=targets)
        training.step()
        times.append(1000 * (time.perf_counter() - start))
    return times[5:]


def main() -> None:
    """Prints median and range for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    threads, device = resolve_threads(given.threads), resolve_device(given.device)
    where = f"{threads} threads" if device == "cpu" else device
    for batch in (8, 32):
        times = step_milliseconds(batch, threads, given.repeats, given.precision, device)
        print(
            f"batch {batch:>3}, {where}, {given.precision}: "
            f"median {statistics.median(times):.2f} ms, "
            f"from {min(times):.2f} to {max(times):.2f}"
        )


if __name__ == "__main__":
    main()
