"""`isis prepare`: a corpus cut once into train_NAME.txt and val.txt, with corpus.json beside them.

Notable here:
- val.txt has exactly `val_bytes` bytes, from the tail of the corpus. It begins at a document where
  the tail allows, else at a line; the surplus that this leaves behind it goes into neither file.
- val.txt is written once. A later call checks it, and makes only a train file that is missing.
- val.txt comes first and the train file last, so that a run that was killed in between is taken
  up by the next one.
- What of val.txt occurs in a train file is measured and recorded; a train file that would bring
  back the text of an older val.txt is refused.

A file is written under a scratch name in the output folder, synced, and then linked to its own
name, which cannot replace a file that is there. Where documents come from is `isis.corpus`.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from modgrad.overlap import GRAM, Overlap, measure_overlap

from isis.corpus import (
    CHUNK_BYTES,
    CLIMBMIX_MAX_BYTES,
    Collection,
    Document,
    PrepareError,
    Report,
    Source,
    SourceError,
    UsageError,
    collect,
    describe,
    parse_source,
    quote,
    read_chunks,
)

VAL_BYTES = 262144
VAL_FILE = "val.txt"
RECORD_FILE = "corpus.json"
RECORD_FORMAT = 1
# A corpus is at least this many times val.txt: train is then three times as long, or nearly.
CORPUS_OVER_VAL = 4
# val.txt may give up one part in this many for a beginning at a document or a line, and a longer
# document comes in front of all others: val.txt is of many documents.
LONG_DOCUMENT = 4
# Limits on `Overlap`. Fresh cuts of the standard library reach 0.01 verbatim and 0.33 coverage,
# its next versions 0.85 and 0.93 of the same val.txt.
MAX_VERBATIM = 0.05
MAX_COVERAGE = 0.5


class OutputError(PrepareError):
    """The output folder cannot be written: not a folder, no permission, in use, or full."""


class RecordError(PrepareError):
    """What lies in the output folder is not what corpus.json says, or would be lost or leaked."""


@dataclass(frozen=True)
class ValRecord:
    bytes: int
    sha256: str
    cut_from: str
    boundary: str  # where val.txt begins: document, line or byte
    surplus_bytes: int  # behind val.txt, in neither file


@dataclass(frozen=True)
class TrainRecord:
    """`documents` counts those of the whole corpus; `bytes` and `sha256` are the train file's."""

    source: list[str]
    described: str
    seed: int
    max_bytes: int | None
    documents: int
    duplicates: int
    empty: int
    skipped: int
    bytes: int
    sha256: str
    val_gram_share: float
    val_byte_coverage: float
    val_verbatim_share: float


@dataclass(frozen=True)
class CorpusRecord:
    """What `prepare` made or found. `created` is false where there was nothing to do."""

    train_file: Path
    val_file: Path
    train: TrainRecord
    val: ValRecord
    created: bool


@dataclass(frozen=True)
class Record:
    """corpus.json: one val.txt, and every train file prepared beside it."""

    val: ValRecord
    train: dict[str, TrainRecord]


@dataclass(frozen=True)
class Request:
    folder: Path
    source: Source
    seed: int
    val_bytes: int
    max_bytes: int | None
    report: Report

    @property
    def train_file(self) -> Path:
        return self.folder / f"train_{self.source.name}.txt"

    @property
    def val_file(self) -> Path:
        return self.folder / VAL_FILE


