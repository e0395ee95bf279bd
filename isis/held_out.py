"""How far to trust what the net adds to the counts, by text that it was not trained on.

Noise is learned by heart too: where a text has nothing to teach beyond its counts, what
the net adds makes every prediction worse, and the training loss does not tell. So a few
windows are never trained on, and at the end head and gates are scaled to the share of
what they learned that predicts those best: all of it on a language, none on random bytes.

The shares that are tried lie far apart, so that few windows tell: what a language gains by
one between them, 0.001 bits per byte, is less than holding out the text for it costs.
"""

from __future__ import annotations

import numpy as np
from modgrad import _core, spec, trace
from modgrad.data import Windows
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
    share = SHARES[int(np.stack(losses).mean(0).argmin())]
    model.learned_share.value = np.array([share], np.float32)
