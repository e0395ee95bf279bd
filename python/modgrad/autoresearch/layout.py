"""Where a tag keeps its things: all under the repository's git folder, so that
the user's checkout is never touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from modgrad.autoresearch.errors import UsageError

_TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.|lock$|$)){0,63}")


@dataclass(frozen=True)
class Layout:
    """Paths and refs of one tag.

    common: the git folder that all worktrees of the repository share.
    """

    common: Path
    tag: str

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.tag):
            raise UsageError(
                f"--tag {self.tag}: use letters, digits, `-`, `_` and single dots, at most 64"
            )

    @property
    def root(self) -> Path:
        """The tag's folder."""
        return self.common / "modgrad" / self.tag

    @property
    def journal(self) -> Path:
        """The truth: every record of the loop."""
        return self.root / "journal.jsonl"

    @property
    def key(self) -> Path:
        """The key of the journal's chain."""
        return self.root / "key"

    @property
    def lock(self) -> Path:
        """Held by the one loop that works on the tag."""
        return self.root / "lock"

    @property
    def device_lock(self) -> Path:
        """Held while anything is trained or scored, so that two tags take turns."""
        return self.common / "modgrad" / "device-cpu.lock"

    @property
    def ballast(self) -> Path:
        """Space that is freed for the journal when the disk is full."""
        return self.root / "ballast"

    @property
    def worktree(self) -> Path:
        """A checkout of the branch, for people and for `run`."""
        return self.root / "worktree"

    @property
    def trusted(self) -> Path:
        """The copy of modgrad that trains and scores, as it was at `setup`."""
        return self.root / "trusted"

    @property
    def data(self) -> Path:
        """Pinned copies of the training and validation data, and the holdout."""
        return self.root / "data"

    @property
    def work(self) -> Path:
        """Exports, scratch clones and temporary folders of the running experiment."""
        return self.root / "work"

    @property
    def checkpoints(self) -> Path:
        """What the kept commits scored with."""
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        """The end of each run's log."""
        return self.root / "logs"

    @property
    def ideas(self) -> Path:
        """Ideas for the researcher; the user may edit them at any time."""
        return self.root / "ideas.md"

    @property
    def steer(self) -> Path:
        """What the user asks of the researcher; read before each proposal."""
        return self.root / "steer.md"

    @property
    def target(self) -> Path:
        """Where candidates that change a crate are built, one after another."""
        return self.root / "target"

    @property
    def branch(self) -> str:
        """The branch whose tip is the best that was kept."""
        return f"refs/heads/autoresearch/{self.tag}"

    @property
    def candidates(self) -> str:
        """Below it stands a ref for every candidate, kept or not."""
        return f"refs/modgrad/{self.tag}"

    def candidate(self, number: int) -> str:
        """The ref of an experiment's candidate."""
        return f"{self.candidates}/{number}"

    def log(self, number: int) -> Path:
        """The log of an experiment."""
        return self.logs / f"{number:06}.log"

    def checkpoint(self, number: int) -> Path:
        """The checkpoint of a kept experiment."""
        return self.checkpoints / f"{number:06}.ckpt"


def tags(common: Path) -> list[str]:
    """The tags that were set up in a repository, in order of their names."""
    folder = common / "modgrad"
    if not folder.is_dir():
        return []
    return sorted(path.parent.name for path in folder.glob("*/journal.jsonl"))
