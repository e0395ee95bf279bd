"""A brain of eight regions, each a small Continuous Thought Machine.

Regions tell each other what they do along the edges of a graph. At every outer tick
all of them read the same snapshot of the others' activations, and each runs its own
inner ticks on what it read; activations and traces go on from tick to tick, and so
do the gradients. What the brain says is read from the synchronisation of pairs of
neurons anywhere in it (arXiv 2505.05522, for one machine without regions).

Some regions attend to tokens that stay the same for all ticks, and to what their
edges say as one token more. For the others attention over their one token would be a
constant map, which the synapse contains; and edges into one region that are summed
are a single map of all of their sources. So every parameter here has a gradient.

Inner ticks run in one fused op a region; where there is a single one and nothing to
attend to, they are plain ops over groups of regions, since matrix products of the
whole batch then take less time.

Axes: B batch, E observation, N neurons, C width of a message, M memory, L tokens,
S pairs, T outer ticks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from modgrad import functional as F
from modgrad import nn
from modgrad.errors import UsageError
from modgrad.nn import Array, Parameter
from modgrad.program import Operand, Tensor, current_graph

LARGEST_DECAY = 15.0  # e^-15 forgets all but the present tick


@dataclass(frozen=True)
class Region:
    """The size of a region; `hidden` 0 makes its neuron-level models shallow."""

    neurons: int
    width: int  # of the message that its edges make
    memory: int  # pre-activations that a neuron remembers
    hidden: int = 0


@dataclass(frozen=True)
class Edge:
    """What a region hears: the activations of others, and whether the observation."""

    sources: tuple[str, ...]
    observed: bool = False


# Who hears whom. The observation enters at two regions and goes round from there.
EDGES: dict[str, Edge] = {
    "input": Edge(("motor",), observed=True),
    "attention": Edge(("input",)),
    "output": Edge(("attention",)),
    "motor": Edge(("output",)),
    "cerebellum": Edge(("motor",), observed=True),
    "basal_ganglia": Edge(("output", "hippocampus")),
    "insula": Edge(("hippocampus",)),
    "hippocampus": Edge(("input", "attention", "output", "motor", "basal_ganglia")),
}

SMALL: dict[str, Region] = {
    "input": Region(32, 16, 8),
    "attention": Region(32, 16, 8, hidden=4),
    "output": Region(32, 16, 8, hidden=4),
    "motor": Region(32, 16, 8),
    "cerebellum": Region(8, 8, 4),
    "basal_ganglia": Region(8, 8, 4),
    "insula": Region(8, 8, 4),
    "hippocampus": Region(8, 8, 8, hidden=4),
}


def sized(neurons: int, few: int, width: int, narrow: int, memory: int) -> dict[str, Region]:
    """Four regions of `neurons` and four of `few`, all with shallow neuron models."""
    return {
        name: Region(neurons, width, memory) if like.neurons == 32 else Region(few, narrow, memory)
        for name, like in SMALL.items()
    }


@dataclass(frozen=True)
class BrainConfig:
    """What a brain is made of; every field is an ordinary argument to turn."""

    regions: dict[str, Region] = field(default_factory=lambda: dict(SMALL))
    edges: dict[str, Edge] = field(default_factory=lambda: dict(EDGES))
    iterations: int = 1  # inner ticks of an outer one
    pairs: int = 256  # of the global synchronisation
    read_activations: bool = False  # beside the synchronisation
    attending: tuple[str, ...] = ("input", "hippocampus")  # where there are tokens

    def __post_init__(self) -> None:
        named = {source for edge in self.edges.values() for source in edge.sources}
        if self.edges.keys() != self.regions.keys() or not named <= self.regions.keys():
            raise UsageError("edges must name the regions, and each region needs its edge")
        sizes = [(one.neurons, one.width, one.memory) for one in self.regions.values()]
        if min(min(size) for size in sizes) < 1 or min(self.iterations, self.pairs) < 1:
            raise UsageError("neurons, width, memory, iterations and pairs must be at least 1")


class RegionModule(nn.Module):
    """The parameters of one region; `tokens` is the width of those it attends to, or 0."""

    def __init__(self, config: Region, heard: int, tokens: int) -> None:
        neurons, width, memory, hidden = config.neurons, config.width, config.memory, config.hidden
        outputs = 2 * hidden if hidden else 2
        self.hidden = hidden
        self.start_state = Parameter(_uniform((neurons,), neurons))
        self.start_trace = Parameter(_uniform((memory, neurons), neurons + memory))
        self.edge = nn.Linear(heard, width, bias=True)
        self.edge_norm = nn.LayerNorm(width)
        self.attention = Attention(neurons, width, tokens) if tokens else None
        self.synapse = nn.Linear(width + neurons, 2 * neurons, bias=True)
        self.synapse_norm = nn.LayerNorm(neurons)
        self.level1 = Parameter(_uniform((memory, outputs, neurons), memory + outputs))
        self.level1_bias = Parameter(np.zeros((outputs, neurons), np.float32))
        if hidden:
            self.level2 = Parameter(_uniform((hidden, 2, neurons), hidden + 2))
            self.level2_bias = Parameter(np.zeros((2, neurons), np.float32))
            self.level2.value[:, 0] += 1.0 / hidden
        # A neuron begins by passing on, half open, what reached it last.
        self.level1.value[-1, : outputs // 2] += 1.0

    def hear(self, parts: list[Tensor]) -> Tensor:
        """The message [B, C] of what the sources say."""
        return self.edge_norm(self.edge(_joined(parts)))

    def before_trace(self, message: Tensor, state: Tensor) -> Tensor:
        """The pre-activations [B, N] that the synapse makes of message and state."""
        return self.synapse_norm(F.glu(self.synapse(F.concat([message, state]))))


class Attention(nn.Module):
    """Where a region looks: its query is the synchronisation of pairs of its neurons,
    over the inner ticks of the present outer one."""

    def __init__(self, neurons: int, width: int, tokens: int) -> None:
        pairs = min(neurons, width)
        self.heads = min(max(width // 8, 1), 8)
        if width % self.heads:
            raise UsageError(f"a width of {width} cannot be split into {self.heads} heads")
        self.join = nn.Linear(tokens, width, bias=True)
        self.norm = nn.LayerNorm(width)
        # A bias of keys would move no softmax, and one of values is the synapse's.
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.query = nn.Linear(pairs, width, bias=True, gain=2.0)
        self.left = Parameter(nn.integers((pairs,), neurons), trainable=False)
        self.right = Parameter(nn.integers((pairs,), neurons), trainable=False)
        self.decay = Parameter(np.full(pairs, 1.0, np.float32))


class Brain(nn.Module):
    """observations [B, E], one an outer tick → states [B, T, N] of all neurons."""

    def __init__(self, config: BrainConfig, observation: int, tokens: int = 0) -> None:
        """`tokens` is the width of tokens to attend to; 0: there are none."""
        self.config = config
        regions = config.regions
        self.regions = {}
        for name, region in regions.items():
            edge = config.edges[name]
            heard = sum(regions[source].neurons for source in edge.sources)
            heard += observation * edge.observed
            seen = tokens if name in config.attending else 0
            self.regions[name] = RegionModule(region, heard, seen)
        # Neurons with models of one shape are computed together; groups stand in a row.
        self.groups: dict[tuple[int, int], list[str]] = {}
        for name, region in regions.items():
            self.groups.setdefault((region.memory, region.hidden), []).append(name)
        self.row = [name for names in self.groups.values() for name in names]
        self.neurons = sum(region.neurons for region in regions.values())
        self.left = Parameter(nn.integers((config.pairs,), self.neurons), trainable=False)
        self.right = Parameter(nn.integers((config.pairs,), self.neurons), trainable=False)
        self.attends = tokens > 0
        plain = config.iterations == 1 and not self.attends
        self.engine: type[PlainTicks] | type[FusedTicks] = PlainTicks if plain else FusedTicks
        self.no_pairs = Parameter(np.zeros(0, np.int32), trainable=False)  # of who need not ask
        # Memories of all lengths from the start: only the last tick, to nearly for ever.
        kept = np.linspace(0.02, 0.995, config.pairs, dtype=np.float32)
        self.decay = Parameter(-np.log(kept))

    def think(self, observations: Sequence[Tensor], tokens: Tensor | None = None) -> Tensor:
        """The states after every outer tick; an observation is [B, E], tokens [B, L, F]."""
        if self.attends != (tokens is not None):
            raise UsageError("a brain is given tokens where it was made for them, and only there")
        batch = observations[0].shape[0]
        inner = self.engine(self, batch, tokens)
        ticks = []
        for observation in observations:
            # All are heard before any of them thinks: one snapshot for every region.
            heard = {name: self._heard(name, inner.state, observation) for name in self.regions}
            together = inner.run({name: self.regions[name].hear(heard[name]) for name in heard})
            ticks.append(together.reshape(batch, 1, self.neurons))
        return F.concat(ticks, 1)

    def synchrony(self, states: Tensor) -> Tensor:
        """How the pairs moved together up to every outer tick, [B, T, S]."""
        read = current_graph().read
        start = _joined([read(self.regions[name].start_state) for name in self.row])
        kept = _retention(self.decay)
        return F.synchronisation(start, states, self.left, self.right, kept)[:, 1:]

    def _heard(self, name: str, state: dict[str, Tensor], observation: Tensor) -> list[Tensor]:
        edge = self.config.edges[name]
        return [state[source] for source in edge.sources] + [observation] * edge.observed


class FusedTicks:
    """The inner ticks of every region by an op of its own."""

    def __init__(self, brain: Brain, batch: int, tokens: Tensor | None) -> None:
        self.brain, self.ticks = brain, brain.config.iterations
        self.state, self.traces, self.weights, self.seen = {}, {}, {}, {}
        for name, region in brain.regions.items():
            self.state[name] = _repeated(region.start_state, batch)
            start = current_graph().read(region.start_trace).transpose(1, 0)
            self.traces[name] = _repeated(start, batch)  # [B, N, M]
            self.weights[name] = _weights_of(region, brain.no_pairs)
            if (attention := region.attention) is not None:
                joined = attention.norm(attention.join(tokens))
                self.seen[name] = attention.key(joined), attention.value(joined)

    def run(self, messages: dict[str, Tensor]) -> Tensor:
        """An outer tick: the states [B, N] of all neurons after it."""
        for name, message in messages.items():
            region = self.brain.regions[name]
            message = message.reshape(message.shape[0], 1, message.shape[1])
            keys, values, heads = message, message, 1
            if region.attention is not None:
                heads = region.attention.heads
                keys = F.concat([self.seen[name][0], region.attention.key(message)], 1)
                values = F.concat([self.seen[name][1], region.attention.value(message)], 1)
            operands = [keys, values, self.state[name], self.traces[name], *self.weights[name]]
            states, self.traces[name] = F.think(
                operands, ticks=self.ticks, heads=heads, hidden=region.hidden
            )
            self.state[name] = states[:, -1]
        return _joined([self.state[name] for name in self.brain.row])


def _weights_of(region: RegionModule, no_pairs: Parameter) -> list[Operand]:
    """The operands of `F.think` behind the trace."""
    width = region.edge_norm.weight.value.shape[0]
    if (attention := region.attention) is not None:
        asked = [attention.left, attention.right, _retention(attention.decay)]
        asked += [attention.query.weight, attention.query.bias]
    else:
        asked = [
            no_pairs,
            no_pairs,
            F.full((0,), 0.0),
            F.full((width, 0), 0.0),
            F.full((width,), 0.0),
        ]
    levels = [region.level1, region.level1_bias]
    levels += [region.level2, region.level2_bias] if region.hidden else []
    synapse = current_graph().read(region.synapse.weight).transpose(1, 0)
    norm = region.synapse_norm
    return [*asked, synapse, region.synapse.bias, norm.weight, norm.bias, *levels]


class PlainTicks:
    """One inner tick of all regions, without tokens, by plain ops."""

    def __init__(self, brain: Brain, batch: int, tokens: Tensor | None) -> None:
        self.brain = brain
        self.state = {
            name: _repeated(region.start_state, batch) for name, region in brain.regions.items()
        }
        groups = brain.groups.values()
        self.levels = [_Levels([brain.regions[name] for name in names]) for names in groups]
        self.traces = [_repeated(one.start_trace, batch) for one in self.levels]

    def run(self, messages: dict[str, Tensor]) -> Tensor:
        """An outer tick: the states [B, N] of all neurons after it."""
        together = []
        for at, names in enumerate(self.brain.groups.values()):
            fresh = [
                self.brain.regions[name].before_trace(messages[name], self.state[name])
                for name in names
            ]
            self.traces[at] = self.levels[at].remember(self.traces[at], _joined(fresh))
            together.append(self.levels[at](self.traces[at]))
        joined, start = _joined(together), 0
        for name in self.brain.row:
            end = start + self.brain.config.regions[name].neurons
            self.state[name] = joined[:, start:end]
            start = end
        return joined


class _Levels:
    """The neuron-level models of a group of regions, side by side."""

    def __init__(self, regions: list[RegionModule]) -> None:
        def side_by_side(name: str) -> Tensor:
            return _joined([current_graph().read(getattr(region, name)) for region in regions])

        self.start_trace = side_by_side("start_trace")  # [M, N]
        self.layers = [(side_by_side("level1"), side_by_side("level1_bias"))]
        if hasattr(regions[0], "level2"):
            self.layers.append((side_by_side("level2"), side_by_side("level2_bias")))

    def remember(self, trace: Tensor, fresh: Tensor) -> Tensor:
        """trace [B, M, N] with `fresh` [B, N] as its newest, without its oldest."""
        batch, neurons = fresh.shape
        return F.concat([trace[:, 1:], fresh.reshape(batch, 1, neurons)], 1)

    def __call__(self, trace: Tensor) -> Tensor:
        """trace [B, M, N] → states [B, N]."""
        x = trace
        for weight, bias in self.layers:
            batch, inputs, neurons = x.shape
            outputs = weight.shape[1]
            x = (x.reshape(batch, inputs, 1, neurons) * weight).sum(1) + bias
            x = F.glu(x.reshape(batch, outputs * neurons))  # values of all, then gates
            x = x.reshape(batch, outputs // 2, neurons)
        return x.reshape(batch, neurons)


def _retention(decay: Parameter) -> Tensor:
    """e^−|p|: mirrored at 0 and not clamped, so that no pair gets stuck there."""
    return (-F.minimum(current_graph().read(decay).abs(), LARGEST_DECAY)).exp()


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else F.concat(parts)


def _repeated(value: Parameter | Tensor, batch: int) -> Tensor:
    """One for each sample: [B, ...]."""
    tensor = current_graph().read(value)
    return tensor.reshape(1, *tensor.shape).broadcast_to(batch, *tensor.shape)


def _uniform(shape: tuple[int, ...], fan: int) -> Array:
    return nn.uniform(shape, 1.0 / math.sqrt(fan))