def prepare(
    output: Path,
    source: Sequence[str],
    *,
    seed: int = 0,
    val_bytes: int = VAL_BYTES,
    max_bytes: int | None = None,
    report: Report,
) -> CorpusRecord:
    """Make train_NAME.txt in `output`, and val.txt and corpus.json where they are not there yet.

    `max_bytes` bounds the corpus, val.txt included; for ClimbMix it is 64 MiB unless given.
    """
    chosen = parse_source(source)
    if max_bytes is None and chosen.origin == ("climbmix",):
        max_bytes = max(CLIMBMIX_MAX_BYTES, CORPUS_OVER_VAL * val_bytes)
    _check_sizes(val_bytes, max_bytes)
    with _output_folder(output) as folder:
        request = Request(folder, chosen, seed, val_bytes, max_bytes, report)
        if str(request.val_file) in chosen.origin:
            raise UsageError(f"{quote(request.val_file)} is the held-out text; name other files")
        record = _load_record(folder / RECORD_FILE)
        if record is not None:
            _check_val(request, record.val)
        if not os.path.lexists(request.train_file):
            return _make(request, record)
        if record is None or request.train_file.name not in record.train:
            raise RecordError(
                f"{quote(request.train_file)} is there and {RECORD_FILE} does not know it; move it "
                "away, or name another output folder"
            )
        train = record.train[request.train_file.name]
        _check_train(request, train)
        report(
            f"nothing to do: {quote(request.train_file)} ({train.bytes} bytes, {train.described}, "
            f"seed {train.seed}) and {quote(request.val_file)} are there"
        )
        return CorpusRecord(request.train_file, request.val_file, train, record.val, created=False)


def _make(request: Request, record: Record | None) -> CorpusRecord:
    train_file, val_file = request.train_file, request.val_file
    with _scratch(request.folder, "spool") as spool, _scratch(request.folder, "train") as unnamed:
        collection = _collect(request, spool)
        long = request.val_bytes // LONG_DOCUMENT
        documents = sorted(collection.documents, key=lambda document: document.length <= long)
        total = sum(document.length for document in documents)
        cut, boundary = _find_cut(documents, total, request.val_bytes)
        val = b"".join(_stream(documents, cut, cut + request.val_bytes))
        kept = _read_val(request) if os.path.lexists(val_file) else val
        if record is None and kept != val:
            raise RecordError(
                f"{quote(val_file)} is there without {RECORD_FILE}, and this source would be cut "
                "into another one; move it away, or name another output folder"
            )
        # Beside a val.txt of another source, or of another state of this one, nothing is held
        # out by the cut, and the measure of the whole decides.
        end = cut if kept == val else total
        size, sha256 = _write(unnamed, _stream(documents, 0, end))
        with unnamed.open("rb") as written:
            overlap = measure_overlap(written, kept)
        if record is None:
            digest = hashlib.sha256(val).hexdigest()
            surplus = total - cut - len(val)
            record = Record(ValRecord(len(val), digest, train_file.name, boundary, surplus), {})
        _check_leak(request, record, overlap, held_out=end == cut)
        train = _train_record(request, collection, size, sha256, overlap)
        record = Record(record.val, {**record.train, train_file.name: train})
        _store(request, val, record, unnamed)
    request.report(
        f"{quote(train_file)}: {size} bytes, {train.documents} documents ({train.duplicates} "
        f"copies, {train.empty} empty and {train.skipped} unreadable or special files left out)"
    )
    request.report(
        f"{quote(val_file)}: {len(kept)} bytes; {overlap.gram_share:.1%} of its 32-grams occur in "
        f"{train_file.name} and cover {overlap.byte_coverage:.1%} of it"
    )
    return CorpusRecord(train_file, val_file, train, record.val, created=True)


def _collect(request: Request, spool: Path) -> Collection:
    def own(path: Path) -> bool:
        train = path.name.startswith("train_") and path.suffix == ".txt"
        return path.parent == request.folder and (train or path.name in (VAL_FILE, RECORD_FILE))

    def room(wanted: int) -> None:
        free = shutil.disk_usage(request.folder).free
        if wanted > free:
            raise OutputError(
                f"{describe(request.source)} needs up to {wanted} bytes and "
                f"{quote(request.folder)} has room for {free}; set max_bytes, or name another "
                "output folder"
            )

    collection = collect(
        request.source,
        seed=request.seed,
        max_bytes=request.max_bytes,
        spool=spool,
        own=own,
        room=room,
        report=request.report,
    )
    needed = CORPUS_OVER_VAL * request.val_bytes
    total = sum(document.length for document in collection.documents)
    if total < needed:
        raise SourceError(
            f"{describe(request.source)} holds {total} bytes of distinct text; a corpus takes "
            f"{needed}, {CORPUS_OVER_VAL} times {VAL_FILE}: name more files"
        )
    return collection


