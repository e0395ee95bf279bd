"""Counted memory in a model: gradients, learning, resuming, and texts of all kinds."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import modgrad
import numpy as np
import pytest
from modgrad import checkpoint, nn, spec, trace
from modgrad import functional as F
from modgrad.data import Windows
from modgrad.errors import DataError, EvaluationError, UsageError
from modgrad.evaluate import evaluate
from modgrad.memory import EARLIER, CountedMemory
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


@pytest.mark.parametrize("orders", [(), (2, 4)], ids=["counts", "counts and hashed n-grams"])
def test_the_program_that_is_scored_is_the_one_that_is_trained(orders: tuple[int, ...]) -> None:
    """Of a text that shares no context with what was counted, nothing is taken out."""
    config = replace(PRESETS["counted"], width=16, hidden=16, layers=1, context=24, last_bytes=3)
    config = replace(config, orders=orders, rows=64, row_width=4)
    nn.manual_seed(0)
    model = CountedFFN(config, COUNTS["counted"])
    model.memory.count(text(3, 5000), threads=1)
    for parameter in model.parameters():
        if parameter.trainable:
            parameter.value = nn.normal(parameter.value.shape, 0.3)
    begin, end = EARLIER + 100, EARLIER + 124
    other = np.random.default_rng(0).integers(128, 256, (1, end + 100), dtype=np.uint8)
    window, targets = other[:, begin:end], other[:, begin + 1 : end + 1]
    tokens, outs = spec(other.shape, "u8"), spec((1, 24), "u8")
    added = [model.head.weight, model.gates.weight, model.trust.weight]
    learned = [parameter.value for parameter in (*added, model.shares)]
    for share in (1.0, 0.5, 0.0):  # of what was learned
        for parameter, value in zip(added, learned[:3], strict=True):
            parameter.value = share * value
        first = model.first_shares.value
        model.shares.value = first + share * (learned[-1] - first)
        trained = trace(model.loss, tokens=tokens, targets=outs).run(tokens=other, targets=targets)
        for parameter, value in zip((*added, model.shares), learned, strict=True):
            parameter.value = value
        model.learned_share.value = np.array([share], np.float32)
        logits = trace(model.score, tokens=outs).run(tokens=window)["logits"].astype(np.float64)
        own = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
        losses = np.log(np.exp(logits).sum(-1)) - own
        assert trained["loss"] == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.usefixtures("small_preset")
@pytest.mark.parametrize("orders", [(), (2, 4)], ids=["counts", "counts and hashed n-grams"])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders: tuple[int, ...]
) -> None:
    config = replace(ffn.PRESETS["counted"], orders=orders, rows=64, slot_dropout=0.5)
    monkeypatch.setitem(ffn.PRESETS, "counted", config)
    data = text(4, 6000)
    whole = train(tmp_path / "whole", data, 12)
    train(tmp_path / "parts", data, 5)
    parts = train(tmp_path / "parts", data, 12)
    assert whole.keys() == parts.keys()
    # The schedule follows the budget, here the steps: compare what has no schedule.
    for name in ("memory.tables", "memory.back_off", "memory.mixer"):
        np.testing.assert_array_equal(whole[name], parts[name])


@pytest.mark.usefixtures("small_preset")
def test_what_was_not_counted_is_not_trained_on(
    tmp_path: Path, small_preset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its windows cannot be taken out of the counts; a resumed run keeps to that too."""
    monkeypatch.setattr(learn_ffn, "COUNTING_SECONDS", 0.0)
    data = text(0, 600_000)
    seen: list[Array] = []

    class Noted(Windows):
        def starts(self, step: int) -> Array:
            seen.append(self.data)
            return super().starts(step)

    monkeypatch.setattr(learn_ffn, "Windows", Noted)
    for steps in (1, 2):
        train(tmp_path / "m.ckpt", data, steps)
    counted = 1 << 18  # what is counted in any case
    assert [part.size for part in seen] == [counted, counted]
    assert all(np.array_equal(part, data[-counted:]) for part in seen)


def test_without_a_budget_all_is_counted(tmp_path: Path, small_preset: None) -> None:
    train(tmp_path / "m.ckpt", text(0, 600_000), 1)
    saved = checkpoint.load(tmp_path / "m.ckpt")
    assert saved.meta["settings"]["counted"] == 600_000


@pytest.mark.usefixtures("small_preset")
def test_learning_lowers_the_score_and_scoring_repeats(tmp_path: Path) -> None:
    val = tmp_path / "val.txt"
    val.write_bytes(text(77, 3000).tobytes())
    scores = []
    for steps in (0, 60):
        path = tmp_path / f"{steps}.ckpt"
        train(path, text(5, 30_000), steps)
        first, second = (evaluate(path, val, threads=1)["bits_per_byte"] for _ in range(2))
        assert first == second
        scores.append(first)
    assert scores[1] < scores[0]


