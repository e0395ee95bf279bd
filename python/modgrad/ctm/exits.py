"""When a thought stops: which of its ticks is read.

A strategy says it twice, by one rule: `tick` picks the tick that a model answers
with, `loss` trains towards it. A program has as many ticks as it was traced with
and runs them all; an early exit is one that would have saved the rest.

Axes: B samples, T ticks, S pairs.
"""

from __future__ import annotations

from modgrad import functional as F
from modgrad import nn
from modgrad.ctm.losses import two_tick_loss
from modgrad.errors import UsageError
from modgrad.program import Operand, Tensor, current_graph

STRATEGIES = ("none", "certainty", "adaptive")
STEEP = 1e9  # makes a step of a ramp
SMALLEST = 1e-9  # probability whose logarithm is formed


class MostCertain(nn.Module):
    """Runs all ticks and answers with the most certain one."""

    def tick(self, certainties: Operand, synchrony: Operand) -> Tensor:
        """certainties [B, T], synchrony [B, T, S] → [B, T], 1 at the tick that is read."""
        return F.one_hot_max(certainties)

    def loss(self, losses: Operand, certainties: Operand, synchrony: Operand) -> Tensor:
        """losses [B, T] → the scalar to train on."""
        return two_tick_loss(losses, self.tick(certainties, synchrony))


class CertaintyThreshold(MostCertain):
    """Stops at the first tick that is more certain than `threshold`, or at the last."""

    def __init__(self, threshold: float = 0.95) -> None:
        self.threshold = threshold

    def tick(self, certainties: Operand, synchrony: Operand) -> Tensor:
        """As `MostCertain.tick`."""
        return first_above(certainties, self.threshold)


class AdaptiveGate(MostCertain):
    """A learned chance λ = σ(w·s + b) to stop at each tick; the last takes what is left.

    Trained on Σ p·loss − β·entropy(p) over the distribution p of where it stops;
    answers with the first tick by which it has stopped with more than `threshold`.
    """

    def __init__(self, pairs: int, *, beta: float = 0.1, threshold: float = 0.99) -> None:
        self.gate = nn.Linear(pairs, 1, bias=True)
        self.beta, self.threshold = beta, threshold

    def distribution(self, synchrony: Operand) -> Tensor:
        """[B, T, S] → [B, T], the chance to stop at each tick; rows sum to 1."""
        stopping = self.gate(synchrony).sigmoid()
        batch, ticks, _ = stopping.shape
        stopping = F.maximum(stopping, _last(ticks).reshape(ticks, 1))
        first = F.relu(1.0 - F.arange(ticks)).reshape(1, ticks, 1)
        # going[t] = Π (1 − stopping) of the ticks before: (1 − stopping[t−1])·going[t−1].
        before = F.shift(1.0 - stopping, 1)
        going = F.linear_scan(before, first.broadcast_to(batch, ticks, 1))
        return (stopping * going).reshape(batch, ticks)

    def tick(self, certainties: Operand, synchrony: Operand) -> Tensor:
        """As `MostCertain.tick`."""
        chance = self.distribution(synchrony)
        batch, ticks = chance.shape
        ones = F.full((batch, ticks, 1), 1.0)
        stopped = F.linear_scan(ones, chance.reshape(batch, ticks, 1)).reshape(batch, ticks)
        return first_above(stopped, self.threshold)

    def loss(self, losses: Operand, certainties: Operand, synchrony: Operand) -> Tensor:
        """As `MostCertain.loss`."""
        chance = self.distribution(synchrony)
        entropy = -(chance * F.maximum(chance, SMALLEST).log()).sum(-1)
        return ((chance * losses).sum(-1) - entropy * self.beta).mean()


def make_exit(strategy: str, pairs: int) -> MostCertain:
    """The strategy of that name for a model whose ticks are read from `pairs`."""
    if strategy == "none":
        return MostCertain()
    if strategy == "certainty":
        return CertaintyThreshold()
    if strategy == "adaptive":
        return AdaptiveGate(pairs)
    raise UsageError(f"--exit {strategy} is not one of {', '.join(STRATEGIES)}")


def first_above(values: Operand, threshold: float) -> Tensor:
    """values [B, T] → [B, T], 1 at the first tick above `threshold`, else at the last."""
    tensor = current_graph().read(values)
    above = F.minimum(F.relu((tensor - threshold) * STEEP), 1.0)
    return F.one_hot_max(F.maximum(above, _last(tensor.shape[1]) * 0.5))


def at_tick(values: Operand, chosen: Operand) -> Tensor:
    """values [B, T, ...], chosen [B, T] → [B, ...]: the values of the chosen tick."""
    graph = current_graph()
    tensor, picked = graph.read(values), graph.read(chosen)
    batch, ticks = picked.shape
    flat = tensor.reshape(batch, ticks, -1)
    return (flat * picked.reshape(batch, ticks, 1)).sum(1).reshape(batch, *tensor.shape[2:])


def mean_ticks(chosen: Operand) -> Tensor:
    """chosen [B, T] → how many ticks a sample takes, on average."""
    picked = current_graph().read(chosen)
    return (picked * (F.arange(picked.shape[1]) + 1.0)).sum(-1).mean()


def _last(ticks: int) -> Tensor:
    """[T]: 1 at the last tick, 0 elsewhere."""
    return F.relu(F.arange(ticks) - float(ticks - 2))
