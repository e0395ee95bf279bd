"""The share of what was learned that is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modgrad import checkpoint, nn, spec, trace
from modgrad.data import Windows
from modgrad.memory import EARLIER
from modgrad.training import Training

from isis import learn_ffn
from isis.ffn import SHARES, CountedFFN, config_from, make_model

Array = np.ndarray[Any, Any]


def test_the_whole_is_what_is_trained_and_nothing_is_the_mixers_alone() -> None:
    nn.manual_seed(0)
    model = make_model("counted", config_from("counted"))
    assert isinstance(model, CountedFFN)
    generator = np.random.default_rng(1)
    data = generator.integers(97, 105, 5000).astype(np.uint8)
    model.memory.count(data)
    margin, time = 20, 50
    tokens = data[None, : EARLIER + margin + time + margin]
    targets = data[None, EARLIER + margin + 1 :][:, :time]
    inputs = {"tokens": spec(tokens.shape, "u8"), "targets": spec(targets.shape, "u8")}
    given = {"tokens": tokens, "targets": targets}

    def losses() -> Array:
        return trace(model.losses_by_share, **inputs).run(**given)["losses"]

    def trained() -> float:
        return float(trace(model.loss, **inputs).run(**given)["loss"])

    mixers_alone = trained()  # the net adds nothing yet
    np.testing.assert_allclose(losses(), mixers_alone, rtol=1e-6)
    for parameter in (model.head.weight, model.gates.weight, model.shares):
        parameter.value = generator.normal(0.0, 0.1, parameter.value.shape).astype(np.float32)
    assert losses()[SHARES.index(0.0)] == pytest.approx(mixers_alone, rel=1e-6)
    assert losses()[SHARES.index(1.0)] == pytest.approx(trained(), rel=1e-6)
    assert abs(trained() - mixers_alone) > 0.01


@pytest.mark.parametrize(
    ("held_out", "size", "expected"),
    [
        (16, 5 << 20, 16),
        (16, 1_000_000, 14),
        (16, 20_000, 2),
        (16, 16_000, 0),
        (0, 5 << 20, 0),
        (1, 5 << 20, 2),
    ],
)
def test_small_texts_hold_out_less(held_out: int, size: int, expected: int) -> None:
    recipe = replace(learn_ffn.RECIPES["counted"], held_out=held_out)
    assert learn_ffn.held_out_windows(recipe, size) == expected


def test_windows_held_out_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(2).integers(0, 256, 40_000, np.uint8)
    trained: list[bytes] = []
    backward = Training.backward

    def watched(self: Training, **inputs: Array) -> float:
        trained.extend(row.tobytes() for row in inputs["targets"])
        return backward(self, **inputs)

    held_out: list[bytes] = []
    fit = learn_ffn.fit_learned_share

    def noted(model: CountedFFN, training: Training, windows: Windows) -> None:
        held_out.extend(row.tobytes() for row in windows.at(windows.held_out)[1])
        fit(model, training, windows)

    monkeypatch.setattr(Training, "backward", watched)
    monkeypatch.setattr(learn_ffn, "fit_learned_share", noted)
    path = tmp_path / "m.ckpt"
    learn_ffn.train(path, data, preset="counted", steps=100, threads=1)
    assert len(held_out) == 2 and len(trained) == 200
    # No eight of the bytes stand twice in this text.
    for window in held_out:
        parts = [window[at : at + 8] for at in range(0, len(window) - 8, 8)]
        assert not any(part in row for row in trained for part in parts)
    assert checkpoint.load(path).weights["learned_share"][0] < 0.5
