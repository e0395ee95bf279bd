"""git, and what people do to it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.lab import Lab
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.loop import only_one

from tests.fault_harness import describe_checkout
from tests.loop.tools import Scripted, records, run, sound, told
from tests.loop_world import Recipes, git, make_repository, research, set_up


def test_stale_locks_of_ours_are_healed(world: Path) -> None:
    """F22."""
    git_folder = world / ".git"
    ours = [
        git_folder / "worktrees" / "worktree" / "index.lock",
        git_folder / "worktrees" / "worktree" / "HEAD.lock",
        git_folder / "refs" / "heads" / "autoresearch" / "t.lock",
        git_folder / "refs" / "modgrad" / "t" / "1.lock",
    ]
    theirs = git_folder / "index.lock"
    for lock in (*ours, theirs):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    assert told(lab) == [(1, "keep", None)]
    assert not any(lock.exists() for lock in ours)
    assert theirs.exists()
    [healed] = records(world, "healed")
    assert sorted(healed["locks"]) == sorted(map(str, ours))


@pytest.mark.parametrize("lost", ["pointer", "folder", "private", "foreign"])
def test_a_lost_worktree_is_made_again(world: Path, lost: str) -> None:
    """Without its .git file, a search for the repository would end at the user's."""
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    before = describe_checkout(world)
    worktree = lab.layout.worktree
    if lost == "pointer":
        (worktree / ".git").unlink()
    elif lost == "folder":
        shutil.rmtree(worktree)
    elif lost == "private":
        shutil.rmtree(world / ".git" / "worktrees")
    else:
        (worktree / ".git").write_text(f"gitdir: {world}/.git\n")
    lab = research(world, Recipes(["", "score = 1.8\n"]), 2)
    assert told(lab)[-1] == (2, "keep", None)
    assert describe_checkout(world) == before
    sound(world, lab)


def detach(world: Path) -> None:
    git(world, "checkout", "--quiet", "--detach")


def dirty(world: Path) -> None:
    (world / "recipe.py").write_text("half a thought")
    (world / "new.txt").write_text("mine")
    git(world, "add", "new.txt")


@pytest.mark.parametrize("deed", [detach, dirty])
def test_a_checkout_in_any_state_is_left_as_it_is(
    tmp_path: Path, deed: Callable[[Path], None]
) -> None:
    """F23: the loop works beside it."""
    world = make_repository(tmp_path / "world")
    deed(world)
    status = git(world, "status", "--porcelain=v2", "--branch")
    set_up(world)
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    assert told(lab) == [(1, "keep", None)]
    assert git(world, "status", "--porcelain=v2", "--branch") == status


def test_a_repository_amid_a_rebase_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    git(world, "checkout", "--quiet", "-b", "other")
    (world / "recipe.py").write_text("score = 1\n")
    git(world, "commit", "--quiet", "--all", "--message", "one")
    git(world, "checkout", "--quiet", "main")
    (world / "recipe.py").write_text("score = 3\n")
    git(world, "commit", "--quiet", "--all", "--message", "two")
    for words, what in ((["rebase", "other"], "a rebase"), (["merge", "other"], "a merge")):
        with pytest.raises(Exception, match="returned non-zero"):
            git(world, *words)
        status = git(world, "status", "--porcelain=v2")
        with pytest.raises(UsageError, match=f"{what} is going on; finish or abort it first"):
            set_up(world)
        assert git(world, "status", "--porcelain=v2") == status
        git(world, words[0], "--abort")
    assert told(set_up(world)) == []


def test_a_branch_that_exists_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    git(world, "branch", "autoresearch/t")
    with pytest.raises(UsageError, match="the branch autoresearch/t exists; choose another --tag"):
        set_up(world)
    assert set_up(world, "u").state.tip is not None
    with pytest.raises(UsageError, match="was set up already"):
        set_up(world, "u")


def test_no_repository_a_bare_one_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    world = make_repository(tmp_path / "world")
    git(tmp_path, "clone", "--quiet", "--bare", str(world), "bare.git")
    git(tmp_path, "init", "--quiet", "unborn")
    with pytest.raises(UsageError, match="run `git init` first"):
        set_up(tmp_path / "empty")
    with pytest.raises(UsageError, match="is in a bare repository"):
        set_up(tmp_path / "bare.git")
    with pytest.raises(UsageError, match="no commit yet"):
        set_up(tmp_path / "unborn")


def test_a_branch_that_somebody_moved_refuses_the_loop(
    world: Path, invoke: Callable[..., Result]
) -> None:
    lab = research(world, Recipes(["score = 1.9\n"]), 1)
    tip = lab.repository.ref(lab.layout.branch)
    moved = git(world, "commit-tree", "-m", "mine", "-p", "HEAD", "HEAD^{tree}")
    git(world, "update-ref", lab.layout.branch, moved)
    ended = invoke(world, "loop", "--experiments", "1", researcher=Scripted("score = 1\n"))
    assert ended.exit_code == 1
    assert ended.output.count("\n") == 1
    assert f"git update-ref refs/heads/autoresearch/t {tip}" in ended.output
    assert lab.repository.ref(lab.layout.branch) == moved
    git(world, "update-ref", lab.layout.branch, str(tip))
    lab = research(world, Recipes(["", "score = 1.8\n"]), 2)
    assert told(lab)[-1] == (2, "keep", None)


