"""The loop's own memory: as much after a thousand experiments as after two hundred.

A process of its own runs the loop with training and scoring taken out, and says
how much it holds after so many experiments: what Python has allocated, which
shows a small leak soon, and what the system counts, which shows any.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import psutil
import pytest
from modgrad.autoresearch import sandbox
from modgrad.autoresearch.processes import Finished
from modgrad.autoresearch.researchers import Briefing, Proposal

from tests.conftest import ROOT
from tests.loop_world import Recipes, make_repository, research, set_up

# What an experiment must leave behind: its line in the state, a few kB.
MOST_KB_EACH = 8


def growth(folder: Path, few: int, many: int, leak: int = 0) -> tuple[float, float]:
    """kB for each experiment between the two numbers of them: (allocated, resident).
    `leak` is how many kB the researcher holds on to each time."""
    command = [sys.executable, "-m", "tests.test_memory", folder, few, many, leak]
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, last = (list(map(float, line.split())) for line in done.stdout.splitlines())
    allocated, resident = ((last[at] - first[at]) / (many - few) / 1000 for at in (0, 1))
    print(f"{allocated:.1f} kB allocated, {resident:.1f} kB resident for each experiment")
    return allocated, resident


def test_an_experiment_leaves_little_behind(memory_folder: Path) -> None:
    allocated, _ = growth(memory_folder, 20, 60)
    assert allocated < MOST_KB_EACH


def test_a_leak_would_be_seen(memory_folder: Path) -> None:
    """The control."""
    allocated, _ = growth(memory_folder, 20, 40, leak=20)
    assert allocated > 20


@pytest.mark.slow
def test_memory_stays_flat_over_a_thousand_experiments(memory_folder: Path) -> None:
    _, resident = growth(memory_folder, 200, 1000)
    assert resident < MOST_KB_EACH


class Counting(Recipes):
    """Ever new recipes; one in eight is better, one in ten crashes. Notes what the
    process holds when it has been asked so many times."""

    def __init__(self, at: list[int], leak: int) -> None:
        super().__init__([])
        self.at, self.leak = at, leak
        self.leaked: list[bytes] = []

    def propose(self, workspace: Path, briefing: Briefing) -> Proposal:
        number = briefing.number
        if number in self.at:
            gc.collect()
            print(tracemalloc.get_traced_memory()[0], psutil.Process().memory_info().rss)
        self.leaked.append(bytes(1000 * self.leak))
        score = 2 - number / 10_000 if number % 8 == 0 else 2 + number / 10_000
        crash = "crash = True\n" if number % 10 == 5 else ""
        (workspace / "recipe.py").write_text(f"{crash}score = {score}\n")
        return Proposal(f"try {number}")


def start_nothing(
    command: list[str], *, cwd: Path, log: Path, started: Any = None, watch: Any = None, **_: Any
) -> Finished:
    """In the place of the trainer: what the small world's would leave behind."""
    recipe = (cwd / "recipe.py").read_text()
    if started is not None:
        started(1)
    log.write_text("step 1  loss 2.0000 bits\n" * 400 + "error: it broke\n")
    if recipe.startswith("crash"):
        return Finished(1, 0.1, 10.0)
    Path(command[-1]).write_text(recipe.removeprefix("score = ") + command[-2])
    return Finished(0, 0.1, 10.0)


def main() -> None:
    """Prints what the loop holds at two of its experiments, in bytes."""
    folder, (few, many, leak) = Path(sys.argv[1]), map(int, sys.argv[2:])
    sandbox.start_trainer = start_nothing
    world = make_repository(folder / "world")
    set_up(world)
    if many < 200:  # it costs time, and memory of its own
        tracemalloc.start()
    lab = research(world, Counting([few, many], leak), many)
    assert {one.status for one in lab.state.experiments} == {"keep", "discard", "crash"}


if __name__ == "__main__":
    main()
