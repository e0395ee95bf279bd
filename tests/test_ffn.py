"""The byte model: every preset and every option builds, trains and is causal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from modgrad import spec, trace
from modgrad.errors import UsageError
from modgrad.training import Training

from isis.ffn import FFN as Model
from isis.ffn import PRESETS, FFNConfig, config_from
from isis.learn_ffn import RECIPES, make_optimizers

TINY = {"width": 16, "hidden": 24, "layers": 2, "context": 12, "rows": 64, "row_width": 4}
MEMORY = replace(PRESETS["memory"], **TINY, last_bytes=4, byte_width=4)
PLAIN = replace(PRESETS["small"], **TINY)

OPTIONS = [
    *[replace(config, **TINY) for config in PRESETS.values()],
    *[replace(PLAIN, activation=name) for name in ("swiglu", "geglu", "gelu", "relu_squared")],
    *[replace(MEMORY, norm=norm, norm_position=at) for norm in ("rms", "layer")
      for at in ("pre", "post")],
    replace(PLAIN, tied_head=True),
    replace(MEMORY, dropout=0.1, slot_dropout=0.0),
    replace(MEMORY, orders=()),
    replace(MEMORY, words=()),
]  # fmt: skip


def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(97, 101, (3, 12)).astype(np.uint8)


def test_every_preset_has_a_recipe() -> None:
    assert PRESETS.keys() == RECIPES.keys()


@pytest.mark.parametrize("config", OPTIONS)
def test_every_option_learns(config: FFNConfig) -> None:
    model = Model(config)
    window = spec((3, 12), "u8")
    training = Training(
        model.loss,
        make_optimizers(model, replace(RECIPES["memory"], learning_rate=1e-2)),
        inputs={"tokens": window, "targets": window},
        clip_norm=1.0,
        threads=1,
    )
    x = tokens()
    losses = []
    for _ in range(40):
        losses.append(training.backward(tokens=x, targets=np.roll(x, -1, axis=1)))
        training.step()
    assert losses[0] > 4.5
    assert losses[-1] < 2.5


@pytest.mark.parametrize("config", OPTIONS)
def test_every_option_is_causal(config: FFNConfig) -> None:
    program = trace(Model(config).score, tokens=spec((3, 12), "u8"))
    before = program.run(tokens=tokens())["logits"]
    changed = tokens()
    changed[:, 7:] = 200
    after = program.run(tokens=changed)["logits"]
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "tanh"}, "activation 'tanh' is not one of"),
        ({"norm": "batch"}, "norm 'batch' is not one of"),
        ({"tied_head": True, "last_bytes": 4}, "a tied head needs the plain form"),
    ],
)
def test_wrong_options_are_refused_in_words(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Model(replace(PLAIN, **change))  # type: ignore[arg-type]


def test_an_unknown_preset_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="--preset huge is not one of small"):
        config_from("huge")
