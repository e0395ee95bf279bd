"""Where a corpus comes from: the standard library's sources, the user's files, or ClimbMix.

A source becomes a list of documents, each a slice of a regular file. No document is held in
memory: it is scanned once, in chunks, for its size and SHA-256, and read again when it is written.

The order is a seeded shuffle: documents are sorted by the SHA-256 of the seed and of their path
inside the source. It is the same on every platform and Python, whatever order a folder is listed
in, and a new file moves no other. Exact duplicates are dropped.

Cutting, writing and recording the corpus is left to `isis.prepare`.
"""

import hashlib
import importlib
import os
import platform
import stat
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from modgrad.errors import ModgradError

Report = Callable[[str], None]

CHUNK_BYTES = 1 << 20
CLIMBMIX_REPOSITORY = "karpathy/climbmix-400b-shuffle"
# Shards 0 to 6542; the last is the validation shard of the trainers that use this data set.
CLIMBMIX_TRAIN_SHARDS = 6542
CLIMBMIX_MAX_BYTES = 64 << 20

SKIPPED_FOLDERS = {"__pycache__", "CVS"}
# `encodings` is character tables and `pydoc_data` one 750 KB dictionary, both made by generators:
# 2 of 12 MB, and near-copies of each other on both sides of the cut.
SKIPPED_IN_STDLIB = {"test", "tests", "idle_test", "site-packages", "dist-packages"} | {
    "encodings",
    "pydoc_data",
}


class PrepareError(ModgradError):
    """Base of what `isis prepare` raises: one line with what is wrong, where, and the way out."""

    exit_code = 1


class UsageError(PrepareError):
    """The request itself cannot be met: a missing path, a bad number, sources that do not mix."""

    exit_code = 2


class SourceError(PrepareError):
    """A source cannot be read, or holds too little."""


class HubError(PrepareError):
    """ClimbMix cannot be had: a package is missing, or the download failed."""


@dataclass(frozen=True)
class Source:
    """What was asked for: `name` goes into the train file's name, `origin` into the record."""

    name: str
    origin: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """`size` bytes of `file` from `offset`, and a newline where they do not end with one."""

    name: bytes
    file: Path
    offset: int
    size: int
    sha256: bytes
    newline: bool

    @property
    def length(self) -> int:
        return self.size + self.newline


@dataclass(frozen=True)
class Collection:
    """The documents in their final order, and how many were left out and why."""

    documents: list[Document]
    duplicates: int
    empty: int
    skipped: int


def parse_source(words: Sequence[str]) -> Source:
    """`["stdlib"]`, `["climbmix"]`, or any files and folders (a folder `stdlib` is `./stdlib`)."""
    if not words:
        raise UsageError("no source given; name `stdlib`, `climbmix`, or files and folders")
    if len(words) == 1 and words[0] in ("stdlib", "climbmix"):
        return Source(words[0], (words[0],))
    for word in words:
        if word in ("stdlib", "climbmix"):
            raise UsageError(
                f"`{word}` does not mix with other sources; prepare it into a folder of its own "
                f"(a folder of that name is `./{word}`)"
            )
    paths = [_existing(word) for word in words]
    # The resolved path: the name of `.` or `data/..` is that of the folder it stands for.
    stem = paths[0].stem if paths[0].is_file() else paths[0].name
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in stem)[:80]
    more = f"_and_{len(paths) - 1}_more" if len(paths) > 1 else ""
    return Source((name or "files") + more, tuple(str(path) for path in paths))


def describe(source: Source) -> str:
    if source.origin == ("stdlib",):
        python = f"{platform.python_implementation()} {platform.python_version()}"
        return f"the standard library of {python}"
    if source.origin == ("climbmix",):
        return CLIMBMIX_REPOSITORY
    more = f" and {len(source.origin) - 3} more" if len(source.origin) > 3 else ""
    return ", ".join(quote(path) for path in source.origin[:3]) + more


