"""What a researcher left in its scratch clone: bytes of files, and nothing else.

The clone's .git is not looked at: whatever an agent did to its index, history or
configuration cannot reach the loop, and no git command runs in it again.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.repository import Entry, blob_sha

# Where a researcher may say what it did; no part of the candidate.
NOTES = frozenset({"hypothesis.txt"})
_MOST_ENTRIES = 100_000
_SKIPPED = frozenset({".git", "__pycache__", "target", ".venv", "node_modules"})


@dataclass
class Edits:
    """Changed files by path (None: removed), and what was found beside them."""

    files: dict[str, bytes | None] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)  # new files outside the contract


def collect(workspace: Path, base: dict[str, Entry], contract: Contract) -> Edits:
    """Compares a workspace with the tree that it was made from.

    A changed read-only file, a link or a huge file is a violation; a new file that
    the contract does not allow (a note, a cache) is left behind.
    """
    edits = Edits()
    if workspace.is_symlink():
        edits.violations.append("(all): the workspace is a symbolic link")
        return edits
    present: set[str] = set()
    found = _walk(workspace)
    if len(found) > _MOST_ENTRIES:
        edits.violations.append(f"(all): the workspace has more than {_MOST_ENTRIES} files")
        return edits
    for path, name in found:
        present.add(name)
        entry = base.get(name)
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(about.st_mode) else "not a regular file"
            if entry is not None and entry.mode == "120000" and stat.S_ISLNK(about.st_mode):
                continue
            if entry is not None or contract.allows(name):
                edits.violations.append(f"{name}: is {kind}")
            continue
        if entry is None and not contract.allows(name):
            if name not in NOTES:
                edits.dropped.append(name)
            continue
        try:
            content = _read(path, contract.largest_file)
        except OSError as error:
            edits.violations.append(f"{name}: cannot be read ({error.strerror})")
            continue
        if content is None:
            if entry is None or contract.allows(name):
                edits.violations.append(f"{name}: is larger than {contract.largest_file} bytes")
            elif entry.mode.startswith("100") and about.st_size:
                continue  # a large read-only file: taken from the tree in any case
            continue
        if entry is None or blob_sha(content) != entry.sha:
            edits.files[name] = content
    for name, entry in base.items():
        parts = name.split("/")
        if name not in present and entry.mode != "160000" and not _SKIPPED.intersection(parts):
            edits.files[name] = None
    return edits


def _walk(workspace: Path) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    for folder, folders, names in os.walk(workspace, followlinks=False):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links) - _SKIPPED)
        for name in sorted(names + links):
            path = Path(folder) / name
            found.append((path, path.relative_to(workspace).as_posix()))
            if len(found) > _MOST_ENTRIES:
                return found
    return found


def _read(path: Path, most: int) -> bytes | None:
    """The content of a regular file of at most `most` bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(most + 1)
    return content if len(content) <= most else None
