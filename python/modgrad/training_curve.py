"""The loss of a run over time, small enough to travel in its checkpoint."""

from __future__ import annotations

import math
from typing import Any

MOST_POINTS = 128

Point = tuple[float, int, float]  # seconds, step, loss in bits


class TrainingCurve:
    """Means of the loss over stretches of equally many steps.

    Whenever there are `MOST_POINTS`, neighbours are joined and stretches become twice
    as long, so that a run of any length has between half as many points and all.
    """

    def __init__(self, saved: Any = None) -> None:
        """Goes on from what a checkpoint's `curve` holds; what is none is left out."""
        self.stretch = 1
        self.points: list[Point] = []
        if isinstance(saved, dict):
            self.points = points_of(saved)
            stretch = saved.get("stretch")
            if isinstance(stretch, int) and stretch > 0:
                self.stretch = stretch
        self._bits = 0.0
        self._steps = 0

    def add(self, seconds: float, step: int, bits: float) -> None:
        """Takes in one step; a loss that is no number has no place in a mean."""
        if not math.isfinite(bits):
            return
        self._bits += bits
        self._steps += 1
        if self._steps < self.stretch:
            return
        self.points.append((round(seconds, 3), step, round(self._bits / self._steps, 5)))
        self._bits, self._steps = 0.0, 0
        if len(self.points) >= MOST_POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=False)
            self.points = [
                (at, step, round((first + second) / 2, 5))
                for (_, _, first), (at, step, second) in pairs
            ]
            self.stretch *= 2

    def as_json(self) -> dict[str, object]:
        """What a checkpoint holds."""
        return {"stretch": self.stretch, "points": [list(point) for point in self.points]}


def points_of(saved: Any) -> list[Point]:
    """The points of a checkpoint's `curve`; none where it holds anything else."""
    points = saved.get("points") if isinstance(saved, dict) else None
    found: list[Point] = []
    for point in points if isinstance(points, list) else []:
        numbers = isinstance(point, list) and len(point) == 3
        if not numbers or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in point):
            return []
        found.append((float(point[0]), int(point[1]), float(point[2])))
    return found[:MOST_POINTS]