def collect(
    source: Source,
    *,
    seed: int,
    max_bytes: int | None,
    spool: Path,
    own: Callable[[Path], bool],
    room: Callable[[int], None],
    report: Report,
) -> Collection:
    """Find, scan and order the documents of `source`.

    `own` says which files prepare itself wrote; `room` refuses a size the output has no room for;
    `spool` is a scratch file for a source that is no file by itself.
    """
    report(f"reading {describe(source)}")
    if source.origin == ("climbmix",):
        if max_bytes is None:
            raise UsageError("`climbmix` is larger than any disk; set max_bytes")
        room(2 * max_bytes)
        return _arrange(_spool_climbmix(spool, max_bytes, report), seed, max_bytes, skipped=0)
    if source.origin == ("stdlib",):
        root = Path(sysconfig.get_paths()["stdlib"])
        files, skipped = _walk(root, keep=_in_stdlib, own=own)
        files = [file for file in files if file[1].suffix == ".py"]
    else:
        files, skipped = _user_files([Path(path) for path in source.origin], own)
    total = sum(size for _, _, size in files)
    room(total if max_bytes is None else min(total, max_bytes))
    documents = []
    for name, path, _ in files:
        try:
            documents.append(_scan(name, path, max_bytes))
        except SourceError:
            # A file that the user named must be read; one met in a folder is counted instead.
            if str(path) in source.origin:
                raise
            skipped += 1
    collection = _arrange(documents, seed, max_bytes, skipped)
    if not collection.documents:
        raise SourceError(
            f"no readable text in {describe(source)} ({collection.empty} empty, {skipped} skipped);"
            " name files or folders that hold some"
        )
    return collection


