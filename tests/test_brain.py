"""The eight regions: gradients, what reaches what, and the command that trains them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import modgrad
import numpy as np
import pytest
from modgrad import checkpoint, nn, spec, trace
from modgrad.ctm import STRATEGIES
from modgrad.data import read_bytes
from modgrad.errors import UsageError
from modgrad.program import Tensor
from modgrad.run import Run
from modgrad.training import Training

from isis.brain import EDGES, SMALL, Brain, BrainConfig, Edge, FusedTicks, Region
from isis.byte_brain import PRESETS, ByteBrain, ByteConfig, config_from
from isis.learn import RECIPES, make_optimizers, train
from tests.conftest import Isis

# Few neurons, but of every kind: deep and shallow models, memories of both lengths.
TINY = {
    name: Region(4 + (one.neurons == 32), 4, 1 + one.memory // 4, one.hidden // 2)
    for name, one in SMALL.items()
}
TINY_BYTES = ByteConfig(BrainConfig(TINY, pairs=12, read_activations=True), embedding=4, context=10)


def tiny(tokens: int = 0, **options: int) -> Brain:
    nn.manual_seed(5)
    brain = Brain(BrainConfig(TINY, pairs=6, **options), observation=2, tokens=tokens)
    brain.name_parameters()
    return brain


def observations(batch: int, ticks: int) -> np.ndarray:
    return np.random.default_rng(6).standard_normal((batch, ticks, 2)).astype(np.float32)


def states_of(brain: Brain, given: np.ndarray) -> np.ndarray:
    def think(given: Tensor) -> Tensor:
        return brain.think([given[:, tick] for tick in range(given.shape[1])])

    return trace(think, given=spec(given.shape)).run(given=given)["output"]


# Plain ops, the fused op, and the fused op with tokens to attend to.
@pytest.mark.parametrize(("iterations", "attend"), [(1, False), (2, False), (2, True)])
def test_gradients_through_edges_outer_and_inner_ticks_agree_with_differences(
    iterations: int, attend: bool
) -> None:
    brain = tiny(tokens=2 * attend, iterations=iterations)
    generator = np.random.default_rng(7)

    def loss(given: Tensor, tokens: Tensor, on_states: Tensor, on_pairs: Tensor) -> Tensor:
        states = brain.think([given[:, 0], given[:, 1]], tokens if attend else None)
        return (states * on_states).sum() + (brain.synchrony(states) * on_pairs).sum()

    checks = modgrad.checkgrad(
        loss,
        given=observations(2, 2),
        tokens=observations(2, 3),
        on_states=generator.standard_normal((2, 2, brain.neurons)).astype(np.float32),
        on_pairs=generator.standard_normal((2, 2, 6)).astype(np.float32),
    )
    assert {name for name, one in brain.named_parameters() if one.trainable} <= checks.keys()


def test_one_inner_tick_is_the_same_by_plain_ops_and_by_the_fused_one() -> None:
    brain = tiny()
    given = observations(3, 4)

    def difference(given: Tensor) -> Tensor:
        plain = brain.think([given[:, tick] for tick in range(4)])
        brain.engine = FusedTicks
        return brain.think([given[:, tick] for tick in range(4)]) - plain

    program = trace(difference, given=spec(given.shape))
    assert np.abs(program.run(given=given)["output"]).max() < 1e-5


def test_a_token_reaches_every_region() -> None:
    brain = tiny(tokens=2)
    given, tokens = observations(1, 6), observations(1, 5)

    def think(given: Tensor, tokens: Tensor) -> Tensor:
        return brain.think([given[:, tick] for tick in range(6)], tokens)

    program = trace(think, given=spec(given.shape), tokens=spec(tokens.shape))
    before = program.run(given=given, tokens=tokens)["output"]
    tokens[:, 3] += 1.0
    moved = (program.run(given=given, tokens=tokens)["output"] != before)[0]
    assert (moved.any(0)).all()
    seen_at_once = TINY["input"].neurons + TINY["hippocampus"].neurons
    assert moved[0].sum() == seen_at_once


def test_every_region_hears_of_the_observation() -> None:
    brain = tiny()
    before = observations(1, 6)
    after = before.copy()
    after[:, 0] += 1.0
    moved = (states_of(brain, before) != states_of(brain, after))[0]
    start = 0
    for name in [name for names in brain.groups.values() for name in names]:
        end = start + TINY[name].neurons
        assert moved[:, start:end].any(), name
        start = end
    # Who observes hears at once; who does not, later: activations travel one edge a tick.
    assert moved[0].sum() <= TINY["input"].neurons + TINY["cerebellum"].neurons


def test_samples_are_independent() -> None:
    brain = tiny(iterations=2)
    given = observations(3, 4)
    together = states_of(brain, given)
    given[1] += 1.0
    changed = states_of(brain, given)
    np.testing.assert_array_equal(changed[[0, 2]], together[[0, 2]])
    assert (changed[1] != together[1]).any()


def test_seeds_vary_the_weights() -> None:
    nn.manual_seed(1)
    one = dict(Brain(BrainConfig(TINY), 2).named_parameters())
    nn.manual_seed(2)
    other = dict(Brain(BrainConfig(TINY), 2).named_parameters())
    drawn = ("regions.input.edge.weight", "regions.insula.start_trace", "left")
    for name in drawn:
        assert not np.array_equal(one[name].value, other[name].value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "at least 1"),
        ({"regions": {"input": Region(1, 1, 1)}}, "edges must name the regions"),
        ({"edges": {**EDGES, "motor": Edge(("cortex",))}}, "edges must name the regions"),
    ],
)
def test_graphs_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(BrainConfig(), **change)  # type: ignore[arg-type]


# ---- on bytes -------------------------------------------------------------------


def tokens(batch: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(97, 101, (batch, 10)).astype(np.uint8)


@pytest.mark.parametrize("ticks", [1, 2])
def test_earlier_bytes_reach_a_prediction_and_later_ones_do_not(ticks: int) -> None:
    program = trace(ByteBrain(replace(TINY_BYTES, ticks=ticks)).score, tokens=spec((3, 10), "u8"))
    before = program.run(tokens=tokens())["logits"]
    for back in range(10):
        changed = tokens()
        changed[1, 9 - back] = 200
        after = program.run(tokens=changed)["logits"]
        assert (after[1, 9] != before[1, 9]).any(), back
        np.testing.assert_array_equal(after[1, : 9 - back], before[1, : 9 - back])
        np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ticks", [1, 2])
def test_every_parameter_moves_and_the_loss_falls(strategy: str, ticks: int) -> None:
    model = ByteBrain(replace(TINY_BYTES, ticks=ticks, exit=strategy))
    window = spec((3, 10), "u8")
    training = Training(
        model.loss,
        make_optimizers(model, replace(RECIPES["small"], learning_rate=2e-2)),
        inputs={"tokens": window, "targets": window},
        clip_norm=1.0,
        threads=1,
    )
    before = training.weights()
    x = tokens()
    losses = []
    for _ in range(60):
        losses.append(training.backward(tokens=x, targets=np.roll(x, -1, axis=1)))
        training.step()
    after = training.weights()
    named = dict(model.named_parameters())
    assert named.keys() - before.keys() == {"brain.no_pairs"}
    for name in before:
        assert named[name].trainable != np.array_equal(before[name], after[name]), name
    assert losses[0] > 4.5
    assert losses[-1] < 1.5
    assert training.output("windows").shape == (3,)


def test_every_preset_has_a_recipe_and_the_small_one_its_published_sizes() -> None:
    assert PRESETS.keys() == RECIPES.keys()
    assert sum(region.neurons for region in PRESETS["small"].brain.regions.values()) == 160
    with pytest.raises(UsageError, match="--preset huge is not one of small"):
        config_from("huge")


# ---- whole commands -------------------------------------------------------------


Corpus = tuple[Path, Path]


def test_train_score_summary_and_baselines(isis: Isis, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    flags = ["--small", "--context", 24, "--threads", 1, "--lr", 0.01]
    done = isis("learn", *flags, "--steps", 60, "--val-data", corpus[1], path, corpus[0])
    assert done.returncode == 0, done.stderr
    match = re.match(r"---\nval_bpb: +(\d+\.\d{6})\n", done.stdout)
    assert match, done.stdout
    assert float(match[1]) < 4.0
    assert "task:             language\n" in done.stdout
    assert re.search(r"counts of the training data score \d\.\d{3} bits", done.stderr)
    again = isis("eval", path, corpus[1])
    assert f"{match[1]} bits per byte" in again.stdout
    said = isis("generate", path, "--prompt", "the ", "--bytes", 5)
    assert said.returncode == 0 and said.stdout.startswith("the ")
    # Resumed, it goes on where it stood; another preset or kind of model is refused.
    resumed = isis("learn", *flags, "--steps", 61, "--dream-every", 2, path, corpus[0])
    assert resumed.returncode == 2 and "was made with dream_every = 0" in resumed.stderr
    resumed = isis("learn", *flags, "--steps", 61, path, corpus[0])
    assert f"resumed {path} at step 60" in resumed.stderr
    assert checkpoint.load(path).meta["step"] == 61
    for command, preset in (("learn", "--medium"), ("learn-ffn", "--small")):
        done = isis(command, preset, "--context", 24, "--lr", 0.01, path, corpus[0])
        assert done.returncode == 2 and "was made with preset = brain small" in done.stderr


@pytest.mark.parametrize("dream_every", [0, 2])
def test_resume_is_exact_but_for_dreams(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dream_every: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings: dict[str, Any] = {"preset": "small", "context": 8, "threads": 1, "seed": 3}
    settings |= {"dream_every": dream_every, "data": read_bytes([corpus[0]]), "steps": 6}
    train(whole, **settings)
    goes_on = Run.continues
    with monkeypatch.context() as patch:
        # As if stopped after the third step of the same schedule.
        patch.setattr(Run, "continues", lambda run: goes_on(run) and run._training.steps != 3)
        train(parts, **settings)
    assert checkpoint.load(parts).meta["step"] == 3
    train(parts, **settings)
    one, two = checkpoint.load(whole), checkpoint.load(parts)
    assert two.meta["step"] == 6
    if dream_every:
        return  # what was predicted worst is forgotten in between
    for kind in ("weights", "state"):
        for name, value in getattr(one, kind).items():
            np.testing.assert_array_equal(getattr(two, kind)[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--preset", "huge", "{tmp}/m", "{train}"], 2, "is not one of small"),
        (["--small", "{tmp}/m", "{tmp}/nothing"], 1, "no such file"),
        (["--small", "{tmp}/m", "{tmp}/short"], 1, "a window needs 65"),
        (["--val-data", "{tmp}/no", "{tmp}/m", "{train}"], 2, "no such file"),
        (["--device", "gpu", "{tmp}/m", "{train}"], 2, "is not one of auto, cpu"),
        (["{tmp}/m"], 2, "Missing argument"),
    ],
)
def test_bad_input_is_one_line(
    isis: Isis, corpus: Corpus, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "short").write_bytes(b"x" * 10)
    places = {"tmp": str(tmp_path), "train": str(corpus[0])}
    done = isis("learn", *[argument.format(**places) for argument in arguments])
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
