"""The check on edits: what a candidate may not do to the tree, by whatever means."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modgrad.autoresearch import contract as contracts
from modgrad.autoresearch.check import check
from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.repository import Repository

from tests.conftest import ROOT
from tests.loop_world import CONTRACT, git, make_repository

RULES = contracts.load(CONTRACT, "language")
REAL = contracts.load((ROOT / "contract.toml").read_text(), "language")
GOOD = ("isis", "ffn.py", "learn_ffn.py", "crates", "modgrad-ffn", "src", "lib.rs", "a.rs")
FORBIDDEN = ("conftest.py", "sitecustomize.py", "build.rs", "x.pth", "x.so", ".gitattributes")
OF_GIT = (".git", ".GIT", "git~1", "..", ".", "")
ODD = ("*", "a\\b.rs", "a\nb.rs", "\udcff.rs", "numpy.py", "__init__.py", "__main__.py")
PARTS = st.sampled_from([*GOOD, *FORBIDDEN, *OF_GIT, *ODD])


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "world")


def commit(world: Path) -> None:
    git(world, "add", "--all")
    git(world, "commit", "--quiet", "--message", "an edit")


def found(world: Path, before: str = "HEAD~1", after: str = "HEAD") -> list[str]:
    repository = Repository(world)
    commits = repository.commit(before), repository.commit(after)
    return [str(violation) for violation in check(repository, RULES, *commits)]


def test_an_honest_edit_is_clean(world: Path) -> None:
    (world / "recipe.py").write_text("import math\nscore = math.pi\n")
    (world / "parts" / "deep").mkdir(parents=True)
    (world / "parts" / "one.py").write_text("from math import pi\nfrom . import deep\n")
    (world / "parts" / "deep" / "two.py").write_text("# é\n")
    commit(world)
    assert found(world) == []
    git(world, "rm", "--quiet", "-r", "parts")
    git(world, "commit", "--quiet", "--message", "simpler")
    assert found(world) == []


def link_read_only(world: Path) -> None:
    (world / "trainer.sh").unlink()
    (world / "trainer.sh").symlink_to("recipe.py")


def link_mutable(world: Path) -> None:
    (world / "recipe.py").unlink()
    (world / "recipe.py").symlink_to("/etc/passwd")


def link_folder(world: Path) -> None:
    (world / "parts").symlink_to("/tmp")


def change_mode(world: Path) -> None:
    (world / "trainer.sh").chmod(0o755)


def rename_read_only(world: Path) -> None:
    git(world, "mv", "trainer.sh", "trainer.bak")


def rename_into_read_only(world: Path) -> None:
    git(world, "mv", "--force", "recipe.py", "trainer.sh")


def remove_read_only(world: Path) -> None:
    (world / "trainer.sh").unlink()


def add_submodule(world: Path) -> None:
    sha = git(world, "rev-parse", "HEAD")
    git(world, "update-index", "--add", "--cacheinfo", f"160000,{sha},parts/module.py")
    git(world, "commit", "--quiet", "--message", "a submodule")


def add_attributes(world: Path) -> None:
    (world / "parts").mkdir()
    (world / "parts" / ".gitattributes").write_text("*.py filter=evil\n")


def add_shadow(world: Path) -> None:
    (world / "numpy.py").write_text("print('instead of the real one')\n")


def add_package(world: Path) -> None:
    (world / "modgrad").mkdir()
    (world / "modgrad" / "__init__.py").write_text("")


def add_site(world: Path) -> None:
    (world / "parts").mkdir()
    (world / "parts" / "sitecustomize.py").write_text("")


def add_path_file(world: Path) -> None:
    (world / "parts").mkdir()
    (world / "parts" / "x.pth").write_text("import os\n")


def edit_contract(world: Path) -> None:
    (world / "contract.toml").write_text(CONTRACT.replace("recipe.py", "trainer.sh"))


EDITS: list[tuple[Callable[[Path], None], str]] = [
    (link_read_only, "trainer.sh: is read-only"),
    (link_mutable, "recipe.py: is a symbolic link"),
    (link_folder, "parts: is read-only"),
    (change_mode, "trainer.sh: is read-only"),
    (rename_read_only, "trainer.sh: is read-only"),
    (rename_into_read_only, "trainer.sh: is read-only"),
    (remove_read_only, "trainer.sh: is read-only"),
    (add_submodule, "parts/module.py: is a submodule"),
    (add_attributes, "parts/.gitattributes: is read-only"),
    (add_shadow, "numpy.py: is read-only"),
    (add_package, "modgrad/__init__.py: is read-only"),
    (add_site, "parts/sitecustomize.py: is read-only"),
    (add_path_file, "parts/x.pth: is read-only"),
    (edit_contract, "contract.toml: is read-only"),
]


@pytest.mark.parametrize(("edit", "expected"), EDITS, ids=lambda one: getattr(one, "__name__", ""))
def test_an_edit_outside_the_contract_is_named(
    world: Path, edit: Callable[[Path], None], expected: str
) -> None:
    git(world, "config", "core.fileMode", "true")
    (world / "recipe.py").write_text("score = 1.0\n")  # beside an honest one
    edit(world)
    if edit is not add_submodule:
        commit(world)
    assert any(line.startswith(expected) for line in found(world)), found(world)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"score = '\xff'\n", "is not UTF-8"),
        (b"score = 1.0\n\0", "is not text"),
        (b"#" * 4097, "has 4097 bytes, at most 4096 are allowed"),
        (b"import socket\n", "imports `socket` on line 1"),
        (b"def f():\n    from os import path\n", "imports `os.path` on line 2"),
        (b"import math, os.path\n", "imports `os.path` on line 1"),
        (b"# coding: utf-7\n+AGkAbQBwAG8AcgB0- os\n", "imports `os` on line 2"),
    ],
)
def test_a_content_outside_the_contract_is_named(world: Path, content: bytes, reason: str) -> None:
    (world / "recipe.py").write_bytes(content)
    commit(world)
    [line] = found(world)
    assert line.startswith(f"recipe.py: {reason}")


def test_the_loop_itself_may_not_be_imported() -> None:
    from modgrad.autoresearch.check import _import_outside

    assert _import_outside(b"from modgrad import nn\nimport modgrad.optim\n", REAL) is None
    for line in (
        b"import modgrad.autoresearch",
        b"from modgrad import autoresearch",
        b"from modgrad.autoresearch import loop",
        b"from modgrad.autoresearch.loop import heal as h",
    ):
        assert "modgrad.autoresearch" in (_import_outside(line, REAL) or ""), line


@pytest.mark.parametrize("content", ["score = (\n", "score = " + "+".join(["1"] * 1500)])
def test_what_does_not_parse_is_left_to_crash(world: Path, content: str) -> None:
    (world / "recipe.py").write_text(content)
    commit(world)
    assert found(world) == []


def test_too_many_files_are_refused(world: Path) -> None:
    (world / "parts").mkdir()
    for number in range(9):
        (world / "parts" / f"{number}.py").write_text("")
    commit(world)
    assert found(world) == ["(all): 9 files are changed, at most 8 may be"]


@given(st.lists(PARTS, min_size=1, max_size=6).map("/".join))
def test_no_forbidden_name_is_ever_allowed(path: str) -> None:
    allowed = REAL.allows(path)
    name = path.rsplit("/", 1)[-1]
    parts = path.split("/")
    if name in REAL.forbidden_names or name.endswith(REAL.forbidden_suffixes):
        assert not allowed
    if any(part in OF_GIT for part in parts):
        assert not allowed
    if allowed:
        assert path in ("isis/ffn.py", "isis/learn_ffn.py") or (
            path.startswith("crates/modgrad-ffn/src/") and path.endswith(".rs")
        )


@given(st.text())
def test_no_other_name_is_allowed(path: str) -> None:
    assert not REAL.allows(path)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("isis/ffn.py", True),
        ("isis/ffn.pyx", False),
        ("isis/xffn.py", False),
        ("isis/ffn_py", False),  # the dot is a dot
        ("./isis/ffn.py", False),
        ("isis/FFN.py", False),
        ("isis/ffn.py\n", False),
        ("crates/modgrad-ffn/src/lib.rs", True),
        ("crates/modgrad-ffn/src/a/b/c.rs", True),
        ("crates/modgrad-ffn/src/a/build.rs", False),
        ("crates/modgrad-ffn/src/a/.git/c.rs", False),
        ("crates/modgrad-ffn/src/.rs", True),
        ("crates/modgrad-ffn/src/", False),
        ("crates/modgrad-ffn/src/../lib.rs", False),
        ("crates/modgrad-ffn/build.rs", False),
        ("crates/modgrad-ffn/Cargo.toml", False),
        ("crates/modgrad-ffn/srcs/a.rs", False),
    ],
)
def test_names_of_the_real_contract(path: str, allowed: bool) -> None:
    assert REAL.allows(path) == allowed


@pytest.mark.parametrize(
    ("glob", "path", "allowed"),
    [
        ("a/*.py", "a/b.py", True),
        ("a/*.py", "a/b/c.py", False),
        ("a/**/*.py", "a/b.py", True),
        ("a/**/*.py", "a/b/c/d.py", True),
        ("a/**/*.py", "ab/c.py", False),
        ("**/x.py", "x.py", True),
        ("**/x.py", "a/b/x.py", True),
        ("**/x.py", "a/bx.py", False),
        ("a/**", "a/b", True),
        ("a/**", "a/b/c", False),  # only `**/` crosses folders
        ("a/*/c.py", "a/c.py", False),
        ("a+b[1].py", "a+b[1].py", True),  # nothing else is special
        ("a+b[1].py", "aab1.py", False),
    ],
)
def test_stars(glob: str, path: str, allowed: bool) -> None:
    rules = contracts.load(
        CONTRACT.replace('"recipe.py", "parts/**/*.py"', f'"{glob}"'), "language"
    )
    assert rules.allows(path) == allowed


def test_a_contract_that_is_none_is_refused() -> None:
    for text, words in (
        ("tasks = 3", "names no task"),
        ("[tasks", "is not TOML"),
        (CONTRACT.replace('imports = ["math"]', "imports = 7"), "lacks or misstates"),
        (CONTRACT.replace("largest_file = 4096", ""), "lacks or misstates 'largest_file'"),
    ):
        with pytest.raises(UsageError, match=words):
            contracts.load(text, "language")
    with pytest.raises(UsageError, match="has no such task; it has language"):
        contracts.load(CONTRACT, "mazes")


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(words), cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ)
    )


def test_exit_codes_of_the_command(world: Path) -> None:
    python = (sys.executable, "-m", "modgrad.autoresearch", "check")
    (world / "recipe.py").write_text("score = 1.0\n")
    commit(world)
    clean = command(world, *python, "HEAD")
    assert (clean.returncode, clean.stdout) == (0, "")
    (world / "trainer.sh").write_text("exit 0\n")
    (world / "parts").mkdir()
    (world / "parts" / os.fsdecode(b"\xff.py")).write_text("")
    commit(world)
    dirty = command(world, *python, "HEAD~2..HEAD")
    assert dirty.returncode == 1
    assert "trainer.sh: is read-only for the task language" in dirty.stdout.splitlines()
    # The name that is no text, too.
    assert dirty.stdout.splitlines()[0].startswith("parts/\\udcff.py: is read-only")
    assert len(dirty.stdout.splitlines()) == 2
    for words, about in (
        (["nothing"], "nothing^: no such commit"),
        (["HEAD...HEAD"], "no such commit"),
        (["--tag", "t", "HEAD"], "was not set up here"),
        (["HEAD", "--task", "chess"], "has no such task"),
    ):
        usage = command(world, *python, *words)
        assert usage.returncode == 2, usage.stderr
        assert about in usage.stderr
        assert usage.stderr.count("\n") == 1


def test_the_script_works_from_a_subfolder(world: Path) -> None:
    script = str(ROOT / "scripts" / "autoresearch-check.sh")
    (world / "trainer.sh").write_text("exit 0\n")
    commit(world)
    below = world / "data"
    assert command(below, script, "HEAD").returncode == 1
    assert "trainer.sh: is read-only" in command(below, script, "HEAD").stdout
    git(world, "revert", "--no-edit", "HEAD")
    assert command(below, script, "HEAD~2..HEAD").returncode == 0
    assert command(below, script, "--nonsense").returncode == 2
    assert command(below, script).returncode == 2


@pytest.mark.parametrize("name", [".GIT/x.py", "git~1/x.py", "a\nb.py", "a\\.git\\x.py"])
def test_a_name_that_git_refuses_is_no_part_of_a_candidate(name: str) -> None:
    assert not RULES.allows(f"parts/{name}")
    assert RULES.allows("parts/gitter/x.py")
