"""What the search believes before it has tried anything, and how it says it.

A prior names a kind of argument by words that people use for it, how often a
change of one is kept, and which way to go first on a short budget. It never
names a value: where an argument should stand is for the experiments to say.
Arguments that no word fits are judged by their scale alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modgrad.autoresearch.researchers.literals import Value
from modgrad.autoresearch.researchers.steps import (
    CHOICE,
    COUNT,
    FRACTION,
    RATE,
    REMAINDER,
    Scale,
)
from modgrad.autoresearch.researchers.tunables import Tunable

# On budgets up to this, in seconds, a model sees a small part of its data once:
# cheaper steps, quicker averages and less regularisation come first.
SHORT_BUDGET = 120.0


@dataclass(frozen=True)
class Prior:
    """What is believed of the arguments that `words` fits."""

    words: str
    chance: float  # of a change to be kept
    direction: int  # on a short budget: up, down, or unknown as 0
    family: str
    up: str = ""  # why one would raise it
    down: str = ""  # why one would lower it


# The first that fits counts. Small models on small budgets profit most from more
# updates (a smaller batch was the first gain of most public runs of this kind).
PRIORS = (
    Prior(
        r"^(n_)?(layers|depth|blocks)$",
        0.5,
        -1,
        "architecture",
        "more capacity",
        "cheaper steps, so more of them",
    ),
    Prior(
        r"^batch|batch(_size)?$",
        0.38,
        -1,
        "data order",
        "steadier gradients",
        "more updates in the same time",
    ),
    Prior(
        r"table.*(rate|lr)|sparse.*(rate|lr)",
        0.45,
        1,
        "optimiser",
        "rare rows learn from few visits",
        "steadier rows",
    ),
    Prior(
        r"learning_rate|(^|_)lr$",
        0.28,
        0,
        "optimiser",
        "faster progress while time is short",
        "steadier steps",
    ),
    Prior(
        r"^(width|dim|d_model|model_width)$",
        0.42,
        -1,
        "architecture",
        "more capacity",
        "cheaper steps, so more of them",
    ),
    Prior(
        r"hidden|expansion|feed_?forward",
        0.45,
        -1,
        "architecture",
        "more capacity",
        "cheaper steps, so more of them",
    ),
    Prior(
        r"^(time|window|length|sequence.*)$",
        0.4,
        -1,
        "data order",
        "more context to learn from",
        "more updates in the same time",
    ),
    Prior(
        r"dropout",
        0.4,
        -1,
        "regularisation",
        "lean less on any one input",
        "a short run sees little twice",
    ),
    Prior(
        r"average.*decay|ema",
        0.4,
        -1,
        "schedule",
        "average over more steps",
        "average over fewer steps, since there are few",
    ),
    Prior(
        r"cooldown|warmdown",
        0.2,
        0,
        "schedule",
        "fall for longer",
        "stay at the peak for longer",
    ),
    Prior(
        r"warm_?up|average_from|final",
        0.12,
        0,
        "schedule",
    ),
    Prior(
        r"weight_decay",
        0.15,
        -1,
        "regularisation",
        "hold the weights smaller",
        "a short run needs little restraint",
    ),
    Prior(r"betas?\b|momentum|epsilon", 0.12, -1, "optimiser", "", "forget old gradients sooner"),
    Prior(
        r"context",
        0.16,
        1,
        "architecture",
        "later bytes of a window know more",
        "shorter windows are cheaper",
    ),
    Prior(r"rows|buckets|slots", 0.14, 0, "architecture", "fewer collisions", "a smaller table"),
    Prior(
        r"width|channels|heads|bytes",
        0.15,
        0,
        "architecture",
        "more to tell apart",
        "cheaper steps, so more of them",
    ),
    Prior(r"clip", 0.12, 0, "optimiser", "let large gradients through", "tame large gradients"),
    Prior(r"gain|deviation|scale", 0.08, 0, "architecture"),
)

# By scale, where no word fits.
_OTHERS = {
    COUNT: Prior("", 0.06, 0, "architecture"),
    RATE: Prior("", 0.1, 0, "optimiser"),
    FRACTION: Prior("", 0.1, 0, "regularisation"),
    REMAINDER: Prior("", 0.1, 0, "optimiser"),
    CHOICE: Prior("", 0.08, 0, "architecture"),
}
# A switch changes more than a number does, and breaks more.
_SWITCH = 0.03
_CHOICE = 0.12


def prior_of(tunable: Tunable, scale: Scale) -> Prior:
    """What is believed of an argument."""
    found = next((one for one in PRIORS if re.search(one.words, tunable.name)), None)
    prior = found or _OTHERS[scale.kind]
    if scale.kind != CHOICE:
        return prior
    switch = isinstance(tunable.value, bool) or tunable.value == 0
    family = prior.family
    if isinstance(tunable.value, tuple):
        family = "architecture"
    return Prior(prior.words, _SWITCH if switch else _CHOICE, 0, family, prior.up, prior.down)


def described(tunable: Tunable, prior: Prior, new: Value, old_text: str, new_text: str) -> str:
    """A change as a person would put it: `widen hidden 640 → 896: more capacity`."""
    old, name = tunable.value, _spoken(tunable)
    if isinstance(old, bool) or isinstance(new, bool):
        return f"{'turn' if new else 'do without'} {name}{' on' if new else ''}"
    if isinstance(old, str) and isinstance(new, str):
        return f"{name} {old} → {new}"
    if isinstance(old, tuple) and isinstance(new, tuple):
        gone = [str(one) for one in old if one not in new]
        added = [str(one) for one in new if one not in old]
        if gone and added:
            return f"{name}: {', '.join(added)} instead of {', '.join(gone)}"
        if gone or added:
            verb, which = ("leave", gone) if gone else ("add", added)
            return f"{verb} {', '.join(which)} {'out of' if gone else 'to'} {name}"
        return f"{name} in another order: {new_text}"
    assert isinstance(old, int | float) and isinstance(new, int | float)
    up = new > old
    if old and new == 2 * old:
        verb = "double"
    elif old == 2 * new and new:
        verb = "halve"
    elif re.search(r"^width$|hidden", tunable.name):
        verb = "widen" if up else "narrow"
    else:
        verb = "raise" if up else "lower"
    why = prior.up if up else prior.down
    return f"{verb} {name} {old_text} → {new_text}{': ' + why if why else ''}"


def _spoken(tunable: Tunable) -> str:
    """A call's argument is named with the call, a field alone is enough."""
    parts = tunable.label.split(".")
    inner = tunable.call is None and tunable.label.endswith(f".{tunable.name}") and len(parts) > 2
    return f"{parts[-2]}'s {tunable.name}" if inner else tunable.name.replace("_", " ")
