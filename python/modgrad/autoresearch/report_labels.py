"""Where the labels of a picture go: plain geometry, in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Points = NDArray[float64]  # (points, 2)

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top

# Places that are tried: how far from the point, and in which directions.
_DISTANCES = (18, 28, 42, 62, 86, 116, 150, 190, 240, 300, 380)
_DIRECTIONS = tuple(math.tau * step / 24 for step in range(24))
# What a covered thing weighs, against a pixel of distance.
_PER_DOT, _MOST_DOTS = 10.0, 25
_PER_CROSSING = 150.0


@dataclass
class Surroundings:
    """What labels must not leave or cover, and the labels so far."""

    area: Box
    stairs: Points  # corners of the staircase, which no label may cover
    dots: Points  # which labels should not cover
    boxes: list[Box] = field(default_factory=list)
    leaders: list[tuple[Point, Point]] = field(default_factory=list)  # from the point to the label

    def place(self, point: Point, width: float, height: float) -> Box | None:
        """The best box for a label of `point`; None where there is no room."""
        best: Box | None = None
        least = math.inf
        for distance in _DISTANCES:
            if distance >= least:
                break
            for angle in _DIRECTIONS:
                x = point[0] + math.cos(angle) * (distance + width / 2)
                y = point[1] + math.sin(angle) * (distance + height / 2)
                box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                cost = distance + self._cost(point, box)
                if cost < least:
                    best, least = box, cost
        if best is not None:
            self.boxes.append(best)
            self.leaders.append((point, nearest(best, point)))
        return best

    def _cost(self, point: Point, box: Box) -> float:
        import numpy as np

        left, bottom, right, top = box
        if not (
            self.area[0] <= left
            and right <= self.area[2]
            and self.area[1] <= bottom
            and top <= self.area[3]
        ):
            return math.inf
        if any(overlap(box, other) for other in self.boxes):
            return math.inf
        # A segment of the staircase is level or upright, so it is its own bounding box.
        lows = np.minimum(self.stairs[:-1], self.stairs[1:])
        highs = np.maximum(self.stairs[:-1], self.stairs[1:])
        if ((lows < (right, top)) & (highs > (left, bottom))).all(axis=1).any():
            return math.inf
        inside = ((self.dots > (left, bottom)) & (self.dots < (right, top))).all(axis=1).sum()
        crossings = sum(crosses(start, end, box) for start, end in self.leaders)
        leader = (point, nearest(box, point))
        crossings += sum(crosses(*leader, other) for other in self.boxes)
        crossings += sum(meet(leader, other) for other in self.leaders)
        # Its own point lies on the staircase, so the leader starts a little away from it.
        crossings += int(((lows < _most(leader)) & (highs > _least(leader))).all(axis=1).sum())
        return _PER_DOT * min(int(inside), _MOST_DOTS) + _PER_CROSSING * crossings


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes share more than an edge."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def nearest(box: Box, point: Point) -> Point:
    """The point of a box that is nearest to another."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def crosses(start: Point, end: Point, box: Box, steps: int = 16) -> bool:
    """Whether a line runs through a box, looked at in steps."""
    for step in range(1, steps):
        x = start[0] + (end[0] - start[0]) * step / steps
        y = start[1] + (end[1] - start[1]) * step / steps
        if box[0] < x < box[2] and box[1] < y < box[3]:
            return True
    return False


def meet(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """Whether two lines cross: each has the other's ends on either side."""

    def side(line: tuple[Point, Point], point: Point) -> float:
        (x0, y0), (x1, y1) = line
        return (x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0)

    apart = side(one, other[0]) * side(one, other[1]) < 0
    return apart and side(other, one[0]) * side(other, one[1]) < 0


def _shortened(leader: tuple[Point, Point]) -> tuple[Point, Point]:
    (x0, y0), (x1, y1) = leader
    return (x0 + (x1 - x0) * 0.3, y0 + (y1 - y0) * 0.3), (x1, y1)


def _least(leader: tuple[Point, Point]) -> Point:
    start, end = _shortened(leader)
    return min(start[0], end[0]), min(start[1], end[1])


def _most(leader: tuple[Point, Point]) -> Point:
    start, end = _shortened(leader)
    return max(start[0], end[0]), max(start[1], end[1])
