"""The journal: what is written comes back, and nothing else does."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modgrad.autoresearch import faults, files
from modgrad.autoresearch.errors import JournalError
from modgrad.autoresearch.journal import Journal
from modgrad.autoresearch.lab import Interrupted
from modgrad.autoresearch.state import State

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.text(min_size=1).filter(lambda name: name not in ("kind", "time", "self"))
RECORDS = st.lists(
    st.tuples(st.text(min_size=1), st.dictionaries(NAMES, VALUES, max_size=5)), max_size=6
)
# Everything that has two spellings in JSON: an exponent, an escape, a slash.
SPECIMENS: list[dict[str, Any]] = [
    {"n": 0, "text": "é\ud83d\udc80 / \x1f"},
    {"n": 1, "small": 1e-07, "large": 1e22, "nothing": None},
    {"n": 2, "list": [1, 2.5, "three"], "yes": True},
    {"n": 3, "text": ""},
]


@contextmanager
def new_journal() -> Iterator[Journal]:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl", Path(folder) / "key")
        journal.create()
        yield journal


@pytest.fixture
def journal() -> Iterator[Journal]:
    with new_journal() as made:
        yield made


@pytest.fixture
def filled(journal: Journal) -> Journal:
    """Four records of an awkward kind."""
    for record in SPECIMENS:
        journal.append("specimen", **record)
    return journal


def again(journal: Journal) -> Journal:
    """The same journal, as another process opens it."""
    return Journal(journal.path, journal.path.with_name("key"))


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_any_records_come_back(records: list[tuple[str, dict[str, Any]]]) -> None:
    with new_journal() as journal:
        written = [journal.append(kind, **fields) for kind, fields in records]
        read = again(journal).read()
        assert read == written
        for (kind, fields), record in zip(records, read, strict=True):
            # JSON joins two halves of a surrogate pair into the character they are.
            assert {name: record[name] for name in fields} == json.loads(json.dumps(fields))
            assert record["kind"] == kind


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_refused_before_it_is_written(journal: Journal, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append("specimen", score=value)
    journal.append("specimen", score=1.0)
    assert [record["score"] for record in again(journal).read()] == [1.0]


def test_a_torn_last_line_is_passed_over_and_trimmed_with_repair(filled: Journal) -> None:
    whole = filled.path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    expected = again(filled).read()[:-1]
    for length in range(start + 1, len(whole)):
        filled.path.write_bytes(whole[:length])
        assert again(filled).read() == expected, length
        assert filled.path.read_bytes() == whole[:length]  # nothing was touched
        repaired = again(filled)
        assert repaired.read(repair=True) == expected
        assert filled.path.read_bytes() == whole[:start]
        [aside] = filled.path.parent.glob("journal.jsonl.torn-*")
        assert aside.read_bytes() == whole[start:length]
        aside.unlink()
    repaired.append("specimen", n=9)
    assert [record["n"] for record in again(filled).read()] == [0, 1, 2, 9]


def test_an_untorn_journal_is_not_repaired(filled: Journal) -> None:
    whole = filled.path.read_bytes()
    assert len(again(filled).read(repair=True)) == 4
    assert filled.path.read_bytes() == whole
    assert not list(filled.path.parent.glob("*.torn-*"))


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80, 0xFF], ids=hex)
def test_any_changed_byte_of_an_earlier_line_is_named(filled: Journal, change: int) -> None:
    whole = filled.path.read_bytes()
    earlier = whole.rindex(b"\n", 0, -1) + 1
    for at in range(earlier):
        content = bytearray(whole)
        content[at] ^= change
        filled.path.write_bytes(content)
        number = whole.count(b"\n", 0, at) + 1
        with pytest.raises(JournalError, match=rf": line {number} "):
            again(filled).read(repair=True)
        assert filled.path.read_bytes() == content  # evidence is not tidied away
    filled.path.write_bytes(whole)
    assert len(again(filled).read()) == 4


def test_a_changed_byte_within_the_last_line_is_no_tear(filled: Journal) -> None:
    whole = filled.path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for at in range(last + len(b'{"body":'), len(whole) - len(b'"}\n')):
        content = bytearray(whole)
        content[at] ^= 0x01
        filled.path.write_bytes(content)
        with pytest.raises(JournalError, match=r": line 4 "):
            again(filled).read(repair=True)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_removed_line_is_noticed(filled: Journal, number: int) -> None:
    lines = filled.path.read_bytes().splitlines(keepends=True)
    del lines[number - 1]
    filled.path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=rf"line {number} .*chain is broken"):
        again(filled).read()


def test_lines_in_another_order_are_noticed(filled: Journal) -> None:
    lines = filled.path.read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    filled.path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=r"line 2 .*chain is broken"):
        again(filled).read()


def test_a_repeated_line_is_noticed(filled: Journal) -> None:
    lines = filled.path.read_bytes().splitlines(keepends=True)
    filled.path.write_bytes(b"".join([*lines[:2], lines[1], *lines[2:]]))
    with pytest.raises(JournalError, match=r"line 3 .*chain is broken"):
        again(filled).read()


def test_a_forged_line_is_noticed(filled: Journal, tmp_path: Path) -> None:
    """X15: a record that is well-formed, with a key of the forger's own."""
    forger = Journal(tmp_path / "journal.jsonl", tmp_path / "key")
    forger.create()
    forger.append("specimen", n=4)
    with filled.path.open("ab") as file:
        file.write(forger.path.read_bytes())
    with pytest.raises(JournalError, match=r"line 5 .*chain is broken"):
        again(filled).read(repair=True)


