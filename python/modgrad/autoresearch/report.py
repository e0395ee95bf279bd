"""The report of a tag: a picture of its progress, and a page with all of it.

Both are views that can be thrown away: they are made from the state, and from diffs
and logs that the caller looks up. `report_picture` draws the one, `report_page`
writes the other; each replaces its last version in one step.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modgrad.autoresearch import report_page, report_picture
from modgrad.autoresearch.report_data import Details
from modgrad.autoresearch.state import State

PAGE, PICTURE = "report.html", "progress.png"

__all__ = ["Details", "ReportPaths", "write"]


@dataclass(frozen=True)
class ReportPaths:
    """What was written."""

    page: Path
    picture: Path | None
    note: str | None = None  # one line on why there is no picture, and how to get it


def write(
    folder: Path, state: State, details: Callable[[int], Details], *, now: float
) -> ReportPaths:
    """Writes both into `folder`. `details` is asked for the experiments that the page
    has room for, one by one; where it fails, that row says so."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    with _Replacement(page) as temporary, temporary.open("wb") as file:
        for piece in report_page.pieces(state, details, now):
            file.write(piece)
    picture = folder / PICTURE
    try:
        with _Replacement(picture) as temporary:
            report_picture.draw(state, temporary)
    except ImportError as error:
        note = f'{PICTURE}: not drawn ({error}). hint: pip install "modgrad[report]"'
        return ReportPaths(page, None, " ".join(note.split()))
    return ReportPaths(page, picture)


class _Replacement:
    """A file beside `path` that takes its place when all went well, and goes if not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
        os.fchmod(handle, 0o644)  # to be read by others, as any file that is written anew
        os.close(handle)
        self.temporary = Path(name)
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.temporary.replace(self.path)
        else:
            self.temporary.unlink(missing_ok=True)
