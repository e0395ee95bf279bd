"""Tracing: Python code run once on symbolic tensors becomes a static program.

    program = modgrad.trace(model.loss, tokens=modgrad.spec((8, 64), "u8"), ...)

While `trace` runs, every operation on a symbolic `Tensor` appends a node whose
shape is checked at once; an error names the op, what it expected, what it found
and the line of Python that asked for it. What comes out is a `Program`: data
that can be differentiated, run, saved and scored without this Python.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modgrad import _core
from modgrad.errors import ProgramError

if TYPE_CHECKING:
    from modgrad.nn import Parameter

Array = NDArray[Any]
Scalar = float | int


@dataclass(frozen=True)
class Spec:
    """The shape and dtype ("f32", "i32" or "u8") of a program's input."""

    shape: tuple[int, ...]
    dtype: str


def spec(shape: Sequence[int], dtype: str = "f32") -> Spec:
    """Describes an input for `trace`."""
    return Spec(tuple(shape), dtype)


class Graph:
    """A program under construction."""

    def __init__(self) -> None:
        self.core = _core.Program()
        self._parameters: dict[str, tuple[Parameter, Tensor]] = {}

    def push(self, op: str, *inputs: Operand, **attributes: object) -> list[Tensor]:
        """Appends an op and returns all its outputs."""
        values = [self.read(operand).value for operand in inputs]
        text = json.dumps({"op": op, **attributes})
        try:
            outputs = self.core.push(text, values)
        except ProgramError as error:
            raise type(error)(f"{error} ({_caller()})") from None
        return [Tensor(self, value) for value in outputs]

    def apply(self, op: str, *inputs: Operand, **attributes: object) -> Tensor:
        """Appends an op and returns its first output."""
        return self.push(op, *inputs, **attributes)[0]

    def read(self, operand: Operand) -> Tensor:
        """The tensor that an operand stands for within this graph."""
        if isinstance(operand, Tensor):
            if operand.graph is not self:
                raise ProgramError(f"a tensor of another trace is used here ({_caller()})")
            return operand
        if isinstance(operand, int | float):
            return self.apply("constant", shape=[], value=float(operand))
        return self._read_parameter(operand)

    def _read_parameter(self, parameter: Parameter) -> Tensor:
        name = getattr(parameter, "name", None)
        if not isinstance(name, str):
            raise ProgramError(
                f"expected a tensor, a number or a named parameter, found {parameter!r}"
                f" ({_caller()})"
            )
        if name not in self._parameters:
            value = parameter.value
            tensor = self.apply(
                "parameter",
                name=name,
                shape=list(value.shape),
                dtype=_dtype_name(value),
                trainable=parameter.trainable,
                sparse=parameter.sparse,
            )
            self._parameters[name] = (parameter, tensor)
        known, tensor = self._parameters[name]
        if known is not parameter:
            raise ProgramError(f"two parameters are named `{name}`")
        return tensor

    def parameters(self) -> dict[str, Parameter]:
        """The parameters that the graph reads, by name."""
        return {name: parameter for name, (parameter, _) in self._parameters.items()}


_current: ContextVar[Graph] = ContextVar("graph")


def current_graph() -> Graph:
    """The graph of the trace that is running."""
    try:
        return _current.get()
    except LookupError:
        raise ProgramError(
            f"operations on tensors only have meaning inside modgrad.trace ({_caller()})"
        ) from None


