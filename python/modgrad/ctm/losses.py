"""Losses over the ticks of a thought, and how certain each tick is.

Axes: B samples, T ticks, R positions of a route, C classes.
"""

from __future__ import annotations

import math

from modgrad import functional as F
from modgrad.program import Operand, Tensor, current_graph

LOOKAHEAD = 5  # positions behind the correct prefix that a route is trained on


def certainty(logits: Operand) -> Tensor:
    """logits [B, T, ..., C] → [B, T]: 1 − entropy / ln C, averaged over positions.

    1 where all of the probability lies on one class, 0 where it is spread evenly
    (arXiv 2505.05522, section 2.5).
    """
    tensor = current_graph().read(logits)
    probability = F.softmax(tensor)
    shifted = tensor - tensor.max(-1, keepdims=True)
    logsumexp = shifted.exp().sum(-1).log()
    entropy = logsumexp - (probability * shifted).sum(-1)
    entropy = entropy.reshape(*tensor.shape[:2], -1).mean(-1)
    return 1.0 - entropy / math.log(tensor.shape[-1])


def tick_losses(logits: Operand, targets: Operand) -> Tensor:
    """logits [B, T, ..., C], targets u8 or i32 [B, ...] → cross-entropy [B, T] in
    nats, averaged over positions."""
    return _cross_entropy(logits, targets).mean(-1)


def two_tick_loss(losses: Operand, chosen: Operand) -> Tensor:
    """losses [B, T], chosen [B, T] of one 1 a row → the mean over samples of
    ½ (the loss of the tick where it is smallest + that of the chosen tick).

    Which ticks those are is a choice without a gradient; of equals it is the first
    (arXiv 2505.05522, section 2.5, where the most certain tick is chosen).
    """
    by_tick = current_graph().read(losses)
    picked = F.one_hot_max(-by_tick) + chosen
    return (picked * by_tick).sum(-1).mean() * 0.5


def maze_losses(logits: Operand, targets: Operand) -> Tensor:
    """logits [B, T, R, C], targets u8[B, R] → losses [B, T] with a curriculum of its own.

    A sample is trained on as much of its route as some tick gets right from the
    start, and `LOOKAHEAD` further positions (arXiv 2505.05522, section 4.1): with
    a prefix of P the mean cross-entropy of the first min(R, max(P, 1) + 4).
    """
    losses = _cross_entropy(logits, targets)
    length = losses.shape[-1]
    prefix = correct_prefix(logits, targets).max(-1)
    trained = F.minimum(F.maximum(prefix, 1.0) + (LOOKAHEAD - 1), float(length))  # [B]
    trained = trained.reshape(-1, 1, 1)
    inside = F.minimum(F.relu(trained - F.arange(length)), 1.0)  # [B, 1, R] of 0 and 1
    return (losses * inside).sum(-1) / trained.reshape(-1, 1)


def correct_prefix(logits: Operand, targets: Operand) -> Tensor:
    """logits [B, T, R, C], targets u8[B, R] → [B, T]: how many positions from the
    start have their highest logit at the target."""
    tensor = current_graph().read(logits)
    batch, ticks, length, classes = tensor.shape
    wanted = F.one_hot(targets, classes).reshape(batch, 1, length, classes)
    correct = (F.one_hot_max(tensor) * wanted).sum(-1)
    correct = correct.reshape(batch * ticks, length, 1)
    first = F.relu(1.0 - F.arange(length)).reshape(1, length, 1)
    # h[r] = correct[r]·h[r−1], and h[0] = correct[0].
    unbroken = F.linear_scan(correct, correct * first)
    return unbroken.reshape(batch, ticks, length).sum(-1)


def _cross_entropy(logits: Operand, targets: Operand) -> Tensor:
    """Of every position: [B, T, R], R all axes between ticks and classes as one."""
    graph = current_graph()
    tensor, wanted = graph.read(logits), graph.read(targets)
    batch, ticks, classes = tensor.shape[0], tensor.shape[1], tensor.shape[-1]
    tensor = tensor.reshape(batch, ticks, -1, classes)
    wanted = wanted.reshape(batch, 1, -1).broadcast_to(*tensor.shape[:-1])
    return F.cross_entropy(tensor, wanted)
