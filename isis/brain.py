"""A brain of eight regions, each a small Continuous Thought Machine.

Regions tell each other what they do along the edges of a graph. At every outer tick
all of them read the same snapshot of the others' activations, and each runs its own
inner ticks on what it read; activations and traces go on from tick to tick, and so
do the gradients. What the brain says is read from the synchronisation of pairs of
neurons anywhere in it (arXiv 2505.05522, for one machine without regions).

Linear maps that follow one another are one: edges into one region that are summed
are a single map of all of their sources, and where a region attends to nothing but
what its edges say, attention is a constant map that its synapse contains. So every
parameter here has a gradient.

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
from modgrad.program import Tensor, current_graph

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

    def __post_init__(self) -> None:
        named = {source for edge in self.edges.values() for source in edge.sources}
        if self.edges.keys() != self.regions.keys() or not named <= self.regions.keys():
            raise UsageError("edges must name the regions, and each region needs its edge")
        sizes = [(one.neurons, one.width, one.memory) for one in self.regions.values()]
        if min(min(size) for size in sizes) < 1 or min(self.iterations, self.pairs) < 1:
            raise UsageError("neurons, width, memory, iterations and pairs must be at least 1")


class RegionModule(nn.Module):
    """The parameters of one region."""

    def __init__(self, config: Region, heard: int) -> None:
        neurons, width, memory, hidden = config.neurons, config.width, config.memory, config.hidden
        outputs = 2 * hidden if hidden else 2
        self.start_state = Parameter(_uniform((neurons,), neurons))
        self.start_trace = Parameter(_uniform((memory, neurons), neurons + memory))
        self.edge = nn.Linear(heard, width, bias=True)
        self.edge_norm = nn.LayerNorm(width)
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


class Brain(nn.Module):
    """observations [B, E], one an outer tick → states [B, T, N] of all neurons."""

    def __init__(self, config: BrainConfig, observation: int) -> None:
        self.config = config
        regions = config.regions
        self.regions = {}
        for name, region in regions.items():
            edge = config.edges[name]
            heard = sum(regions[source].neurons for source in edge.sources)
            self.regions[name] = RegionModule(region, heard + observation * edge.observed)
        # Neurons with models of one shape are computed together; groups stand in a row.
        self.groups: dict[tuple[int, int], list[str]] = {}
        for name, region in regions.items():
            self.groups.setdefault((region.memory, region.hidden), []).append(name)
        self.neurons = sum(region.neurons for region in regions.values())
        self.left = Parameter(nn.integers((config.pairs,), self.neurons), trainable=False)
        self.right = Parameter(nn.integers((config.pairs,), self.neurons), trainable=False)
        # Memories of all lengths from the start: only the last tick, to nearly for ever.
        kept = np.linspace(0.02, 0.995, config.pairs, dtype=np.float32)
        self.decay = Parameter(-np.log(kept))

    def think(self, observations: Sequence[Tensor]) -> Tensor:
        """The states after every outer tick; each observation is [B, E]."""
        batch = observations[0].shape[0]
        state = {
            name: _repeated(region.start_state, batch) for name, region in self.regions.items()
        }
        levels = [self._levels(names) for names in self.groups.values()]
        traces = [_repeated(one.start_trace, batch) for one in levels]
        ticks = []
        for observation in observations:
            messages = {
                name: region.hear(self._heard(name, state, observation))
                for name, region in self.regions.items()
            }
            for _ in range(self.config.iterations):
                together = []
                for at, (names, level) in enumerate(zip(self.groups.values(), levels, strict=True)):
                    fresh = [self.regions[n].before_trace(messages[n], state[n]) for n in names]
                    traces[at] = level.remember(traces[at], _joined(fresh))
                    together.append(level(traces[at]))
                state = self._split(together)
            ticks.append(_joined(together).reshape(batch, 1, self.neurons))
        return F.concat(ticks, 1)

    def synchrony(self, states: Tensor) -> Tensor:
        """How the pairs moved together up to every outer tick, [B, T, S]."""
        start = _joined([current_graph().read(one.start_state) for one in self._in_a_row()])
        kept = F.minimum(F.maximum(self.decay, 0.0), LARGEST_DECAY)
        return F.synchronisation(start, states, self.left, self.right, (-kept).exp())[:, 1:]

    def _in_a_row(self) -> list[RegionModule]:
        return [self.regions[name] for names in self.groups.values() for name in names]

    def _heard(self, name: str, state: dict[str, Tensor], observation: Tensor) -> list[Tensor]:
        edge = self.config.edges[name]
        return [state[source] for source in edge.sources] + [observation] * edge.observed

    def _split(self, together: list[Tensor]) -> dict[str, Tensor]:
        """The states of groups [B, neurons of it] as those of their regions."""
        state = {}
        for names, states in zip(self.groups.values(), together, strict=True):
            start = 0
            for name in names:
                end = start + self.config.regions[name].neurons
                state[name] = states[:, start:end]
                start = end
        return state

    def _levels(self, names: list[str]) -> _Levels:
        return _Levels([self.regions[name] for name in names])


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


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else F.concat(parts)


def _repeated(value: Parameter | Tensor, batch: int) -> Tensor:
    """One for each sample: [B, ...]."""
    tensor = current_graph().read(value)
    return tensor.reshape(1, *tensor.shape).broadcast_to(batch, *tensor.shape)


def _uniform(shape: tuple[int, ...], fan: int) -> Array:
    return nn.uniform(shape, 1.0 / math.sqrt(fan))
