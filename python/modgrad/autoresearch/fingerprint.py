"""What a candidate means, comments and layout aside: to know an idea again.

Two candidates with the same fingerprint train the same way, so the second need
not run. With seeds masked, a mere change of seed is recognised too.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SEED_WORDS = frozenset({"seed", "seeds", "rng"})
_GENERATORS = frozenset({"Random", "PCG64", "PCG64DXSM", "Philox", "SFC64", "MT19937"})
# What may follow such a word in a name that still stands for a seed.
_SEED_ENDINGS = frozenset({"offset", "base", "value", "number", "sequence", "state"})
# Arithmetic by which different numbers may become one: `step // 2` draws the same
# noise twice. By a large number it only scrambles, as in `seed * 31 % 2**32`.
_MERGING = (ast.FloorDiv, ast.Mod, ast.RShift, ast.BitAnd, ast.Div)
_LARGE = 1 << 16
_RUST = re.compile(
    r"""(?P<literal>r(?P<hashes>\#*)".*?"(?P=hashes)|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])')"""
    r"""|(?:\s|//[^\n]*|/\*.*?\*/)+""",
    re.DOTALL,
)


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
        try:
            _drop_docstrings(tree)
            if mask_seeds:
                tree = _SeedMask().visit(tree)
            if mask_numbers:
                for node in ast.walk(tree):
                    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
                        node.value = 0
            return ast.dump(tree)
        except (RecursionError, ValueError, MemoryError):
            return text  # nested deeper than can be walked, or a number too long to be written
    if path.endswith(".rs"):
        # In a literal, neither slashes nor spaces are layout.
        return _RUST.sub(lambda found: found["literal"] or " ", text).strip()
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
    """Replaces the numbers of whatever is named after a seed by one number, and
    drops what only seeds anew."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Call) and _is_seed(_name(node.value.func)):
            return None  # random.seed(7)
        return self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST | None:
        return None if _is_seed(_name(node.target)) else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        self.generic_visit(node)
        for target in node.targets:
            if _is_seed(_name(target)):
                value = _masked(node.value)
                return None if value.value == f"seed {_name(target)}" else _with(node, value)
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
                node.value.elts = [_masked(v) if _is_seed(_name(t)) else v for t, v in pairs]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None and _is_seed(_name(node.target)):
            node.value = _masked(node.value)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        self.generic_visit(node)
        if _is_seed(node.arg or ""):
            node.value = _masked(node.value)
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        self.generic_visit(node)
        named = node.posonlyargs + node.args
        plain = list(zip(reversed(named), reversed(node.defaults), strict=False))
        for index, (argument, default) in enumerate(plain):
            if _is_seed(argument.arg):
                node.defaults[len(node.defaults) - 1 - index] = _masked(default)
        for index, (argument, given) in enumerate(
            zip(node.kwonlyargs, node.kw_defaults, strict=True)
        ):
            if given is not None and _is_seed(argument.arg):
                node.kw_defaults[index] = _masked(given)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _is_seed(_name(node.func)):
            # One mask for all: (seed, step) may be one argument, two, or have a third.
            node.args = [_masked(ast.Tuple(node.args, ast.Load()))]
        else:
            # A seed handed on by position, as in Windows(data, batch, time, seed + 1).
            node.args = [_masked(a) if _arithmetic_on_seed(a) else a for a in node.args]
        return node


def _with(node: ast.Assign, value: ast.expr) -> ast.Assign:
    node.value = value
    return node


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else str(getattr(node, "attr", ""))


def _is_seed(name: str) -> bool:
    """Whether a name stands for a seed or what is made from one: `data_seed`,
    `manual_seed`, `default_rng`, `SeedSequence`; not `seeded_rows` or `seed_length`."""
    words = [word.lower() for word in _WORD.findall(name) if not word.isdigit()]
    if words[:1] == ["random"] and words[1:] == ["state"]:
        return True
    if len(words) > 1 and words[-1] in _SEED_ENDINGS:
        words.pop()
    return name in _GENERATORS or (bool(words) and words[-1] in _SEED_WORDS)


def _arithmetic_on_seed(node: ast.AST) -> bool:
    return isinstance(node, (ast.BinOp, ast.Name, ast.Attribute)) and any(
        _is_seed(_name(part)) for part in ast.walk(node)
    )


def _masked(node: ast.expr) -> ast.Constant:
    """The names that an expression mentions, without the numbers and operators
    that only move the seed."""
    kept = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    kept -= {"int", "hash", "abs", "pow"}
    for part in ast.walk(node):
        if isinstance(part, ast.BinOp) and isinstance(part.op, _MERGING):
            by = part.right
            number = by.value if isinstance(by, ast.Constant) else None
            if isinstance(number, (int, float)) and abs(number) < _LARGE:
                kept.add(f"{type(part.op).__name__}{number}")
    return ast.Constant(value=" ".join(["seed", *sorted(kept)]))
