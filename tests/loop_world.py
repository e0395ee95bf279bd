"""A small world for the loop's tests: a repository whose training takes
milliseconds, whose score stands in its one mutable file, and a loop over it.

Edits are `recipe.py` files; `score = 1.5` in one is what it will be scored with,
`crash = True` lets its training fail, `run = ...` is shell that its training runs
first. A `~` after the score adds noise, by seed and by recipe. Nothing of this is
known to the product: the training is a command of the contract, the evaluator is
handed in.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modgrad.autoresearch import setup, tags
from modgrad.autoresearch.lab import Lab, Options
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.loop import Limits, Stop, only_one, run_loop
from modgrad.autoresearch.processes import Finished
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.researchers import Briefing, Failure, Proposal
from modgrad.autoresearch.scoring import Score

CONTRACT = """
forbidden_names = [".gitattributes", "conftest.py", "sitecustomize.py"]
forbidden_suffixes = [".pth", ".so"]
largest_file = 4096
most_files = 8

[tasks.language]
summary = "a number in a file"
mutable = ["recipe.py", "parts/**/*.py"]
tunable = ["recipe.py"]
imports = ["math"]
results = "results-language.tsv"
train = ["sh", "trainer.sh", "{seed}", "{checkpoint}"]
evaluator = "language"
"""

# The same, scored as mazes are.
MAZES = (
    CONTRACT.replace("tasks.language", "tasks.mazes")
    .replace("results-language", "results-mazes")
    .replace(
        'evaluator = "language"', 'evaluator = "mazes"\nmazes = { size = 21, layout = "open" }'
    )
)

TRAINER = """
echo "step 1  loss 2.0000 bits  1.0 kB/s"
if grep -q '^crash = True' recipe.py; then echo "error: it broke"; exit 1; fi
if grep -q '^stall = True' recipe.py; then while [ ! -e ../../go ]; do sleep 0.05; done; fi
if grep -q '^hang = True' recipe.py; then trap '' TERM; while :; do sleep 1; done; fi
eval "$(sed -n 's/^run = //p' recipe.py)"
{ sed -n 's/^score = //p' recipe.py; echo "$1"; } > "$2"
"""

RECIPE = "score = 2.0\n"
NOISE = 0.002  # standard deviation of a score with a tilde


def git(folder: Path, *arguments: str) -> str:
    """Git as the user would call it."""
    identity = ["-c", "user.name=user", "-c", "user.email=user@localhost"]
    command = ["git", *identity, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repository(folder: Path, contract: str = CONTRACT) -> Path:
    """A repository of a user, with a commit."""
    folder.mkdir(parents=True)
    (folder / "contract.toml").write_text(contract)
    (folder / "trainer.sh").write_text(TRAINER)
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "program.md").write_text("# What to do\n\nLower the score in recipe.py.\n")
    (folder / ".gitignore").write_text("results-*.tsv\n/data/\n")
    (folder / "data").mkdir()
    (folder / "data" / "train_text.txt").write_bytes(bytes(range(32, 127)) * 40)
    (folder / "data" / "val.txt").write_bytes(b"a text to score, of no particular meaning" * 9)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "the user's work")
    return folder


def read_score(layout: Layout, settings: Any, checkpoint: Path, data: Any, **_: Any) -> Score:
    """What stands in the checkpoint, a little worse on the holdout."""
    text, seed = checkpoint.read_text().split()
    if text == "nan":
        return Score(None, "`logits` are not finite", 0.0)
    value, tilde, salt = text.partition("~")
    value = float(value)
    if tilde:  # as if each recipe and seed drew other weights to begin with
        value += NOISE * random.Random(f"{salt} {seed}").gauss(0, 1)
    return Score(value + (0.01 if data.name.startswith("holdout") else 0.0), "", 0.0)


def play_training(
    command: list[str], *, cwd: Path, log: Path, started: Any = None, **_: Any
) -> Finished:
    """Stands in for the training process, where thousands of runs are wanted."""
    seed, checkpoint = command[-2:]
    [score] = re.findall(r"^score = (.*)$", (cwd / "recipe.py").read_text(), re.MULTILINE)
    if started is not None:
        started(os.getpid())
    log.write_text("step 1  loss 2.0000 bits  1.0 kB/s\n")
    Path(checkpoint).write_text(f"{score}\n{seed}\n")
    return Finished(0, 0.01, 10.0)


class Recipes:
    """Proposes one recipe after another: the n-th experiment's is the n-th."""

    name = "recipes"

    def __init__(self, recipes: Sequence[str]) -> None:
        self.recipes = recipes
        self.repairs: list[Failure] = []

    def base(self, briefing: Briefing) -> str | None:
        return None

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        recipe = self.recipes[briefing.number - 1]
        (workspace / "recipe.py").write_text(recipe)
        return Proposal(f"try recipe {briefing.number}")

    def repair(self, workspace: Path, briefing: Briefing, failure: Failure) -> Proposal | None:
        self.repairs.append(failure)
        return None


def set_up(folder: Path, tag: str = "t", task: str = "language", **request: Any) -> Lab:
    """`setup` on a world's repository."""
    repository = Repository(folder)
    given: dict[str, Any] = {"budget": 1.0, "baseline_runs": 1, **request}
    lab, _ = setup.prepare(repository, setup.Request(tag, task, **given), ignore)
    lab.evaluate, lab.say = read_score, ignore
    setup.measure_baseline(lab)
    return lab


def open_world(folder: Path, tag: str = "t", **options: Any) -> Lab:
    """The lab of a world that was set up."""
    lab = tags.load(*tags.find(tag, folder))
    lab.evaluate, lab.say, lab.options = read_score, ignore, Options(**options)
    return lab


def research(
    folder: Path, researcher: Any, experiments: int, tag: str = "t", **options: Any
) -> Lab:
    """`loop` until there are so many experiments beside the baseline."""
    _, layout = tags.find(tag, folder)
    with only_one(layout.lock, "the loop"):
        lab = open_world(folder, tag, **options)
        done = sum(one.status != "skip" for one in lab.state.experiments if one.finished) - 1
        limits = Limits(experiments=experiments - done, failures=3, when_gone="stop")
        run_loop(lab, researcher, lambda: researcher, limits, Stop())
    return lab


def ignore(*_: Any) -> None:
    """Says nothing."""
