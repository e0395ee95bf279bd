"""Learning-rate schedules over the fraction of the budget that is used."""

from __future__ import annotations

import math


def warmdown(
    fraction: float, *, warmup: float = 0.02, cooldown: float = 0.6, final: float = 0.0
) -> float:
    """Rises over `warmup`, stays at 1, falls linearly to `final` over the last
    `cooldown` of the budget."""
    if fraction < warmup:
        return fraction / warmup
    if fraction > 1.0 - cooldown:
        left = max(0.0, (1.0 - fraction) / cooldown)
        return final + (1.0 - final) * left
    return 1.0


def cosine(fraction: float, *, warmup: float = 0.02, final: float = 0.0) -> float:
    """Rises over `warmup`, then falls to `final` along half a cosine."""
    if fraction < warmup:
        return fraction / warmup
    progress = min(1.0, (fraction - warmup) / (1.0 - warmup))
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
