"""What past experiments say to the search, read from the journal's notes.

A note has a line for each change, `path:label: old -> new` or `move: name`. From
them follow the configuration of each try, so that none is made twice, and for
each argument how the score moved with its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from modgrad.autoresearch.researchers.literals import Value, value_from
from modgrad.autoresearch.state import Experiment, State

CRASH_PENALTY = 1.0  # in bits per byte: more than any change costs
# The scores of so many tries of an argument tell where it should go; older ones
# were measured on a model that has changed since.
MOST_POINTS = 200
_CHANGE = re.compile(r"(?P<key>[^:\s]+\.py:.+?): (?P<old>.+?) -> (?P<new>.+)")
_MOVE = re.compile(r"move: (?P<name>[\w-]+)")

# What differs from the baseline, as (key, text of the value).
Configuration = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Change:
    """One argument from one value to another, both as source text."""

    key: str
    old: str
    new: str

    def line(self) -> str:
        """As the journal keeps it."""
        return f"{self.key}: {self.old} -> {self.new}"


@dataclass(frozen=True)
class Try:
    """One finished experiment as the search sees it."""

    number: int
    base: str
    changes: tuple[Change, ...]
    moves: tuple[str, ...]
    family: str
    kept: bool
    crashed: bool
    difference: float | None  # of its score to its base's; None where nothing was scored

    @property
    def arms(self) -> tuple[str, ...]:
        """The arguments and moves that it used."""
        return (*(change.key for change in self.changes), *(f"move: {one}" for one in self.moves))


@dataclass
class History:
    """All tries, oldest first."""

    tries: list[Try] = field(default_factory=list)
    since_keep: int = 0  # finished experiments after the last keep
    _configurations: dict[str, Configuration] = field(default_factory=dict)  # of kept commits
    # The empty one is the baseline.
    _seen: set[Configuration] = field(default_factory=lambda: {frozenset()})
    _lines: dict[frozenset[str], int] = field(default_factory=dict)  # last at how many keeps
    _keeps: int = 0

    @staticmethod
    def of(state: State) -> History:
        """The history that a state holds."""
        history = History()
        scores: dict[str, float | None] = {}
        if state.settings is not None:
            history._configurations[state.settings.baseline] = frozenset()
        for experiment in state.experiments:
            if experiment.status is None:
                continue  # still running, or cut short
            if experiment.number > 0:
                # What it was made from; as a rule the tip of that time.
                before = scores.get(experiment.base, scores.get(experiment.parent))
                history._add(experiment, before)
            if experiment.status == "keep":
                history._keeps += 1
                history.since_keep = 0
                commit = experiment.candidate or experiment.base
                scores[commit] = experiment.val_bpb
                if experiment.number == 0 and state.settings is not None:
                    scores[state.settings.baseline] = experiment.val_bpb
            elif experiment.number > 0:
                history.since_keep += 1
        return history

    def _add(self, experiment: Experiment, before: float | None) -> None:
        changes, moves = parse(experiment.notes)
        score = experiment.val_bpb
        one = Try(
            number=experiment.number,
            base=experiment.base,
            changes=changes,
            moves=moves,
            family=experiment.family,
            kept=experiment.status == "keep",
            crashed=experiment.status == "crash",
            difference=None if score is None or before is None else score - before,
        )
        self.tries.append(one)
        configuration = self.configuration(one.base, changes, moves)
        if not one.arms:  # of someone who leaves no notes: known to differ, not how
            configuration |= {("experiment", str(one.number))}
        self._seen.add(configuration)
        self._lines[_lines(changes, moves)] = self._keeps
        if one.kept and experiment.candidate is not None:
            self._configurations[experiment.candidate] = configuration

    def configuration(
        self, base: str, changes: Iterable[Change], moves: Iterable[str] = ()
    ) -> Configuration:
        """What the files of `base` with those changes would be."""
        values = dict(self._configurations.get(base, frozenset({("commit", base)})))
        for change in changes:
            # The value at the baseline is remembered, so that a way back is seen.
            first = values.get(f"first {change.key}", change.old)
            values[change.key], values[f"first {change.key}"] = change.new, first
            if change.new == first:
                del values[change.key], values[f"first {change.key}"]
        for move in moves:
            values[f"move: {move}"] = "done"
        return frozenset(values.items())

    def repeats(self, base: str, changes: Iterable[Change], moves: Iterable[str] = ()) -> bool:
        """Whether this was tried: as the same files, or as the same edit not long
        ago (two keeps later the model is another, and it may be asked again)."""
        changes, moves = tuple(changes), tuple(moves)
        last = self._lines.get(_lines(changes, moves))
        if last is not None and self._keeps - last <= 2:
            return True
        return self.configuration(base, changes, moves) in self._seen

    def points(self, key: str, value: Value) -> list[tuple[Value, float]]:
        """Values of an argument with their scores, relative to the value now.

        Each try says how much better its new value was than its old one; tries
        are chained from the present value backwards, and those that are not
        linked to it are left out. What two changes did together is halved.
        """
        known: dict[Value, float] = {value: 0.0}
        found: list[tuple[Value, float]] = [(value, 0.0)]
        for one in reversed(self.tries):
            if len(found) >= MOST_POINTS:
                break
            for change in one.changes:
                if change.key != key:
                    continue
                difference = CRASH_PENALTY if one.crashed else one.difference
                old, new = read_value(change.old), read_value(change.new)
                if difference is None or old is None or new is None:
                    continue
                difference /= max(1, len(one.arms))
                if old in known:
                    point = (new, known[old] + difference)
                elif new in known and not one.crashed:
                    point = (old, known[new] - difference)
                else:
                    continue
                known.setdefault(*point)
                found.append(point)
        return found


def parse(notes: str) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """The changes and moves that an experiment's notes name."""
    changes, moves = [], []
    for line in notes.splitlines():
        if match := _MOVE.fullmatch(line):
            moves.append(match["name"])
        elif match := _CHANGE.fullmatch(line):
            changes.append(Change(match["key"], match["old"], match["new"]))
    return tuple(changes), tuple(moves)


@lru_cache(maxsize=4096)
def read_value(text: str) -> Value | None:
    """A value from its source text."""
    return value_from(text)


def _lines(changes: Iterable[Change], moves: Iterable[str]) -> frozenset[str]:
    return frozenset([*(change.line() for change in changes), *moves])
