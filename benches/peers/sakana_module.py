#!/usr/bin/env python3
"""The PyTorch side of a comparison with the published Continuous Thought Machine.

    PYTHON sakana_module.py time --checkout DIR --batch 8 --threads 2
    PYTHON sakana_module.py export --checkout DIR --output FILE.npz ...

DIR is a checkout of SakanaAI/continuous-thought-machines, whose module and loss are
imported from there and nowhere else: nothing of it stands here. Needs torch and numpy,
and knows nothing of modgrad.

`time` prints one JSON object: milliseconds of training steps. `export` writes weights,
inputs, predictions, certainties and the gradient of every tensor under their maze loss.

Axes: B batch, F features of a token, L tokens, R steps of a route, 5 moves, T ticks.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import time
import types
from pathlib import Path

MOVES = 5


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["time", "export"])
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="of export")
    parser.add_argument("--mode", choices=["f32", "bf16", "f32-compile"], default="f32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of time")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    sizes = {
        "threads": 2, "batch": 8, "neurons": 256, "width": 128, "ticks": 16, "memory": 16,
        "hidden": 16, "heads": 4, "pairs": 256, "self-pairs": 0, "depth": 1, "tokens": 121,
        "features": 128, "route": 20,
    }  # fmt: skip
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="(%(default)s)")
    parser.add_argument(
        "--pairing", choices=["random-pairing", "first-last", "random"], default="random-pairing"
    )
    given = parser.parse_args()
    try:
        machine, losses = load(given.checkout)
    except (ImportError, FileNotFoundError) as error:
        print(f"error: --checkout {given.checkout}: cannot be imported ({error})", file=sys.stderr)
        return 1
    import torch

    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    model = build(machine, given)
    if given.command == "time":
        print(json.dumps(measure(model, given)))
    else:
        export(model, losses.maze_loss, given)
    return 0


def load(checkout: Path):
    """(the class, the module of losses) of a checkout."""
    if not (checkout / "models" / "ctm.py").is_file():
        raise FileNotFoundError("models/ctm.py is not there")
    sys.path.insert(0, str(checkout))
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        # Of it only a base class is used, for uploads and downloads.
        hub = types.ModuleType("huggingface_hub")
        hub.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})
        hub.hf_hub_download = None
        sys.modules["huggingface_hub"] = hub
    from models.ctm import ContinuousThoughtMachine
    from utils import losses

    return ContinuousThoughtMachine, losses


def build(machine, given):
    """A machine over bare features, its lazy layers made by one run."""
    import numpy as np
    import torch

    np.random.seed(given.seed)  # which neurons are paired is numpy's choice
    with contextlib.redirect_stdout(io.StringIO()):
        model = machine(
            iterations=given.ticks,
            d_model=given.neurons,
            d_input=given.width,
            heads=given.heads,
            n_synch_out=given.pairs,
            n_synch_action=given.pairs,
            synapse_depth=given.depth,
            memory_length=given.memory,
            deep_nlms=given.hidden > 0,
            memory_hidden_dims=given.hidden,
            do_layernorm_nlm=False,
            backbone_type="none",
            positional_embedding_type="none",
            out_dims=given.route * MOVES,
            prediction_reshaper=[given.route, MOVES],
            dropout=0,
            neuron_select_type=given.pairing,
            n_random_pairing_self=given.self_pairs,
        )
        with torch.no_grad():
            model(torch.zeros(1, given.features, given.tokens))
    return model


def measure(model, given) -> dict:
    """The times of training steps: forward, cross-entropy at every tick, backward
    through all ticks, clipping to norm 1, AdamW."""
    import torch

    generator = torch.Generator().manual_seed(1)
    features = torch.randn(given.batch, given.features, given.tokens, generator=generator)
    shape = (given.batch, given.route, given.ticks)
    targets = torch.randint(0, MOVES, shape, generator=generator)
    model, features, targets = (one.to(given.device) for one in (model, features, targets))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    run = torch.compile(model) if given.mode == "f32-compile" else model
    in_bf16 = given.mode == "bf16"
    times = []
    for _ in range(given.repeats + 5):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(given.device, torch.bfloat16, enabled=in_bf16):
            predictions = run(features)[0]
        logits = predictions.reshape(given.batch, given.route, MOVES, given.ticks)
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()  # a card answers when it is done
        times.append(1000 * (time.perf_counter() - start))
    return {
        "milliseconds": times[5:],
        "mode": given.mode,
        "batch": given.batch,
        "threads": given.threads,
        "device": given.device,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__,
        "loss": loss.item(),
    }


def export(model, maze_loss, given) -> None:
    """Weights that no symmetry hides, and what the module makes of them."""
    import numpy as np
    import torch

    generator = torch.Generator().manual_seed(given.seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.startswith("decay_params"):
                parameter.copy_(0.1 + noise.abs())  # not on the edge at 0
            else:
                parameter.add_(0.2 * noise)
    features = torch.randn(given.batch, given.features, given.tokens, generator=generator)
    targets = torch.randint(0, MOVES, (given.batch, given.route), generator=generator)
    predictions, certainties, _ = model(features)
    loss = maze_loss(
        predictions.reshape(given.batch, given.route, MOVES, given.ticks), certainties, targets
    )[0]
    loss.backward()
    arrays = {
        "features": features,
        "targets": targets,
        "predictions": predictions,
        "certainties": certainties,
        "loss": loss,
        **{f"weights/{name}": value for name, value in model.state_dict().items()},
        **{f"gradients/{name}": one.grad for name, one in model.named_parameters()},
    }
    np.savez(given.output, **{name: value.detach().numpy() for name, value in arrays.items()})


if __name__ == "__main__":
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    sys.exit(main())