def _find_cut(documents: list[Document], total: int, val_bytes: int) -> tuple[int, str]:
    """Where val.txt begins in the joined corpus, and what begins there."""
    latest, slack = total - val_bytes, val_bytes // LONG_DOCUMENT
    start = 0
    for document in documents:
        if start + document.length > latest:
            break
        start += document.length
    if latest - start <= slack:
        return start, "document"
    before = b"".join(_stream(documents, latest - slack, latest))
    line = before.rfind(b"\n") + 1
    return (latest - slack + line, "line") if line else (latest, "byte")


def _stream(documents: list[Document], start: int, stop: int) -> Iterator[bytes]:
    """Bytes `start` to `stop` of the joined corpus, in which each document ends in a newline."""
    begin = 0
    for document in documents:
        low, high = max(start - begin, 0), min(stop - begin, document.length)
        if low < high:
            size = min(high, document.size) - low
            if size > 0:
                yield from read_chunks(document.file, document.offset + low, size)
            if high > document.size:
                yield b"\n"
        begin += document.length


def _store(request: Request, val: bytes, record: Record, train: Path) -> None:
    """val.txt, corpus.json, train: in this order, as each says that the one before is whole."""
    if not os.path.lexists(request.val_file):
        with _scratch(request.folder, "val") as unnamed:
            _write(unnamed, [val])
            _publish(unnamed, request.val_file)
    with _scratch(request.folder, "record") as unnamed:
        content = {"format": RECORD_FORMAT, **asdict(record)}
        _write(unnamed, [json.dumps(content, indent=2).encode(), b"\n"])
        _replace(unnamed, request.folder / RECORD_FILE)
    _publish(train, request.train_file)


def _train_record(
    request: Request, collection: Collection, size: int, sha256: str, overlap: Overlap
) -> TrainRecord:
    return TrainRecord(
        source=list(request.source.origin),
        described=describe(request.source),
        seed=request.seed,
        max_bytes=request.max_bytes,
        documents=len(collection.documents),
        duplicates=collection.duplicates,
        empty=collection.empty,
        skipped=collection.skipped,
        bytes=size,
        sha256=sha256,
        val_gram_share=round(overlap.gram_share, 6),
        val_byte_coverage=round(overlap.byte_coverage, 6),
        val_verbatim_share=round(overlap.verbatim_share, 6),
    )


def _load_record(path: Path) -> Record | None:
    if not os.path.lexists(path):
        return None
    try:
        content = json.loads(b"".join(read_chunks(path)))
        if content["format"] != RECORD_FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {RECORD_FORMAT}")
        val = ValRecord(**content["val"])
        train = {name: TrainRecord(**fields) for name, fields in content["train"].items()}
        if not isinstance(val.sha256, str) or not isinstance(val.bytes, int):
            raise ValueError("`val` has no SHA-256 and size")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RecordError(
            f"{quote(path)} is not the record of a corpus ({error}); put it back, or name another "
            "output folder"
        ) from error
    return Record(val, train)


def _check_sizes(val_bytes: int, max_bytes: int | None) -> None:
    if val_bytes < GRAM:
        raise UsageError(f"val_bytes is {val_bytes}; it is at least {GRAM}, one gram of overlap")
    if max_bytes is not None and max_bytes < CORPUS_OVER_VAL * val_bytes:
        raise UsageError(
            f"max_bytes is {max_bytes}; it is at least {CORPUS_OVER_VAL * val_bytes}, "
            f"{CORPUS_OVER_VAL} times {VAL_FILE}"
        )


