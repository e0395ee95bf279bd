"""Every git call of the loop.

Git is asked for objects and refs only: candidates are built from bytes with a
temporary index, so no filter, hook, attribute or signing of anybody's runs on
them, and the user's checkout and index are never read or written. GitPython
leaks in long runs, so a repository is opened for one call and closed after it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import signal
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from modgrad.autoresearch.errors import RepositoryError, UsageError
from modgrad.autoresearch.faults import point

try:
    import git
except ImportError:
    raise RepositoryError("git: no such program; install it, the loop works with it") from None

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_ZERO = "0" * 40
# Nothing of the user's configuration may act on what the loop does.
_QUIET = [
    word
    for setting in (
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "core.autocrlf=false",
        "core.fsync=all",
        "gc.auto=0",
        "maintenance.auto=false",
        "advice.detachedHead=false",
    )
    for word in ("-c", setting)
]
_UNFINISHED = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
}
_IDENTITY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "modgrad autoresearch"), ("EMAIL", "autoresearch@localhost"))
}


@dataclass(frozen=True)
class Entry:
    """A file of a tree."""

    mode: str  # 100644, 100755, 120000 (a link), 160000 (a submodule)
    sha: str


@dataclass(frozen=True)
class Change:
    """A path that differs between two trees; None where it is absent."""

    path: str
    before: Entry | None
    after: Entry | None


class Repository:
    """The repository that contains a folder."""

    def __init__(self, folder: Path) -> None:
        try:
            with git.Repo(folder, search_parent_directories=True, expand_vars=False) as repo:
                self.common = Path(repo.common_dir).resolve()
                if repo.working_tree_dir is None:
                    raise UsageError(
                        f"{folder}: is in a bare repository; run this in a checkout of it"
                    )
                self.top = Path(repo.working_tree_dir).resolve()
        except git.InvalidGitRepositoryError:
            raise UsageError(
                f"{folder}: is not in a git repository; run `git init` first"
            ) from None
        except git.NoSuchPathError:
            raise UsageError(f"{folder}: no such folder") from None
        except (git.GitError, OSError, ValueError) as error:
            raise RepositoryError(f"{folder}: {_one_line(str(error))}") from None
        # Objects never change, and every step of an experiment looks at the same few.
        self.tree = lru_cache(maxsize=32)(self._tree)
        self.blob = lru_cache(maxsize=256)(self._blob)

    def run(
        self, *arguments: str, folder: Path | None = None, env: Mapping[str, str] | None = None
    ) -> bytes:
        """The output of a git command, run on the repository's objects and refs."""
        command = ["git", *_QUIET]
        if folder is None:
            command += ["--git-dir", str(self.common)]
        try:
            with _uninterrupted():
                output: Any = git.Git(str(folder or self.common)).execute(
                    [*command, *arguments],
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    env=env,
                    start_new_session=True,
                )
        except git.GitCommandError as error:
            reason = _one_line(str(error.stderr or error))
            for number in (errno.ENOSPC, errno.EDQUOT):
                if os.strerror(number) in str(error.stderr):
                    raise OSError(number, f"git {arguments[0]}: {reason}") from None
            raise RepositoryError(f"git {arguments[0]}: {reason}") from None
        except git.GitCommandNotFound:
            raise RepositoryError("git: no such program; install git") from None
        result: bytes = output
        return result

    def text(self, *arguments: str) -> str:
        """The output of a git command as one stripped text."""
        return self.run(*arguments).decode(errors="replace").strip()

    def commit(self, revision: str) -> str:
        """The SHA of the commit that a revision names."""
        try:
            return _checked(
                self.text("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
            )
        except RepositoryError:
            raise UsageError(f"{revision}: no such commit") from None

    def head(self) -> str:
        """The commit that the user's checkout stands on."""
        try:
            with git.Repo(self.top, expand_vars=False) as repo:
                return _checked(repo.head.commit.hexsha)
        except (ValueError, git.GitError):
            raise UsageError("the repository has no commit yet; commit the code first") from None

    def unfinished(self) -> str | None:
        """What the user's checkout is in the middle of."""
        with git.Repo(self.top, expand_vars=False) as repo:
            folder = Path(repo.git_dir)
        for name, what in _UNFINISHED.items():
            if (folder / name).exists():
                return what
        return None

    def ref(self, name: str) -> str | None:
        """The commit that a ref stands on; None where there is no such ref."""
        output = self.text("for-each-ref", "--format=%(objectname) %(refname)", name)
        for line in output.splitlines():
            sha, _, found = line.partition(" ")
            if found == name:
                return _checked(sha)
        return None

    def refs(self, prefix: str) -> dict[str, str]:
        """All refs below a prefix."""
        output = self.text("for-each-ref", "--format=%(refname) %(objectname)", prefix)
        pairs = (line.rpartition(" ") for line in output.splitlines())
        return {name: sha for name, _, sha in pairs}

    def move_ref(self, name: str, new: str, old: str | None) -> None:
        """Compare-and-swap: fails where the ref does not stand on `old` (None: absent)."""
        point("update of a ref")
        self.run("update-ref", name, _checked(new), _ZERO if old is None else _checked(old))

    def delete_refs(self, prefix: str) -> None:
        """Deletes all refs below a prefix, or the one of that name."""
        for name, sha in self.refs(prefix).items():
            point("update of a ref")
            self.run("update-ref", "-d", name, sha)

    def _tree(self, commit: str) -> dict[str, Entry]:
        """The files of a commit by path."""
        entries: dict[str, Entry] = {}
        for line in self.run("ls-tree", "-r", "-z", _checked(commit)).split(b"\0"):
            if line:
                about, _, path = line.partition(b"\t")
                mode, _, sha = about.decode().split(" ")
                entries[os.fsdecode(path)] = Entry(mode, sha)
        return entries

    def changes(self, before: str, after: str) -> list[Change]:
        """Paths in which two commits differ, in order."""
        old, new = self.tree(before), self.tree(after)
        paths = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
        return [Change(path, old.get(path), new.get(path)) for path in paths]

    def _blob(self, sha: str) -> bytes:
        """The content of a file."""
        return self.run("cat-file", "blob", _checked(sha))

    def file(self, commit: str, path: str) -> bytes | None:
        """The content of a file of a commit; None where it has none."""
        entry = self.tree(commit).get(path)
        return None if entry is None or entry.mode == "160000" else self.blob(entry.sha)

    def size(self, sha: str) -> int:
        """The length of a file."""
        return int(self.text("cat-file", "-s", _checked(sha)))

    def write(self, parent: str, base: str, files: Mapping[str, bytes | None], message: str) -> str:
        """A commit on `parent` whose tree is that of `base` with other files.

        None removes a file. Modes stay as they were in `base`.
        """
        tree = self.tree(base)
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self.run("read-tree", _checked(base), env=env)
            # What is removed goes first: a folder may stand in a file's place now.
            for path in [path for path, content in files.items() if content is None]:
                self.run("update-index", "--force-remove", "--", path, env=env)
            for path, content in files.items():
                if content is None:
                    continue
                source = Path(folder) / "blob"
                source.write_bytes(content)
                blob = self.run("hash-object", "-w", "--no-filters", str(source)).decode().strip()
                mode = tree[path].mode if path in tree else "100644"
                about = f"{mode},{_checked(blob)},{path}"
                self.run("update-index", "--add", "--cacheinfo", about, env=env)
            written = self.run("write-tree", env=env).decode().strip()
        arguments = ("commit-tree", "--no-gpg-sign", written, "-p", _checked(parent), "-m", message)
        return _checked(self.run(*arguments, env=_IDENTITY).decode().strip())

    def export(self, commit: str, folder: Path) -> None:
        """Writes the files of a commit into a folder, without any .git."""
        folder.mkdir(parents=True)
        archive = self.run("archive", "--format=tar", _checked(commit))
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")

    def clone(self, commit: str, folder: Path) -> None:
        """A disposable repository at a commit, with its history and no remote."""
        folder.mkdir(parents=True)
        self.run("init", "--quiet", "--template=", "--initial-branch=candidate", folder=folder)
        self.run("fetch", "--quiet", "--no-tags", str(self.common), _checked(commit), folder=folder)
        self.run("reset", "--quiet", "--hard", commit, folder=folder)

    def diff(self, before: str, after: str) -> str:
        """The difference of two commits as text."""
        arguments = ("diff", "--no-ext-diff", "--no-textconv", "--no-color")
        return self.run(*arguments, _checked(before), _checked(after)).decode(errors="replace")

    def add_worktree(self, folder: Path, branch: str) -> None:
        """A checkout of a branch in a folder of its own."""
        name = branch.removeprefix("refs/heads/")
        self.run("worktree", "add", "--quiet", "--force", str(folder), name)

    def reset_worktree(self, folder: Path, commit: str) -> None:
        """Lets a checkout of ours show a recorded commit."""
        private = self.private(folder)
        if private is None:
            raise RepositoryError(f"{folder}: is no checkout any more; start again to remake it")
        # Named, not looked for: without its .git file the search would go on upwards.
        where = ("--git-dir", str(private), "--work-tree", str(folder))
        self.run(*where, "reset", "--quiet", "--hard", _checked(commit), folder=folder)

    def private(self, folder: Path) -> Path | None:
        """The git folder of a checkout of ours; None where it has none of this repository."""
        pointer = folder / ".git"
        if pointer.is_symlink() or not pointer.is_file():
            return None
        text = pointer.read_text(encoding="utf-8", errors="surrogateescape")
        private = Path(text.removeprefix("gitdir: ").rstrip("\n"))
        whole = private.parent == self.common / "worktrees" and (private / "HEAD").is_file()
        return private if whole else None

    def stale_locks(self, folder: Path, refs: list[str]) -> list[Path]:
        """Locks that a killed git left in our own worktree or on our own refs; for
        the holder of the tag's lock, who knows that no git of ours is running."""
        found: list[Path] = []
        private = self.private(folder)
        if private is not None:
            found += private.glob("*.lock")
        for ref in refs:
            path = self.common / ref
            found += [path.with_name(f"{path.name}.lock")]
            found += path.glob("*.lock")
        return [path for path in found if path.is_file()]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets ^C wait for a git in its middle, which takes milliseconds.

    Handlers are put off, not signals blocked: of a process with several threads,
    another one would take a signal that this one blocks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    put_off: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in ours:
        signal.signal(number, lambda number, frame: put_off.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for came, frame in put_off:
            ours[signal.Signals(came)](came, frame)


def blob_sha(content: bytes) -> str:
    """What git calls a file of this content."""
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % len(content))
    digest.update(content)
    return digest.hexdigest()


def is_commit(name: str) -> bool:
    """Whether a text may be the full name of a commit."""
    return _SHA.fullmatch(name) is not None


def _checked(sha: str) -> str:
    if not is_commit(sha):
        raise RepositoryError(f"`{sha[:60]}` is no commit")
    return sha


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.replace("stderr:", "").splitlines() if line.strip()]
    return (lines[-1] if lines else "failed").strip("'")[:300]
