"""The curve that a checkpoint keeps."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from modgrad.training_curve import MOST_POINTS, TrainingCurve, points_of


@pytest.mark.parametrize("steps", [0, 1, 7, MOST_POINTS - 1, MOST_POINTS, 1000, 20_001])
def test_it_stays_small_and_its_means_are_those_of_the_steps(steps: int) -> None:
    curve = TrainingCurve()
    for step in range(1, steps + 1):
        curve.add(step / 10, step, float(step))
    points = points_of(json.loads(json.dumps(curve.as_json())))
    assert len(points) < MOST_POINTS
    assert len(points) >= min(steps, MOST_POINTS // 2 - 1)
    for index, (seconds, step, bits) in enumerate(points):
        assert step == (index + 1) * curve.stretch
        assert seconds == pytest.approx(step / 10)
        assert bits == pytest.approx(step - (curve.stretch - 1) / 2)


def test_a_resumed_curve_goes_on() -> None:
    whole, first = TrainingCurve(), TrainingCurve()
    for step in range(1, 201):
        whole.add(float(step), step, 1 / step)
        first.add(float(step), step, 1 / step)
    second = TrainingCurve(json.loads(json.dumps(first.as_json())))
    for step in range(201, 401):
        whole.add(float(step), step, 1 / step)
        second.add(float(step), step, 1 / step)
    assert second.as_json() == whole.as_json()


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        "curve",
        {"points": 3},
        {"points": [1, 2]},
        {"points": [[1, 2]]},
        {"points": [[1, 2, "x"]]},
        {"points": [[1, 2, math.nan]]},
        {"points": [[1, 2, None]]},
        {"stretch": "many"},
        {"stretch": -1, "points": []},
    ],
)
def test_what_is_no_curve_is_none(saved: Any) -> None:
    assert points_of(saved) == []
    curve = TrainingCurve(saved)
    curve.add(1.0, 1, 2.0)
    assert curve.points == [(1.0, 1, 2.0)]
