"""Validation text where it has no business: in a candidate's code or program.

A run of 48 bytes of the validation text that stands in what the candidate wrote,
and not in the training data too, was put there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modgrad.checkpoint import Checkpoint
from modgrad.overlap import GRAM, gram_hashes

RUN = 48  # bytes
_BLOCK = 1 << 20


def find_leak(
    val: bytes, train: Sequence[Path], sources: Sequence[Path], trained: Checkpoint
) -> str | None:
    """Where a run of `val` stands, or None."""
    known = np.unique(gram_hashes(np.frombuffer(val, np.uint8))) if len(val) >= RUN else None
    for name, text in _texts(sources, trained):
        if known is None or len(text) < RUN:
            continue
        for at in _alike(text, known):
            run = text[at : at + RUN]
            if len(run) == RUN and run in val and not _stands_in(run, train):
                return (
                    f"{RUN} bytes of the validation text at offset {val.index(run)} stand in {name}"
                )
    return None


def _alike(text: bytes, known: NDArray[np.uint64]) -> Iterator[int]:
    """Where the text's first bytes may be of `known`, by their hash."""
    for start in range(0, len(text), _BLOCK):
        block = text[start : start + _BLOCK + GRAM - 1]
        if len(block) >= GRAM:
            hashes = gram_hashes(np.frombuffer(block, np.uint8))
            yield from (start + int(at) for at in np.flatnonzero(np.isin(hashes, known)))


def _texts(sources: Sequence[Path], trained: Checkpoint) -> Iterator[tuple[str, bytes]]:
    """Everything that a candidate wrote, by name."""
    for path in sources:
        content = path.read_bytes()
        yield path.name, content
        if path.suffix == ".py":
            yield from ((f"a literal of {path.name}", text) for text in _literals(content))
    for name, program in trained.programs.items():
        yield f"the program `{name}`", program.to_json().encode()
    for name, weights in trained.weights.items():
        if np.issubdtype(weights.dtype, np.integer):
            # A byte to each number, or several packed into one.
            yield f"the tensor `{name}`", weights.astype(np.uint8).tobytes()
            if weights.dtype.itemsize > 1:
                yield f"the tensor `{name}`", weights.tobytes()


def _literals(source: bytes) -> Iterator[bytes]:
    """Strings as they are meant, not as they are spelt."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.encode("utf-8", "surrogateescape")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            yield node.value


def _stands_in(run: bytes, train: Sequence[Path]) -> bool:
    for path in train:
        tail = b""
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                if run in tail + block:
                    return True
                tail = block[-RUN:]
    return False