def test_a_missing_or_foreign_key_is_an_error(filled: Journal) -> None:
    key = filled.path.with_name("key")
    own = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    with pytest.raises(JournalError, match=r"key: .*cannot be read"):
        again(filled).read()
    key.write_bytes(own[:31])
    with pytest.raises(JournalError, match="not the journal's key"):
        again(filled).read()
    key.write_bytes(bytes(32))
    with pytest.raises(JournalError, match=r"line 1 .*chain is broken"):
        again(filled).read(repair=True)
    key.write_bytes(own)
    assert len(again(filled).read()) == 4


def test_a_missing_journal_is_an_error_and_an_old_one_is_not_begun_anew(filled: Journal) -> None:
    with pytest.raises(JournalError, match="never begun anew"):
        again(filled).create()
    filled.path.unlink()
    with pytest.raises(JournalError, match="cannot be read"):
        again(filled).read()


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_leaves_a_valid_journal(filled: Journal, at: int) -> None:
    before = filled.path.read_bytes()
    faults.arm(f"enospc@{at}")
    with pytest.raises(OSError, match="injected") as raised:
        filled.append("specimen", n=4)
    faults.arm("")
    assert raised.value.errno == errno.ENOSPC
    assert filled.path.read_bytes() == before
    filled.append("specimen", n=5)
    assert [record["n"] for record in again(filled).read()] == [0, 1, 2, 3, 5]


def test_a_write_that_came_to_its_half_leaves_a_valid_journal(
    filled: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda where, line: write(where, line[: len(line) // 2]))
    with pytest.raises(OSError, match="only a part"):
        filled.append("specimen", n=4)
    monkeypatch.undo()
    filled.append("specimen", n=5)
    assert [record["n"] for record in again(filled).read()] == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("kind", [Interrupted, KeyboardInterrupt])
def test_an_interrupt_between_write_and_sync_leaves_a_valid_journal(
    filled: Journal, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """^C may come at any moment, and the next record is the one that tells of it."""

    def sync(descriptor: int) -> None:
        raise kind

    monkeypatch.setattr(files.os, "fdatasync", sync)
    with pytest.raises(kind):
        filled.append("specimen", n=4)
    monkeypatch.undo()
    filled.append("interrupted", n=5)
    assert [record["n"] for record in again(filled).read()] == [0, 1, 2, 3, 5]


def test_a_link_in_the_journal_s_place_is_not_followed(journal: Journal, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"")
    journal.path.unlink()
    journal.path.symlink_to(target)
    with pytest.raises(OSError):
        journal.append("specimen", n=0)
    assert target.read_bytes() == b""


def test_a_record_of_an_unknown_kind_is_an_error(journal: Journal) -> None:
    journal.append("from_the_future", n=0)
    with pytest.raises(JournalError, match=r"unknown kind `from_the_future`.*later version"):
        State.replay(again(journal).read())


def test_a_record_without_its_plan_is_an_error(journal: Journal) -> None:
    journal.append("checked", n=3)
    with pytest.raises(JournalError, match="experiment 3 has no plan"):
        State.replay(again(journal).read())
