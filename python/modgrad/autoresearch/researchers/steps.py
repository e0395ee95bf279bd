"""How far an argument may be turned: its scale, and friendly values on it.

The scale follows from the value's type, and for decimal numbers from words in
the name and the comment. A position on a scale is relative to the value as it
stands: 0 is the value itself, and on the logarithmic scales 1 is twice as much.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from modgrad.autoresearch.researchers.literals import Value
from modgrad.autoresearch.researchers.tunables import Tunable

COUNT, RATE, FRACTION, REMAINDER, CHOICE = "count", "rate", "fraction", "remainder", "choice"

_FRACTION = re.compile(r"dropout|cooldown|warmup|warm_up|fraction|share|probability|_from\b")
# Half-widths of the range within which a value is first looked for.
_REACH = {COUNT: 1.1, RATE: 1.6, REMAINDER: 3.4, FRACTION: 0.35}
# A number that is 0 is switched off; these are where it may begin.
_FIRST_COUNTS, _FIRST_FRACTIONS, _FIRST_RATES = (1, 2, 4), (0.05, 0.1, 0.2), (0.01, 0.03, 0.1)
_HIGHEST_FRACTION = 0.95
_LEAST_REMAINDER, _MOST_REMAINDER = 1e-6, 0.9


@dataclass(frozen=True)
class Scale:
    """The scale of one argument, about its present value."""

    kind: str
    value: Value
    reach: float = 0.0
    options: tuple[Value, ...] = ()  # of a choice, the present value left out

    def position(self, value: Value) -> float | None:
        """Where a value stands on a scale of numbers; None where it does not."""
        now, then = _measure(self.kind, self.value), _measure(self.kind, value)
        return None if now is None or then is None else then - now

    def at(self, position: float) -> Value:
        """The friendly value next to a position on a scale of numbers."""
        now = _measure(self.kind, self.value)
        assert now is not None
        if self.kind == COUNT:
            assert isinstance(self.value, int)
            return friendly(2.0 ** (now + position), self.value)
        if self.kind == FRACTION:
            return round(min(max(round((now + position) / 0.05) * 0.05, 0.0), _HIGHEST_FRACTION), 2)
        if self.kind == REMAINDER:
            # One digit of what is left to 1: 0.98, 0.995, 0.9997.
            left = min(max(2.0 ** -(now + position), _LEAST_REMAINDER), _MOST_REMAINDER)
            return float(f"{1.0 - float(f'{left:.0e}'):.10g}")
        return _rounded(2.0 ** (now + position))


def scale_of(tunable: Tunable) -> Scale | None:
    """The scale of an argument; None where there is nothing to turn."""
    value = tunable.value
    if isinstance(value, bool):
        return Scale(CHOICE, value, options=(not value,))
    if isinstance(value, str):
        others = tuple(one for one in tunable.choices if one != value)
        known = value in tunable.choices and others
        return Scale(CHOICE, value, options=others) if known else None
    if isinstance(value, tuple):
        options = _tuples(value, tunable.choices)
        return Scale(CHOICE, value, options=options) if options else None
    if value < 0 or not math.isfinite(value):
        return None
    kind = kind_of(tunable)
    if value == 0:
        if kind == FRACTION:
            return Scale(CHOICE, value, options=_FIRST_FRACTIONS)
        return Scale(CHOICE, value, options=_FIRST_COUNTS if kind == COUNT else _FIRST_RATES)
    return Scale(kind, value, _REACH[kind])


def kind_of(tunable: Tunable) -> str:
    """The kind of scale of a number."""
    value = tunable.value
    if isinstance(value, int):
        return COUNT
    assert isinstance(value, float)
    if 0.9 <= value < 1.0:
        return REMAINDER  # a decay such as 0.999: what it forgets is what counts
    words = f"{tunable.name} {tunable.comment}".lower()
    if value <= 1.0 and "learning" not in words and _FRACTION.search(words):
        return FRACTION
    return RATE


def friendly(number: float, like: int) -> int:
    """The whole number next to `number` that a person would write for one such
    as `like`: powers of two where it is a large one, multiples of 4 to 256 else."""
    if like >= 4096 and like & (like - 1) == 0:
        return int(2 ** round(math.log2(max(number, 1.0))))
    step = 1
    for above, multiple in ((8, 2), (16, 4), (32, 8), (96, 16), (192, 32), (320, 64), (2048, 256)):
        if number > above:
            step = multiple
    return max(1, step * round(number / step))


def _rounded(number: float) -> float:
    """To two digits, or to one where that changes it by less than a twentieth."""
    one, two = float(f"{number:.0e}"), float(f"{number:.1e}")
    return one if abs(one - number) <= 0.05 * abs(number) else two


def _measure(kind: str, value: Value) -> float | None:
    if isinstance(value, bool | str | tuple):
        return None
    if kind == FRACTION:
        return float(value)
    if kind == REMAINDER:
        return -math.log2(1.0 - value) if value < 1.0 else None
    return math.log2(value) if value > 0 else None


def _tuples(
    value: tuple[int, ...] | tuple[str, ...], choices: tuple[str, ...]
) -> tuple[Value, ...]:
    """A tuple with one element less, more or shifted; of words without known
    others, with one less, or the first one last."""
    found: list[Value] = []
    numbers = tuple(item for item in value if isinstance(item, int))
    words = tuple(item for item in value if isinstance(item, str))
    if numbers:
        rising = list(numbers) == sorted(numbers)
        found += [(*numbers[:at], *numbers[at + 1 :]) for at in range(len(numbers))]
        largest, gap = max(numbers), max(1, max(numbers) // 4)
        within = range(max(1, min(numbers)), largest + 1)
        for extra in (*[one for one in within if one not in numbers][:4], largest + gap):
            longer = (*numbers, extra)
            found.append(tuple(sorted(longer)) if rising else longer)
        for at, item in enumerate(numbers):
            for other in (item - 1, item + 1):
                shifted = (*numbers[:at], other, *numbers[at + 1 :])
                if other > 0 and len(set(shifted)) == len(shifted):
                    found.append(tuple(sorted(shifted)) if rising else shifted)
    elif words:
        found += [(*words[:at], *words[at + 1 :]) for at in range(len(words))]
        found += [(*words, other) for other in choices if other not in words]
        if len(words) > 1 and not choices:
            found.append((*words[1:], words[0]))
    # An empty tuple switches a part of a model off, which is worth a try only
    # where a whole part is meant: a move of its own, not a step.
    unique = dict.fromkeys(one for one in found if one and one != value)
    return tuple(unique)
