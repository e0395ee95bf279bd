"""The share of what was learned that is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modgrad import checkpoint
from modgrad.data import Windows
from modgrad.training import Training

from isis import learn_ffn
from isis.ffn import CountedFFN

Array = np.ndarray[Any, Any]


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
        monkeypatch.setattr(Training, "backward", backward)
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


def test_fitting_leaves_the_weights_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(3).integers(0, 256, 40_000, np.uint8)
    learn_ffn.train(tmp_path / "fitted", data, preset="counted", steps=20, threads=1)
    monkeypatch.setattr(learn_ffn, "fit_learned_share", lambda model, training, windows: None)
    learn_ffn.train(tmp_path / "not", data, preset="counted", steps=20, threads=1)
    fitted, other = (checkpoint.load(tmp_path / name) for name in ("fitted", "not"))
    for kind in ("weights", "state"):
        found, expected = getattr(fitted, kind), getattr(other, kind)
        assert found.keys() == expected.keys()
        for name in found.keys() - {"learned_share"}:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert fitted.weights["learned_share"] < 1.0 == other.weights["learned_share"]
