"""Modules: parameters, and the Python that wires them together.

A module is an object whose attributes are parameters, modules, or lists or
dictionaries of them; its methods are ordinary Python over `modgrad.functional`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modgrad import functional as F
from modgrad.program import Operand, Tensor

Array = NDArray[Any]

_generator = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Seeds the initial values of the parameters that are made from here on."""
    global _generator
    _generator = np.random.default_rng(seed)


def normal(shape: tuple[int, ...], deviation: float) -> Array:
    """Draws from N(0, deviation²) as f32."""
    values: Array = _generator.standard_normal(shape, dtype=np.float32)
    values *= np.float32(deviation)
    return values


def uniform(shape: tuple[int, ...], bound: float) -> Array:
    """Draws from −bound to bound as f32."""
    values: Array = _generator.random(shape, dtype=np.float32)
    values *= np.float32(2 * bound)
    values -= np.float32(bound)
    return values


def integers(shape: tuple[int, ...], end: int) -> Array:
    """Draws whole numbers from 0 to below `end` as i32."""
    return _generator.integers(0, end, shape, dtype=np.int32)


class Parameter:
    """A named tensor that a program reads.

    `trainable=False` makes it a buffer, which may also be i32 or u8. `sparse`
    marks a table of which each step touches few rows; it takes
    `optim.RowwiseAdagrad`.
    """

    def __init__(self, value: Array, *, trainable: bool = True, sparse: bool = False) -> None:
        self.value = value
        self.trainable = trainable
        self.sparse = sparse
        self.name: str | None = None

    def __repr__(self) -> str:
        return f"Parameter({self.name or 'unnamed'}, {self.value.dtype}{list(self.value.shape)})"


class Module:
    """A part of a model. Subclasses define `__call__` or other methods."""

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every parameter with the path of attributes that leads to it, once."""
        seen: set[int] = set()
        for name, parameter in _walk(self, prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> list[Parameter]:
        """Every parameter, once, in order of definition."""
        return [parameter for _, parameter in self.named_parameters()]

    def name_parameters(self) -> None:
        """Gives every parameter its path as its name."""
        for name, parameter in self.named_parameters():
            parameter.name = name

    def load(self, weights: dict[str, Array]) -> None:
        """Sets parameters by name; those that are not named keep their values."""
        for name, parameter in self.named_parameters():
            if name in weights:
                parameter.value = weights[name]


def _walk(item: object, prefix: str) -> Iterator[tuple[str, Parameter]]:
    if isinstance(item, Parameter):
        yield prefix, item
    elif isinstance(item, Module):
        for name, value in vars(item).items():
            yield from _walk(value, f"{prefix}.{name}" if prefix else name)
    elif isinstance(item, list | tuple):
        for index, value in enumerate(item):
            yield from _walk(value, f"{prefix}.{index}")
    elif isinstance(item, dict):
        for key, value in item.items():
            yield from _walk(value, f"{prefix}.{key}")


class Linear(Module):
    """x [..., inputs] → [..., outputs]; weights from N(0, gain² / inputs)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False, gain: float = 1.0) -> None:
        self.weight = Parameter(normal((outputs, inputs), gain / math.sqrt(max(inputs, 1))))
        self.bias = Parameter(np.zeros(outputs, np.float32)) if bias else None

    def __call__(self, x: Operand) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Embedding(Module):
    """indices [...] → rows of a table [rows, width]."""

    def __init__(
        self, rows: int, width: int, *, deviation: float = 1.0, sparse: bool = False
    ) -> None:
        value = (
            normal((rows, width), deviation) if deviation else np.zeros((rows, width), np.float32)
        )
        self.table = Parameter(value, sparse=sparse)

    def __call__(self, indices: Operand) -> Tensor:
        return F.embedding(self.table, indices)


class EmbeddingBag(Embedding):
    """indices [..., S] → sums of S rows of a table [rows, width]."""

    def __call__(self, indices: Operand) -> Tensor:
        return F.embedding_bag(self.table, indices)


class RMSNorm(Module):
    """Scales the last axis to unit root mean square."""

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(width, np.float32))
        self.epsilon = epsilon

    def __call__(self, x: Operand) -> Tensor:
        return F.rms_norm(x, self.weight, self.epsilon)


class LayerNorm(Module):
    """Standardises the last axis."""

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(width, np.float32))
        self.bias = Parameter(np.zeros(width, np.float32))
        self.epsilon = epsilon

    def __call__(self, x: Operand) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, self.epsilon)
