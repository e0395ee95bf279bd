"""What a candidate means, comments and layout aside: to know an idea again.

Two candidates with the same fingerprint train the same way, so the second need
not run. With seeds masked, a mere change of seed is recognised too.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping

_SEED = re.compile(r"seed|rng|default_rng|random_state", re.IGNORECASE)
_RUST_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def fingerprint(
    files: Mapping[str, bytes], *, mask_seeds: bool = False, mask_numbers: bool = False
) -> str:
    """One digest over the meaning of files by path; with masks, of what is left of
    it when seeds, or all numbers, are taken for the same."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(
            _meaning(path, files[path], mask_seeds, mask_numbers).encode("utf-8", "replace") + b"\0"
        )
    return digest.hexdigest()


def lines_of_code(files: Mapping[str, bytes]) -> int:
    """Lines that are neither blank nor all comment: the measure of simplicity."""
    count = 0
    for content in files.values():
        for line in content.decode("utf-8", "replace").splitlines():
            stripped = line.strip()
            count += bool(stripped) and not stripped.startswith(("#", "//"))
    return count


def _meaning(path: str, content: bytes, mask_seeds: bool, mask_numbers: bool) -> str:
    text = content.decode("utf-8", "surrogateescape")
    if path.endswith(".py"):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return text
        _drop_docstrings(tree)
        if mask_seeds:
            tree = _SeedMask().visit(tree)
        if mask_numbers:
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and type(node.value) in (int, float):
                    node.value = 0
        return ast.dump(tree)
    if path.endswith(".rs"):
        return " ".join(_RUST_COMMENT.sub(" ", text).split())
    return text


def _drop_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        # A string that stands alone says something to readers only.
        node.body = [  # type: ignore[attr-defined]
            statement
            for statement in body
            if not (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            )
        ]


class _SeedMask(ast.NodeTransformer):
    """Replaces the numbers of whatever is named after a seed by one number."""

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if any(_about_seed(target) for target in node.targets):
            node.value = _masked(node.value)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None and _about_seed(node.target):
            node.value = _masked(node.value)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        self.generic_visit(node)
        if node.arg and _SEED.search(node.arg):
            node.value = _masked(node.value)
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        self.generic_visit(node)
        named = node.posonlyargs + node.args
        plain = list(zip(reversed(named), reversed(node.defaults), strict=False))
        for index, (argument, default) in enumerate(plain):
            if _SEED.search(argument.arg):
                node.defaults[len(node.defaults) - 1 - index] = _masked(default)
        for index, (argument, given) in enumerate(
            zip(node.kwonlyargs, node.kw_defaults, strict=True)
        ):
            if given is not None and _SEED.search(argument.arg):
                node.kw_defaults[index] = _masked(given)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _about_seed(node.func):
            node.args = [_masked(argument) for argument in node.args]
        else:
            # A seed handed on by position, as in Windows(data, batch, time, seed + 1).
            node.args = [_masked(a) if _arithmetic_on_seed(a) else a for a in node.args]
        return node


def _about_seed(node: ast.AST) -> bool:
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return bool(_SEED.search(name))


def _arithmetic_on_seed(node: ast.AST) -> bool:
    return isinstance(node, (ast.BinOp, ast.Name, ast.Attribute)) and any(
        _about_seed(part) for part in ast.walk(node)
    )


def _masked(node: ast.expr) -> ast.expr:
    """The names that an expression mentions, without its numbers and operators."""
    names = sorted(
        {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        - {"int", "hash", "abs", "pow"}
    )
    return ast.Constant(value=" ".join(["seed", *names]))