def read_chunks(path: Path, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
    """`size` bytes of a regular file, or what it held when opened; never waits on a FIFO."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        # Looked at before it is opened, as opening a device may act on it, and after: it may be
        # another file by then.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(f"{quote(path)} is not a regular file; name one that is")
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{quote(path)} is not a regular file; name one that is")
            left = status.st_size if size is None else size
            os.lseek(descriptor, offset, os.SEEK_SET)
            while left > 0 and (chunk := os.read(descriptor, min(left, CHUNK_BYTES))):
                yield chunk
                left -= len(chunk)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SourceError(f"cannot read {quote(path)}: {error.strerror}; check the file") from error
    if left > 0 and size is not None:
        raise SourceError(f"{quote(path)} shrank while it was read; prepare again when it is still")


def quote(path: str | os.PathLike[str]) -> str:
    """A path in backquotes, on one line whatever its name holds."""
    text = os.fspath(path)
    return "`" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + "`"


def _existing(word: str) -> Path:
    try:
        path = Path(word).resolve(strict=True)
        mode = path.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop, before 3.13
        reason = getattr(error, "strerror", None) or "not a path that can be followed"
        raise UsageError(
            f"source {quote(word)}: {reason}; name files or folders that exist"
        ) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UsageError(f"source {quote(word)} is a device, pipe or socket; name files or folders")
    return path


def _visible(name: str, folder: bool) -> bool:
    return not name.startswith(".") and not (folder and name in SKIPPED_FOLDERS)


def _in_stdlib(name: str, folder: bool) -> bool:
    # `_sysconfigdata*` and `config-*` hold the paths of the machine that built this Python.
    made = ("_sysconfigdata", "config-")
    return _visible(name, folder) and not name.startswith(made) and name not in SKIPPED_IN_STDLIB


def _user_files(
    paths: list[Path], own: Callable[[Path], bool]
) -> tuple[list[tuple[bytes, Path, int]], int]:
    files, skipped = [], 0
    for path in paths:
        if path.is_file():
            files.append((os.fsencode(path.name), path, path.stat().st_size))
        else:
            found, unreadable = _walk(path, keep=_visible, own=own)
            files += found
            skipped += unreadable
    return files, skipped


def _walk(
    root: Path, *, keep: Callable[[str, bool], bool], own: Callable[[Path], bool]
) -> tuple[list[tuple[bytes, Path, int]], int]:
    """Regular files under `root` as (path inside it, path, size), and how many entries were not.

    Links to files are followed, links to folders are not: no loop, and no way out of the tree.
    """
    files, skipped = [], 0
    folders = [(b"", root)]
    while folders:
        prefix, folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError as error:
            if folder == root:
                raise SourceError(
                    f"cannot list {quote(root)}: {error.strerror}; check the folder"
                ) from error
            skipped += 1
            continue
        for entry in entries:
            try:
                inner = entry.is_dir(follow_symlinks=False)
                if not keep(entry.name, inner):
                    continue
                name, path = prefix + os.fsencode(entry.name), Path(entry.path)
                status = entry.stat()
                if inner:
                    folders.append((name + b"/", path))
                elif stat.S_ISREG(status.st_mode) and not own(
                    path.resolve() if entry.is_symlink() else path
                ):
                    files.append((name, path, status.st_size))
                else:
                    skipped += 1
            except OSError:  # a link to nowhere or to itself, or no permission
                skipped += 1
    return files, skipped


def _scan(name: bytes, path: Path, max_bytes: int | None) -> Document:
    digest, size, last = hashlib.sha256(), 0, b""
    for chunk in read_chunks(path):
        chunk = chunk if max_bytes is None else chunk[: max_bytes - size]
        digest.update(chunk)
        size += len(chunk)
        last = chunk[-1:] or last
        if size == max_bytes:
            break
    return Document(name, path, 0, size, digest.digest(), newline=last != b"\n")


def _arrange(
    documents: list[Document], seed: int, max_bytes: int | None, skipped: int
) -> Collection:
    """Shuffle by key, drop empty documents and copies, and cut the last one at `max_bytes`."""

    def key(document: Document) -> tuple[bytes, bytes]:
        shuffled = hashlib.sha256(b"%d\0%s" % (seed, document.name)).digest()
        return shuffled, document.sha256

    kept: list[Document] = []
    seen: set[bytes] = set()
    total, duplicates, empty = 0, 0, 0
    for document in sorted(documents, key=key):
        if document.size == 0:
            empty += 1
        elif document.sha256 in seen:
            duplicates += 1
        elif max_bytes is None or total + document.length <= max_bytes:
            seen.add(document.sha256)
            kept.append(document)
            total += document.length
        else:
            if max_bytes - total > 1:
                kept.append(replace(document, size=max_bytes - total - 1, newline=True))
            break
    return Collection(kept, duplicates, empty, skipped)


def _spool_climbmix(spool: Path, max_bytes: int, report: Report) -> list[Document]:
    """Copy texts of the first shards, `max_bytes` of them, to one file that documents point into.

    The data set is shuffled as it is published, so its first shards are a fair sample of it.
    """
    hub, parquet = _optional("huggingface_hub"), _optional("pyarrow.parquet")
    documents: list[Document] = []
    total, offset = 0, 0
    with spool.open("wb") as output:
        for number in range(CLIMBMIX_TRAIN_SHARDS):
            shard = f"shard_{number:05d}.parquet"
            report(f"fetching {shard}: {total} of {max_bytes} bytes")
            for row, text in enumerate(_texts(hub, parquet, shard)):
                digest = hashlib.sha256(text).digest()
                name = f"{shard}/{row:08d}".encode()
                document = Document(name, spool, offset, len(text), digest, text[-1:] != b"\n")
                if documents and total + document.length > max_bytes:
                    return documents
                output.write(text)
                offset += len(text)
                if text:
                    documents.append(document)
                    total += document.length
    return documents


def _texts(hub: ModuleType, parquet: ModuleType, shard: str) -> Iterator[bytes]:
    where = f"`{shard}` of `{CLIMBMIX_REPOSITORY}`"
    try:
        path = hub.hf_hub_download(repo_id=CLIMBMIX_REPOSITORY, filename=shard, repo_type="dataset")
        with parquet.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise HubError(f"{where} has no column `text`; its format has changed")
            for batch in file.iter_batches(batch_size=1024, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    yield (text or "").encode()
    except HubError:
        raise
    except Exception as error:  # the hub and Arrow each raise kinds of their own
        reason = (str(error).strip().splitlines() or [""])[0]
        raise HubError(
            f"cannot get {where}: {type(error).__name__}: {reason}; check the network, "
            "or prepare `stdlib` or files of your own"
        ) from error


def _optional(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise HubError(
            f'`climbmix` needs `{package}` ({error}); pip install "modgrad[hub]"'
        ) from error
