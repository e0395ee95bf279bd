"""A researcher that replays: patches, or Python edit scripts, from a folder.

`0001-halve-the-batch.patch`, `0002-drop-the-clip.py`, … in the order of their
names; the name is the hypothesis. For tests, and to run a known list of changes
again on another machine or another corpus.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from modgrad.autoresearch.digest import one_line
from modgrad.autoresearch.errors import ResearcherError, ResearcherGone
from modgrad.autoresearch.researchers.base import Briefing, Failure, Proposal

_NAME = re.compile(r"(\d+)-(.+)\.(patch|py)")
_LIMIT_SECONDS = 120.0


class Script:
    """Experiment number n is the n-th file of the folder."""

    name = "script"

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def base(self, briefing: Briefing) -> str | None:
        """Always the branch's tip."""
        return None

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        """Applies the file that is next."""
        steps = self._steps()
        if not 1 <= briefing.number <= len(steps):
            raise ResearcherGone(
                f"{self._folder}: holds {len(steps)} scripts, and experiment {briefing.number} "
                "would be the next"
            )
        step = steps[briefing.number - 1]
        named = _NAME.fullmatch(step.name)
        assert named is not None
        self._apply(step, workspace)
        return Proposal(one_line(named[2].replace("-", " ")) or "a change without a title")

    def repair(self, workspace: Path, briefing: Briefing, failure: Failure) -> Proposal | None:
        """A replay has nothing to mend with."""
        return None

    def _steps(self) -> list[Path]:
        try:
            found = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        except OSError as error:
            reason = f"{self._folder}: cannot be read ({error.strerror})"
            raise ResearcherGone(reason) from None
        return sorted(found, key=lambda path: path.name)

    def _apply(self, step: Path, workspace: Path) -> None:
        if step.suffix == ".py":
            command = [sys.executable, "-I", str(step)]
        else:
            # The workspace's own configuration may run nothing.
            quiet = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
            command = ["git", *quiet, "apply", "--whitespace=nowarn", str(step)]
        try:
            done = subprocess.run(
                command,
                cwd=workspace,
                env=_environment(workspace),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ResearcherError(f"{step.name}: took over {_LIMIT_SECONDS:g} s") from None
        except FileNotFoundError as error:
            raise ResearcherGone(f"{step.name}: cannot be run ({error})") from None
        if done.returncode != 0:
            lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line]
            why = lines[-1 if step.suffix == ".py" else 0] if lines else "no reason given"
            raise ResearcherError(f"{step.name}: does not apply ({one_line(why)})")


def _environment(workspace: Path) -> dict[str, str]:
    """Without git's variables and configuration, and without a repository further up."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(workspace.resolve().parent),
    }
