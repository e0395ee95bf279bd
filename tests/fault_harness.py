"""Strikes a loop at every fault point, one after another, and looks at what is left.

    python -m tests.fault_harness FOLDER kill|eio|enospc [EVERY]

A process that has imported everything forks one child that is struck at the N-th
point and one that goes on afterwards, for N = 1, 2, … until a child is not struck
any more. Prints what does not hold, and how many points there were.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import psutil
from modgrad.autoresearch import faults, results, tags
from modgrad.autoresearch.journal import Journal
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.loop import is_running
from modgrad.autoresearch.processes import MARKER
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.state import State

from tests.loop_world import Recipes, git, make_repository, research, set_up

RECIPES = ["score = 1.5\n", "crash = True\n", "score = 1.4\n"]


def main() -> int:
    """Runs all faults of one kind."""
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    every = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    world, template = folder / "world", folder / "template"
    make_repository(world)
    (world / "recipe.py").write_text("# the user's own unfinished work\nscore = 7\n")
    set_up(world)
    shutil.copytree(world, template, symlinks=True)
    checkout = describe_checkout(world)
    _fork(world, "")
    expected = history(world)
    wrong = problems(world, checkout, expected)
    struck = 0
    for number in range(1, 100_000, every):
        shutil.rmtree(world)
        shutil.copytree(template, world, symlinks=True)
        _fork(world, f"{kind}@{number}")
        if (folder / "passed").read_text() != "":
            break
        struck += 1
        ended = _fork(world, "")
        if ended != 0:
            wrong.append(f"{kind}@{number}: going on ended with {ended}")
            continue
        wrong += [f"{kind}@{number}: {line}" for line in problems(world, checkout, expected)]
    print("\n".join(wrong))
    print(f"{struck} faults, {len(wrong)} problems")
    return 1 if wrong or not struck else 0


def _fork(world: Path, fault: str) -> int:
    """Runs the loop in a child; its exit status, negative for a signal."""
    passed = world.parent / "passed"
    passed.write_text("")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            faults.arm(fault)
            research(world, Recipes(RECIPES), len(RECIPES))
            if faults.passed() < int(fault.partition("@")[2] or 0):
                passed.write_text("all")  # there is no such point
        except OSError as error:
            code = 3 if "injected" in str(error) else 4
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            code = 5
        sys.stdout.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def history(world: Path) -> list[Any]:
    """What was tried and what became of it, commits and times aside."""
    _, layout = tags.find("t", world)
    state = State.replay(Journal(layout.journal, layout.key).read())
    return [(one.number, one.status, one.val_bpb, one.hypothesis) for one in state.experiments]


def describe_checkout(world: Path) -> str:
    """Every byte of the user's checkout, and where it stands."""
    digest = hashlib.sha256()
    for path in sorted(world.rglob("*")):
        if ".git" not in path.relative_to(world).parts and path.is_file():
            digest.update(str(path).encode() + path.read_bytes())
    digest.update((world / ".git" / "index").read_bytes())
    digest.update(git(world, "symbolic-ref", "HEAD").encode())
    digest.update(git(world, "rev-parse", "main").encode())
    return digest.hexdigest()


def problems(world: Path, checkout: str, expected: list[Any]) -> list[str]:
    """Which of the invariants do not hold."""
    wrong: list[str] = []
    repository, layout = Repository(world), Layout(world / ".git", "t")
    state = State.replay(Journal(layout.journal, layout.key).read())  # I1, I8
    rows = results.parse((layout.worktree / "results-language.tsv").read_text())
    finished = [one for one in state.experiments if one.finished and one.status != "skip"]
    if len(rows) != len(finished) or [row.status for row in rows] != [e.status for e in finished]:
        wrong.append("I2: the table does not have each experiment once")
    assert state.tip is not None and state.tip.candidate is not None
    if repository.ref(layout.branch) != state.tip.candidate:
        wrong.append("I3: the branch does not stand on the last keep")
    refs = repository.refs(layout.candidates)
    for one in state.experiments[1:]:
        if refs.get(layout.candidate(one.number)) != one.candidate:
            wrong.append(f"I4: candidate {one.number} has no ref")
    kept = [state.experiments[number].val_bpb for number in state.kept]
    if state.tip.val_bpb != min(score for score in kept if score is not None):
        wrong.append("I5: the tip is not the best of what was kept")
    wrong += [f"I6: {line}" for line in leftovers(layout)]
    if describe_checkout(world) != checkout:
        wrong.append("I7: the user's checkout was touched")
    if history(world) != expected:
        wrong.append(f"I9: {history(world)} is not {expected}")
    return wrong


def leftovers(layout: Layout) -> list[str]:
    """Processes, locks and temporary files that should be gone."""
    wrong = [str(path) for path in layout.root.rglob(".*.tmp")]
    wrong += [str(path) for path in (layout.common / "worktrees").rglob("*.lock")]
    wrong += [str(path) for path in layout.work.glob("*") if path.name != "run.log"]
    if is_running(layout.lock):
        wrong.append("the lock is held")
    marker = f"{MARKER}={layout.tag}@{layout.common}".encode()
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if marker in environment and process.status() != psutil.STATUS_ZOMBIE:
            wrong.append(f"process {process.pid} is alive")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
