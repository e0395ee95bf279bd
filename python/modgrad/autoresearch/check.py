"""The check on edits: what a candidate changed, held against the contract.

It reads git trees, never a working folder, so a link, a mode, a rename or a
submodule is seen for what it is.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.repository import Change, Repository

_MODES = {
    "120000": "is a symbolic link",
    "160000": "is a submodule",
}


@dataclass(frozen=True)
class Violation:
    """A changed path, and what about it the contract refuses."""

    path: str
    reason: str

    def __str__(self) -> str:
        # A name may hold line feeds, escape sequences, or bytes that are no text.
        path = "".join(
            one if one.isprintable() else one.encode("unicode_escape").decode() for one in self.path
        )
        return f"{path}: {self.reason}"


def check(repository: Repository, contract: Contract, before: str, after: str) -> list[Violation]:
    """What the contract refuses about the way from one commit to another."""
    changes = repository.changes(before, after)
    violations = []
    if len(changes) > contract.most_files:
        reason = f"{len(changes)} files are changed, at most {contract.most_files} may be"
        violations.append(Violation("(all)", reason))
    for change in changes:
        refusal = _reason(repository, contract, change)
        if refusal:
            violations.append(Violation(change.path, refusal))
    return violations


def _reason(repository: Repository, contract: Contract, change: Change) -> str | None:
    if not contract.allows(change.path):
        return f"is read-only for the task {contract.task}"
    entry = change.after
    if entry is None:
        return None
    if entry.mode not in ("100644", "100755"):
        return _MODES.get(entry.mode, f"has the mode {entry.mode}")
    size = repository.size(entry.sha)
    if size > contract.largest_file:
        return f"has {size} bytes, at most {contract.largest_file} are allowed"
    content = repository.blob(entry.sha)
    if b"\0" in content:
        return "is not text"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "is not UTF-8"
    return _import_outside(content, contract) if change.path.endswith(".py") else None


def _import_outside(source: bytes, contract: Contract) -> str | None:
    """The first import that the contract does not allow. What does not parse
    imports nothing: it will be a crash of its own. Bytes are parsed as the
    interpreter will, by whatever encoding they declare."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, LookupError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] not in contract.imports or name.startswith(
                "modgrad.autoresearch"
            ):
                return f"imports `{name}` on line {node.lineno}, which the contract does not list"
    return None
