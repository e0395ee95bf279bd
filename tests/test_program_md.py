"""program.md says what contract.toml and the code say."""

from __future__ import annotations

import re

import pytest
from modgrad.autoresearch import contract
from modgrad.autoresearch.prompt import HYPOTHESIS, LARGEST
from modgrad.autoresearch.researchers.base import FAMILIES

from tests.conftest import ROOT

PROGRAM = (ROOT / "program.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "contract.toml").read_text(encoding="utf-8")
TASKS = contract.tasks(CONTRACT)


def listed(text: str, label: str) -> list[str]:
    """The code spans of the one item that begins with `label`."""
    items = re.findall(rf"^- {re.escape(label)}:(.*?)(?=^- |^$)", text, re.MULTILINE | re.DOTALL)
    assert len(items) == 1, f"`- {label}:` stands {len(items)} times"
    return re.findall(r"`([^`]+)`", items[0])


def section(task: str) -> str:
    found = re.search(rf"^### {task}$(.*?)(?=^##)", PROGRAM, re.MULTILINE | re.DOTALL)
    assert found, f"program.md has no section for the task {task}"
    return found[1]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_described_as_the_contract_has_it(task: str) -> None:
    rules, text = contract.load(CONTRACT, task), section(task)
    assert listed(text, "May change") == list(rules.mutable)
    assert sorted(listed(text, "May import in changed Python")) == sorted(rules.imports)
    assert listed(text, "Results") == [rules.results]


@pytest.mark.parametrize("task", TASKS)
def test_files_of_a_task_are_there(task: str) -> None:
    rules = contract.load(CONTRACT, task)
    for path in (*rules.tunable, *(path for path in rules.mutable if "*" not in path)):
        assert (ROOT / path).is_file(), path
        assert rules.allows(path), path


def test_no_task_is_described_that_the_contract_lacks() -> None:
    tasks = PROGRAM.split("\n## Tasks\n")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^### (.+)$", tasks, re.MULTILINE)) == TASKS


def test_refusals_are_those_of_the_contract() -> None:
    rules = contract.load(CONTRACT, TASKS[0])
    assert sorted(listed(PROGRAM, "Names")) == sorted(rules.forbidden_names)
    assert sorted(listed(PROGRAM, "Endings")) == sorted(rules.forbidden_suffixes)
    assert f"more than {rules.largest_file} bytes" in PROGRAM
    assert f"more than {rules.most_files}" in PROGRAM


def test_what_to_hand_over_is_what_is_read() -> None:
    assert listed(PROGRAM, "Families") == list(FAMILIES)
    assert f"`{HYPOTHESIS}`" in PROGRAM
    named = set(re.findall(r"^    family: (.+)$", PROGRAM, re.MULTILINE))
    assert named and named <= set(FAMILIES)


def test_columns_of_the_results() -> None:
    text = PROGRAM.split("\n## The results file\n")[1].split("\n## ")[0]
    spans = re.findall(r"`([^`]+)`", text)
    assert spans[:5] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert spans[5:] == ["keep", "discard", "crash"]


def test_files_that_it_names_are_there() -> None:
    for name in ("docs/language.md", "contract.toml", "isis/ffn.py", "isis/learn_ffn.py"):
        assert f"`{name}`" in PROGRAM and (ROOT / name).is_file()


def test_it_leaves_room_for_the_history() -> None:
    assert len(PROGRAM) < 0.55 * LARGEST
    assert all(len(line) <= 100 for line in PROGRAM.splitlines())
