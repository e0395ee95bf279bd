"""Sampling text from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from modgrad import _core, checkpoint
from modgrad.errors import CheckpointError


def sample(
    path: Path, prompt: bytes, *, count: int, temperature: float, seed: int, threads: int
) -> Iterator[int]:
    """Yields `count` bytes that go on from `prompt`.

    Runs the program that the evaluator scores, or `watch`, which is the same for one
    window. It holds the latest bytes; when it is full, its older half is dropped.
    """
    saved = checkpoint.load(path)
    program = saved.programs.get("watch", saved.programs.get("score"))
    if program is None or "tokens" not in program.inputs:
        raise CheckpointError(f"{path}: holds no program that continues text")
    (batch, context), _ = program.spec(program.inputs["tokens"])
    session = _core.Session(program, ["logits"], "f32", threads)
    names = {name for name, *_ in program.parameters()}
    session.set_parameters({name: saved.weights[name] for name in names})
    generator = np.random.default_rng(seed)
    # An empty prompt starts as after a blank line.
    window = list((prompt or b"\n")[-context:])
    tokens = np.zeros((batch, context), np.uint8)
    for _ in range(count):
        if len(window) == context and context > 1:
            window = window[context // 2 :]
        tokens[0] = 0
        tokens[0, : len(window)] = window
        logits = session.run({"tokens": tokens})["logits"][0, len(window) - 1]
        byte = _draw(logits.astype(np.float64), temperature, generator)
        window = [*window, byte][-context:]
        yield byte


def _draw(logits: np.ndarray, temperature: float, generator: np.random.Generator) -> int:
    if temperature == 0.0:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / temperature
    weights = np.exp(scaled)
    return int(generator.choice(len(weights), p=weights / weights.sum()))
