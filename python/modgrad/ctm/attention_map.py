"""Where a Continuous Thought Machine looks, tick by tick: for pictures.

The fused op `think` keeps its attention to itself. The states that it returns say
what every query was made from, so the weights are formed again here.

Axes: B batch, T ticks, L tokens, F features, N neurons, H heads, C width.
"""

from __future__ import annotations

import math

from modgrad import functional as F
from modgrad.ctm.machine import ContinuousThoughtMachine
from modgrad.nn import Linear
from modgrad.program import Operand, Tensor, current_graph


def attention_map(machine: ContinuousThoughtMachine, features: Operand, states: Operand) -> Tensor:
    """The share of its attention that a tick gives to a token, as the mean over heads.

    features [B, L, F], states [B, T, N] of `machine.think(features)`, begun from the
    learned start → [B, T, L], rows that sum to 1. The query of tick t comes from the
    synchronisation of the states before it (arXiv 2505.05522, section 3.4).
    """
    pairs = machine.action
    synchrony = F.synchronisation(
        machine.start_state, states, pairs.left, pairs.right, pairs.retention()
    )
    query, key = machine.attention[:2]
    asked = _split(query, machine.query(synchrony[:, :-1]), machine.heads)  # [B, H, T, C/H]
    offered = _split(key, machine.tokens(features), machine.heads)  # [B, H, L, C/H]
    likeness = F.matmul(asked, offered, transpose_b=True)  # [B, H, T, L]
    return F.softmax(likeness / math.sqrt(asked.shape[-1])).mean(1)


def _split(projection: Linear, rows: Operand, heads: int) -> Tensor:
    """rows [B, X, C] → projected, each head's part by itself: [B, H, X, C/H]."""
    projected = projection(current_graph().read(rows))
    batch, count, width = projected.shape
    return projected.reshape(batch, count, heads, width // heads).transpose(0, 2, 1, 3)
