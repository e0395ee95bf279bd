"""T9: our machine beside the published one, weight for weight.

Runs where MODGRAD_SAKANA_CHECKOUT names a checkout of
SakanaAI/continuous-thought-machines and MODGRAD_PYTORCH a Python that has torch.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modgrad import nn, optim, spec
from modgrad.ctm import ContinuousThoughtMachine, certainty, maze_losses, two_tick_loss
from modgrad.ctm.exits import MostCertain
from modgrad.program import Array, Tensor
from modgrad.training import Training

from tests.conftest import ROOT

CHECKOUT, PYTORCH = (os.environ.get(f"MODGRAD_{name}") for name in ("SAKANA_CHECKOUT", "PYTORCH"))
pytestmark = pytest.mark.skipif(
    not (CHECKOUT and PYTORCH), reason="MODGRAD_SAKANA_CHECKOUT and MODGRAD_PYTORCH are not set"
)

SIZES = {
    "batch": 3, "neurons": 24, "width": 8, "ticks": 6, "memory": 4, "hidden": 3, "heads": 2,
    "pairs": 7, "self-pairs": 0, "pairing": "random-pairing", "depth": 1, "tokens": 9,
    "features": 5, "route": 6,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "shallow neuron-level models": {"hidden": 0},
    "more memory than ticks": {"memory": 9},
    "pairs of a neuron with itself": {"self-pairs": 3},
    "one head, one token": {"heads": 1, "tokens": 1},
    "all pairs of the first and of the last neurons": {"pairing": "first-last", "pairs": 5},
    "all pairs of random neurons": {"pairing": "random", "pairs": 5},
    "a synapse of three levels": {"depth": 3},
    "a deep synapse and all pairs": {"depth": 3, "pairing": "first-last", "pairs": 5},
    "a deep synapse, shallow models, random neurons": {
        "depth": 3,
        "pairing": "random",
        "pairs": 4,
        "hidden": 0,
    },
}


def export(path: Path, sizes: dict[str, Any]) -> dict[str, Array]:
    """What their module makes of random weights and inputs."""
    words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    peer = ROOT / "benches" / "peers" / "sakana_module.py"
    command = [str(PYTORCH), str(peer), "export", "--checkout", str(CHECKOUT), *words]
    command += ["--threads", "1", "--output", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(path) as arrays:
        return dict(arrays)


def renamed(theirs: dict[str, Array]) -> dict[str, Array]:
    """Their tensors, or gradients, by our names and in our layouts."""
    ours: dict[str, Array] = {}
    rows = theirs["attention.in_proj_weight"], theirs["attention.in_proj_bias"]
    for index, (weight, bias) in enumerate(zip(*(np.split(one, 3) for one in rows), strict=True)):
        ours[f"attention.{index}.weight"], ours[f"attention.{index}.bias"] = weight, bias
    for mine, other in {
        "attention.3": "attention.out_proj",
        "join": "kv_proj.0",
        "norm": "kv_proj.1",
        "query": "q_proj",
        "head": "output_projector.0",
    }.items():
        for part in ("weight", "bias"):
            ours[f"{mine}.{part}"] = theirs[f"{other}.{part}"]
    for index, (product, norm, skip) in enumerate(blocks(theirs)):
        block = f"synapse.blocks.{index}"
        ours[f"{block}.weight"] = theirs[f"{product}.weight"].T
        ours[f"{block}.bias"] = theirs[f"{product}.bias"]
        for mine, other in (("norm", norm), ("skip", skip)):
            for part in ("weight", "bias") if other else ():
                ours[f"{block}.{mine}.{part}"] = theirs[f"{other}.{part}"]
    ours["start_state"], ours["start_trace"] = (
        theirs["start_activated_state"],
        theirs["start_trace"],
    )
    ours["action.decay"] = theirs["decay_params_action"]
    ours["output.decay"] = theirs["decay_params_out"]
    temperatures = []
    for level, index in ((1, 0), (2, 2)):
        name = f"trace_processor.0.{index}"
        if f"{name}.w1" in theirs:
            ours[f"level{level}"] = theirs[f"{name}.w1"]
            ours[f"level{level}_bias"] = theirs[f"{name}.b1"][0].T
            temperatures.append(theirs[f"{name}.T"][0])
    ours["temperatures"] = np.array(temperatures)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in ours.items()}


def blocks(theirs: dict[str, Array]) -> list[tuple[str, str, str]]:
    """Their names of a synapse's products, the norms behind them, and the norms of the
    sums with what came down, in the order of our blocks."""
    if "synapses.1.weight" in theirs:
        return [("synapses.1", "synapses.3", "")]
    levels = sum(name.startswith("synapses.skip_lns") for name in theirs) // 2
    found = [("synapses.first_projection.0", "synapses.first_projection.1", "")]
    for level in range(levels):
        name = f"synapses.down_projections.{level}"
        found.append((f"{name}.1", f"{name}.2", ""))
    for level in reversed(range(levels)):
        name = f"synapses.up_projections.{level}"
        found.append((f"{name}.1", f"{name}.2", f"synapses.skip_lns.{level}"))
    return found


def make(sizes: dict[str, Any], theirs: dict[str, Array]) -> ContinuousThoughtMachine:
    """Our machine with their weights."""
    nn.manual_seed(0)
    machine = ContinuousThoughtMachine(
        sizes["features"],
        sizes["route"] * 5,
        neurons=sizes["neurons"],
        width=sizes["width"],
        ticks=sizes["ticks"],
        memory=sizes["memory"],
        hidden=sizes["hidden"],
        heads=sizes["heads"],
        action_pairs=sizes["pairs"],
        output_pairs=sizes["pairs"],
        pairing=sizes["pairing"],
        depth=sizes["depth"],
    )
    machine.name_parameters()
    weights = renamed(theirs)
    for kind, other in (("action", "action"), ("output", "out")):
        sides = [theirs[f"{other}_neuron_indices_{side}"] for side in ("left", "right")]
        if sizes["pairing"] != "random-pairing":
            # Each of the left with itself and what follows on the right, row by row.
            chosen = np.triu_indices(len(sides[0]))
            sides = [side[index] for side, index in zip(sides, chosen, strict=True)]
        for side, indices in zip(("left", "right"), sides, strict=True):
            weights[f"{kind}.{side}"] = indices.astype(np.int32)
    if sizes["pairing"] == "first-last":  # nothing is drawn
        for pairs, kind in ((machine.action, "action"), (machine.output, "output")):
            assert (pairs.left.value == weights[f"{kind}.left"]).all()
            assert (pairs.right.value == weights[f"{kind}.right"]).all()
    for name, parameter in machine.named_parameters():
        assert parameter.value.shape == weights[name].shape, name
        parameter.value = weights[name].astype(parameter.value.dtype)
    return machine


@pytest.mark.parametrize("name", CASES)
def test_predictions_certainties_and_gradients_are_theirs(tmp_path: Path, name: str) -> None:
    sizes = {**SIZES, **CASES[name]}
    arrays = export(tmp_path / "theirs.npz", sizes)
    parts: dict[str, dict[str, Array]] = {"weights": {}, "gradients": {}}
    for key, value in arrays.items():
        kind, _, tensor = key.partition("/")
        if tensor:
            parts[kind][tensor] = value
    machine = make(sizes, parts["weights"])
    batch, route, ticks = sizes["batch"], sizes["route"], sizes["ticks"]
    strategy = MostCertain()

    def loss(features: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits = machine(features).reshape(batch, ticks, route, 5)
        sure = certainty(logits)
        chosen = strategy.tick(sure, sure)
        total = two_tick_loss(maze_losses(logits, targets), chosen)
        return {"loss": total, "logits": logits, "certainty": sure}

    trainable = [one for one in machine.parameters() if one.trainable]
    features = np.ascontiguousarray(arrays["features"].transpose(0, 2, 1))
    training = Training(
        loss,
        # Without momentum the first moment is the gradient.
        [optim.AdamW(trainable, 1e-9, betas=(0.0, 0.9))],
        inputs={"features": spec(features.shape), "targets": spec((batch, route), "u8")},
        precision="f32",
        threads=1,
    )
    value = training.backward(features=features, targets=arrays["targets"].astype(np.uint8))
    logits = arrays["predictions"].reshape(batch, route, 5, ticks).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(training.output("logits"), logits, atol=1e-5)
    np.testing.assert_allclose(training.output("certainty"), arrays["certainties"][:, 1], atol=1e-5)
    assert value == pytest.approx(float(arrays["loss"]), abs=1e-5)
    training.step()
    state = training.state()
    expected = renamed(parts["gradients"])
    largest = max(np.abs(one).max() for one in expected.values())
    for one in trainable:
        wanted, found = expected[one.name], state[f"first/{one.name}"].reshape(one.value.shape)
        # A bias of all keys moves no softmax: its gradient is rounding, on both sides.
        tolerance = 1e-4 * np.abs(wanted).max() + 1e-7 * largest
        assert np.abs(found - wanted).max() <= tolerance, one.name
