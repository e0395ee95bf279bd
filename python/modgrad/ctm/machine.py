"""A Continuous Thought Machine (Darlow et al. 2025, arXiv 2505.05522).

Neurons with models of their own over the trace of what reaches them; attention
whose query is the synchronisation of pairs of neurons; an output read from the
synchronisation of other pairs at every tick. A synapse of any depth, deep or shallow
neuron-level models, three ways to pair neurons. All ticks run in one fused op, with exact
gradients through every one of them, and through the state and trace that a call
starts from.

Axes: B batch, L tokens, F features of a token, T ticks, N neurons, C width of keys
and values, S pairs, M memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from modgrad import functional as F
from modgrad import nn
from modgrad.ctm.synapse import Synapse
from modgrad.errors import UsageError
from modgrad.nn import Array, Parameter
from modgrad.program import Operand, Tensor, current_graph

PAIRINGS = ("random-pairing", "first-last", "random")
LARGEST_DECAY = 15.0  # e^-15 forgets all but the present tick


class ContinuousThoughtMachine(nn.Module):
    """features [B, L, F] → predictions [B, T, outputs]."""

    def __init__(
        self,
        features: int | None,
        outputs: int,
        *,
        neurons: int = 256,
        width: int = 128,
        ticks: int = 16,
        memory: int = 16,
        hidden: int = 16,
        heads: int = 4,
        action_pairs: int = 256,
        output_pairs: int = 256,
        self_pairs: int = 0,
        pairing: str = "random-pairing",
        depth: int = 1,
        min_width: int = 16,
    ) -> None:
        """`hidden` 0 makes the neuron-level models shallow. `pairing` says what
        `action_pairs` and `output_pairs` count (see `Pairs`). Without `action_pairs` it
        asks the same at every tick. `depth` and `min_width` are the synapse's.
        `features` None: tokens come as they are, `width` wide. `outputs` 0: nothing is
        read out, and `output_pairs` do not count. Raises `UsageError` for sizes that
        cannot be."""
        if min(neurons, width, ticks, memory, heads) < 1 or width % heads:
            raise UsageError(
                f"neurons {neurons}, width {width}, ticks {ticks}, memory {memory} must be at "
                f"least 1, and heads {heads} divide the width"
            )
        if min(hidden, action_pairs, output_pairs, outputs) < 0 or (outputs and not output_pairs):
            raise UsageError(
                f"hidden {hidden}, action_pairs {action_pairs} and outputs {outputs} must be at "
                f"least 0, and output_pairs {output_pairs} at least 1 where there are outputs"
            )
        self.ticks, self.hidden, self.heads, self.memory = ticks, hidden, heads, memory
        self.depth = depth
        first = 2 * hidden if hidden else 2
        self.start_state = Parameter(_uniform((neurons,), neurons))
        self.start_trace = Parameter(_uniform((neurons, memory), neurons + memory))
        if features is not None:
            self.join = nn.Linear(features, width, bias=True)
            self.norm = nn.LayerNorm(width)
        self.action = Pairs(neurons, action_pairs, pairing, self_pairs, last=True)
        self.query = nn.Linear(self.action.count, width, bias=True)
        self.attention = [nn.Linear(width, width, bias=True) for _ in "qkvo"]
        self.synapse = Synapse(width, neurons, depth=depth, min_width=min_width)
        self.level1 = Parameter(_uniform((memory, first, neurons), memory + first))
        self.level1_bias = Parameter(np.zeros((first, neurons), np.float32))
        self.temperatures = Parameter(np.ones(2 if hidden else 1, np.float32))
        if hidden:
            self.level2 = Parameter(_uniform((hidden, 2, neurons), hidden + 2))
            self.level2_bias = Parameter(np.zeros((2, neurons), np.float32))
        if outputs:
            self.output = Pairs(neurons, output_pairs, pairing, self_pairs)
            self.head = nn.Linear(self.output.count, outputs, bias=True)

    def __call__(self, features: Operand) -> Tensor:
        """The prediction after every tick."""
        states, _ = self.think(features)
        return self.head(self.synchrony(states))

    def synchrony(self, states: Operand, state: Operand | None = None) -> Tensor:
        """states [B, T, N] → what the output is read from after every tick, [B, T, S].

        `state` [B, N] stood before the first; None is the learned start."""
        start = self.start_state if state is None else state
        pairs = self.output
        kept = pairs.retention()
        return F.synchronisation(start, states, pairs.left, pairs.right, kept)[:, 1:]

    def tokens(self, features: Operand) -> Tensor:
        """features [B, L, F] → what attention looks at, [B, L, C]."""
        return self.norm(self.join(features))

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        """The learned start of a batch: state [B, N] and trace [B, N, M]."""
        read = current_graph().read
        state, trace = read(self.start_state), read(self.start_trace)
        return (
            state.reshape(1, *state.shape).broadcast_to(batch, *state.shape),
            trace.reshape(1, *trace.shape).broadcast_to(batch, *trace.shape),
        )

    def think(
        self,
        features: Operand | Sequence[Operand],
        state: Operand | None = None,
        trace: Operand | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The states of the neurons after every tick [B, T, N], and their trace after
        the last [B, N, M], newest last.

        `features` [B, L, F], or several of them whose tokens are looked at together.
        `state` [B, N] and `trace` [B, N, M] are those of a call to go on from, with
        gradients through both: `states[:, -1]` and the trace that it returned. None
        is the learned start. The synchronisation that attention asks with remembers
        nothing from before the call; where what is read out should, keep its states.
        """
        given = list(features) if isinstance(features, list | tuple) else [features]
        joined = given[0] if len(given) == 1 else F.concat(given, 1)
        read = current_graph().read
        tokens = self.tokens(joined) if hasattr(self, "join") else read(joined)  # [B, L, C]
        start_state, start_trace = self.start(tokens.shape[0])
        operands: list[Operand] = [
            self.attention[1](tokens),
            self.attention[2](tokens),
            start_state if state is None else state,
            start_trace if trace is None else trace,
            *self._weights(),
        ]
        return F.think(
            operands,
            ticks=self.ticks,
            heads=self.heads,
            hidden=self.hidden,
            depth=self.depth,
            projected=True,
        )

    def _weights(self) -> list[Operand]:
        """The operands of `F.think` that are the same for every sample."""
        query, _, _, out = self.attention
        operands: list[Operand] = [
            self.action.left,
            self.action.right,
            self.action.retention(),
            self.query.weight,
            self.query.bias,
            *self.synapse.operands(),
            self.level1,
            self.level1_bias,
        ]
        if self.hidden:
            operands += [self.level2, self.level2_bias]
        return [*operands, query.weight, query.bias, out.weight, out.bias, self.temperatures]


