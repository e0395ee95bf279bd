"""Minimal edits of Python source at the places that `ast` names.

Positions of `ast` are lines and UTF-8 bytes, so text is cut as bytes; what is
not replaced stays as it was, line ends and comments included.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from modgrad.autoresearch.errors import ResearcherError

# Text by path.
Sources: TypeAlias = Mapping[str, str]

LINE_LENGTH = 100
INDENT = 4
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class SourceText:
    """One file's text with its tree; raises `ResearcherError` where it is not
    Python."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        try:
            self.tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
            raise ResearcherError(f"{path}: is not Python that can be read{line}") from None
        self.bytes = text.encode()
        self.lines = [match.group() for match in _LINE.finditer(self.bytes)]
        self.starts = [match.start() for match in _LINE.finditer(self.bytes)]
        self.newline = "\r\n" if b"\r\n" in self.bytes else "\n"

    def span(self, node: ast.expr | ast.stmt | ast.keyword | ast.alias) -> tuple[int, int]:
        """Where a node's bytes begin and end."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def segment(self, node: ast.expr | ast.stmt | ast.keyword | ast.alias) -> str:
        """A node's text."""
        start, end = self.span(node)
        return self.bytes[start:end].decode()

    def cut(self, start: int, end: int, text: str) -> str:
        """The file with the bytes from `start` to `end` replaced."""
        return (self.bytes[:start] + text.encode() + self.bytes[end:]).decode()

    def replaced(self, node: ast.expr | ast.stmt | ast.keyword | ast.alias, text: str) -> str:
        """The file with a node's text replaced."""
        return self.cut(*self.span(node), text)

    def indent(self, node: ast.expr | ast.stmt) -> str:
        """The white space before the line on which a node begins."""
        line = self.lines[node.lineno - 1]
        return line[: len(line) - len(line.lstrip())].decode()

    def after(self, node: ast.stmt, statements: list[str]) -> str:
        """The file with statements behind the line on which a statement ends."""
        assert node.end_lineno is not None
        at = self.starts[node.end_lineno - 1] + len(self.lines[node.end_lineno - 1])
        lead = "" if self.lines[node.end_lineno - 1].endswith((b"\n", b"\r")) else self.newline
        block = "".join(f"{self.indent(node)}{line}{self.newline}" for line in statements)
        return self.cut(at, at, lead + block)

    def without(self, node: ast.stmt) -> str:
        """The file without the lines of a statement."""
        assert node.end_lineno is not None
        end = self.starts[node.end_lineno - 1] + len(self.lines[node.end_lineno - 1])
        return self.cut(self.starts[node.lineno - 1], end, "")

    def names_of(self, module: str) -> set[str]:
        """The names by which a module, or what it defines, is called here."""
        package, _, last = module.rpartition(".")
        names = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module in (module, package):
                whole = node.module == module
                names |= {one.asname or one.name for one in node.names if whole or one.name == last}
        return names


def load(workspace: Path, paths: tuple[str, ...]) -> dict[str, str]:
    """The Python files of those paths; raises `ResearcherError`, in one line."""
    sources: dict[str, str] = {}
    for path in paths:
        if not path.endswith(".py"):
            continue
        try:
            sources[path] = (workspace / path).read_bytes().decode()
        except OSError as error:
            raise ResearcherError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ResearcherError(f"{path}: is not UTF-8") from None
        SourceText(path, sources[path])
    return sources


def fits(before: Sources, after: Sources) -> bool:
    """Whether the edited files are Python, and no line has become too long."""
    for path, text in after.items():
        if text == before.get(path):
            continue
        try:
            SourceText(path, text)
        except ResearcherError:
            return False
        old = set(before.get(path, "").splitlines())
        if any(len(line) > LINE_LENGTH and line not in old for line in text.splitlines()):
            return False
    return True


def call_name(call: ast.Call) -> str:
    """`AdamW` of `optim.AdamW(…)`; empty for what has no name."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def trailing_comment(text: SourceText, node: ast.stmt) -> str:
    """The comment behind a statement, on the line where it ends."""
    assert node.end_lineno is not None
    rest = text.lines[node.end_lineno - 1][node.end_col_offset :].decode().strip()
    match = re.fullmatch(r"[)\s]*#+\s*(.*)", rest)
    return match[1].strip() if match else ""


def add_keyword(text: SourceText, call: ast.Call, name: str, value: str) -> str:
    """The file with `name=value` as a call's last argument, laid out as the call is."""
    end = text.span(call)[1]
    arguments: list[ast.expr | ast.keyword] = sorted(
        [*call.args, *call.keywords], key=lambda one: (one.lineno, one.col_offset)
    )
    added = f"{name}={value}"
    if not arguments:
        return text.cut(end - 1, end - 1, added)
    last_end = text.span(arguments[-1])[1]
    comma = re.match(rb"(?:\s|#[^\r\n]*(?=[\r\n]))*,", text.bytes[last_end : end - 1])
    own_line = arguments[-1].lineno > call.lineno and comma is not None
    if own_line and comma is not None:
        line = text.lines[arguments[-1].lineno - 1]
        lead = line[: len(line) - len(line.lstrip())].decode()
        at = last_end + comma.end()
        rest = re.match(rb"[ \t]*(?:#[^\r\n]*)?", text.bytes[at:])
        at += rest.end() if rest else 0
        return text.cut(at, at, f"{text.newline}{lead}{added},")
    if comma is not None:
        at = last_end + comma.end()
        return text.cut(at, at, f" {added},")
    if arguments[-1].lineno == call.lineno == call.end_lineno:
        line_end = len(text.lines[call.lineno - 1].decode().rstrip("\r\n"))
        if line_end + len(added) + 2 > LINE_LENGTH:
            return _exploded(text, call, [text.segment(one) for one in arguments] + [added])
    return text.cut(last_end, last_end, f", {added}")


def _exploded(text: SourceText, call: ast.Call, arguments: list[str]) -> str:
    """The file with a call that had no room on its line at one argument a line."""
    outer = text.indent(call)
    lines = "".join(f"{outer}{' ' * INDENT}{one},{text.newline}" for one in arguments)
    function = text.segment(call.func)
    return text.replaced(call, f"{function}({text.newline}{lines}{outer})")
