"""The synapse of a Continuous Thought Machine: from what was attended to and the state
to what is pushed onto the traces (arXiv 2505.05522, section 3.2).

Of depth 1 it is LayerNorm(GLU(W x + b)). Deeper it is a U of blocks
SiLU(LayerNorm(W x + b)), downwards through widths that shrink evenly and up again,
each sum with what came down normalised once more.

Axes: C attended channels, N neurons.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from modgrad import nn
from modgrad.errors import UsageError
from modgrad.nn import Parameter
from modgrad.program import Operand


def widths(neurons: int, depth: int, min_width: int) -> list[int]:
    """The widths downwards: `depth` even steps from `neurons` to `min_width`, cut to
    whole numbers."""
    return [int(width) for width in np.linspace(neurons, min_width, depth)]


class Block(nn.Module):
    """A product, whose weight is [inputs, outputs], and the norm behind it."""

    def __init__(self, inputs: int, columns: int, width: int, *, skip: bool = False) -> None:
        bound = 1.0 / math.sqrt(inputs)
        self.weight = Parameter(nn.uniform((inputs, columns), bound))
        self.bias = Parameter(nn.uniform((columns,), bound))
        self.norm = nn.LayerNorm(width)
        if skip:
            self.skip = nn.LayerNorm(width)


class Synapse(nn.Module):
    """[attended C; state N] → N."""

    def __init__(self, attended: int, neurons: int, *, depth: int, min_width: int) -> None:
        """Raises `UsageError` for a depth or widths that cannot be."""
        if depth < 1 or (depth > 1 and min_width < 1):
            raise UsageError(
                f"depth {depth} and min_width {min_width} of a synapse must be at least 1"
            )
        inputs = attended + neurons
        if depth == 1:
            self.blocks = [Block(inputs, 2 * neurons, neurons)]
            return
        down = widths(neurons, depth, min_width)
        self.blocks = [
            Block(above, width, width)
            for above, width in zip([inputs, *down[:-1]], down, strict=True)
        ]
        up = down[::-1]
        self.blocks += [
            Block(below, width, width, skip=True) for below, width in itertools.pairwise(up)
        ]

    def operands(self) -> list[Operand]:
        """Those of `F.think`."""
        found: list[Operand] = []
        for block in self.blocks:
            found += [block.weight, block.bias, block.norm.weight, block.norm.bias]
            if hasattr(block, "skip"):
                found += [block.skip.weight, block.skip.bias]
        return found
