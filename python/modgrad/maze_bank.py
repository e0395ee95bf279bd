"""Mazes to train on, by step: made as they are needed, or from a bank on disk.

    mazes = Stream(size=21, layout="open", seed=0, route_length=20)
    mazes = Bank.load(Path("bank.npz"), size=21, route_length=20)
    batch = mazes.draw(step, 32)

What a step is given depends on (seed, step) alone, so a resumed run sees what an
uninterrupted one would have seen. A bank holds walls, start and goal; routes are
solved as they are drawn.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modgrad import _core
from modgrad.errors import DataError, MazeError
from modgrad.mazes import Algorithm, Layout, Mazes, generate

FIELDS = {"size": 0, "walls": 2, "start": 1, "goal": 1}  # of a bank, with their axes
MOST_PIXELS = 1 << 32  # of a bank that is read
CHECKED_AT_ONCE = 1024


class Source(Protocol):
    """Where mazes of `size` pixels a side and routes of `route_length` steps come from."""

    size: int
    route_length: int

    def draw(self, step: int, count: int) -> Mazes:
        """The mazes of a step."""

    def describe(self) -> dict[str, object]:
        """What must be the same for a run to be resumed."""


@dataclass(frozen=True)
class Stream:
    """New mazes at every step, from the generator."""

    size: int = 21
    layout: Layout = "open"
    algorithm: Algorithm = "dfs"
    loops: float = 0.0
    seed: int = 0
    route_length: int = 20
    threads: int = 1

    def draw(self, step: int, count: int) -> Mazes:
        """As `Source.draw`."""
        return generate(
            count,
            size=self.size,
            layout=self.layout,
            algorithm=self.algorithm,
            loops=self.loops,
            seed=self.seed,
            first=step * count,
            route_len=self.route_length,
            threads=self.threads,
        )

    def describe(self) -> dict[str, object]:
        """As `Source.describe`."""
        kind = {"layout": self.layout, "algorithm": self.algorithm, "loops": self.loops}
        return {**kind, "bank": None}


@dataclass(frozen=True)
class Bank:
    """Mazes that were kept, in random order, turned and mirrored where `symmetric`."""

    walls: NDArray[np.uint8]
    """[N, S, S]: 1 is wall."""
    ends: NDArray[np.int32]
    """[N, 2]: the pixels row·S + column of start and goal."""
    route_length: int = 20
    seed: int = 0
    symmetric: bool = True
    """Not for the layout "corner": its mazes would leave their corners."""

    @property
    def size(self) -> int:
        """Pixels a side."""
        return int(self.walls.shape[1])

    def draw(self, step: int, count: int) -> Mazes:
        """As `Source.draw`: every maze once before any comes again."""
        chosen = self._order(step * count, count)
        walls, ends = self.walls[chosen], self.ends[chosen]
        if self.symmetric:
            walls, ends = turned(walls, ends, np.random.default_rng((self.seed, step, 1)))
        return solve(walls, ends, self.route_length)

    def _order(self, first: int, count: int) -> NDArray[np.int64]:
        """The mazes number `first` … of a row of shuffled banks."""
        total = len(self.walls)
        numbers = np.arange(first, first + count)
        rounds = {
            one: np.random.default_rng((self.seed, one)).permutation(total)
            for one in range(first // total, (first + count - 1) // total + 1)
        }
        return np.array([rounds[n // total][n % total] for n in numbers.tolist()], np.int64)

    def describe(self) -> dict[str, object]:
        """As `Source.describe`."""
        digest = hashlib.sha256(self.walls.tobytes() + self.ends.tobytes()).hexdigest()
        return {"bank": digest[:16], "symmetric": self.symmetric}

    @classmethod
    def of(cls, mazes: Mazes) -> Bank:
        """What of `mazes` a bank keeps."""
        colours = mazes.pixels.astype(np.uint8)
        red, green, blue = colours[:, 0], colours[:, 1], colours[:, 2]
        flat = (len(colours), -1)
        start = (red & ~green & 1).reshape(flat).argmax(1)
        goal = (green & ~red & 1).reshape(flat).argmax(1)
        return cls(1 - (red | green | blue), np.stack([start, goal], 1).astype(np.int32))

    def save(self, path: Path) -> None:
        """Writes the bank in one piece, or leaves what was there."""
        fields = {
            "size": np.int32(self.size),
            "walls": np.packbits(self.walls.reshape(len(self.walls), self.size**2), axis=1),
            "start": self.ends[:, 0],
            "goal": self.ends[:, 1],
        }
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, **fields)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        size: int | None = None,
        route_length: int = 20,
        seed: int = 0,
        symmetric: bool = True,
        threads: int = 1,
    ) -> Bank:
        """Reads a bank; raises `DataError` for what is none, of another size, empty, or
        holds a maze that is impossible."""
        fields = _read(path)
        side = int(fields["size"])
        if size is not None and side != size:
            raise DataError(
                f"{path}: holds mazes of {side}x{side} pixels, not of {size}x{size}; "
                f"say --size {side}, or generate another"
            )
        count = len(fields["walls"])
        if count == 0:
            raise DataError(f"{path}: holds no mazes")
        row = -(-side * side // 8)
        lengths = {len(fields["start"]), len(fields["goal"])}
        if side < 1 or fields["walls"].shape[1] != row or lengths != {count}:
            raise DataError(f"{path}: its fields do not fit together; generate it again")
        if count * side * side > MOST_PIXELS:
            raise DataError(f"{path}: {count} mazes of {side}x{side} pixels are too many to hold")
        walls = np.unpackbits(fields["walls"], axis=1, count=side * side).reshape(-1, side, side)
        ends = np.stack([fields["start"], fields["goal"]], 1)
        for first in range(0, count, CHECKED_AT_ONCE):
            part = slice(first, first + CHECKED_AT_ONCE)
            try:
                solve(walls[part], ends[part], 1, threads)
            except MazeError as error:
                whole = str(error)
                if whole.startswith("maze "):
                    index, reason = whole.removeprefix("maze ").split(":", 1)
                    whole = f"maze {first + int(index)}:{reason}"
                raise DataError(f"{path}: {whole}") from None
        return cls(walls, ends, route_length, seed, symmetric)


def solve(
    walls: NDArray[np.uint8], ends: NDArray[np.int32], route_length: int, threads: int = 1
) -> Mazes:
    """Mazes with their routes, from walls [N, S, S] and ends [N, 2]."""
    arrays = _core.solve_mazes(walls, ends, route_len=route_length, threads=threads)
    return Mazes(**arrays)


def turned(
    walls: NDArray[np.uint8], ends: NDArray[np.int32], generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Each maze in one of the eight positions of a square, at random."""
    size = walls.shape[1]
    walls = walls.copy()
    row, column = ends // size, ends % size
    flip, mirror, swap = generator.integers(0, 2, (3, len(walls))).astype(bool)
    walls[flip] = walls[flip][:, ::-1]
    row[flip] = size - 1 - row[flip]
    walls[mirror] = walls[mirror][:, :, ::-1]
    column[mirror] = size - 1 - column[mirror]
    walls[swap] = walls[swap].transpose(0, 2, 1)
    row[swap], column[swap] = column[swap], row[swap].copy()
    return walls, (row * size + column).astype(np.int32)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.exists():
        raise DataError(f"{path}: no such file; `python -m modgrad.mazes generate` makes one")
    if not path.is_file():
        raise DataError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            # A zip by its first bytes: numpy would read other things as well.
            if file.read(2) != b"PK":
                raise DataError(f"{path}: not a bank of mazes (.npz)")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                missing = [name for name in FIELDS if name not in archive.files]
                if missing:
                    raise DataError(f"{path}: not a bank of mazes: it has no {', '.join(missing)}")
                fields: dict[str, NDArray[Any]] = {name: archive[name] for name in FIELDS}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged or cut short ({reason})") from None
    for name, axes in FIELDS.items():
        if fields[name].ndim != axes or fields[name].dtype.kind not in "iu":
            raise DataError(f"{path}: its field {name} is not what a bank holds; generate it again")
    if fields["walls"].dtype != np.uint8:
        raise DataError(f"{path}: its walls are not bits; generate it again")
    for name in ("start", "goal"):
        most = np.iinfo(np.int32).max
        fields[name] = np.clip(fields[name], -1, most).astype(np.int32)
    return fields
