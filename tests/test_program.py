"""Tracing: shapes, messages, runs, gradients."""

from __future__ import annotations

import modgrad
import numpy as np
import pytest
from modgrad import _core, nn
from modgrad import functional as F
from modgrad.errors import ProgramError, ShapeError
from modgrad.program import Program, Tensor, spec, trace


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def test_a_tensor_shows_its_shape_and_type() -> None:
    seen: list[str] = []

    def function(x: Tensor) -> Tensor:
        seen.append(repr(x))
        return x.sum()

    trace(function, x=spec((2, 3)))
    assert seen == ["Tensor(f32[2, 3])"]


def test_a_shape_error_names_the_op_both_shapes_and_the_line() -> None:
    with pytest.raises(ShapeError) as caught:
        trace(lambda x, y: x @ y, x=spec((2, 3)), y=spec((4, 5)))
    message = str(caught.value)
    assert "`mat_mul`" in message and "f32[2, 3]" in message and "f32[4, 5]" in message
    assert "test_program.py:" in message and "x @ y" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y: x + y, lambda x, y: x + y),
        (lambda x, y: 2 - x * y / 3, lambda x, y: 2 - x * y / 3),
        (lambda x, y: (x - y) ** 2 / (y**2 + 1), lambda x, y: (x - y) ** 2 / (y**2 + 1)),
        (lambda x, y: 1 / (x.exp() + 1), lambda x, y: 1 / (np.exp(x) + 1)),
        (lambda x, y: x.max(0), lambda x, y: x.max(0)),
        (lambda x, y: x.mean(-1, keepdims=True) - y, lambda x, y: x.mean(-1, keepdims=True) - y),
        (lambda x, y: x.transpose() @ y.reshape(4, -1), lambda x, y: x.T @ y.reshape(4, -1)),
        (lambda x, y: x[1:, ::2], lambda x, y: x[1:, ::2]),
        (lambda x, y: x[-1], lambda x, y: x[-1]),
        (lambda x, y: F.concat([x, y], 0), lambda x, y: np.concatenate([x, y])),
        (lambda x, y: F.maximum(x, y) + F.minimum(x, y), lambda x, y: x + y),
        (lambda x, y: F.logsumexp(x), lambda x, y: np.log(np.exp(x).sum(-1))),
        (lambda x, y: F.shift(x, 1), lambda x, y: np.pad(x, ((0, 0), (1, 0)))[:, :-1]),
    ],
)
def test_programs_compute_what_numpy_computes(function, expected) -> None:  # type: ignore[no-untyped-def]
    x, y = random(4, 5), random(4, 5) + 0.5
    program = trace(function, x=spec((4, 5)), y=spec((4, 5)))
    found = program.run(x=x, y=y)["output"]
    np.testing.assert_allclose(found, expected(x, y), rtol=1e-5, atol=1e-6)


def test_strided_inputs_are_read_as_numpy_reads_them() -> None:
    x = random(6, 8)[::2, ::-1]
    found = trace(lambda x: x * 2, x=spec(x.shape)).run(x=x)["output"]
    np.testing.assert_array_equal(found, x * 2)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), ()])
def test_empty_and_single_shapes(shape: tuple[int, ...]) -> None:
    x = random(*shape)
    found = trace(lambda x: {"a": x * 2, "b": x.sum()}, x=spec(shape)).run(x=x)
    np.testing.assert_array_equal(found["a"], x * 2)
    np.testing.assert_allclose(found["b"], x.sum(), rtol=1e-6)


def test_an_empty_mean_is_refused_in_words() -> None:
    with pytest.raises(ProgramError, match="empty and has no mean"):
        trace(lambda x: x.mean(0), x=spec((0, 3)))


class Model(nn.Module):
    def __init__(self) -> None:
        nn.manual_seed(0)
        self.first = nn.Linear(5, 6, bias=True)
        self.norm = nn.RMSNorm(3)
        self.second = nn.Linear(3, 4)

    def __call__(self, x: Tensor) -> Tensor:
        return (self.second(self.norm(F.glu(self.first(x), "silu"))) ** 2).mean()


def test_parameters_are_named_by_their_path() -> None:
    model = Model()
    program = trace(model.__call__, x=spec((2, 5)))
    assert sorted(program.parameters) == [
        "first.bias",
        "first.weight",
        "norm.weight",
        "second.weight",
    ]


def test_checkgrad_covers_inputs_and_parameters() -> None:
    errors = modgrad.checkgrad(Model().__call__, x=random(3, 5))
    assert set(errors) == {"x", "first.bias", "first.weight", "norm.weight", "second.weight"}
    assert max(errors.values()) < 1e-6


def test_an_unnamed_parameter_is_refused_in_words() -> None:
    weight = nn.Parameter(random(3))
    with pytest.raises(ProgramError, match="named parameter"):
        trace(lambda x: x * weight, x=spec((3,)))


def test_operations_outside_a_trace_are_refused_in_words() -> None:
    with pytest.raises(ProgramError, match=r"inside modgrad\.trace"):
        F.relu(1.0)


def test_a_program_survives_its_text() -> None:
    program = trace(Model().__call__, x=spec((2, 5)))
    core = _core.Program.from_json(program.core.to_json())
    again = Program(core, program.parameters)
    x = random(2, 5)
    np.testing.assert_array_equal(again.run(x=x)["output"], program.run(x=x)["output"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input `x`: it is missing"),
        ({"x": random(2, 4)}, r"expected f32\[2, 5\], found f32\[2, 4\]"),
        ({"x": random(2, 5), "y": random(1)}, r"the program reads only \[x\]"),
        ({"x": random(2, 5).astype(np.float64)}, "found an array of float64"),
        ({"x": [1.0]}, "found a list"),
    ],
)
def test_wrong_inputs_are_refused_in_words(inputs: dict[str, object], message: str) -> None:
    program = trace(lambda x: x.sum(), x=spec((2, 5)))
    with pytest.raises(ProgramError, match=message):
        program.run(**inputs)  # type: ignore[arg-type]


def test_bf16_and_f32_agree_to_bf16_accuracy() -> None:
    program = trace(Model().__call__, x=spec((64, 5)))
    x = random(64, 5)
    wide = program.run(precision="f32", x=x)["output"]
    narrow = program.run(precision="bf16", x=x)["output"]
    np.testing.assert_allclose(narrow, wide, rtol=3e-2)
