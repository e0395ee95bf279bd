"""Values to try for one argument, from Optuna's TPE sampler.

A study in memory is made for the argument, told of the values that were tried
and how they scored, and asked for more. Positions are relative to the present
value, in the middle of the range, where TPE's prior has its peak.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from modgrad.autoresearch.errors import ResearcherGone
from modgrad.autoresearch.researchers.literals import Value
from modgrad.autoresearch.researchers.steps import CHOICE, COUNT, FRACTION, REMAINDER, Scale

_ASKS = 12  # before a range is taken for used up
# The first step from a value that was never changed, as a position.
_FIRST = {COUNT: 1.0, FRACTION: 0.15, REMAINDER: 2.0}
# Sizes from here on are turned by less: half of a wide model is another model.
_LARGE_COUNT, _LARGE_STEP = 192, 0.5
_POWERS_FROM = 4096


def suggestions(
    scale: Scale,
    points: Sequence[tuple[Value, float]],
    direction: int,
    widen: float,
    seed: int,
) -> Iterator[Value]:
    """Values other than the present one, the most promising first, each once.

    `points` are values with their scores, lower better, the present value's
    being 0; `direction` is where to go first, 0 where nothing is known.
    """
    generator = random.Random(seed)
    if scale.kind == CHOICE:
        yield from _choices(scale, points, seed, generator)
        return
    reach = scale.reach * widen
    study = _study(seed)
    around = _uniform(-reach, reach)
    trials = []
    for value, score in points:
        position = scale.position(value)
        if position is not None and abs(position) <= reach:
            trials.append(_trial(around, position, score))
    study.add_trials(trials)
    if len(trials) <= 1:
        step = _first_step(scale) * min(widen, reach / _first_step(scale))
        study.enqueue_trial({"position": step * (direction or generator.choice((-1, 1)))})
    seen = {scale.value}
    for _ in range(_ASKS):
        trial = study.ask({"position": around})
        value = scale.at(trial.params["position"])
        if value not in seen:
            seen.add(value)
            yield value
    # What the sampler left out, in case the rest was tried.
    for position in (x * reach / 4 for x in (1, -1, 2, -2, 3, -3, 4, -4)):
        value = scale.at(position)
        if value not in seen:
            seen.add(value)
            yield value


def _choices(
    scale: Scale, points: Sequence[tuple[Value, float]], seed: int, generator: random.Random
) -> Iterator[Value]:
    study = _study(seed)
    from optuna.distributions import CategoricalDistribution

    options = list(scale.options)
    # Places instead of the values: Optuna knows no tuples.
    places: list[Any] = ["now", *map(str, range(len(options)))]
    distribution = CategoricalDistribution(places)
    known = {value: place for place, value in zip(places[1:], options, strict=True)}
    known[scale.value] = "now"
    study.add_trials(
        [_trial(distribution, known[value], score) for value, score in points if value in known]
    )
    order = [study.ask({"position": distribution}).params["position"] for _ in range(4)]
    rest = places[1:]
    generator.shuffle(rest)
    for place in dict.fromkeys([*order, *rest]):
        if place != "now":
            yield options[int(place)]


def _first_step(scale: Scale) -> float:
    value = scale.value
    if scale.kind == COUNT and isinstance(value, int) and _LARGE_COUNT <= value < _POWERS_FROM:
        return _LARGE_STEP
    return _FIRST.get(scale.kind, 1.0)


def _study(seed: int) -> Any:
    try:
        import optuna
    except ImportError:
        raise ResearcherGone("the search needs Optuna: `pip install optuna`") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=2)
    return optuna.create_study(sampler=sampler)


def _uniform(low: float, high: float) -> Any:
    from optuna.distributions import FloatDistribution

    return FloatDistribution(low, high)


def _trial(distribution: Any, position: Any, score: float) -> Any:
    from optuna.trial import create_trial

    return create_trial(
        params={"position": position}, distributions={"position": distribution}, value=score
    )
