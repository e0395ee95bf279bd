"""The training curve, read from a run's log while it grows."""

from __future__ import annotations

import math
import re
from pathlib import Path

from modgrad.autoresearch.state import CURVE_POINTS

_LINE = re.compile(rb"step\s+\d+\s+loss\s+([0-9.]+)\s+bits")
_LARGEST_LINE = 4096


class CurveReader:
    """Notes (seconds, loss in bits) of each progress line as it appears.

    What a candidate prints is a log: the curve steers an early stop and is shown,
    and decides nothing.
    """

    def __init__(self, log: Path) -> None:
        self._log, self._offset, self._rest = log, 0, b""
        self.points: list[tuple[float, float]] = []

    def look(self, seconds: float) -> None:
        """Reads what came since the last look."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                block = file.read(1 << 20)
        except OSError:
            return
        self._offset += len(block)
        *lines, self._rest = (self._rest + block).replace(b"\r", b"\n").split(b"\n")
        self._rest = self._rest[-_LARGEST_LINE:]
        for line in lines:
            found = _LINE.search(line)
            if found and len(self.points) < 10_000:
                try:
                    loss = float(found[1])
                except ValueError:
                    continue
                if math.isfinite(loss):
                    self.points.append((round(seconds, 1), loss))

    def thinned(self) -> list[tuple[float, float]]:
        """At most `CURVE_POINTS` of the points, the last among them."""
        if len(self.points) <= CURVE_POINTS:
            return self.points
        step = (len(self.points) - 1) / (CURVE_POINTS - 1)
        return [self.points[round(index * step)] for index in range(CURVE_POINTS)]


def loss_at(curve: list[tuple[float, float]], seconds: float) -> float | None:
    """The loss of a curve at a time, on the line between its points."""
    before = [point for point in curve if point[0] <= seconds]
    after = [point for point in curve if point[0] > seconds]
    if not before or not after:
        return None
    (start, low), (end, high) = before[-1], after[0]
    return low + (high - low) * (seconds - start) / (end - start)