class Pairs(nn.Module):
    """Pairs of neurons, and how long each remembers.

    "random-pairing": `number` pairs drawn at random, the first `self_pairs` of a neuron
    with itself. "first-last": among the first `number` neurons, or the last, every
    pair i ≤ j. "random": `number` left and as many right neurons drawn, every pair of
    left i and right j with i ≤ j. The latter two are number·(number + 1) / 2 pairs.
    """

    def __init__(
        self, neurons: int, number: int, pairing: str, self_pairs: int = 0, *, last: bool = False
    ) -> None:
        """Raises `UsageError` for a pairing or numbers that cannot be."""
        if pairing not in PAIRINGS:
            raise UsageError(f"pairing {pairing} is not one of {', '.join(PAIRINGS)}")
        if self_pairs and pairing != "random-pairing":
            raise UsageError(f"self_pairs {self_pairs} mean nothing where pairing is {pairing}")
        if pairing == "random-pairing":
            left, right = nn.integers((2, number), neurons)
            right[:self_pairs] = left[:self_pairs]
        else:
            rows, columns = np.triu_indices(number)
            if pairing == "random":
                drawn = nn.integers((2, number), neurons)
            elif number <= neurons:
                drawn = np.arange(number, dtype=np.int32) + (neurons - number if last else 0)
                drawn = np.stack([drawn, drawn])
            else:
                raise UsageError(f"there are no {number} neurons among {neurons} to pair")
            left, right = drawn[0][rows], drawn[1][columns]
        self.count = len(left)
        self.left = Parameter(np.ascontiguousarray(left), trainable=False)
        self.right = Parameter(np.ascontiguousarray(right), trainable=False)
        self.decay = Parameter(np.zeros(self.count, np.float32))

    def retention(self) -> Tensor:
        """e^−|p| for |p| up to `LARGEST_DECAY`.

        The published machine holds p above 0 by clamping the parameter itself; here
        it is mirrored there. At 0, where all pairs start, the slope is that of p: with
        |p| or a plain maximum it would be 0, and no pair would ever learn to forget.
        """
        decay = current_graph().read(self.decay)
        mirrored = F.maximum(0.0, decay) + F.maximum(-decay, 0.0)
        return (-F.minimum(mirrored, LARGEST_DECAY)).exp()


def _uniform(shape: tuple[int, ...], fan: int) -> Array:
    return nn.uniform(shape, 1.0 / math.sqrt(fan))
