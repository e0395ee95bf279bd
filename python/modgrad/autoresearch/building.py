"""Compiling a candidate that changes a crate, into a folder of its own.

The tag has one cargo target folder. Exports are written anew for each run, so
times of files say nothing; those that differ from what was built last are marked
as changed, and cargo compiles only what depends on them.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

from modgrad.autoresearch import files, sandbox
from modgrad.autoresearch.errors import EnvironmentFault
from modgrad.autoresearch.lab import Lab
from modgrad.autoresearch.repository import is_commit

_LONG_AGO = 1_000_000_000  # seconds since the epoch


def is_needed(lab: Lab, commit: str) -> bool:
    """Whether a commit has another crate than the installation that trains."""
    prefix = lab.contract.crates
    if prefix is None or commit == lab.settings.baseline:
        return False
    changes = lab.repository.changes(lab.settings.baseline, commit)
    return any(change.path.startswith(prefix) for change in changes)


def build(lab: Lab, commit: str, export: Path, scratch: Path, log: Path) -> Path | None:
    """Compiles the extension of an exported commit; the folder to import it from, or
    None where it does not compile.

    Raises `EnvironmentFault` where there is nothing to compile with.
    """
    if shutil.which("cargo") is None:
        raise EnvironmentFault("the candidate changes a crate, and there is no cargo to compile it")
    marker = lab.layout.target / "built-commit"
    _mark_changed(lab, commit, export, marker)
    marker.unlink(missing_ok=True)  # until this build is whole, nothing is known to be built
    wheels, site = scratch / "wheels", scratch / "site"
    settings = [f"{name}={value}" for name, value in _toolchain().items()]
    command = [sys.executable, "-m", "maturin", "build", "--release", "--out", str(wheels)]
    done = sandbox.start_trainer(
        ["env", *settings, f"CARGO_TARGET_DIR={lab.layout.target}", *command],
        cwd=export,
        scratch=scratch,
        python_path=lab.layout.trusted,
        marker=lab.marker,
        log=log,
        limit_seconds=lab.state.hard_limit,
    )
    if done.code != 0:
        if "No module named maturin" in files.tail(log):
            raise EnvironmentFault("a crate is changed: pip install maturin to compile it")
        return None
    files.write_atomically(marker, commit.encode())
    made = list(wheels.glob("*.whl"))
    if len(made) != 1:
        return None  # a build script of the candidate's had its hands in it
    with zipfile.ZipFile(made[0]) as archive:
        archive.extractall(site)
    return site


def _mark_changed(lab: Lab, commit: str, export: Path, marker: Path) -> None:
    try:
        last = marker.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        last = ""
    if not is_commit(last):
        return  # nothing is known to be built: all files are new
    for path in export.rglob("*"):
        if path.is_file():
            os.utime(path, (_LONG_AGO, _LONG_AGO))
    for change in lab.repository.changes(last, commit):
        path = export / change.path
        # A file that is gone shows in its folder's and its neighbours' dependants.
        for touched in (path, *path.parent.glob("*.rs")) if change.after is None else (path,):
            if touched.is_file():
                os.utime(touched)


def _toolchain() -> dict[str, str]:
    """Where the user's Rust is: the trainer's home is a fresh one."""
    homes = {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup"}
    return {name: os.environ.get(name, str(Path.home() / folder)) for name, folder in homes.items()}