def test_a_branch_that_is_moved_meanwhile_stops_the_loop(
    world: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    moved = git(world, "commit-tree", "-m", "mine", "-p", "HEAD", "HEAD^{tree}")

    def step(workspace: Path) -> None:
        (workspace / "recipe.py").write_text("score = 1.9\n")
        git(world, "update-ref", "refs/heads/autoresearch/t", moved)

    told_to = tmp_path / "stopped"
    ended = invoke(
        world,
        *("loop", "--yes", "--on-stop", f'echo "$MODGRAD_REASON" > {told_to}'),
        researcher=Scripted(step),
    )
    assert ended.exit_code == 1
    assert "somebody moved it" in ended.output
    assert "somebody moved it" in told_to.read_text()
    assert "somebody moved it" in records(world, "stopped")[-1]["reason"]
    git(world, "update-ref", "refs/heads/autoresearch/t", git(world, "rev-parse", "main"))
    lab, _ = run(world, Scripted(), experiments=1)
    assert told(lab) == [(1, "keep", None)]
    sound(world, lab)


def test_a_second_loop_on_the_tag_is_refused_at_once(
    world: Path, invoke: Callable[..., Result]
) -> None:
    """F24."""
    before = records(world)
    with only_one(Layout(world / ".git", "t").lock, "the first"):
        for words in (["loop", "--yes"], ["verify"], ["run"], ["report", "--remeasure", "1"]):
            start = time.monotonic()
            ended = invoke(world, *words, researcher=Scripted("score = 1\n"))
            assert time.monotonic() - start < 1
            assert ended.exit_code == 2
            assert "the loop of t is at work already" in ended.output
        assert json.loads(invoke(world, "status", "--json").output)["running"] is True
    assert json.loads(invoke(world, "status", "--json").output)["running"] is False
    assert records(world) == before


def test_two_loops_side_by_side(world: Path) -> None:
    set_up(world, "u")
    recipes = {"t": ["score = 1.9\n", "score = 1.8\n"], "u": ["score = 1.7\n", "score = 1.75\n"]}
    labs: dict[str, Lab] = {}

    def work(tag: str) -> None:
        labs[tag] = research(world, Recipes(recipes[tag]), 2, tag)

    threads = [threading.Thread(target=work, args=[tag]) for tag in recipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for _, status, _ in told(labs["t"])] == ["keep", "keep"]
    assert [status for _, status, _ in told(labs["u"])] == ["keep", "discard"]
    for lab in labs.values():
        sound(world, lab)


def plant(world: Path, pwned: Path) -> None:
    """Hooks and programs that note that they ran, write into the tree, and fail."""
    script = f'#!/bin/sh\necho "$0" >> {pwned}\necho mess > mess.txt\nexit 1\n'
    hooks = world / "my-hooks"
    names = ("pre-commit", "commit-msg", "post-commit", "reference-transaction", "post-checkout")
    for name in (
        *names,
        "post-index-change",
        "pre-auto-gc",
        "prepare-commit-msg",
        "gpg",
        "monitor",
    ):
        for folder in (hooks, world / ".git" / "hooks"):
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)


SIGNING = {
    "commit.gpgsign": "true",
    "tag.gpgsign": "true",
    "user.signingkey": "0xDEADBEEF",
}


@pytest.mark.parametrize("where", ["folder", "default"])
def test_hooks_and_signing_of_the_user_stay_out_of_it(tmp_path: Path, where: str) -> None:
    """F25."""
    world, pwned = make_repository(tmp_path / "world"), tmp_path / "pwned"
    plant(world, pwned)
    for name, value in SIGNING.items():
        git(world, "config", name, value)
    git(world, "config", "gpg.program", str(world / "my-hooks" / "gpg"))
    git(world, "config", "core.fsmonitor", str(world / "my-hooks" / "monitor"))
    git(world, "config", "diff.external", str(world / "my-hooks" / "monitor"))
    if where == "folder":
        git(world, "config", "core.hooksPath", str(world / "my-hooks"))
    set_up(world)
    lab = research(world, Recipes(["score = 1.9\n", "score = 1.95\n"]), 2)
    assert [status for _, status, _ in told(lab)] == ["keep", "discard"]
    assert not pwned.exists(), pwned.read_text()
    assert not list(world.rglob("mess.txt"))
    lab.repository.run("fsck", "--strict")


@pytest.mark.parametrize("name", ["with spaces", "ключ 日本 é", "a'b\"c$d", "-dash"])
def test_names_of_folders(tmp_path: Path, name: str) -> None:
    world = make_repository(tmp_path / name)
    set_up(world / "data", "t")  # from a subfolder
    lab = research(world / "data", Recipes(["score = 1.9\n"]), 1)
    assert told(lab) == [(1, "keep", None)]
    sound(world, lab)


def test_commands_from_a_subfolder(world: Path, invoke: Callable[..., Result]) -> None:
    ended = invoke(
        world / "data", "loop", "--experiments", "1", researcher=Scripted("score = 1.9\n")
    )
    assert ended.exit_code == 0, ended.output
    assert "stopped: 1 experiments were asked for" in ended.output
    assert "1.900000" in invoke(world / "data", "status", "--once").output
