"""Structural moves: changes of a training file that are more than one number.

A move looks for what it needs in the tree of the source (a stack of blocks that
a method runs through, an optimiser of the matrices, a call of a schedule) and
edits the text there, or says that it does not apply. None is written for a
particular model; each is one function and one row of `MOVES`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from modgrad.autoresearch.errors import ResearcherError
from modgrad.autoresearch.researchers.blocks import (
    SCAN,
    SMEAR,
    Edit,
    add_pairs,
    add_skip,
    aliases,
    cap_logits,
    in_front,
)
from modgrad.autoresearch.researchers.literals import Value
from modgrad.autoresearch.researchers.sources import (
    Sources,
    SourceText,
    add_keyword,
    call_name,
    fits,
)
from modgrad.autoresearch.researchers.tunables import Tunable, read, write


@dataclass(frozen=True)
class Move:
    """A change with a name, for the journal and for people."""

    name: str
    family: str
    message: str
    edit: Edit
    chance: float = 0.12  # that it is kept, as guessed before any was tried

    def apply(self, sources: Sources) -> dict[str, str] | None:
        """The edited sources; None where the move does not apply."""
        try:
            edited = self.edit(sources)
        except (ResearcherError, KeyError):
            return None
        if edited is None or edited == dict(sources) or not fits(sources, edited):
            return None
        return edited


def moves(sources: Sources) -> list[Move]:
    """The moves of the table, and one for each part that can be left out."""
    parts = [one for one in read(sources) if one.optional and one.value]
    return [*MOVES, *map(_without, parts)]


# ---- schedules and optimisers ------------------------------------------------


def _cosine(sources: Sources) -> dict[str, str] | None:
    for path, source in sources.items():
        text = SourceText(path, source)
        calls = _schedules(text)
        if len(calls) != 1 or call_name(calls[0]) == "cosine" or not calls[0].args:
            continue
        old = ast.unparse(calls[0].func)
        edited = text.replaced(calls[0], f"cosine({text.segment(calls[0].args[0])})")
        for alias, module in aliases(SourceText(path, edited)):
            if module == "modgrad.schedule" and alias.name == old and alias.asname is None:
                return {**sources, path: SourceText(path, edited).replaced(alias, "cosine")}
    return None


def _schedule_keyword(name: str, value: str) -> Edit:
    def edit(sources: Sources) -> dict[str, str] | None:
        for path, source in sources.items():
            text = SourceText(path, source)
            for call in _schedules(text):
                if all(word.arg != name for word in call.keywords):
                    return {**sources, path: add_keyword(text, call, name, value)}
        return None

    return edit


def _muon(sources: Sources) -> dict[str, str] | None:
    """The matrices' optimiser, with the weight decay that it has."""
    for path, source in sources.items():
        text = SourceText(path, source)
        for call in _calls(text.tree):
            first = ast.unparse(call.args[0]) if call.args else ""
            if call_name(call) != "AdamW" or not re.search("matri", first):
                continue
            decay = [text.segment(one) for one in call.keywords if one.arg == "weight_decay"]
            arguments = ", ".join([first, "learning_rate=0.02", *decay])
            function = text.segment(call.func).removesuffix("AdamW") + "Muon"
            if "." in function:  # a name imported by itself is not there to be used
                return {**sources, path: text.replaced(call, f"{function}({arguments})")}
    return None


# ---- sizes that go together --------------------------------------------------


def _windows(longer: bool) -> Edit:
    """Longer windows and fewer, or the reverse, with as many positions a step."""

    def edit(sources: Sources) -> dict[str, str] | None:
        numbers = {one.name: one for one in read(sources)}
        batch, time = numbers.get("batch"), numbers.get("time") or numbers.get("length")
        if batch is None or time is None:
            return None
        halved, doubled = (batch, time) if longer else (time, batch)
        if not isinstance(halved.value, int) or not isinstance(doubled.value, int):
            return None
        if halved.value % 2:
            return None
        sizes: dict[str, Value] = {
            halved.key: halved.value // 2,
            doubled.key: doubled.value * 2,
        }
        return write(sources, sizes)

    return edit


def _without(tunable: Tunable) -> Move:
    def edit(sources: Sources) -> dict[str, str] | None:
        present = {one.key: one.value for one in read(sources)}
        return write(sources, {tunable.key: ()}) if present[tunable.key] else None

    message = f"leave {tunable.name} out: a simpler model with cheaper steps"
    return Move(f"without-{tunable.name}", "simplification", message, edit, 0.05)


# ---- small readers of trees --------------------------------------------------


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _schedules(text: SourceText) -> list[ast.Call]:
    names = text.names_of("modgrad.schedule")
    return [call for call in _calls(text.tree) if ast.unparse(call.func).split(".")[0] in names]


MOVES: tuple[Move, ...] = (
    Move("muon", "optimiser", "Muon for the matrices instead of AdamW", _muon, 0.08),
    Move("cosine", "schedule", "a cosine instead of a straight cooldown", _cosine, 0.1),
    Move(
        "final-rate",
        "schedule",
        "stop the rates at a twentieth, so that the last steps still count",
        _schedule_keyword("final", "0.05"),
    ),
    Move(
        "warmup",
        "schedule",
        "a warmup of another length: 5 % of the budget",
        _schedule_keyword("warmup", "0.05"),
        0.06,
    ),
    Move(
        "shorter-windows",
        "data order",
        "twice as many windows of half the length: a batch of more different text",
        _windows(longer=False),
        0.15,
    ),
    Move(
        "longer-windows",
        "data order",
        "half as many windows of twice the length: more context at the same cost",
        _windows(longer=True),
        0.1,
    ),
    Move(
        "entry-norm",
        "architecture",
        "norm what enters the blocks, so that its parts weigh alike",
        in_front(["self.entry = make_norm(config)"], ["{x} = self.entry({x})"]),
    ),
    Move(
        "smear",
        "architecture",
        "mix the last four positions before the blocks, one weight a channel",
        in_front(SMEAR, ["{x} = {x} + F.causal_convolution({x}, self.smear.table)"]),
        0.15,
    ),
    Move(
        "scan",
        "architecture",
        "carry a gated summary of the whole window into the blocks",
        in_front(
            SCAN,
            [
                "keep = self.keep({x}).sigmoid()",
                "{x} = {x} + F.linear_scan(keep, (1.0 - keep) * self.carried({x}))",
            ],
        ),
        0.15,
    ),
    Move("skip", "architecture", "add what enters the blocks again behind them", add_skip),
    Move("soft-cap", "regularisation", "cap the logits softly at 15", cap_logits, 0.08),
    Move(
        "pairs",
        "architecture",
        "a table of what follows each byte, added to the logits",
        add_pairs,
    ),
)
