"""A researcher that is a person: what stands in a folder is the proposal."""

from __future__ import annotations

from pathlib import Path

from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.errors import ResearcherGone, UsageError
from modgrad.autoresearch.repository import Entry
from modgrad.autoresearch.researchers.base import Briefing, Failure, Proposal
from modgrad.autoresearch.workspace import collect


class Hand:
    """Proposes once: the edits that a person made, by hand or with any tool."""

    name = "hand"

    def __init__(
        self, folder: Path, tip: str, tree: dict[str, Entry], contract: Contract, message: str
    ) -> None:
        """Reads the edits of the commit `tip` at once: the loop's worktree may be put back
        before they are asked for, and another experiment kept."""
        if not folder.is_dir():
            raise UsageError(f"--from {folder}: no such folder")
        edits = collect(folder, tree, contract)
        if edits.violations:
            raise UsageError(f"{folder}: {edits.violations[0]}")
        if not edits.files:
            raise UsageError(f"{folder}: nothing is changed there; edit {contract.mutable[0]}, say")
        self._files, self._message, self._tip = edits.files, message, tip
        self.asked = False

    def base(self, briefing: Briefing) -> str | None:
        """What was edited."""
        return self._tip

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        """Puts the edits into the workspace."""
        if self.asked:
            raise ResearcherGone("the edits were proposed already")
        self.asked = True
        self.write(workspace)
        return Proposal(self._message)

    def write(self, workspace: Path) -> None:
        """Makes the edits in a checkout of what was edited."""
        for name, content in self._files.items():
            path = workspace / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def repair(self, workspace: Path, briefing: Briefing, failure: Failure) -> Proposal | None:
        """A person runs `run` again."""
        return None
