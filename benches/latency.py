"""What is paid beside the kernels: executor, Python, imports, evaluation.

    python -m benches.latency [CHECKPOINT VAL]

With a checkpoint and a file of bytes, also the time of an evaluation.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from modgrad import _core, nn, spec, trace
from modgrad.data import Windows
from modgrad.memory import EARLIER
from modgrad.program import Tensor
from modgrad.schedule import warmdown
from modgrad.training import Training

from isis.ffn import DEFAULT_PRESET, CountedFFN, config_from, make_model
from isis.learn_ffn import RECIPES, make_optimizers

OPS = 1000


def median(function: Callable[[], object], repeats: int = 30) -> float:
    """The median seconds of a call."""
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def executor_overhead() -> float:
    """Seconds an op costs where its kernel has one element to work on."""

    def chain(length: int) -> Callable[[], object]:
        def function(x: Tensor) -> Tensor:
            for _ in range(length):
                x = x.tanh()
            return x

        program = trace(function, x=spec((1,)))
        session = _core.Session(program.core, ["output"], "f32", 2)
        inputs = {"x": np.ones(1, np.float32)}
        return lambda: session.run(inputs)

    return (median(chain(OPS)) - median(chain(1))) / (OPS - 1)


def python_share() -> float:
    """The share of a step of the default preset that is spent in Python."""
    config, recipe = config_from(DEFAULT_PRESET), RECIPES[DEFAULT_PRESET]
    nn.manual_seed(0)
    model = make_model(DEFAULT_PRESET, config)
    assert isinstance(model, CountedFFN)
    data = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
    model.memory.count(data)
    before, after = EARLIER + recipe.margin, recipe.margin
    windows = Windows(data, recipe.batch, recipe.time, seed=0, before=before, after=after)
    training = Training(
        model.loss,
        make_optimizers(model, recipe),
        inputs={
            "tokens": spec((recipe.batch, before + recipe.time + after), "u8"),
            "targets": spec((recipe.batch, recipe.time), "u8"),
        },
        clip_norm=1.0,
    )
    inside = 0.0
    steps = 60
    start = time.perf_counter()
    for step in range(steps):
        x, y = windows.draw(step)
        factor = warmdown(step / steps, cooldown=recipe.cooldown)
        before = time.perf_counter()
        training.core.backward({"tokens": x, "targets": y})
        training.core.update(1e-9 * factor)
        inside += time.perf_counter() - before
        model.memory.learn(training)
    whole = time.perf_counter() - start
    return (whole - inside) / whole


def process(*command: str) -> float:
    """The median seconds of a fresh process."""
    return median(lambda: subprocess.run(command, check=True, capture_output=True), 7)


def main() -> None:
    python = sys.executable
    bare = process(python, "-c", "pass")
    with_numpy = process(python, "-c", "import numpy")
    with_modgrad = process(python, "-c", "import modgrad")
    print(f"executor, per op:            {executor_overhead() * 1e6:8.2f} µs")
    print(f"Python's share of a step:    {python_share() * 100:8.2f} %")
    print(f"import modgrad:              {with_modgrad - bare:8.3f} s", end="")
    print(f"  (numpy alone {with_numpy - bare:.3f} s; python -c pass {bare:.3f} s)")
    print(f"python -m isis --help:       {process(python, '-m', 'isis', '--help'):8.3f} s")
    if len(sys.argv) == 3:
        from modgrad.evaluate import evaluate

        score = evaluate(Path(sys.argv[1]), Path(sys.argv[2]), threads=2)
        print(f"evaluation of {score['bytes']} bytes: {score['seconds']:8.1f} s")


if __name__ == "__main__":
    main()
