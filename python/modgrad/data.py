"""Bytes for training: files read whole, windows cut at random."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modgrad.errors import DataError

Bytes = NDArray[np.uint8]


def read_bytes(paths: Sequence[Path | str]) -> Bytes:
    """All bytes of the given files, in the order given.

    Raises `DataError` for a path that is missing, is no regular file, or cannot
    be read, and where there are no bytes at all.
    """
    parts = []
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path}: no such file; `python -m isis prepare` makes a corpus")
        if not path.is_file():
            raise DataError(f"{path}: not a regular file")
        try:
            parts.append(np.fromfile(path, dtype=np.uint8))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except MemoryError:
            raise DataError(f"{path}: too large for this machine's memory") from None
    data = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    if data.size == 0:
        raise DataError(f"{', '.join(map(str, paths)) or 'no file'}: no bytes to read")
    return data


def fingerprint(data: Bytes) -> str:
    """What tells data from other data: how much of it there is, and a digest."""
    return f"{data.size} bytes, SHA-256 {hashlib.sha256(data.data).hexdigest()[:16]}"


class Windows:
    """Random windows of a byte stream, the same for the same seed and step.

    A draw depends on (seed, step) alone, so a resumed run sees what an
    uninterrupted one would have seen.
    """

    def __init__(
        self,
        data: Bytes,
        batch: int,
        length: int,
        seed: int,
        *,
        before: int = 0,
        after: int = 0,
        held_out: int = 0,
    ) -> None:
        """Windows of `length` bytes; tokens come with `before` and `after` bytes of the
        data around them. None that is drawn overlaps one of the `held_out` windows that
        are spread over the data, at most a quarter of it."""
        needed = before + length + max(after, 1)
        if data.size < needed:
            raise DataError(
                f"the data has {data.size} bytes; a window needs {needed} (see --context)"
            )
        self.data, self.batch, self.length, self.seed = data, batch, length, seed
        self.before, self.after = before, after
        starts = data.size - length - max(after, 1) + 1 - before
        stretch = starts / max(held_out, 1)
        if held_out and stretch < 4 * length:
            raise DataError(
                f"the data has {data.size} bytes: too few to hold out {held_out} windows"
            )
        self.held_out = before + ((np.arange(held_out) + 0.5) * stretch).astype(np.int64)
        # Where no window begins: those that would overlap one that is held out.
        self._gap = 2 * length - 1
        gaps = self.held_out - (length - 1) - before
        self._gaps = gaps - self._gap * np.arange(held_out)  # in starts that are left
        self._starts = starts - held_out * self._gap

    def starts(self, step: int) -> NDArray[np.int64]:
        """Where the windows of a step begin: at random in each of `batch` equal
        stretches of the data, so that a batch mixes many documents."""
        generator = np.random.default_rng((self.seed, step))
        stretch = self._starts / self.batch
        offsets = (np.arange(self.batch) + generator.random(self.batch)) * stretch
        starts = np.minimum(offsets.astype(np.int64), self._starts - 1)
        return self.before + starts + self._gap * np.searchsorted(self._gaps, starts, "right")

    def at(self, starts: NDArray[np.int64]) -> tuple[Bytes, Bytes]:
        """(tokens u8[B, before + T + after], targets u8[B, T]) of the windows that begin
        at `starts`."""
        tokens = [self.data[s - self.before : s + self.length + self.after] for s in starts]
        targets = [self.data[s + 1 : s + 1 + self.length] for s in starts]
        return np.stack(tokens), np.stack(targets)

    def draw(self, step: int) -> tuple[Bytes, Bytes]:
        """The tokens and targets of a step."""
        return self.at(self.starts(step))
