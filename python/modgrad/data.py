"""Bytes for training: files read whole, windows cut at random."""

from __future__ import annotations

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


class Windows:
    """Random windows of a byte stream, the same for the same seed and step.

    A draw depends on (seed, step) alone, so a resumed run sees what an
    uninterrupted one would have seen.
    """

    def __init__(self, data: Bytes, batch: int, length: int, seed: int) -> None:
        if data.size < length + 1:
            raise DataError(
                f"the data has {data.size} bytes; a window needs {length + 1} (see --context)"
            )
        self.data, self.batch, self.length, self.seed = data, batch, length, seed
        self._within = np.arange(length + 1)

    def starts(self, step: int) -> NDArray[np.int64]:
        """Where the windows of a step begin: at random in each of `batch` equal
        stretches of the data, so that a batch mixes many documents."""
        generator = np.random.default_rng((self.seed, step))
        last = self.data.size - self.length - 1
        stretch = (last + 1) / self.batch
        offsets = (np.arange(self.batch) + generator.random(self.batch)) * stretch
        return np.minimum(offsets.astype(np.int64), last)

    def at(self, starts: NDArray[np.int64]) -> tuple[Bytes, Bytes]:
        """(tokens, targets) u8[B, T] of the windows that begin at `starts`."""
        windows = self.data[starts[:, None] + self._within]
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])

    def draw(self, step: int) -> tuple[Bytes, Bytes]:
        """(tokens, targets) u8[B, T] for a step."""
        return self.at(self.starts(step))
