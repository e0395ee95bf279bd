"""On which scale a value is turned, and by how much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modgrad.autoresearch.researchers.literals import Value
from modgrad.autoresearch.researchers.steps import Scale, friendly, scale_of
from modgrad.autoresearch.researchers.suggest import suggestions
from modgrad.autoresearch.researchers.tunables import Tunable


def scale(value: Value, name: str = "thing", comment: str = "") -> Scale:
    found = scale_of(Tunable("a.py", name, name, value, str(value), comment))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("number", "like", "result"),
    [
        (704.4, 512, 704),
        (226.3, 320, 224),
        (4.2, 8, 4),
        (1.5, 3, 2),
        (0.2, 1, 1),
        (90.5, 128, 88),
        (200_000, 1 << 18, 1 << 18),
        (180_000, 1 << 18, 1 << 17),
    ],
)
def test_friendly_numbers(number: float, like: int, result: int) -> None:
    assert friendly(number, like) == result


@pytest.mark.parametrize(
    ("value", "name", "comment", "kind"),
    [
        (8, "batch", "", "count"),
        (1e-3, "learning_rate", "", "rate"),
        (0.25, "slot_dropout", "", "fraction"),
        (0.6, "cooldown", "", "fraction"),
        (0.5, "thing", "share of the budget", "fraction"),
        (0.999, "average_decay", "", "remainder"),
        (0.98, "betas[1]", "", "remainder"),
        (1.0, "clip_norm", "", "rate"),
        (0.1, "weight_decay", "", "rate"),
        (0.0, "dropout", "", "choice"),
        (True, "flag", "", "choice"),
    ],
)
def test_kinds_of_scales(value: Value, name: str, comment: str, kind: str) -> None:
    assert scale(value, name, comment).kind == kind


@given(st.floats(-4, 4), st.sampled_from([1, 3, 8, 24, 320, 640, 1 << 18]))
def test_counts_stay_counts(position: float, value: int) -> None:
    found = scale(value).at(position)
    assert isinstance(found, int)
    assert found >= 1


@given(st.floats(-9, 9), st.sampled_from([0.05, 0.5, 0.9, 0.98, 0.9999]))
def test_shares_stay_shares(position: float, value: float) -> None:
    for name in ("dropout", "decay"):
        found = scale(value, name).at(position)
        assert isinstance(found, float)
        if scale(value, name).kind in ("fraction", "remainder"):
            assert found < 1.0 and (found >= 0.0 or name == "decay")


def test_steps_of_tuples() -> None:
    options = scale((2, 3, 5)).options
    assert {(3, 5), (2, 5), (2, 3), (2, 3, 4, 5), (2, 3, 5, 6), (2, 3, 6), (2, 4, 5)} <= set(
        options
    )
    assert all(len(set(one)) == len(one) for one in options if isinstance(one, tuple))
    assert set(scale(("a", "b")).options) == {("a",), ("b",), ("b", "a")}
    assert scale_of(Tunable("a.py", "x", "x", ("a",), "('a',)")) is None


def test_what_cannot_be_turned() -> None:
    for value in ("text", -1, -0.5, (), float("inf")):
        assert scale_of(Tunable("a.py", "x", "x", value, "")) is None


def test_suggestions_follow_what_was_seen() -> None:
    """Twice as much was worse, half as much better: further down first."""
    half = scale(1e-3, "learning_rate")
    points: list[tuple[Value, float]] = [(1e-3, 0.0), (2e-3, 0.1), (4e-3, 0.3)]
    first = [next(suggestions(half, points, 0, 1.0, seed)) for seed in range(20)]
    assert sum(float(str(one)) < 1e-3 for one in first) >= 15
    untried = [next(suggestions(half, points[:1], 1, 1.0, seed)) for seed in range(5)]
    assert untried == [2e-3] * 5
