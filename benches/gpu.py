"""Training throughput of a seed size on a GPU, for scripts/prove_gpu.py.

    python -m benches.gpu cuda large 16384 [SECONDS]

One JSON object: the median step in bf16 of forward, backward, clipping and AdamW over
random bytes, and what the card's matrix products reach. PyTorch's side of it is
peers/pytorch_gpu.py.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from modgrad import _core, nn, optim, spec
from modgrad.machine import resolve_device
from modgrad.training import Training

from isis.ffn import FFN, PRESETS

MOST_WARM_UP_STEPS = 10


def measure(device: str, size: str, positions: int, seconds: float) -> dict[str, float]:
    """The median step of `size` over `positions` bytes, measured for `seconds`."""
    nn.manual_seed(0)
    model = FFN(PRESETS[size])
    model.name_parameters()
    length = min(positions, 1024 if positions >= 1024 else 64)
    tokens = spec((positions // length, length), "u8")
    training = Training(
        model.loss,
        [optim.AdamW(model.parameters(), 1e-3, (0.9, 0.95), weight_decay=0.1)],
        inputs={"tokens": tokens, "targets": tokens},
        clip_norm=1.0,
        precision="bf16",
        device=device,
    )
    generator = np.random.default_rng(0)
    batches = [
        {name: generator.integers(0, 256, tokens.shape, np.uint8) for name in ("tokens", "targets")}
        for _ in range(8)
    ]
    durations: list[float] = []
    warm_up = MOST_WARM_UP_STEPS if seconds >= 1.0 else 1
    start = time.perf_counter()
    # `backward` returns the loss, so each step waits for the card.
    while len(durations) < 2 * warm_up or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        training.backward(**batches[len(durations) % len(batches)])
        training.step()
        durations.append(time.perf_counter() - before)
    median = statistics.median(durations[warm_up:])
    return {
        "milliseconds": median * 1e3,
        "positions_per_second": positions / median,
        "flops_per_second": training.core.flops / median,
        # In this order: measuring what products reach takes memory, too.
        "peak_vram_mb": _core.peak_vram_mb(),
        "peak": _core.device_peak(device, "bf16"),
    }


if __name__ == "__main__":
    device, size, positions, *seconds = sys.argv[1:]
    length = float(seconds[0]) if seconds else 10.0
    print(json.dumps(measure(resolve_device(device), size, int(positions), length)))
