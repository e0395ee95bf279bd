"""Moves of the architecture: parts in front of, around and behind a stack of blocks.

What they look for is a class whose `__init__` makes a list of blocks, and whose
method runs a variable through it; every part begins as a neutral one, so that
the model is at first what it was.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from modgrad.autoresearch.researchers.sources import Sources, SourceText

Edit = Callable[[Sources], "dict[str, str] | None"]

SMEAR = ["self.smear = nn.Embedding(4, config.width, deviation=0.0)"]
SCAN = [
    "self.keep = nn.Linear(config.width, config.width)",
    "self.carried = nn.Linear(config.width, config.width, gain=0.0)",
]


@dataclass(frozen=True)
class _Stack:
    """A method that runs a variable through `self.blocks`."""

    text: SourceText
    made: ast.stmt  # in `__init__`, where the blocks are made
    method: ast.FunctionDef
    loop: ast.For
    variable: str
    inputs: str  # the method's first argument

    def with_part(self, made: list[str], before: list[str]) -> str:
        """The file with statements behind the making of the blocks, and others in
        front of the loop over them."""
        made = [line.format(x=self.variable) for line in made]
        before = [line.format(x=self.variable) for line in before]
        block = "".join(
            f"{line}{self.text.newline}{self.text.indent(self.loop)}" for line in before
        )
        at = self.text.span(self.loop)[0]
        edited = SourceText(self.text.path, self.text.cut(at, at, block))
        return edited.after(self.made, made) if self.made.lineno < self.loop.lineno else ""

    def result(self) -> ast.Call | None:
        """`self.head(x)` in what the method returns in the end."""
        head = f"self.head({self.variable})"
        calls = (one for one in ast.walk(self.method.body[-1]) if isinstance(one, ast.Call))
        return next((one for one in calls if ast.unparse(one) == head), None)


def _stack(sources: Sources) -> _Stack | None:
    """The last one: forms of a model stand in a file from the plain to the full."""
    found = None
    for path, source in sources.items():
        text = SourceText(path, source)
        for owner in text.tree.body:
            if not isinstance(owner, ast.ClassDef):
                continue
            methods = {one.name: one for one in owner.body if isinstance(one, ast.FunctionDef)}
            made = {
                ast.unparse(one.targets[0]): one
                for one in getattr(methods.get("__init__"), "body", [])
                if isinstance(one, ast.Assign)
            }
            for method in methods.values():
                for loop in method.body:
                    if not isinstance(loop, ast.For) or ast.unparse(loop.iter) not in made:
                        continue
                    step = loop.body[0]
                    if isinstance(step, ast.Assign) and len(method.args.args) > 1:
                        variable = ast.unparse(step.targets[0])
                        at = made[ast.unparse(loop.iter)]
                        inputs = method.args.args[1].arg
                        found = _Stack(text, at, method, loop, variable, inputs)
    return found


def in_front(made: list[str], before: list[str]) -> Edit:
    """A new part of the model, applied before the blocks."""

    def edit(sources: Sources) -> dict[str, str] | None:
        stack = _stack(sources)
        if stack is None:
            return None
        text = stack.text
        part = made[0].partition(" =")[0]
        needed = [name for name in ("config.width", "make_norm(config)") if name in str(made)]
        if f"{part} =" in text.text or any(name not in text.text for name in needed):
            return None
        if not {"nn", "F"} <= imported(text):
            return None
        edited = stack.with_part(made, before)
        return {**sources, text.path: edited} if edited else None

    return edit


def add_skip(sources: Sources) -> dict[str, str] | None:
    """What enters the blocks is added once more behind them."""
    stack = _stack(sources)
    if stack is None or "entering" in stack.text.text:
        return None
    at = stack.text.span(stack.loop)
    indent = f"{stack.text.newline}{stack.text.indent(stack.loop)}"
    loop = stack.text.segment(stack.loop)
    x = stack.variable
    lines = [f"entering = {x}", loop, f"{x} = {x} + entering"]
    return {**sources, stack.text.path: stack.text.cut(*at, indent.join(lines))}


def cap_logits(sources: Sources) -> dict[str, str] | None:
    stack = _stack(sources)
    call = stack.result() if stack is not None else None
    if stack is None or call is None:
        return None
    capped = f"({stack.text.segment(call)} * (1.0 / 15.0)).tanh() * 15.0"
    return {**sources, stack.text.path: stack.text.replaced(call, capped)}


def add_pairs(sources: Sources) -> dict[str, str] | None:
    """A table of what follows each byte, added to the logits."""
    stack = _stack(sources)
    call = stack.result() if stack is not None else None
    if stack is None or call is None or not {"nn", "VOCABULARY"} <= imported(stack.text):
        return None
    result = f"{stack.text.segment(call)} + self.pairs({stack.inputs})"
    edited = SourceText(stack.text.path, stack.text.replaced(call, result))
    part = "self.pairs = nn.Embedding(VOCABULARY, VOCABULARY, deviation=0.0)"
    if stack.made.lineno > call.lineno or "self.pairs" in stack.text.text:
        return None
    return {**sources, stack.text.path: edited.after(stack.made, [part])}


def aliases(text: SourceText) -> list[tuple[ast.alias, str | None]]:
    found = [node for node in text.tree.body if isinstance(node, ast.ImportFrom)]
    return [(alias, node.module) for node in found for alias in node.names]


def imported(text: SourceText) -> set[str]:
    names = {alias.asname or alias.name for alias, _ in aliases(text)}
    return names | {
        node.targets[0].id
        for node in text.tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
