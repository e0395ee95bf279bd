"""The built-in search: a researcher that needs no network and no key.

Each experiment turns one or two arguments of the tunable files, or makes a
structural move. Which one is drawn by Thompson sampling from how often its like
was kept; how far an argument goes is asked of Optuna's TPE sampler, about the
value as it stands. Nothing is remembered between calls: the journal's notes are
read anew each time, so a proposal follows from (state, number) alone.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from modgrad.autoresearch.errors import ResearcherError
from modgrad.autoresearch.researchers.base import Briefing, Failure, Proposal
from modgrad.autoresearch.researchers.history import Change, History, Try
from modgrad.autoresearch.researchers.literals import Value, written_as
from modgrad.autoresearch.researchers.moves import Move, moves
from modgrad.autoresearch.researchers.priors import SHORT_BUDGET, Prior, described, prior_of
from modgrad.autoresearch.researchers.sources import fits, load
from modgrad.autoresearch.researchers.steps import Scale, scale_of
from modgrad.autoresearch.researchers.suggest import suggestions
from modgrad.autoresearch.researchers.tunables import Tunable, read, write

PLATEAU = 12  # experiments without a keep, after which steps are larger
# A guess counts as so many experiments, a result as some, a keep as more.
GUESS_WEIGHT, RESULT_WEIGHT, KEEP_WEIGHT = 12.0, 2.0, 5.0
FORGETTING = 0.985  # for each experiment: the model changes under old results
WIDENINGS = (1.0, 2.0, 4.0, 8.0)
SINGLES_FIRST = 6  # experiments before two changes are made at once
PAIRS, PAIRS_ON_PLATEAU = 0.2, 0.5
PATIENCE, FADING = 0.65, 0.97  # with an arm that goes on losing
OLDER_KEEP = 0.25  # of the experiments of a plateau


@dataclass(frozen=True)
class Arm:
    """Something to try: an argument with its scale, or a move."""

    key: str
    family: str
    chance: float
    tunable: Tunable | None = None
    scale: Scale | None = None
    prior: Prior | None = None
    move: Move | None = None

    @property
    def group(self) -> str:
        """Numbers or moves of its family, which share their luck."""
        return _group(self.key, self.family)


@dataclass(frozen=True)
class _Edit:
    """A candidate before it is written."""

    sources: dict[str, str]
    changes: tuple[Change, ...]
    moves: tuple[str, ...]
    family: str
    messages: tuple[str, ...]


class Search:
    """The researcher `search`."""

    name = "search"

    def base(self, briefing: Briefing) -> str | None:
        """On a plateau, now and then, an older keep."""
        state = briefing.state
        older = [
            commit
            for number in state.kept[:-1][-4:]
            if (commit := state.experiments[number].candidate) is not None
        ]
        generator = _generator(briefing, "base")
        if not older or _since_keep(briefing) < PLATEAU or generator.random() >= OLDER_KEEP:
            return None
        return generator.choice(older)

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        """Writes one edit that was not tried before."""
        contract = briefing.contract
        sources = load(workspace, tuple(one for one in contract.tunable if contract.allows(one)))
        arms = _arms(sources)
        if not arms:
            raise ResearcherError(
                f"{', '.join(contract.tunable) or 'contract.toml'}: has no argument to turn"
            )
        edit = self._edit(sources, arms, briefing)
        for path, text in edit.sources.items():
            if text != sources[path]:
                (workspace / path).write_bytes(text.encode())
        message = "; ".join(edit.messages)
        lines = [change.line() for change in edit.changes]
        lines += [f"move: {name}" for name in edit.moves]
        return Proposal(message, edit.family, changes=tuple(lines))

    def repair(self, workspace: Path, briefing: Briefing, failure: Failure) -> Proposal | None:
        """A change that does not run is a result, not something to mend."""
        return None

    def _edit(self, sources: dict[str, str], arms: list[Arm], briefing: Briefing) -> _Edit:
        history = History.of(briefing.state)
        generator = _generator(briefing, "arms")
        base = _base_commit(briefing, self)
        plateau = history.since_keep >= PLATEAU
        settings = briefing.state.settings
        short = settings is None or settings.budget <= SHORT_BUDGET
        sigma = briefing.state.sigma or 0.0
        ranked = _ranked(arms, history, sigma, plateau, short, generator)
        chance = PAIRS_ON_PLATEAU if plateau else PAIRS
        pairs = len(history.tries) >= SINGLES_FIRST and generator.random() < chance

        def candidates(widen: float, pairs: bool) -> Iterator[_Edit]:
            for at, arm in enumerate(ranked):
                first = _of_arm(sources, arm, history, short, widen, generator)
                if pairs and arm.tunable is not None:
                    # The next few in rank; more would cost time for little.
                    partners = [one for one in ranked[at + 1 :] if one.tunable is not None][:4]
                    for edit in islice(first, 3):
                        for partner in partners:
                            for other in _of_arm(
                                edit.sources, partner, history, short, widen, generator
                            ):
                                yield _joined(edit, other)
                else:
                    yield from first

        start = 1 if plateau else 0
        for with_pairs in (True, False, True) if pairs else (False, True):
            for widen in WIDENINGS[start:]:
                for edit in candidates(widen, with_pairs):
                    if history.repeats(base, edit.changes, edit.moves):
                        continue
                    if fits(sources, edit.sources):
                        return edit
        raise ResearcherError("every change that the search knows of was tried on this code")


def _arms(sources: dict[str, str]) -> list[Arm]:
    arms = []
    for tunable in read(sources):
        scale = scale_of(tunable)
        if scale is not None:
            prior = prior_of(tunable, scale)
            arms.append(Arm(tunable.key, prior.family, prior.chance, tunable, scale, prior))
    for move in moves(sources):
        if move.apply(sources) is not None:
            arms.append(Arm(f"move: {move.name}", move.family, move.chance, move=move))
    return arms


def _ranked(
    arms: list[Arm],
    history: History,
    sigma: float,
    plateau: bool,
    short: bool,
    generator: random.Random,
) -> list[Arm]:
    """The arms, the most promising first: a draw of each one's chance, times how
    its family does, and less with each loss since it was last kept."""
    results = _results(history, sigma)
    scores = {}
    for arm in arms:
        own, group = results.get(arm.key, _Results()), results.get(arm.group, _Results())
        missed = own.lost
        if short and arm.prior is not None and arm.prior.direction and not own.kept:
            missed *= 2.0  # the likelier direction went first: the other is a longer shot
        drawn = generator.betavariate(
            GUESS_WEIGHT * arm.chance + own.kept, GUESS_WEIGHT * (1.0 - arm.chance) + missed
        )
        rate = (GUESS_WEIGHT * 0.3 + group.kept) / (GUESS_WEIGHT + group.kept + group.lost)
        # What was tried least is what a plateau may have missed.
        fresh = generator.random() / (1.0 + own.lost / RESULT_WEIGHT) if plateau else 0.0
        scores[arm.key] = drawn * (0.5 + rate) * PATIENCE**own.streak + 0.2 * fresh
    return sorted(arms, key=lambda arm: (-scores[arm.key], arm.key))


@dataclass
class _Results:
    """How an arm or a group of them did, old results counting less."""

    kept: float = 0.0
    lost: float = 0.0
    streak: float = 0.0  # losses since the last keep, fading as the model changes


def _results(history: History, sigma: float) -> dict[str, _Results]:
    results: dict[str, _Results] = {}
    for age, one in enumerate(reversed(history.tries)):
        weight = FORGETTING**age
        if weight < 1e-3:
            break
        # Another researcher's try counts for the moves of its family.
        groups = {_group(arm, one.family) for arm in one.arms or ("move: ",)}
        for arm in (*one.arms, *groups):
            result = results.setdefault(arm, _Results())
            if one.kept:
                result.kept += KEEP_WEIGHT * weight
            else:
                result.lost += _loss(one, sigma) * weight
                if not result.kept:
                    result.streak += FADING**age / len(one.arms or "1")
    return results


def _loss(one: Try, sigma: float) -> float:
    if one.crashed:
        return 3.0 * RESULT_WEIGHT
    near = one.difference is not None and one.difference < 2.0 * sigma
    return 0.5 * RESULT_WEIGHT if near else RESULT_WEIGHT


def _group(key: str, family: str) -> str:
    return f"moves of {family}" if key.startswith("move: ") else f"numbers of {family}"


def _of_arm(
    sources: dict[str, str],
    arm: Arm,
    history: History,
    short: bool,
    widen: float,
    generator: random.Random,
) -> Iterator[_Edit]:
    """The edits of one arm, the most promising first."""
    if arm.move is not None:
        edited = arm.move.apply(sources)
        if edited is not None:
            yield _Edit(edited, (), (arm.move.name,), arm.family, (arm.move.message,))
        return
    tunable, scale, prior = arm.tunable, arm.scale, arm.prior
    assert tunable is not None and scale is not None and prior is not None
    points = history.points(tunable.key, tunable.value)
    direction = prior.direction if short else 0
    seed = generator.getrandbits(31)
    for value in suggestions(scale, points, direction, widen, seed):
        yield _of_value(sources, arm, tunable, prior, value)


def _of_value(
    sources: dict[str, str], arm: Arm, tunable: Tunable, prior: Prior, value: Value
) -> _Edit:
    text = written_as(value, tunable.text)
    change = Change(tunable.key, tunable.text, text)
    message = described(tunable, prior, value, tunable.text, text)
    old = tunable.value
    fewer = isinstance(value, tuple) and isinstance(old, tuple) and len(value) < len(old)
    family = "simplification" if fewer else arm.family
    return _Edit(write(sources, {tunable.key: value}), (change,), (), family, (message,))


def _joined(first: _Edit, second: _Edit) -> _Edit:
    return _Edit(
        second.sources,
        (*first.changes, *second.changes),
        (*first.moves, *second.moves),
        first.family,
        (*first.messages, *second.messages),
    )


def _base_commit(briefing: Briefing, search: Search) -> str:
    """The commit whose files stand in the workspace."""
    state = briefing.state
    if briefing.number < len(state.experiments):
        return state.experiments[briefing.number].base
    tip = state.tip
    return search.base(briefing) or ((tip.candidate or tip.base) if tip else "")


def _since_keep(briefing: Briefing) -> int:
    finished = [one for one in briefing.state.experiments if one.status is not None]
    last = briefing.state.kept[-1] if briefing.state.kept else 0
    return sum(one.number > last for one in finished)


def _generator(briefing: Briefing, use: str) -> random.Random:
    """Random numbers that follow from the tag's seed and the experiment."""
    settings = briefing.state.settings
    words = f"{settings.seed if settings else 0} {briefing.number} {use}"
    return random.Random(zlib.crc32(words.encode()))
