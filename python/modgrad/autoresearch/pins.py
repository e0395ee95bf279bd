"""Pinned data: copies of the training and validation text, and the hidden holdout; of
mazes, what they are made from."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.files import sha256_of, sync_folder
from modgrad.autoresearch.state import DataFile, MazeSet, Settings
from modgrad.overlap import measure_overlap

LARGEST_HOLDOUT = 131072  # bytes: half of the usual val.txt, as it costs time on every keep
_SHARE = 16  # the holdout takes at most one part in this many of the training text


def pin(
    folder: Path, train: Sequence[Path], val: Path
) -> tuple[tuple[DataFile, ...], DataFile, DataFile, float]:
    """Copies the files; (train, val, holdout, share of val's 32-grams in train).

    The holdout is cut from the tail of the last training file, and taken out of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [_size(path) for path in train]
    if _size(val) < 2:
        raise UsageError(f"--val {val}: has less than two bytes: nothing to predict")
    holdout = min(LARGEST_HOLDOUT, sum(sizes) // _SHARE, sizes[-1] // 2)
    if holdout < 2:
        raise UsageError(f"--train {train[-1]}: is too short to cut a holdout from")
    pinned = []
    for index, (path, size) in enumerate(zip(train, sizes, strict=True)):
        last = index == len(train) - 1
        name = f"train_{index}.txt"
        _copy(path, folder / name, 0, size - holdout if last else size)
        pinned.append(_describe(folder / name))
    _copy(train[-1], folder / "holdout.txt", sizes[-1] - holdout, holdout)
    _copy(val, folder / "val.txt", 0, _size(val))
    (folder / "holdout.txt").chmod(0o600)
    sync_folder(folder)
    overlap = 0.0
    text = (folder / "val.txt").read_bytes()
    for one in pinned:
        with (folder / one.name).open("rb") as file:
            overlap = max(overlap, measure_overlap(file, text).gram_share)
    val_file, holdout_file = _describe(folder / "val.txt"), _describe(folder / "holdout.txt")
    return tuple(pinned), val_file, holdout_file, overlap


def is_pinned(train: Sequence[Path], val: Path, settings: Settings) -> bool:
    """Whether these are the files that were pinned; the holdout was cut from the last."""
    given, pinned = [*train, val], [*settings.train, settings.val]
    sizes = sum(map(_size, given)) == sum(one.bytes for one in (*pinned, settings.holdout))
    return (
        sizes
        and len(given) == len(pinned)
        and all(
            sha256_of(path, one.bytes) == one.sha256
            for path, one in zip(given, pinned, strict=True)
        )
    )


def pin_mazes(folder: Path, mazes: MazeSet) -> tuple[DataFile, DataFile]:
    """Writes down which mazes are scored; (val, holdout).

    Those of `val_bpb` are the pinned ones of the evaluator, the same for everybody.
    The holdout's have a seed that nobody knows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"mazes": mazes.held_out, "seed": secrets.randbits(62)}
    for name, which in (("val", {"mazes": mazes.count}), ("holdout", drawn)):
        chosen = {"size": mazes.size, "layout": mazes.layout, **which}
        path = folder / f"{name}.json"
        path.touch(0o600)
        path.write_text(json.dumps(chosen) + "\n", encoding="utf-8")
    sync_folder(folder)
    return _describe(folder / "val.json"), _describe(folder / "holdout.json")


def _describe(path: Path) -> DataFile:
    return DataFile(path.name, path.stat().st_size, sha256_of(path))


def _size(path: Path) -> int:
    if not path.is_file():
        raise UsageError(f"{path}: no such file; `python -m isis prepare` makes a corpus")
    return path.stat().st_size


def _copy(source: Path, target: Path, offset: int, size: int) -> None:
    try:
        with source.open("rb") as reader, target.open("wb") as writer:
            reader.seek(offset)
            left = size
            while left > 0 and (block := reader.read(min(left, 1 << 20))):
                writer.write(block)
                left -= len(block)
            writer.flush()
            os.fsync(writer.fileno())
    except OSError as error:
        raise UsageError(
            f"{source}: cannot be copied to {target.parent} ({error.strerror})"
        ) from None
    if left:
        raise UsageError(f"{source}: became shorter while it was read")


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder stands."""
    return shutil.disk_usage(folder).free
