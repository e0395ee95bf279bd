"""How much of a held-out text stands in the training text.

Exact: a rolling hash finds candidates, and each is compared byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 20
GRAM = 32
VERBATIM_BYTES = 1024


@dataclass(frozen=True)
class Overlap:
    """What of val.txt occurs in train, at any offset.

    `gram_share`: of its distinct 32-byte strings, those that occur. `byte_coverage`: of its bytes,
    those inside such a string. `verbatim_share`: of its 32-grams, those in stretches of 1 KiB and
    more in which each one occurs; shared idioms and licence headers make no such stretches.
    """

    gram_share: float
    byte_coverage: float
    verbatim_share: float


def measure_overlap(train: BinaryIO, val: bytes) -> Overlap:
    """Read `train` to its end, in blocks, and look up each of its 32-grams in `val`."""
    if len(val) < GRAM:
        return Overlap(0.0, 0.0, 0.0)
    text = np.frombuffer(val, np.uint8)
    distinct, first, inverse = np.unique(gram_hashes(text), return_index=True, return_inverse=True)
    grams = sliding_window_view(text, GRAM)[first]
    # 2**22 flags for some 2**18 grams: one look dismisses 15 of 16 positions.
    shift = np.uint64(64 - 22)
    listed = np.zeros(1 << 22, np.bool_)
    listed[distinct >> shift] = True
    found = np.zeros(distinct.size, np.bool_)
    tail = b""
    while block := train.read(CHUNK_BYTES):
        block = tail + block
        tail = block[-(GRAM - 1) :]
        if len(block) < GRAM:
            continue
        text = np.frombuffer(block, np.uint8)
        hashes = gram_hashes(text)
        at = np.flatnonzero(listed[hashes >> shift])
        slot = np.minimum(np.searchsorted(distinct, hashes[at]), distinct.size - 1)
        alike = (distinct[slot] == hashes[at]) & ~found[slot]
        at, slot = at[alike], slot[alike]
        equal = (sliding_window_view(text, GRAM)[at] == grams[slot]).all(axis=1)
        found[slot[equal]] = True
    return Overlap(int(found.sum()) / distinct.size, *_coverage(found[inverse.ravel()]))


def _coverage(found: NDArray[np.bool_]) -> tuple[float, float]:
    """Byte coverage and verbatim share, given which positions of val begin a found gram."""
    starts = found.astype(np.int64)
    # +1 where a found gram begins, -1 behind its end: the running sum is above 0 inside one.
    edges = np.zeros(starts.size + GRAM, np.int64)
    edges[: starts.size] += starts
    edges[GRAM:] -= starts
    covered = int(np.count_nonzero(np.cumsum(edges)))
    turns = np.flatnonzero(np.diff(starts, prepend=0, append=0))
    runs = turns[1::2] - turns[::2]
    verbatim = int(runs[runs > VERBATIM_BYTES - GRAM].sum())
    return covered / (starts.size + GRAM - 1), verbatim / starts.size


def gram_hashes(text: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Of each 32 bytes, sum(byte[j] * base**(31 - j)) mod 2**64, by doubling: 1, 2, 4, ... 32."""
    hashes = text.astype(np.uint64)
    width, power = 1, 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd
    while width < GRAM:
        hashes = hashes[:-width] * np.uint64(power) + hashes[width:]
        width, power = 2 * width, power * power % 2**64
    return hashes