def _read_val(request: Request) -> bytes:
    """val.txt, or enough of it to see that it is longer than `val_bytes`."""
    chunks = request.val_bytes // CHUNK_BYTES + 1
    return b"".join(islice(read_chunks(request.val_file), chunks))


def _check_val(request: Request, val: ValRecord) -> None:
    path = request.val_file
    if not os.path.lexists(path):
        raise RecordError(
            f"{quote(path)} is gone and is never cut again; put it back (SHA-256 {val.sha256}), or "
            "name another output folder"
        )
    found = _sha256_of(path)
    if found != val.sha256:
        raise RecordError(
            f"{quote(path)} has SHA-256 {found[:16]}, and {RECORD_FILE} says {val.sha256[:16]}; "
            "put the file back, or name another output folder"
        )
    if val.bytes != request.val_bytes:
        raise UsageError(
            f"val_bytes is {request.val_bytes} and {quote(path)} has {val.bytes} bytes; ask for as "
            "many, or name another output folder"
        )


def _check_train(request: Request, train: TrainRecord) -> None:
    """A train file that is there must be what is asked for, and as it was written."""
    path = request.train_file
    asked = {
        "source": list(request.source.origin),
        "seed": request.seed,
        "max_bytes": request.max_bytes,
    }
    for what, value in asked.items():
        if getattr(train, what) != value:
            raise RecordError(
                f"{quote(path)} was made with {what} {getattr(train, what)!r}, not {value!r}; name "
                "another output folder"
            )
    if _sha256_of(path) != train.sha256:
        raise RecordError(
            f"{quote(path)} is not as {RECORD_FILE} describes it; delete it to have it made again, "
            "or name another output folder"
        )


def _check_leak(request: Request, record: Record, overlap: Overlap, held_out: bool) -> None:
    if overlap.verbatim_share <= MAX_VERBATIM and overlap.byte_coverage <= MAX_COVERAGE:
        return
    amount = f"{overlap.byte_coverage:.0%} of {quote(request.val_file)}"
    if held_out:
        request.report(f"warning: near-copies among the documents: {amount} also stands in train")
        return
    raise RecordError(
        f"{describe(request.source)} (seed {request.seed}) holds {amount}, cut earlier with "
        f"{record.val.cut_from}; training on it would be training on the held-out text: name "
        "another output folder"
    )


@contextmanager
def _output_folder(output: Path) -> Iterator[Path]:
    """The folder, made and held by one prepare at a time; its faults become an `OutputError`.

    Readers raise errors of their own, so an `OSError` from inside is one of the output folder.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        folder = output.resolve(strict=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(descriptor, folder)
            yield folder
        finally:
            os.close(descriptor)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(
            f"output {quote(output)} is not a folder, nor can it be made; name another one"
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way_out = "free some space" if full else "check it"
        raise OutputError(
            f"cannot write to output {quote(output)}: {error.strerror or error}; {way_out}, "
            "or name another folder"
        ) from error


@contextmanager
def _scratch(folder: Path, name: str) -> Iterator[Path]:
    """A path to write at first; whatever is left there at the end is removed."""
    path = folder / f".prepare-{name}-{secrets.token_hex(8)}.tmp"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write(path: Path, chunks: Iterable[bytes]) -> tuple[int, str]:
    """Write a new file and sync it; its size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _publish(path: Path, target: Path) -> None:
    """Give a finished file its name; unlike a rename, this cannot replace another file."""
    try:
        os.link(path, target)
    except FileExistsError as error:
        raise OutputError(f"{quote(target)} appeared meanwhile; prepare again") from error
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise
        path.rename(target)
    _sync(target.parent)


def _replace(path: Path, target: Path) -> None:
    path.replace(target)
    _sync(target.parent)


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in read_chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"another prepare is at work in {quote(folder)}; wait for it, or name another folder"
        ) from error
    except OSError:
        return  # a file system without locks: work on, but leave other scratch files alone
    for left in folder.glob(".prepare-*.tmp"):  # by a prepare that was killed
        left.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