@pytest.mark.usefixtures("small_preset")
def test_one_byte_repeated_costs_next_to_nothing(tmp_path: Path) -> None:
    train(tmp_path / "c", np.full(20_000, 65, np.uint8), 40)
    (tmp_path / "val").write_bytes(b"A" * 1000)
    assert evaluate(tmp_path / "c", tmp_path / "val", threads=1)["bits_per_byte"] < 0.5


@pytest.mark.usefixtures("small_preset")
@pytest.mark.parametrize("steps", [40, 400])
def test_random_bytes_are_not_learned_by_heart(tmp_path: Path, steps: int) -> None:
    """Without text held out they are: 8.09 after 400 steps."""
    data = np.random.default_rng(6).integers(0, 256, 40_000, dtype=np.uint8)
    (tmp_path / "val").write_bytes(data[20_000:].tobytes())
    train(tmp_path / "c", data[:20_000], steps)
    assert evaluate(tmp_path / "c", tmp_path / "val", threads=1)["bits_per_byte"] < 8.01


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


def test_a_leak_of_one_position_in_the_window_is_found(tmp_path: Path) -> None:
    """Experts of the window that have read one byte too many."""
    memory = small_memory()
    memory.count(text(11, 20_000), threads=1)
    inside = memory.experts - memory.mixers - 1

    def rows(tokens: Tensor, later: bool) -> dict[str, Tensor]:
        found = memory(tokens)
        before, after = found.difference[:, :, :inside], found.difference[:, :, inside + 1 :]
        own = found.difference[:, :, inside : inside + 1]
        if later:
            own = F.concat([own[:, 1:], own[:, -1:]], axis=1)
        mixed = [found.base, found.entries, F.concat([before, own, after], axis=2), found.multiple]
        gates = F.full((*tokens.shape, memory.experts), 1.0 / memory.experts)
        return {"logits": F.mix_rows(F.full((*tokens.shape, 256), 0.0), gates, mixed)}

    val = tmp_path / "val.txt"
    val.write_bytes(text(12, 4000).tobytes())
    weights = {str(p.name): p.value for p in memory.parameters()}
    for later in (False, True):
        program = trace(lambda tokens, later=later: rows(tokens, later), tokens=spec((2, 64), "u8"))
        path = tmp_path / f"{later}.ckpt"
        checkpoint.save(path, programs={"score": program}, weights=weights, state={}, meta={})
        if later:
            with pytest.raises(EvaluationError, match="causal"):
                evaluate(path, val, threads=1)
        else:
            assert evaluate(path, val, threads=1)["bits_per_byte"] < 8.0


def sources(size: int) -> Array:
    """Python's own sources, which every machine has."""
    files = sorted(Path(argparse.__file__).parent.glob("*.py"))
    data = b"".join(path.read_bytes() for path in files)
    return np.frombuffer(data[:size], np.uint8)


@pytest.mark.slow
@pytest.mark.usefixtures("small_preset")
@pytest.mark.parametrize("taken_out", [True, False])
def test_ten_epochs_teach_no_text_by_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken_out: bool
) -> None:
    """More epochs go on lowering the score, and the training loss stays near it; where a
    window's own counts are left in, it does not. (0.05 is aimed at; it is 0.04 here.)"""
    recipe = replace(learn_ffn.RECIPES["counted"], batch=8, time=256)
    monkeypatch.setitem(learn_ffn.RECIPES, "counted", recipe)
    config = replace(PRESETS["counted"], context=256)
    monkeypatch.setitem(ffn.PRESETS, "counted", config)
    if not taken_out:
        monkeypatch.setattr(
            CountedMemory,
            "taken_out",
            lambda self, x, margin: self(x[:, EARLIER + margin : x.shape[1] - margin]),
        )
        monkeypatch.setattr(CountedMemory, "learn", lambda self, training: None)
    # Scored are blocks of the same files, or they would be another kind of text.
    blocks = sources(80 << 12).reshape(80, 1 << 12)
    scored = np.arange(80) % 5 == 2
    data = blocks[~scored].reshape(-1)
    (tmp_path / "val").write_bytes(blocks[scored].tobytes())
    epoch = data.size // (recipe.batch * recipe.time)
    losses = []
    for epochs in (2, 5, 10):
        path = tmp_path / "c"
        run, _ = learn_ffn.train(
            path, data, preset="counted", steps=epochs * epoch, seed=0, threads=1
        )
        score = evaluate(path, tmp_path / "val", threads=1)["bits_per_byte"]
        losses.append((run.curve.points[-1][2], score))
    apart = [score - loss for loss, score in losses]
    if taken_out:
        assert losses[0][1] > losses[1][1] > losses[2][1] and max(apart) < 0.1, losses
    else:
        assert min(apart) > 0.5, losses
