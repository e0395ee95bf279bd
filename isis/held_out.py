"""How far to trust what the net adds to the counts, by text that it was not trained on.

Noise is learned by heart too: where a text has nothing to teach beyond its counts, what
the net adds makes every prediction worse, and the training loss does not tell. So a few
windows are never trained on, and at the end head and gates are scaled to the share of
what they learned that predicts those best: most of it on a language, none on random
bytes.
"""

from __future__ import annotations

import numpy as np
from modgrad import _core, spec, trace
from modgrad.data import Windows
from modgrad.nn import Array
from modgrad.training import Training

from isis.ffn import SHARES, CountedFFN


def fit_learned_share(model: CountedFFN, training: Training, windows: Windows) -> None:
    """Sets `model.learned_share` by the windows held out, under the weights of `training`."""
    batch, length = windows.batch, windows.before + windows.length + windows.after
    program = trace(
        model.losses_by_share,
        tokens=spec((batch, length), "u8"),
        targets=spec((batch, windows.length), "u8"),
    )
    session = _core.Session(
        program.core, ["losses"], training.precision, training.threads, training.device
    )
    trained = training.weights()
    weights = program.weights()
    session.set_parameters({name: trained.get(name, weights[name]) for name in weights})
    losses = []
    for first in range(0, windows.held_out.size, batch):
        tokens, targets = windows.at(windows.held_out[first : first + batch])
        losses.append(session.run({"tokens": tokens, "targets": targets})["losses"])
    share = best_share(np.stack(losses).mean(0))
    model.learned_share.value = np.array([share], np.float32)


def best_share(losses: Array) -> float:
    """The vertex of the parabola through the least of the losses [S] with `SHARES`
    and its neighbours; the first or last share where that is the least."""
    least = int(np.argmin(losses))
    if least in (0, len(losses) - 1):
        return SHARES[least]
    before, here, after = losses[least - 1 : least + 2]
    step = SHARES[least + 1] - SHARES[least]
    bend = before - 2.0 * here + after
    return SHARES[least] + (0.5 * step * (before - after) / bend if bend > 0.0 else 0.0)
