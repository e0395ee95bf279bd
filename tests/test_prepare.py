"""`isis prepare`: sources, the cut, val.txt that is never made again, overlap, hostile input.

All but the last group runs on small made-up documents with a val.txt of 4 KiB.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import random
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import modgrad.overlap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modgrad.overlap import Overlap, measure_overlap

import isis.corpus
import isis.prepare
from isis.corpus import (
    HubError,
    PrepareError,
    SourceError,
    UsageError,
    parse_source,
)
from isis.prepare import CorpusRecord, OutputError, RecordError, prepare

VAL = 4096
WORDS = [f"w{hashlib.sha256(bytes([n])).hexdigest()[:6]}" for n in range(250)]


def made_up(name: str, size: int) -> bytes:
    """Lines of random words, a function of `name` alone."""
    generator = random.Random(name)
    lines = (" ".join(generator.choices(WORDS, k=8)) for _ in range(size // 40 + 1))
    return "\n".join(lines).encode()[:size]


def write_tree(root: Path, documents: dict[str, bytes]) -> Path:
    for name, content in documents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def books(prefix: str = "", count: int = 40) -> dict[str, bytes]:
    names = [f"{prefix}{n % 3}/{n:02d}.txt" for n in range(count)]
    return {name: made_up(name, 300 + 37 * n) for n, name in enumerate(names)}


def ended(text: bytes) -> bytes:
    return text if text.endswith(b"\n") else text + b"\n"


def run(output: Path, *source: str | Path, val_bytes: int = VAL, **options: Any) -> CorpusRecord:
    words = [os.fspath(word) for word in source]
    return prepare(output, words, val_bytes=val_bytes, report=lambda line: None, **options)


def refused(kind: type[PrepareError], output: Path, *source: str | Path, **options: Any) -> str:
    """The message of the refusal: one line, with the exit code of its kind."""
    with pytest.raises(kind) as caught:
        run(output, *source, **options)
    message = str(caught.value)
    assert message.isprintable(), message
    assert caught.value.exit_code == (2 if kind is UsageError else 1)
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "books", books())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "data"


# The cut


def test_writes_train_val_and_record(source: Path, output: Path) -> None:
    made = run(output, source)
    assert made.created
    assert made.train_file.name == "train_books.txt"
    assert sorted(contents(output)) == ["corpus.json", "train_books.txt", "val.txt"]
    train, val = made.train_file.read_bytes(), made.val_file.read_bytes()
    assert len(val) == VAL
    record = json.loads((output / "corpus.json").read_bytes())
    assert record["format"] == 1
    assert record["val"] == {
        "bytes": VAL,
        "sha256": hashlib.sha256(val).hexdigest(),
        "cut_from": "train_books.txt",
        "boundary": "document",
        "surplus_bytes": made.val.surplus_bytes,
    }
    of_train = record["train"]["train_books.txt"]
    assert of_train["source"] == [str(source.resolve())]
    assert (of_train["bytes"], of_train["sha256"]) == (
        len(train),
        hashlib.sha256(train).hexdigest(),
    )
    assert (of_train["documents"], of_train["seed"]) == (40, 0)
    share, coverage = naive_overlap(train, val)
    assert of_train["val_gram_share"] == pytest.approx(share, abs=1e-6)
    assert of_train["val_byte_coverage"] == pytest.approx(coverage, abs=1e-6)


def test_documents_stay_whole_and_appear_once(source: Path, output: Path) -> None:
    made = run(output, source)
    train, val = made.train_file.read_bytes(), made.val_file.read_bytes()
    texts = [ended(text) for text in books().values()]
    in_train = [text for text in texts if text in train]
    in_val = [text for text in texts if text in val]
    assert not set(in_train) & set(in_val)
    assert sum(map(len, in_train)) == len(train)
    # Only the last document of val.txt may be cut short.
    rest = VAL - sum(map(len, in_val))
    assert any(text.startswith(val[VAL - rest :]) for text in texts)


def test_long_documents_go_to_train(tmp_path: Path, output: Path) -> None:
    tree = write_tree(tmp_path / "t", {**books(), "long": made_up("long", 9000)})
    for seed in range(8):
        folder = output / str(seed)
        made = run(folder, tree, seed=seed)
        assert made.val.boundary == "document"
        assert made_up("long", 9000) in made.train_file.read_bytes()


def test_a_single_file_is_cut_at_a_line(tmp_path: Path, output: Path) -> None:
    text = made_up("one", 30_000) + b"\n"
    (tmp_path / "one.txt").write_bytes(text)
    made = run(output, tmp_path / "one.txt")
    train, val = made.train_file.read_bytes(), made.val_file.read_bytes()
    assert (made.train_file.name, made.val.boundary) == ("train_one.txt", "line")
    assert train.endswith(b"\n")
    assert text.startswith(train + val)
    assert len(text) - len(train) - VAL == made.val.surplus_bytes < 100


def test_text_without_lines_is_cut_anywhere(tmp_path: Path, output: Path) -> None:
    text = made_up("one", 30_000).replace(b"\n", b" ") + b"\n"
    (tmp_path / "one").write_bytes(text)
    made = run(output, tmp_path / "one")
    assert (made.val.boundary, made.val.surplus_bytes) == ("byte", 0)
    assert made.train_file.read_bytes() + made.val_file.read_bytes() == text


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=30),
    st.integers(32, 300),
    st.integers(0, 3),
)
def test_the_cut_holds_for_any_sizes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], val_bytes: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    texts = [made_up(str(n), size) for n, size in enumerate(sizes)]
    tree = write_tree(folder / "t", {str(n): text for n, text in enumerate(texts)})
    try:
        made = run(folder / "o", tree, val_bytes=val_bytes, seed=seed)
    except SourceError:
        assert sum(sizes) < 4 * val_bytes + len(sizes)
        return
    train, val = made.train_file.read_bytes(), made.val_file.read_bytes()
    assert len(val) == val_bytes
    assert made.val.surplus_bytes <= val_bytes // 4
    joined = sum(len(ended(text)) for text in set(texts))
    assert len(train) + len(val) + made.val.surplus_bytes == joined
    if made.val.boundary != "byte":
        assert train.endswith(b"\n")


# The order


def test_two_runs_are_bitwise_equal(source: Path, output: Path) -> None:
    run(output / "a", source)
    run(output / "b", source)
    assert contents(output / "a") == contents(output / "b")


def test_the_order_is_pinned(source: Path, output: Path) -> None:
    """The same on every platform and Python: val.txt of one corpus is one val.txt."""
    made = run(output, source)
    assert made.val.sha256[:16] == "928ac37510a7b4a8"
    assert made.train.sha256[:16] == "07dcb1a9075c0797"


def test_listing_order_and_place_do_not_matter(
    source: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(output / "a", source)
    moved = source.rename(tmp_path / "elsewhere")
    listed = os.scandir

    class Backwards:
        def __init__(self, folder: Any) -> None:
            with listed(folder) as listing:
                self.entries = sorted(listing, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    made = run(output / "b", moved)
    assert (made.train.sha256, made.val.sha256) == (expected.train.sha256, expected.val.sha256)


def test_the_seed_changes_the_order(source: Path, output: Path) -> None:
    digests = {run(output / str(seed), source, seed=seed).val.sha256 for seed in range(4)}
    assert len(digests) == 4


def test_a_new_file_moves_no_other(source: Path, output: Path) -> None:
    before = run(output / "a", source).train_file.read_bytes()
    new = b"zq" * 200 + b"\n"
    (source / "new").write_bytes(new)
    after = run(output / "b", source)
    rest = after.train_file.read_bytes().replace(new, b"")
    assert rest.startswith(before) or before.startswith(rest)


# What is taken


def test_copies_and_empty_files_are_dropped(source: Path, output: Path) -> None:
    copy = next(iter(books().values()))
    write_tree(source, {"copy": copy, "again/copy": copy, "empty": b""})
    made = run(output, source)
    assert (made.train.documents, made.train.duplicates, made.train.empty) == (40, 2, 1)


def test_hidden_files_and_version_control_are_not_taken(source: Path, output: Path) -> None:
    plain = run(output / "a", source)
    names = [".git/objects/aa", ".hidden", "0/.svn/x", "__pycache__/x.pyc", "CVS/Entries"]
    write_tree(source, {name: made_up(name, 500) for name in names})
    made = run(output / "b", source)
    assert made.train.sha256 == plain.train.sha256
    assert made.train.skipped == 0


def test_bytes_are_bytes(tmp_path: Path, output: Path) -> None:
    generator = random.Random(0)
    tree = write_tree(tmp_path / "t", {f"{n}.bin": generator.randbytes(900) for n in range(30)})
    name = os.fsdecode(b"caf\xe9\n")
    try:
        (tree / name).write_bytes(made_up("latin", 900))
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    made = run(output, tree, tree / name)
    assert (made.train.documents, made.train.duplicates) == (31, 1)
    assert run(output, tree, tree / name).created is False


def test_the_outputs_are_not_taken_as_sources(source: Path) -> None:
    first = run(source, source)
    again = run(source / "other", source)
    assert again.train.sha256 != first.train.sha256  # into another folder, they are plain files
    (source / "train_books.txt").unlink()
    for path in (source / "other").iterdir():
        path.unlink()
    assert run(source, source).train.sha256 == first.train.sha256


def test_max_bytes_bounds_the_corpus(source: Path, output: Path) -> None:
    made = run(output, source, max_bytes=20_000)
    assert len(made.train_file.read_bytes()) + VAL + made.val.surplus_bytes <= 20_000
    assert made.train.bytes > 14_000


def test_huge_files_are_read_in_a_bounded_way(tmp_path: Path, output: Path) -> None:
    tree = write_tree(tmp_path / "t", books())
    with (tree / "huge").open("wb") as file:
        file.write(made_up("huge", 100_000))
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    start = time.monotonic()
    made = run(output / "a", tree, max_bytes=60_000)
    assert made.train.bytes < 60_000
    message = refused(OutputError, output / "b", tree)
    assert "has room for" in message
    assert time.monotonic() - start < 5


def test_names_of_train_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = write_tree(tmp_path / "My notes!", {"a.b.txt": b"x", "v1.2/c": b"y", "stdlib/d": b"z"})
    monkeypatch.chdir(tree)
    assert parse_source(["stdlib"]).name == "stdlib"
    assert parse_source(["climbmix"]).name == "climbmix"
    assert parse_source(["."]).name == "My_notes_"
    assert parse_source(["a.b.txt"]).name == "a.b"
    assert parse_source(["v1.2", "a.b.txt"]).name == "v1.2_and_1_more"
    assert parse_source(["./stdlib"]).origin == (str(tree / "stdlib"),)


# val.txt is cut once


def test_a_second_run_has_nothing_to_do(source: Path, output: Path) -> None:
    run(output, source)
    before = {path: path.stat() for path in output.iterdir()}
    lines: list[str] = []
    made = prepare(output, [str(source)], val_bytes=VAL, report=lines.append)
    assert not made.created
    assert len(lines) == 1 and lines[0].startswith("nothing to do: ")
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_a_missing_train_file_is_made_again(source: Path, output: Path) -> None:
    run(output, source)
    before, inode = contents(output), (output / "val.txt").stat().st_ino
    (output / "train_books.txt").unlink()
    assert run(output, source).created
    assert contents(output) == before
    assert (output / "val.txt").stat().st_ino == inode


def test_a_missing_val_is_not_cut_again(source: Path, output: Path) -> None:
    run(output, source)
    (output / "val.txt").unlink()
    assert "never cut again" in refused(RecordError, output, source)
    (output / "train_books.txt").unlink()
    assert "never cut again" in refused(RecordError, output, source)


def test_a_changed_val_is_refused(source: Path, output: Path) -> None:
    run(output, source)
    (output / "val.txt").write_bytes(b"x" * VAL)
    message = refused(RecordError, output, source)
    assert "val.txt` has SHA-256" in message and "put the file back" in message


def test_a_changed_train_file_is_refused(source: Path, output: Path) -> None:
    run(output, source)
    with (output / "train_books.txt").open("ab") as file:
        file.write(b"more")
    assert "delete it to have it made again" in refused(RecordError, output, source)


def test_what_prepare_did_not_write_is_left_alone(source: Path, output: Path) -> None:
    write_tree(output, {"train_books.txt": b"mine"})
    assert "does not know it" in refused(RecordError, output, source)
    (output / "train_books.txt").rename(output / "val.txt")
    assert "without corpus.json" in refused(RecordError, output, source)
    assert contents(output) == {"val.txt": b"mine"}
    (output / "val.txt").write_bytes(made_up("long", 3 << 20))
    assert "without corpus.json" in refused(RecordError, output, source)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"seed": 1}, "made with seed 0, not 1"),
        ({"max_bytes": 20_000}, "made with max_bytes None, not 20000"),
    ],
)
def test_other_options_are_not_ignored(
    source: Path, output: Path, options: dict[str, int], words: str
) -> None:
    run(output, source)
    assert words in refused(RecordError, output, source, **options)


def test_another_val_size_is_refused(source: Path, output: Path) -> None:
    run(output, source)
    assert "has 4096 bytes" in refused(UsageError, output, source, val_bytes=VAL // 2)


def test_another_source_of_the_same_name_is_refused(
    source: Path, output: Path, tmp_path: Path
) -> None:
    run(output, source)
    other = write_tree(tmp_path / "other" / "books", books("x"))
    assert "was made with source" in refused(RecordError, output, other)


def test_another_source_keeps_the_val(source: Path, output: Path, tmp_path: Path) -> None:
    first = run(output, source)
    other = write_tree(tmp_path / "other", books("x"))
    made = run(output, other)
    assert made.val == first.val
    record = json.loads((output / "corpus.json").read_bytes())
    assert sorted(record["train"]) == ["train_books.txt", "train_other.txt"]
    assert made.train.bytes == sum(len(ended(text)) for text in books("x").values())
    assert not run(output, source).created
    assert not run(output, other).created


def test_a_train_file_that_brings_val_back_is_refused(
    source: Path, output: Path, tmp_path: Path
) -> None:
    run(output, source)
    before = contents(output)
    # The same documents among three times as many others, or shuffled another way.
    mixed = write_tree(tmp_path / "mixed", {**books(), **books("x"), **books("y"), **books("z")})
    for options in ({}, {"seed": 1}):
        message = refused(RecordError, output, mixed, **options)
        assert "training on the held-out text" in message
    (output / "train_books.txt").unlink()
    refused(RecordError, output, source, seed=1)
    del before["train_books.txt"]
    assert contents(output) == before


def test_a_part_of_val_is_enough_to_refuse(source: Path, output: Path, tmp_path: Path) -> None:
    """A third of val.txt: under the limit for scattered text, over the one for long stretches."""
    leak = run(output, source).val_file.read_bytes()[: VAL // 3]
    mixed = write_tree(tmp_path / "mixed", {**books("x"), "leak": leak})
    assert "training on the held-out text" in refused(RecordError, output, mixed)


def test_near_copies_are_reported(tmp_path: Path, output: Path) -> None:
    text = made_up("one", 2000)
    tree = write_tree(tmp_path / "t", {str(n): b"%d " % n + text for n in range(40)})
    lines: list[str] = []
    made = prepare(output, [str(tree)], val_bytes=VAL, report=lines.append)
    assert made.train.val_gram_share > 0.9
    assert any(line.startswith("warning: near-copies") for line in lines)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"format": 2}',
        b'{"format": 1}',
        b'{"format": 1, "val": 3, "train": 4}',
        b'{"format": 1, "val": {"sha": 1}, "train": {}}',
    ],
)
def test_a_damaged_record_is_refused(source: Path, output: Path, content: bytes) -> None:
    run(output, source)
    (output / "corpus.json").write_bytes(content)
    assert "is not the record of a corpus" in refused(RecordError, output, source)


# Writing


@pytest.mark.parametrize(("owner", "call"), [(os, "link"), (Path, "replace"), (os, "fsync")])
def test_an_interrupted_run_is_taken_up(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, call: str
) -> None:
    """Interrupted before its first, second, ... call, until a run gets through undisturbed."""
    run(output / "whole", source)
    for count in range(20):
        folder = output / str(count)
        left = iter(range(count))
        real: Callable[..., Any] = getattr(owner, call)

        def faulty(
            *arguments: Any, left: Iterator[int] = left, real: Callable[..., Any] = real
        ) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(owner, call, faulty)
            try:
                run(folder, source)
                interrupted = False
            except KeyboardInterrupt:
                interrupted = True
        assert not [name for name in contents(folder) if name.endswith(".tmp")]
        run(folder, source)
        assert contents(folder) == contents(output / "whole")
        if not interrupted:
            break
    assert count > 0 and not interrupted


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_full_or_failing_disk_leaves_nothing(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    message = refused(OutputError, output, source)
    assert os.strerror(code) in message
    assert ("free some space" in message) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert contents(output) == {}


def test_without_hard_links(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    run(output / "a", source)
    monkeypatch.setattr(os, "link", fail)
    run(output / "b", source)
    assert contents(output / "a") == contents(output / "b")


def test_one_prepare_at_a_time(source: Path, output: Path) -> None:
    output.mkdir()
    stale = output / ".prepare-train-0.tmp"
    stale.write_bytes(b"left by a run that was killed")
    descriptor = os.open(output, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert "another prepare is at work" in refused(OutputError, output, source)
    assert stale.exists()
    os.close(descriptor)
    run(output, source)
    assert not stale.exists()


def test_an_output_that_is_a_file_is_refused(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    assert "is not a folder" in refused(OutputError, file, source)
    assert "is not a folder" in refused(OutputError, file / "inside", source)
    assert file.read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_without_permission_is_refused(source: Path, output: Path) -> None:
    output.mkdir(mode=0o500)
    assert "Permission denied" in refused(OutputError, output, source)


def test_files_have_the_usual_permissions(source: Path, output: Path) -> None:
    run(output, source)
    (output / "usual").touch()
    assert len({path.stat().st_mode for path in output.iterdir()}) == 1


# Bad and hostile sources


def test_bad_requests(source: Path, output: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing\nfile"
    message = refused(UsageError, output, source, missing)
    assert "No such file" in message and r"missing\nfile`" in message
    assert "no source given" in refused(UsageError, output)
    assert "does not mix" in refused(UsageError, output, "stdlib", source)
    assert "does not mix" in refused(UsageError, output, source, "climbmix")
    assert "at least 32" in refused(UsageError, output, source, val_bytes=31)
    assert "at least 16384" in refused(UsageError, output, source, max_bytes=16383)
    refused(UsageError, output, "nul\0byte")
    assert not output.exists()
    run(output, source)
    assert "held-out text" in refused(UsageError, output, output / "val.txt")


def test_too_small_and_empty_sources(tmp_path: Path, output: Path) -> None:
    tree = write_tree(tmp_path / "t", {"a": made_up("a", 4 * VAL - 2)})
    message = refused(SourceError, output, tree)
    assert "holds 16383 bytes" in message and "takes 16384" in message
    (tree / "b").write_bytes(b"x")
    assert run(output, tree).created
    (tmp_path / "nothing" / "inside").mkdir(parents=True)
    for empty in (tmp_path / "nothing", write_tree(tmp_path / "blank", {"file": b""})):
        assert "no readable text" in refused(SourceError, tmp_path / "o", empty)
    assert contents(tmp_path / "o") == {}


def test_special_files_in_a_folder_are_skipped(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(output / "a", source)
    os.mkfifo(source / "fifo")
    monkeypatch.chdir(source)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for name, target in {
        "zero": "/dev/zero",
        "nowhere": "missing",
        "itself": "itself",
        "folder": "0",
        "0/above": "..",
        "0/pipe": "../fifo",
    }.items():
        (source / name).symlink_to(target)
    made = run(output / "b", source)
    assert made.train.sha256 == plain.train.sha256
    assert made.train.skipped == 8


def test_special_files_by_name_are_refused(source: Path, output: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for special in (tmp_path / "fifo", "/dev/zero"):
        assert "device, pipe or socket" in refused(UsageError, output, source, special)
    refused(UsageError, output, source, tmp_path / "loop")


def test_special_files_in_the_output_are_refused(source: Path, output: Path) -> None:
    output.mkdir()
    for name in ("val.txt", "corpus.json", "train_books.txt"):
        os.mkfifo(output / name)
        refused(PrepareError, output, source)
        (output / name).unlink()


def test_links_to_files_are_followed(source: Path, output: Path, tmp_path: Path) -> None:
    links = tmp_path / "books_linked"
    for path in source.rglob("*.txt"):
        link = links / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert run(output / "a", links).train.sha256 == run(output / "b", source).train.sha256


def test_unreadable_files(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One met in a folder is counted, one that was named is an error."""
    real = os.open

    def guarded(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if os.fspath(path).endswith("00.txt"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", guarded)
    made = run(output, source)
    assert (made.train.documents, made.train.skipped) == (39, 1)
    message = refused(SourceError, output / "b", source / "0" / "00.txt", source)
    assert "00.txt`: Permission denied" in message


def test_a_file_that_shrinks_is_an_error(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = isis.prepare._find_cut

    def shrink(*arguments: Any) -> Any:
        for path in source.rglob("*.txt"):
            path.write_bytes(b"gone")
        return real(*arguments)

    monkeypatch.setattr(isis.prepare, "_find_cut", shrink)
    assert "shrank while it was read" in refused(SourceError, output, source)
    assert contents(output) == {}


# The overlap


def naive_overlap(train: bytes, val: bytes) -> tuple[float, float]:
    known = {train[n : n + 32] for n in range(len(train) - 31)}
    grams = [val[n : n + 32] for n in range(len(val) - 31)]
    covered = {n + j for n, gram in enumerate(grams) if gram in known for j in range(32)}
    return len(set(grams) & known) / len(set(grams)), len(covered) / len(val)


@given(st.data())
def test_overlap_agrees_with_sets(data: st.DataObject) -> None:
    """Texts glued from a few pieces, so that grams repeat, in blocks of any size."""
    piece = st.sampled_from([made_up(str(n), 25 + 9 * n) for n in range(6)] + [b"\0" * 40])
    train = b"".join(data.draw(st.lists(piece | st.binary(max_size=5), max_size=20)))
    val = b"".join(data.draw(st.lists(piece | st.binary(max_size=5), min_size=2, max_size=20)))
    val += b"." * 32
    block = data.draw(st.sampled_from([1, 7, 31, 32, 33, 1 << 20]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isis.corpus, "CHUNK_BYTES", block)
        measured = measure_overlap(io.BytesIO(train), val)
    assert (measured.gram_share, measured.byte_coverage) == naive_overlap(train, val)


def test_overlap_at_the_ends() -> None:
    text = made_up("text", 5000)
    assert measure_overlap(io.BytesIO(b""), text) == Overlap(0.0, 0.0, 0.0)
    assert measure_overlap(io.BytesIO(text), text) == Overlap(1.0, 1.0, 1.0)
    assert measure_overlap(io.BytesIO(text), b"short") == Overlap(0.0, 0.0, 0.0)
    assert measure_overlap(io.BytesIO(text[:32]), text[:32]) == Overlap(1.0, 1.0, 0.0)


def test_verbatim_counts_long_stretches_only() -> None:
    val = made_up("val", 10_000)
    for kept, expected in [(1023, 0), (1024, 1024 - 31), (3000, 3000 - 31)]:
        train = io.BytesIO(b"<" + val[500 : 500 + kept] + b">")
        assert measure_overlap(train, val).verbatim_share == expected / (10_000 - 31)


def test_a_hash_alone_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were all hashes alike, still nothing but equal bytes is found."""
    real = modgrad.overlap.gram_hashes
    monkeypatch.setattr(modgrad.overlap, "gram_hashes", lambda text: real(text) * 0)
    assert measure_overlap(io.BytesIO(b"a" * 100), b"b" * 100) == Overlap(0.0, 0.0, 0.0)


def test_overlap_of_20_mb_takes_seconds() -> None:
    train = random.Random(1).randbytes(20 << 20)
    start = time.monotonic()
    measure_overlap(io.BytesIO(train), train[-isis.prepare.VAL_BYTES :])
    assert time.monotonic() - start < 20


# The standard library


def test_the_standard_library(output: Path) -> None:
    start = time.monotonic()
    made = run(output, "stdlib", val_bytes=isis.prepare.VAL_BYTES)
    assert time.monotonic() - start < 60
    assert made.train_file.name == "train_stdlib.txt"
    assert made.val_file.stat().st_size == 262144
    assert 4 << 20 < made.train.bytes < 20 << 20
    assert made.train.val_verbatim_share < 0.05
    version = ".".join(map(str, sys.version_info[:3]))
    assert made.train.described.endswith(version)
    assert made.train.source == ["stdlib"]
    everything = made.train_file.read_bytes() + made.val_file.read_bytes()
    assert b"class ArgumentParser" in everything


def test_what_of_the_standard_library_is_taken(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {f"module{n}.py": made_up(f"m{n}", 700) for n in range(40)}
    others = [
        "test/test_os.py",
        "unittest/tests/a.py",
        "idlelib/idle_test/a.py",
        "site-packages/numpy.py",
        "dist-packages/numpy.py",
        "encodings/cp437.py",
        "pydoc_data/topics.py",
        "config-3.11-x86_64/python-config.py",
        "_sysconfigdata__linux.py",
        "LICENSE.txt",
        "__pycache__/os.py",
    ]
    root = write_tree(tmp_path / "lib", {**taken, **dict.fromkeys(others, b"#" * 99)})
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    made = run(output, "stdlib")
    assert made.train.documents == len(taken)
    assert b"###" not in made.train_file.read_bytes() + made.val_file.read_bytes()


def test_a_python_without_sources(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "no")})
    assert "cannot list" in refused(SourceError, output, "stdlib")
    (tmp_path / "no").mkdir()
    assert "no readable text in the standard library" in refused(SourceError, output, "stdlib")


# ClimbMix, from a local stand-in


class Hub:
    """Stands in for `huggingface_hub`: the shards are files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def hf_hub_download(self, *, repo_id: str, filename: str, repo_type: str) -> str:
        assert (repo_id, repo_type) == ("karpathy/climbmix-400b-shuffle", "dataset")
        self.asked.append(filename)
        if not (self.folder / filename).exists():
            raise ConnectionError(f"no route to {filename}\nsecond line")
        return str(self.folder / filename)


class ShardOfJson:
    """Stands in for `pyarrow.parquet.ParquetFile`, on a JSON list of texts."""

    def __init__(self, path: str) -> None:
        self.columns: dict[str, list[str | None]] = json.loads(Path(path).read_bytes())
        self.schema_arrow = SimpleNamespace(names=list(self.columns))

    def __enter__(self) -> "ShardOfJson":
        return self

    def __exit__(self, *error: object) -> None: ...

    def iter_batches(self, *, batch_size: int, columns: list[str]) -> Iterator[Any]:
        texts = self.columns[columns[0]]
        for start in range(0, len(texts), batch_size):
            rows = texts[start : start + batch_size]
            yield SimpleNamespace(
                column=lambda index, rows=rows: SimpleNamespace(to_pylist=lambda: rows)
            )


def shard_texts(number: int) -> list[str | None]:
    return [made_up(f"{number}-{n}", 500).decode() + " é" for n in range(40)] + [None, ""]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path / "hub")
    stand_in.folder.mkdir()
    for number in range(3):
        content = json.dumps({"text": shard_texts(number)})
        (stand_in.folder / f"shard_{number:05d}.parquet").write_text(content)
    for name in ("huggingface_hub", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["huggingface_hub"].__dict__["hf_hub_download"] = stand_in.hf_hub_download
    sys.modules["pyarrow.parquet"].__dict__["ParquetFile"] = ShardOfJson
    return stand_in


def test_climbmix_takes_as_many_shards_as_it_needs(hub: Hub, output: Path) -> None:
    made = run(output, "climbmix", max_bytes=30_000)
    assert hub.asked == ["shard_00000.parquet", "shard_00001.parquet"]
    assert made.train_file.name == "train_climbmix.txt"
    total = made.train.bytes + VAL + made.val.surplus_bytes
    assert 29_000 < total <= 30_000
    everything = made.train_file.read_bytes() + made.val_file.read_bytes()
    first = [text for text in shard_texts(0) if text and text.encode() in everything]
    assert len(first) >= 38  # the cut and the surplus take the rest
    assert sorted(contents(output)) == ["corpus.json", "train_climbmix.txt", "val.txt"]
    assert not run(output, "climbmix", max_bytes=30_000).created


def test_climbmix_from_real_parquet(
    hub: Hub, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(output / "a", "climbmix", max_bytes=30_000)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    monkeypatch.delitem(sys.modules, "pyarrow")
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for number in range(2):
        table = arrow.table({"id": list(range(42)), "text": shard_texts(number)})
        path = hub.folder / f"shard_{number:05d}.parquet"
        parquet.write_table(table, path, row_group_size=16)
    made = run(output / "b", "climbmix", max_bytes=30_000)
    assert made.train.sha256 == expected.train.sha256


def test_climbmix_is_64_mib_unless_told(hub: Hub, output: Path) -> None:
    # The three shards of the stand-in hold less.
    assert "no route to shard_00003.parquet;" in refused(HubError, output, "climbmix")
    assert contents(output) == {}


def test_climbmix_in_another_format(hub: Hub, output: Path) -> None:
    (hub.folder / "shard_00000.parquet").write_text(json.dumps({"words": ["a"]}))
    assert "has no column `text`" in refused(HubError, output, "climbmix")
    (hub.folder / "shard_00000.parquet").write_bytes(b"PAR1")
    assert "cannot get `shard_00000.parquet`" in refused(HubError, output, "climbmix")


@pytest.mark.parametrize("module", ["huggingface_hub", "pyarrow.parquet"])
def test_climbmix_without_its_packages(
    hub: Hub, output: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    message = refused(HubError, output, "climbmix")
    assert 'pip install "modgrad[hub]"' in message
    assert contents(output) == {}
