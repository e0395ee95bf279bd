"""The trusted installation: a copy of modgrad as it was at `setup`.

Candidates are trained and scored with it, so that neither the user's further
work nor a rebuilt extension changes what a number means half-way.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import modgrad
from modgrad.autoresearch import files
from modgrad.autoresearch.errors import EnvironmentFault

_SUFFIXES = (".py", ".so", ".pyd", ".dylib")
# Isolated: neither the working folder nor the environment can put modules in its way.
_BOOT = (
    "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def snapshot(folder: Path) -> str:
    """Copies the running installation below `folder`; returns its SHA-256."""
    files.remove_tree(folder)
    source = Path(modgrad.__file__).parent
    shutil.copytree(source, folder / "modgrad", ignore=shutil.ignore_patterns("__pycache__"))
    return digest(folder)


def digest(folder: Path) -> str:
    """One SHA-256 over all code of an installation."""
    return files.sha256_of_tree(folder / "modgrad", _SUFFIXES)


def verify(folder: Path, expected: str) -> None:
    """Raises where the copy is no longer what it was at `setup`."""
    if not (folder / "modgrad").is_dir() or digest(folder) != expected:
        raise EnvironmentFault(
            f"{folder}: the copy of modgrad that scores is missing or was changed; "
            "restore it from a backup, or begin another --tag"
        )


def command(folder: Path, module: str, *arguments: str) -> list[str]:
    """A command that runs a module of the copy and of nothing else."""
    return [sys.executable, "-I", "-c", _BOOT, str(folder), module, *arguments]
