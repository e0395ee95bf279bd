"""From a tag's name to its lab, as the commands need it."""

from __future__ import annotations

from pathlib import Path

from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.journal import Journal
from modgrad.autoresearch.lab import Lab
from modgrad.autoresearch.layout import Layout, tags
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.setup import open_lab
from modgrad.autoresearch.state import State


def find(tag: str | None, folder: Path) -> tuple[Repository, Layout]:
    """The repository around a folder and the tag that is meant."""
    repository = Repository(folder)
    known = tags(repository.common)
    if tag is None:
        if len(known) == 1:
            tag = known[0]
        elif known:
            raise UsageError(f"--tag: name one of {', '.join(known)}")
        else:
            raise UsageError("no tag was set up here; begin with `setup`")
    layout = Layout(repository.common, tag)
    if tag not in known:
        raise UsageError(f"--tag {tag}: was not set up here; there is {', '.join(known) or 'none'}")
    return repository, layout


def read(layout: Layout) -> State:
    """The state of a tag, without touching anything."""
    return State.replay(Journal(layout.journal, layout.key).read())


class StateReader:
    """Reads a tag again and again, and replays its journal only when it has grown."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._size, self._state = layout, -1, State()

    def read(self) -> State:
        """The state of the tag now."""
        size = self._layout.journal.stat().st_size
        if size != self._size:
            self._state, self._size = read(self._layout), size
        return self._state


def load(repository: Repository, layout: Layout) -> Lab:
    """The lab of a tag, for whoever holds its lock."""
    journal = Journal(layout.journal, layout.key)
    state = State.replay(journal.read(repair=True))
    state.ready()
    return open_lab(repository, layout, journal, state)
