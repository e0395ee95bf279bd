"""The two doors to code that is not ours: one starts a trainer, one a researcher.

Level today: off. Both get their own session, limits, temporary folder and a
clean environment, and both are killed with all they started; neither is kept
from reading what the user can read. Namespaces and Landlock belong here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil

from modgrad.autoresearch import processes
from modgrad.autoresearch.processes import Finished

LEVEL = "off"

# What a trainer may see of the user's environment.
_ALLOWED = ("PATH", "LANG", "LC_ALL", "TZ", "MODGRAD_ISA")
_ALLOWED_PREFIXES = ("OMP_", "OPENBLAS_", "MKL_")
# What would act on a researcher's own tools without the user's meaning it.
_DROPPED_PREFIXES = ("GIT_", "PYTHON", "LD_", "MODGRAD_")
_LARGEST_FILE = 16 << 30  # bytes, of any one file that they write
_SHARE_OF_MEMORY = 0.85


def start_trainer(
    command: list[str],
    *,
    cwd: Path,
    scratch: Path,
    python_path: Path,
    marker: str,
    log: Path,
    limit_seconds: float,
    started: Callable[[int], None] | None = None,
    watch: Callable[[float], bool] | None = None,
) -> Finished:
    """Runs a candidate's training in a clean export, with nothing kept for the next."""
    for name in ("home", "tmp"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    env = {
        name: value
        for name, value in os.environ.items()
        if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)
    }
    env |= {
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "PYTHONPATH": str(python_path),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        processes.MARKER: marker,
    }
    return processes.run(
        command,
        cwd=cwd,
        env=env,
        log=log,
        limit_seconds=limit_seconds,
        memory_bytes=memory_limit(),
        file_bytes=_LARGEST_FILE,
        started=started,
        watch=watch,
    )


def start_researcher(
    command: list[str],
    *,
    cwd: Path,
    scratch: Path,
    marker: str,
    log: Path,
    limit_seconds: float,
    stdin: bytes | None = None,
) -> Finished:
    """Runs an agent in its scratch clone. Its home is the user's, for its keys."""
    (scratch / "tmp").mkdir(parents=True, exist_ok=True)
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(_DROPPED_PREFIXES)
    }
    env |= {"TMPDIR": str(scratch / "tmp"), processes.MARKER: marker}
    given: Path | None = None
    if stdin is not None:
        given = scratch / "stdin"
        given.write_bytes(stdin)
    return processes.run(
        command,
        cwd=cwd,
        env=env,
        log=log,
        limit_seconds=limit_seconds,
        memory_bytes=memory_limit(),
        file_bytes=_LARGEST_FILE,
        stdin=given,
    )


def memory_limit() -> int:
    """Bytes that a tree of processes may hold before it is ended."""
    return int(psutil.virtual_memory().total * _SHARE_OF_MEMORY)
