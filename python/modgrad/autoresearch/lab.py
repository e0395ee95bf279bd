"""What an experiment works with: the tag's things in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from modgrad.autoresearch import scoring
from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.errors import EnvironmentFault
from modgrad.autoresearch.files import sha256_of
from modgrad.autoresearch.journal import Journal
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.scoring import Score
from modgrad.autoresearch.state import DataFile, Settings, State

Evaluate = Callable[..., Score]


class Interrupted(Exception):
    """The user pressed ^C a second time: whatever runs is killed."""


@dataclass(frozen=True)
class Options:
    """How a loop decides; the rule itself is the contract's."""

    confirm: int = 0  # fresh seeds before a keep
    accept_simpler: bool = False
    scout: float | None = None  # seconds after which a hopeless run is stopped
    on_keep: str | None = None  # the user's command


@dataclass
class Lab:
    """One tag at work. `record` is the only way by which its state changes."""

    layout: Layout
    repository: Repository
    journal: Journal
    state: State
    contract: Contract
    options: Options = field(default_factory=Options)
    evaluate: Evaluate = scoring.score  # tests score without a model
    say: Callable[[str], None] = print
    progress: Callable[[str, float, float], None] = lambda what, seconds, budget: None

    @property
    def settings(self) -> Settings:
        """What `setup` fixed."""
        assert self.state.settings is not None
        return self.state.settings

    @property
    def marker(self) -> str:
        """Stands in the environment of every process that the tag starts."""
        return f"{self.layout.tag}@{self.layout.common}"

    def score(self, checkpoint: Path, data: DataFile, **given: Any) -> Score:
        """The evaluator's word on a checkpoint; see `scoring.score`."""
        return self.evaluate(
            self.layout, self.settings, checkpoint, data, marker=self.marker, **given
        )

    def record(self, kind: str, **fields: Any) -> None:
        """Journals what happened, then takes it in."""
        self.state.apply(self.journal.append(kind, **fields))

    @contextmanager
    def device(self) -> Iterator[None]:
        """One run at a time on the machine's processor, whatever the tag."""
        lock = FileLock(self.layout.device_lock)
        said = False
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1.0)
            except Timeout:
                if not said:
                    self.say("waiting for another tag's run to end")
                said = True
        try:
            yield
        finally:
            lock.release()

    def verify_data(self) -> None:
        """Raises where a pinned file is not what it was."""
        for one in (*self.settings.train, self.settings.val, self.settings.holdout):
            path = self.layout.data / one.name
            if not path.is_file() or sha256_of(path) != one.sha256:
                raise EnvironmentFault(f"{path}: is missing or not as it was pinned at setup")
