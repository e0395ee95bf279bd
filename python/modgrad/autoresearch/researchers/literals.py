"""Literal values of source text: read without running it, written in its style.

`1 << 18`, `1e-3`, `10_000` and `(2, 3, 4)` are values; written anew, a number
keeps the form that its author chose.
"""

from __future__ import annotations

import ast
import math
from typing import TypeAlias

Value: TypeAlias = bool | int | float | str | tuple[int, ...] | tuple[str, ...]

# Larger numbers are nobody's argument; they would only cost time.
_LARGEST_POWER = 62


def value_of(node: ast.expr) -> Value | None:
    """The value of a literal expression; None where it is not one of ours."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | int | float | str) else None
    if isinstance(node, ast.Tuple):
        items = [value_of(item) for item in node.elts]
        if all(isinstance(item, str) for item in items):
            return tuple(str(item) for item in items)
        if all(type(item) is int for item in items):
            return tuple(item for item in items if isinstance(item, int))
        return None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(node.operand)
        return None if value is None else -value
    return _number(node)


def value_from(text: str) -> Value | None:
    """The value of a literal's text; None where it is not one."""
    try:
        return value_of(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def written_as(value: Value, like: str) -> str:
    """The source text of `value`, in the style of the text that it replaces."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return _quoted(value, like)
    if isinstance(value, tuple):
        items = [_quoted(one, like) if isinstance(one, str) else str(one) for one in value]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if isinstance(value, float):
        return _decimal(value, like)
    if "<<" in like and value > 0 and value & (value - 1) == 0:
        return f"1 << {value.bit_length() - 1}"
    return f"{value:_}" if "_" in like else str(value)


def _number(node: ast.expr) -> int | float | None:
    if isinstance(node, ast.Constant):
        value = node.value
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return value if is_number else None  # type: ignore[return-value]
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _number(node.left), _number(node.right)
    if left is None or right is None:
        return None
    whole = isinstance(left, int) and isinstance(right, int)
    if isinstance(node.op, ast.Mult):
        return left * right
    if isinstance(left, int) and isinstance(right, int) and 0 <= right <= _LARGEST_POWER:
        if isinstance(node.op, ast.LShift):
            return left << right
        if isinstance(node.op, ast.Pow) and abs(left) <= 16:
            power: int = left**right
            return power
    if isinstance(node.op, ast.Div) and right and not whole:
        return left / right
    return None


def _quoted(value: str, like: str) -> str:
    quote = "'" if "'" in like and '"' not in like else '"'
    plain = value.isprintable() and quote not in value and "\\" not in value
    return f"{quote}{value}{quote}" if plain else repr(value)


def _decimal(value: float, like: str) -> str:
    """Shortest text that reads back as `value`; with an exponent where the old
    text had one."""
    plain = repr(value)
    if "e" not in like.lower() or value == 0.0 or not math.isfinite(value):
        return plain
    exponent = math.floor(math.log10(abs(value)))
    for digits in range(17):
        mantissa = f"{value:.{digits}e}".split("e")[0]
        text = f"{mantissa}e{exponent}"
        if float(text) == value:
            return text
    return plain
