"""How far to trust what the net adds to the counts, by text that it was not trained on.

Noise is learned by heart too: where a text has nothing to teach beyond its counts, what
the net adds makes every prediction worse, and the training loss does not tell. So a few
windows are never trained on, and at the end head and gates are scaled to the share of
what they learned that predicts those best: all of it on a language, none on random bytes.

The shares that are tried lie far apart, so that few windows tell: what a language gains by
one between them, 0.001 bits per byte, is no more than holding out the text for it costs.
"""

from __future__ import annotations

import numpy as np
from modgrad.data import Windows
from modgrad.errors import NonFiniteError
from modgrad.training import Training

from isis.ffn import CountedFFN

SHARES = (1.0, 0.5, 0.0)


def steps_to_fit(windows: Windows) -> int:
    """The passes that `fit_learned_share` takes, each of them shorter than a step."""
    return len(SHARES) * (windows.held_out.size // windows.batch)


def fit_learned_share(model: CountedFFN, training: Training, windows: Windows) -> None:
    """Sets `model.learned_share` by the windows held out, under the weights of `training`.

    Gradients that this leaves behind are those of no step: it is for the end of a run.
    """
    added = [model.head.weight, model.gates.weight, model.trust.weight, model.shares]
    learned = {str(parameter.name): training.weight(str(parameter.name)) for parameter in added}
    first = {name: np.zeros_like(value) for name, value in learned.items()}
    first[str(model.shares.name)] = model.first_shares.value
    losses = []
    for share in SHARES:
        training.core.set_parameters(
            {name: first[name] + share * (learned[name] - first[name]) for name in learned}
        )
        losses.append(_mean_loss(training, windows))
    training.core.set_parameters(learned)
    model.learned_share.value = np.array([SHARES[int(np.argmin(losses))]], np.float32)


def _mean_loss(training: Training, windows: Windows) -> float:
    losses = []
    for start in range(0, windows.held_out.size, windows.batch):
        tokens, targets = windows.at(windows.held_out[start : start + windows.batch])
        try:
            losses.append(training.backward(tokens=tokens, targets=targets))
        except NonFiniteError:
            return np.inf  # nothing to choose, and no reason to lose the run
    return float(np.mean(losses))
