"""The file system, for the loop: writes that last, and views made in one piece."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from modgrad.autoresearch.errors import EnvironmentFault
from modgrad.autoresearch.faults import point

LOG_TAIL = 65536  # bytes of a log that are kept and shown
LEAST_SPACE = 64 << 20  # bytes: with less free, what fails to write is not to blame


def sync_folder(folder: Path) -> None:
    """Makes what was created or renamed in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        point("fsync of a folder")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replaces a file in one piece: readers see the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            point("write of a file")
            file.write(content)
            file.flush()
            point("fsync of a file")
            os.fsync(file.fileno())
        point("rename of a file")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_durably(path: Path, line: bytes) -> None:
    """Appends a line in one write and waits until it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        point("write of a record")
        written = os.write(descriptor, line)
        if written != len(line):
            raise OSError(28, "only a part of the record was written")
        point("fsync of a record")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Renames a file within a file system and makes that last."""
    point("rename of a file")
    source.replace(target)
    sync_folder(target.parent)


def is_writable(folder: Path) -> bool:
    """Whether something can be written in a folder, and some space is left for more."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
        return shutil.disk_usage(folder).free >= LEAST_SPACE
    except OSError:
        return False


def remove_tree(path: Path) -> None:
    """Removes a folder and all in it; what is gone already is no error."""
    point("unlink of a folder")
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)  # also a pipe or a socket that a candidate left
        return
    try:
        _remove_folder(path)
    except RecursionError:
        _remove_deep_folder(path)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _remove_deep_folder(path)


def _remove_folder(path: Path) -> None:
    # A candidate may have taken permissions from its own folders: they are given
    # back before each is looked into.
    path.chmod(0o700)
    for folder, below, _ in os.walk(path):
        for name in below:
            inner = Path(folder, name)
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(path)


def _remove_deep_folder(path: Path) -> None:
    """Where folders are nested deeper than Python can follow them."""
    for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        subprocess.run([*command, "--", str(path)], capture_output=True, check=False)
    if path.exists():
        raise EnvironmentFault(f"{path}: cannot be removed")


def tail(path: Path, most: int = LOG_TAIL) -> str:
    """The end of a file as text; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - most))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def sha256_of(path: Path, most: int | None = None) -> str:
    """The SHA-256 of a file, or of its first `most` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    left = path.stat().st_size if most is None else most
    with path.open("rb") as file:
        while block := file.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def sha256_of_tree(folder: Path, suffixes: tuple[str, ...]) -> str:
    """One SHA-256 over the names and contents of the files with these suffixes."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in suffixes and path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()
