"""The arguments that a training file offers to be turned: found, and rewritten.

The source is the only description there is, and `ast` the only reader of it:
nothing is imported or run, and no name of today's files is known here. Found are

- the fields of dataclasses that have a literal value. Where a table such as
  `PRESETS = {"name": Config(width=…)}` holds the instances, the one that a
  module-level `DEFAULT… = "name"` points to counts: its keyword, else the
  field's default; a field that it does not state is added to it when changed;
- decimal numbers given by keyword in any call (`gain=0.5`), and the local
  literals handed to a call of an optimiser (`betas = (0.9, 0.98)`).

An edit replaces the bytes of one value, so the rest of a file stays as it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modgrad.autoresearch.researchers.literals import Value, value_of, written_as
from modgrad.autoresearch.researchers.sources import (
    Sources,
    SourceText,
    add_keyword,
    call_name,
    trailing_comment,
)

_NEVER_EMPTY = "never empty"  # in the comment of a tuple that the model cannot do without
# `swiglu, geglu, gelu or relu_squared`: what a field's comment allows.
_CHOICES = re.compile(r"[\w-]+(?:, [\w-]+)*,? or [\w-]+")
_OPTIMISERS = "modgrad.optim"


@dataclass(frozen=True)
class Tunable:
    """One argument, and where its value stands."""

    path: str
    label: str  # `PRESETS['memory'].hidden`: unique within the file
    name: str  # `hidden`
    value: Value
    text: str  # the value as it is written
    comment: str = ""  # behind the field's definition
    choices: tuple[str, ...] = ()  # that the comment names
    node: ast.expr | None = field(default=None, compare=False, repr=False)
    # The call that the keyword is added to, where the value is a field's default.
    call: ast.Call | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> str:
        """What the journal calls it."""
        return f"{self.path}:{self.label}"

    @property
    def optional(self) -> bool:
        """Whether it is a tuple of parts that can all be left out."""
        return isinstance(self.value, tuple) and _NEVER_EMPTY not in self.comment


def read(sources: Sources) -> list[Tunable]:
    """Every tunable argument of the files, in order of their definition."""
    texts = {path: SourceText(path, source) for path, source in sources.items()}
    classes = {
        node.name: (path, node)
        for path, text in texts.items()
        for node in text.tree.body
        if isinstance(node, ast.ClassDef) and _is_dataclass(node)
    }
    tables = _instances(texts, set(classes))
    found: list[Tunable] = []
    for name, (path, definition) in classes.items():
        chosen, others = tables.get(name, (None, set()))
        for statement in definition.body:
            one = _field(texts, path, statement, chosen, others, name)
            if one is not None:
                found.append(one)
    for path, text in texts.items():
        found.extend(_call_literals(path, text, set(classes)))
    unique: dict[str, Tunable] = {}
    for one in found:
        unique.setdefault(one.key, one)
    return list(unique.values())


def write(sources: Sources, changes: Mapping[str, Value]) -> dict[str, str]:
    """The sources with the arguments of those keys set to new values.

    Raises `KeyError` for a key that is not there.
    """
    edited = dict(sources)
    for key, value in changes.items():
        # Anew each time: an edit moves what stands behind it.
        one = {tunable.key: tunable for tunable in read(edited)}[key]
        text = SourceText(one.path, edited[one.path])
        written = written_as(value, one.text)
        if one.call is not None:
            edited[one.path] = add_keyword(text, one.call, one.name, written)
        else:
            assert one.node is not None
            edited[one.path] = text.replaced(one.node, written)
    return edited


# ---- dataclasses and the tables of their instances ---------------------------

# Where the instance in use stands: path, the label of it, its call.
_Chosen = tuple[str, str, ast.Call]


def _instances(
    texts: Mapping[str, SourceText], classes: set[str]
) -> dict[str, tuple[_Chosen | None, set[str]]]:
    """For each dataclass: the instance in use, and, where that is not known,
    every field that some instance states."""
    defaults = {
        value.value
        for text in texts.values()
        for name, value in _assignments(text.tree)
        if name.startswith("DEFAULT")
        and isinstance(value, ast.Constant)
        and isinstance(value.value, str)
    }
    instances: dict[str, list[tuple[str | None, _Chosen]]] = {}
    for path, text in texts.items():
        for name, value in _assignments(text.tree):
            entries: list[tuple[str | None, str, ast.expr]] = [(None, name, value)]
            if isinstance(value, ast.Dict):
                entries = [
                    (key.value, f"{name}[{key.value!r}]", item)
                    for key, item in zip(value.keys, value.values, strict=True)
                    if isinstance(key, ast.Constant) and isinstance(key.value, str)
                ]
            for key, label, item in entries:
                if isinstance(item, ast.Call) and call_name(item) in classes:
                    instances.setdefault(call_name(item), []).append((key, (path, label, item)))
    result: dict[str, tuple[_Chosen | None, set[str]]] = {}
    for name, found in instances.items():
        wanted = [chosen for key, chosen in found if key in defaults]
        if len(wanted) == 1 or len(found) == 1:
            result[name] = ((wanted or [found[0][1]])[0], set())
        else:
            stated = {word.arg for _, (_, _, call) in found for word in call.keywords if word.arg}
            result[name] = (None, stated)
    return result


def _field(
    texts: Mapping[str, SourceText],
    path: str,
    statement: ast.stmt,
    chosen: _Chosen | None,
    others: set[str],
    class_name: str,
) -> Tunable | None:
    if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
        return None
    name = statement.target.id
    if name in others or name.startswith("_"):
        return None  # which of the instances is used, nobody knows
    comment = trailing_comment(texts[path], statement)
    choices = _choices(comment)
    node, home, label, call = statement.value, path, f"{class_name}.{name}", None
    if chosen is not None:
        holder, instance, created = chosen
        label = f"{instance}.{name}"
        stated = [word.value for word in created.keywords if word.arg == name]
        if created.args or any(word.arg is None for word in created.keywords):
            return None  # positional or unpacked values: not to be guessed
        if stated:
            node, home = stated[0], holder
        else:
            call, home = created, holder
    value = None if node is None else value_of(node)
    if node is None or value is None:
        return None
    written = texts[path if call is not None else home].segment(node)
    return Tunable(home, label, name, value, written, comment, choices, node, call)


def _choices(comment: str) -> tuple[str, ...]:
    plain = comment.replace("`", "").replace('"', "").strip().rstrip(".")
    if not _CHOICES.fullmatch(plain):
        return ()
    return tuple(word for word in re.split(r",? or |, ", plain) if word)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name):
            yield target.id, value


def _is_dataclass(node: ast.ClassDef) -> bool:
    named = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
    return any(ast.unparse(one).rsplit(".", 1)[-1] == "dataclass" for one in named)


# ---- literals in calls -------------------------------------------------------


def _call_literals(path: str, text: SourceText, classes: set[str]) -> Iterator[Tunable]:
    """Decimal keywords of calls within functions, and what optimisers are given."""
    optimisers = text.names_of(_OPTIMISERS)
    for scope, function in _functions(text.tree):
        seen: dict[str, int] = {}
        given: set[str] = set()
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
            name = call_name(call)
            if name in classes or not name:
                continue
            seen[name] = seen.get(name, 0) + 1
            prefix = f"{scope}.{name}" + (f"[{seen[name]}]" if seen[name] > 1 else "")
            for word in call.keywords:
                if word.arg:
                    yield from _decimals(path, text, f"{prefix}.{word.arg}", word.arg, word.value)
            if ast.unparse(call.func).split(".")[0] in optimisers:
                arguments = [*call.args, *(word.value for word in call.keywords)]
                given |= {one.id for one in arguments if isinstance(one, ast.Name)}
        for name, value in _locals(function):
            if name in given:
                yield from _decimals(path, text, f"{scope}.{name}", name, value)


def _decimals(
    path: str, text: SourceText, label: str, name: str, node: ast.expr
) -> Iterator[Tunable]:
    if isinstance(node, ast.Tuple):
        for index, item in enumerate(node.elts):
            yield from _decimals(path, text, f"{label}[{index}]", f"{name}[{index}]", item)
        return
    value = value_of(node)
    if isinstance(value, float):
        yield Tunable(path, label, name, value, text.segment(node), node=node)


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Functions and methods with the path of their names; nested ones belong to
    the function around them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")


def _locals(function: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name):
            yield target.id, value
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for name, item in zip(target.elts, value.elts, strict=False):
                if isinstance(name, ast.Name):
                    yield name.id, item