class Tensor:
    """A symbolic tensor: a value of the program being traced."""

    __slots__ = ("dtype", "graph", "shape", "value")
    __array_ufunc__ = None  # numpy must leave mixed expressions to this class

    def __init__(self, graph: Graph, value: int) -> None:
        self.graph = graph
        self.value = value
        self.shape: tuple[int, ...]
        self.dtype: str
        self.shape, self.dtype = graph.core.spec(value)

    def __repr__(self) -> str:
        return f"Tensor({self.dtype}{list(self.shape)})"

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def _axis(self, axis: int) -> int:
        if not -self.rank <= axis < self.rank:
            raise ProgramError(f"axis {axis} is not an axis of {self!r} ({_caller()})")
        return axis % self.rank

    # ---- arithmetic -------------------------------------------------------

    def _binary(self, function: str, other: Operand, swap: bool = False) -> Tensor:
        operands = (other, self) if swap else (self, other)
        return self.graph.apply("binary", *operands, function=function)

    def __add__(self, other: Operand) -> Tensor:
        if isinstance(other, int | float):
            return self.graph.apply("affine", self, scale=1.0, offset=float(other))
        return self._binary("add", other)

    __radd__ = __add__

    def __sub__(self, other: Operand) -> Tensor:
        if isinstance(other, int | float):
            return self + -other
        return self._binary("subtract", other)

    def __rsub__(self, other: Operand) -> Tensor:
        return -self + other

    def __mul__(self, other: Operand) -> Tensor:
        if isinstance(other, int | float):
            return self.graph.apply("affine", self, scale=float(other), offset=0.0)
        return self._binary("multiply", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> Tensor:
        if isinstance(other, int | float):
            return self * (1.0 / other)
        return self._binary("divide", other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self._binary("divide", other, swap=True)

    def __neg__(self) -> Tensor:
        return self._unary("negate")

    def __pow__(self, exponent: int) -> Tensor:
        if exponent != 2:
            raise ProgramError(f"only the power 2 is an op, not {exponent} ({_caller()})")
        return self._unary("square")

    def __matmul__(self, other: Operand) -> Tensor:
        return self.graph.apply("mat_mul", self, other, transpose_a=False, transpose_b=False)

    # ---- functions --------------------------------------------------------

    def _unary(self, function: str) -> Tensor:
        return self.graph.apply("unary", self, function=function)

    def abs(self) -> Tensor:
        """|x|."""
        return self._unary("abs")

    def exp(self) -> Tensor:
        """e^x."""
        return self._unary("exp")

    def log(self) -> Tensor:
        """The natural logarithm."""
        return self._unary("log")

    def sqrt(self) -> Tensor:
        """The square root."""
        return self._unary("sqrt")

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return self._unary("tanh")

    def sigmoid(self) -> Tensor:
        """1 / (1 + e^-x)."""
        return self._unary("sigmoid")

    def float(self) -> Tensor:
        """Integers as f32."""
        return self.graph.apply("to_float", self)

    # ---- reductions -------------------------------------------------------

    def _reduce(self, kind: str, axis: int | None, keepdims: bool) -> Tensor:
        axes = range(self.rank) if axis is None else [self._axis(axis)]
        result = self
        for one in reversed(axes):
            result = result.graph.apply("reduce", result, kind=kind, axis=one)
        if keepdims:
            kept = [1 if at in axes else size for at, size in enumerate(self.shape)]
            return result.reshape(*kept)
        return result

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The sum over one axis, or over all."""
        return self._reduce("sum", axis, keepdims)

    def mean(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The mean over one axis, or over all."""
        return self._reduce("mean", axis, keepdims)

    def max(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The maximum over one axis, or over all."""
        return self._reduce("maximum", axis, keepdims)

    # ---- movement ---------------------------------------------------------

    def reshape(self, *shape: int) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        sizes = list(shape)
        if sizes.count(-1) == 1:
            known = int(np.prod([size for size in sizes if size != -1], dtype=np.int64))
            total = int(np.prod(self.shape, dtype=np.int64))
            if known and total % known == 0:
                sizes[sizes.index(-1)] = total // known
        if any(size < 0 for size in sizes):
            raise ProgramError(f"{self!r} cannot take the shape {list(shape)} ({_caller()})")
        if tuple(sizes) == self.shape:
            return self
        return self.graph.apply("reshape", self, shape=sizes)

    def transpose(self, *permutation: int) -> Tensor:
        """Axis i of the result is axis `permutation[i]`; reverses all if empty."""
        axes = permutation or tuple(reversed(range(self.rank)))
        return self.graph.apply("transpose", self, permutation=[self._axis(a) for a in axes])

    def broadcast_to(self, *shape: int) -> Tensor:
        """Repeats axes of size 1 to reach `shape`."""
        return self.graph.apply("broadcast_to", self, shape=list(shape))

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> Tensor:
        keys = key if isinstance(key, tuple) else (key,)
        result, axis = self, 0
        for one in keys:
            size = result.shape[result._axis(axis)]
            if isinstance(one, slice):
                start, end, step = one.indices(size)
                if step < 1:
                    raise ProgramError(f"a slice goes forward only, not by {step} ({_caller()})")
                end = max(start, end)
                if (start, end, step) != (0, size, 1):
                    result = result.graph.apply(
                        "slice", result, axis=axis, start=start, end=end, step=step
                    )
                axis += 1
            else:
                index = one + size if one < 0 else one
                if not 0 <= index < size:
                    raise ProgramError(
                        f"index {one} is outside axis {axis} of {result!r} ({_caller()})"
                    )
                result = result.graph.apply(
                    "slice", result, axis=axis, start=index, end=index + 1, step=1
                )
                result = result.reshape(*result.shape[:axis], *result.shape[axis + 1 :])
        return result


Operand = Tensor | Scalar | Any  # Any: a Parameter, which nn defines


class Program:
    """A traced program with the parameters that it reads."""

    def __init__(self, core: _core.Program, parameters: dict[str, Parameter]) -> None:
        self.core = core
        self.parameters = parameters

    def __repr__(self) -> str:
        return f"Program({len(self.core)} nodes, outputs {sorted(self.core.outputs)})"

    def weights(self) -> dict[str, Array]:
        """The present values of its parameters and buffers."""
        return {name: parameter.value for name, parameter in self.parameters.items()}

    def run(
        self,
        *,
        precision: str = "f32",
        threads: int = 1,
        weights: Mapping[str, Array] | None = None,
        **inputs: Array,
    ) -> dict[str, Array]:
        """Runs the program once and returns its outputs as numpy arrays."""
        session = _core.Session(self.core, list(self.core.outputs), precision, threads)
        session.set_parameters(dict(self.weights() if weights is None else weights))
        return session.run(inputs)

    def check_gradients(self, loss: str = "output", **inputs: Array) -> dict[str, float]:
        """The worst relative error of each gradient against differences in f64."""
        rows = self.core.check_gradients(loss, inputs, self.weights())
        return {name: error for name, _, error in rows}


def trace(function: Callable[..., Tensor | Mapping[str, Tensor]], **inputs: Spec) -> Program:
    """Runs `function` once on symbolic inputs and returns the program.

    `function` takes the inputs by name and returns a tensor, which becomes the
    output "output", or a mapping from output names to tensors. A bound method
    of a module gives the module's parameters their names.
    """
    owner = getattr(function, "__self__", None)
    if owner is not None and hasattr(owner, "name_parameters"):
        owner.name_parameters()
    graph = Graph()
    token = _current.set(graph)
    try:
        tensors = {
            name: graph.apply("input", name=name, shape=list(one.shape), dtype=one.dtype)
            for name, one in inputs.items()
        }
        result = function(**tensors)
    finally:
        _current.reset(token)
    outputs = {"output": result} if isinstance(result, Tensor) else dict(result)
    for name, tensor in outputs.items():
        graph.core.set_output(name, graph.read(tensor).value)
    return Program(graph.core, graph.parameters())


def checkgrad(
    function: Callable[..., Tensor | Mapping[str, Tensor]],
    tolerance: float = 1e-5,
    **inputs: Array,
) -> dict[str, float]:
    """Compares the gradients of a traced function with finite differences in f64.

    `function` returns a scalar. Returns the worst relative error for each f32
    input and parameter; raises `ProgramError` where one is above `tolerance`.
    """
    specs = {name: Spec(array.shape, _dtype_name(array)) for name, array in inputs.items()}
    errors = trace(function, **specs).check_gradients("output", **inputs)
    for name, error in errors.items():
        if not error <= tolerance:
            raise ProgramError(f"the gradient of `{name}` is off by {error:.2e} (relative)")
    return errors


def _dtype_name(array: Array) -> str:
    names = {"float32": "f32", "int32": "i32", "uint8": "u8"}
    try:
        return names[array.dtype.name]
    except KeyError:
        raise ProgramError(
            f"expected an array of float32, int32 or uint8, found {array.dtype}"
        ) from None


def _caller() -> str:
    """Where the code outside this package stands: "model.py:12: x = a @ b"."""
    package = str(Path(__file__).parent)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame = frame.f_back
    import linecache

    name, line = frame.f_code.co_filename, frame.f_lineno
    return f"{Path(name).name}:{line}: {linecache.getline(name, line).strip()}"
