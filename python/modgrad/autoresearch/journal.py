"""The journal: the truth of a tag, from which everything else can be made again.

Append-only JSON lines: `{"body": {...}, "crc": "...", "mac": "..."}`. `crc` is the
CRC-32 of the body's bytes, so damage is seen without the key; `mac` is an
HMAC-SHA-256 over the previous line's `mac` and the body, so nothing can be
changed, removed from the middle, or put in between unseen. Each record is one write, synced before
anything acts on it. A torn last line is set aside; damage elsewhere stops the
loop with the line's number.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
import zlib
from pathlib import Path
from typing import Any

from modgrad.autoresearch import files
from modgrad.autoresearch.errors import JournalError

Record = dict[str, Any]

_START = "0" * 64


class Journal:
    """Reads, verifies and appends; one process at a time (see the tag's lock)."""

    def __init__(self, path: Path, key_path: Path) -> None:
        self.path, self._key_path = path, key_path
        self._key = b""
        self._last_mac = _START
        self._length = 0  # bytes up to the end of the last whole record

    def create(self) -> None:
        """Makes the key and an empty journal."""
        if self.path.exists():
            raise JournalError(f"{self.path}: exists already; it is never begun anew")
        files.write_atomically(self._key_path, secrets.token_bytes(32), mode=0o600)
        files.append_durably(self.path, b"")
        self._key = self._key_path.read_bytes()

    def read(self, *, repair: bool = False) -> list[Record]:
        """All records, verified.

        With `repair` (for the holder of the lock) a torn last line is moved to a
        file beside the journal; without, it is passed over. Raises
        `JournalError` with the number of the first line that is damaged.
        """
        self._key = _read_key(self._key_path)
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be read ({error.strerror})") from None
        records: list[Record] = []
        mac, length = _START, 0
        lines = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            last = number >= len(lines) - 1
            if number == len(lines) and not line:
                break
            record, mac_or_reason = self._verify(line, mac)
            whole = number < len(lines)  # ended by a line feed
            if record is None or not whole:
                if last and not (whole and _is_complete(line)):
                    self._set_aside(content[length:], length, repair)
                    break
                raise JournalError(
                    f"{self.path}: line {number} {mac_or_reason}; nothing after it can be "
                    "trusted. Restore the file from a copy, or begin another --tag"
                )
            records.append(record)
            mac, length = mac_or_reason, length + len(line) + 1
        self._last_mac, self._length = mac, length
        return records

    def append(self, kind: str, **fields: Any) -> Record:
        """Writes a record and waits until it is on the disk."""
        record: Record = {"kind": kind, "time": round(time.time(), 3), **fields}
        body = _canonical(record)
        mac = self._mac(self._last_mac, body)
        line = _line(body, mac) + b"\n"
        try:
            files.append_durably(self.path, line)
            self._last_mac, self._length = mac, self._length + len(line)
        except BaseException:
            # The disk failed, or ^C came in between. What was written of it is no
            # record: the next one must not follow it.
            os.truncate(self.path, self._length)
            raise
        # As a reader would get it back.
        result: Record = json.loads(body)
        return result

    def _verify(self, line: bytes, previous: str) -> tuple[Record | None, str]:
        """(record, its mac), or (None, what is wrong)."""
        try:
            outer = json.loads(line)
            record, crc, mac = outer["body"], outer["crc"], outer["mac"]
            body = _canonical(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None, "is no record"
        if f"{zlib.crc32(body):08x}" != crc:
            return None, "is damaged (its checksum differs)"
        if not isinstance(mac, str) or not hmac.compare_digest(self._mac(previous, body), mac):
            return None, "does not follow from the lines before it (its chain is broken)"
        if line != _line(body, mac):
            return None, "is damaged (it is not as it was written)"
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            return None, "is no record"
        return record, mac

    def _mac(self, previous: str, body: bytes) -> str:
        return hmac.new(self._key, previous.encode() + body, hashlib.sha256).hexdigest()

    def _set_aside(self, tail: bytes, length: int, repair: bool) -> None:
        if not repair:
            return
        name = f"{self.path.name}.torn-{time.time_ns()}"
        files.write_atomically(self.path.with_name(name), tail)
        os.truncate(self.path, length)
        with self.path.open("rb") as file:
            os.fsync(file.fileno())


def _line(body: bytes, mac: str) -> bytes:
    return b'{"body":%s,"crc":"%08x","mac":"%s"}' % (body, zlib.crc32(body), mac.encode())


def _is_complete(line: bytes) -> bool:
    """Whether a line looks whole: then it was changed, not torn."""
    return line.startswith(b'{"body":') and line.endswith(b'"}')


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise JournalError(f"{path}: the journal's key cannot be read ({error.strerror})") from None
    if len(key) != 32:
        raise JournalError(f"{path}: is not the journal's key (32 bytes)")
    return key


def _canonical(record: Any) -> bytes:
    return json.dumps(
        record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()
