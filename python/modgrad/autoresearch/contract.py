"""contract.toml: what a researcher may change, and how one experiment runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modgrad.autoresearch.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "contract.toml"


@dataclass(frozen=True)
class Contract:
    """The rules of one task."""

    task: str
    summary: str
    mutable: tuple[str, ...]
    crates: str | None
    tunable: tuple[str, ...]
    imports: frozenset[str]
    results: str
    train: tuple[str, ...]
    rehearse: tuple[str, ...]
    evaluator: str
    mazes: Mapping[str, int | str]  # which ones, where they are what is scored
    forbidden_names: frozenset[str]
    forbidden_suffixes: tuple[str, ...]
    largest_file: int
    most_files: int

    def allows(self, path: str) -> bool:
        """Whether a candidate may change, add or remove the file at `path`."""
        if not path.isprintable() or any(_is_of_git(part) for part in path.split("/")):
            return False
        name = path.rsplit("/", 1)[-1]
        if name in self.forbidden_names or name.endswith(self.forbidden_suffixes):
            return False
        return any(_pattern(glob).fullmatch(path) for glob in self.mutable)


def tasks(text: str) -> list[str]:
    """The tasks that a contract names."""
    return sorted(_parse(text)["tasks"])


def load(text: str, task: str) -> Contract:
    """The rules of `task`; raises `UsageError` naming what is wrong."""
    document = _parse(text)
    if task not in document["tasks"]:
        known = ", ".join(sorted(document["tasks"]))
        raise UsageError(f"--task {task}: {FILE} has no such task; it has {known}")
    table = document["tasks"][task]
    try:
        return Contract(
            task=task,
            summary=str(table["summary"]),
            mutable=_strings(table["mutable"]),
            crates=table.get("crates"),
            tunable=_strings(table["tunable"]),
            imports=frozenset(_strings(table["imports"])),
            results=str(table["results"]),
            train=_strings(table["train"]),
            rehearse=_strings(table.get("rehearse", [])),
            evaluator=str(table["evaluator"]),
            mazes=_mazes(table),
            forbidden_names=frozenset(_strings(document["forbidden_names"])),
            forbidden_suffixes=_strings(document["forbidden_suffixes"]),
            largest_file=int(document["largest_file"]),
            most_files=int(document["most_files"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{FILE}: the task {task} lacks or misstates {error}") from None


def fill(command: tuple[str, ...], values: Mapping[str, str | list[str]]) -> list[str]:
    """A command with its `{names}` filled in; one that stands for several values
    must be a word of its own."""
    words: list[str] = []
    for word in command:
        whole = re.fullmatch(r"\{(\w+)\}", word)
        if whole and isinstance(values.get(whole[1]), list):
            words.extend(values[whole[1]])
            continue
        try:
            words.append(word.format_map(values))
        except (KeyError, ValueError, IndexError):
            raise UsageError(f"{FILE}: `{word}` asks for what the loop does not know") from None
    return words


def _parse(text: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{FILE}: is not TOML ({error})") from None
    if not isinstance(document.get("tasks"), dict) or not document["tasks"]:
        raise UsageError(f"{FILE}: names no task")
    return document


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("a list of strings")
    return tuple(value)


def _mazes(table: Mapping[str, Any]) -> Mapping[str, int | str]:
    if table["evaluator"] != "mazes":
        return {}
    mazes = table["mazes"]
    return {"size": int(mazes["size"]), "layout": str(mazes["layout"])}


def _is_of_git(part: str) -> bool:
    """Names that git takes for its own, on some file system or other, and refuses."""
    return part in ("", ".", "..") or part.lower().startswith((".git", "git~")) or "\\" in part


def _pattern(glob: str) -> re.Pattern[str]:
    """`*` stays within a folder, `**/` stands for any folders or none."""
    parts = re.split(r"(\*\*/|\*)", glob)
    regex = {"**/": r"(?:[^/]+/)*", "*": r"[^/]*"}
    return re.compile("".join(regex.get(part, re.escape(part)) for part in parts))
