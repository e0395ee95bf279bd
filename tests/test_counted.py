"""Counted memory in a model: gradients, learning, resuming, and texts of all kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import modgrad
import numpy as np
import pytest
from modgrad import checkpoint, nn, spec, trace
from modgrad import functional as F
from modgrad.errors import DataError, UsageError
from modgrad.evaluate import evaluate
from modgrad.memory import AFTER, BEFORE, CountedMemory
from modgrad.program import Tensor

from isis import ffn, learn_ffn
from isis.ffn import COUNTS, PRESETS, CountedFFN

Array = np.ndarray[Any, Any]
WORDS = b"the cat sat on a mat, then the catalogue of cats was read; ".split()


def text(seed: int, size: int) -> Array:
    generator = np.random.default_rng(seed)
    words = [WORDS[index] for index in generator.integers(0, len(WORDS), size // 3)]
    return np.frombuffer(b" ".join(words)[:size], np.uint8)


def small_memory() -> CountedMemory:
    memory = CountedMemory(
        orders=(1, 2, 4),
        words=("prefix",),
        base_order=2,
        orders_in_window=(2,),
        words_in_window=(),
        entries=16,
    )
    memory.name_parameters()
    return memory


@pytest.fixture
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(PRESETS["counted"], width=32, hidden=32, layers=1, context=32, last_bytes=4)
    monkeypatch.setitem(ffn.PRESETS, "counted", config)
    recipe = replace(learn_ffn.RECIPES["counted"], batch=4, time=32)
    monkeypatch.setitem(learn_ffn.RECIPES, "counted", recipe)


def train(path: Path, data: Array, steps: int, seed: int = 0) -> dict[str, Array]:
    learn_ffn.train(path, data, preset="counted", steps=steps, seed=seed, threads=1)
    return checkpoint.load(path).weights


def test_rows_sum_to_one() -> None:
    memory = small_memory()
    memory.count(text(0, 4000), threads=1)

    def row(tokens: Tensor, gates: Tensor) -> dict[str, Tensor]:
        rows = memory(tokens)
        zeros = F.full((*tokens.shape, 256), 0.0)
        return {"base": rows.base, "first": F.mix_rows(zeros, gates, rows.mixed)}

    tokens = np.array(text(9, 40)).reshape(2, 20)
    gates = np.zeros((2, 20, memory.experts), np.float32)
    gates[..., 0] = 1.0  # the first expert is the base
    found = trace(row, tokens=spec((2, 20), "u8"), gates=spec(gates.shape))
    rows = found.run(tokens=tokens, gates=gates)
    np.testing.assert_allclose(np.exp(rows["base"]).sum(-1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(rows["first"], rows["base"])


def test_gradients_reach_logits_and_gates_and_not_the_rows() -> None:
    generator = np.random.default_rng(2)
    memory = small_memory()
    memory.count(text(1, 4000), threads=1)
    tokens = np.array(text(8, 12)).reshape(2, 6)
    traced = trace(lambda tokens: vars(memory(tokens)), tokens=spec((2, 6), "u8")).run(
        tokens=tokens
    )
    names = ("base", "entries", "difference", "multiple")
    rows = [nn.Parameter(traced[name], trainable=False) for name in names]
    for name, parameter in zip(names, rows, strict=True):
        parameter.name = name

    def loss(logits: Tensor, gates: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.mix_rows(logits, gates, rows), targets).mean()

    errors = modgrad.checkgrad(
        loss,
        logits=generator.standard_normal((2, 6, 256)).astype(np.float32),
        gates=generator.standard_normal((2, 6, memory.experts)).astype(np.float32),
        targets=tokens,
    )
    assert set(errors) == {"logits", "gates"}


def test_the_program_that_is_scored_is_the_one_that_is_trained() -> None:
    """Of a text that shares no context with what was counted, nothing is taken out."""
    config = replace(PRESETS["counted"], width=16, hidden=16, layers=1, context=24, last_bytes=3)
    nn.manual_seed(0)
    model = CountedFFN(config, COUNTS["counted"])
    model.memory.count(text(3, 5000), threads=1)
    for parameter in model.parameters():
        if parameter.trainable:
            parameter.value = nn.normal(parameter.value.shape, 0.3)
    other = np.random.default_rng(0).integers(128, 256, (1, BEFORE + 24 + AFTER), dtype=np.uint8)
    window, targets = other[:, BEFORE : BEFORE + 24], other[:, BEFORE + 1 : BEFORE + 25]
    tokens, outs = spec(other.shape, "u8"), spec((1, 24), "u8")
    trained = trace(model.loss, tokens=tokens, targets=outs).run(tokens=other, targets=targets)
    logits = trace(model.score, tokens=outs).run(tokens=window)["logits"].astype(np.float64)
    losses = (
        np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    )
    assert trained["loss"] == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.usefixtures("small_preset")
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    data = text(4, 6000)
    whole = train(tmp_path / "whole", data, 12)
    train(tmp_path / "parts", data, 5)
    parts = train(tmp_path / "parts", data, 12)
    assert whole.keys() == parts.keys()
    # The schedule follows the budget, here the steps: compare what has no schedule.
    for name in ("memory.tables", "memory.back_off", "memory.mixer"):
        np.testing.assert_array_equal(whole[name], parts[name])


@pytest.mark.usefixtures("small_preset")
def test_learning_lowers_the_score_and_scoring_repeats(tmp_path: Path) -> None:
    val = tmp_path / "val.txt"
    val.write_bytes(text(77, 3000).tobytes())
    scores = []
    for steps in (1, 60):
        path = tmp_path / f"{steps}.ckpt"
        train(path, text(5, 30_000), steps)
        first, second = (evaluate(path, val, threads=1)["bits_per_byte"] for _ in range(2))
        assert first == second
        scores.append(first)
    assert scores[1] < scores[0]


@pytest.mark.usefixtures("small_preset")
@pytest.mark.parametrize("kind", ["one byte", "random bytes"])
def test_texts_that_are_no_language_are_learned_for_what_they_are(
    tmp_path: Path, kind: str
) -> None:
    generator = np.random.default_rng(6)
    data = generator.integers(0, 256, 20_000, dtype=np.uint8)
    if kind == "one byte":
        data[:] = 65
    (tmp_path / "val").write_bytes(data[:1000].tobytes() if kind == "one byte" else bytes(1000))
    if kind == "random bytes":
        (tmp_path / "val").write_bytes(generator.integers(0, 256, 2000, dtype=np.uint8).tobytes())
    train(tmp_path / "c", data, 40)
    bits = evaluate(tmp_path / "c", tmp_path / "val", threads=1)["bits_per_byte"]
    assert bits < (0.5 if kind == "one byte" else 8.3)


def test_a_text_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a window needs"):
        learn_ffn.train(tmp_path / "c", np.zeros(3, np.uint8), preset="counted", steps=1)


def test_kinds_that_are_not_counted_cannot_be_in_the_window() -> None:
    with pytest.raises(UsageError, match="not in the text"):
        CountedMemory(orders=(1, 2, 3), orders_in_window=(5,))
    with pytest.raises(UsageError, match="base order 4"):
        CountedMemory(orders=(1, 2, 3), base_order=4)
    with pytest.raises(modgrad.errors.ProgramError, match="multiple of 16"):
        CountedMemory(entries=40)
