"""Worlds whose baseline is measured, commands to call in them, and no waiting."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from modgrad.autoresearch import __main__ as command_line
from modgrad.autoresearch import loop, tags
from modgrad.autoresearch.lab import Lab
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.loop import Stop
from modgrad.autoresearch.repository import Repository

from tests.loop_world import make_repository, read_score, set_up


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting takes no time, and is noted."""
    noted: list[float] = []

    def wait(seconds: float, stop: Stop) -> None:
        noted.append(seconds)

    monkeypatch.setattr(loop, "_wait", wait)
    return noted


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "world"
    make_repository(folder)
    set_up(folder)
    return folder


@pytest.fixture
def world(template: Path, tmp_path: Path) -> Path:
    """A repository of which the baseline was measured; it may stand anywhere, and
    git's note of where the worktree is goes with it."""
    folder = tmp_path / "world"
    shutil.copytree(template, folder, symlinks=True)
    (folder / ".git" / "modgrad" / "t" / "worktree" / ".git").write_text(
        f"gitdir: {folder}/.git/worktrees/worktree\n"
    )
    (folder / ".git" / "worktrees" / "worktree" / "gitdir").write_text(
        f"{folder}/.git/modgrad/t/worktree/.git\n"
    )
    return folder


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The commands as a user calls them, scoring aside."""
    load = tags.load

    def patched(repository: Repository, layout: Layout) -> Lab:
        lab = load(repository, layout)
        lab.evaluate = read_score
        return lab

    monkeypatch.setattr(tags, "load", patched)

    def call(folder: Path, *words: str, researcher: Any = None) -> Result:
        monkeypatch.chdir(folder)
        if researcher is not None:
            monkeypatch.setattr(command_line, "_researcher", lambda *_: researcher)
        return CliRunner().invoke(command_line.main, list(words), prog_name="autoresearch")

    return call


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No test leaves a handler of ours behind."""
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) == before
