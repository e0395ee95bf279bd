"""Commands of the user, limits, and what setup refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from modgrad.autoresearch import faults, setup
from modgrad.autoresearch.errors import JournalError, RepositoryError, UsageError
from modgrad.autoresearch.experiment import advance, plan, propose
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.researchers.base import Briefing, Proposal
from modgrad.autoresearch.researchers.command import AgentFailed
from modgrad.autoresearch.state import Experiment
from modgrad.errors import ModgradError

from tests.loop.tools import Scripted, Step, fails, records, rows, run, sound, told
from tests.loop_world import CONTRACT, git, ignore, make_repository, open_world, read_score, set_up


def test_commands_of_the_user_are_told(
    world: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    kept, stopped = tmp_path / "kept", tmp_path / "stopped"
    note = 'echo "$MODGRAD_TAG $MODGRAD_EXPERIMENT_NUMBER $MODGRAD_VAL_BPB $MODGRAD_HYPOTHESIS"'
    words = ["--on-keep", f"{note} >> {kept}", "--on-stop", f'echo "$MODGRAD_REASON" > {stopped}']
    researcher = Scripted("score = 1.9\n", "score = 1.95\n", "score = 1.8\n")
    ended = invoke(world, "loop", "--experiments", "3", *words, researcher=researcher)
    assert ended.exit_code == 0, ended.output
    assert kept.read_text() == "t 1 1.900000 step 1\nt 3 1.800000 step 3\n"
    assert stopped.read_text() == "3 experiments were asked for\n"


def test_a_command_of_the_user_that_fails_stops_nothing(
    world: Path, invoke: Callable[..., Result]
) -> None:
    researcher = Scripted("score = 1.9\n")
    ended = invoke(
        world, "loop", "--experiments", "1", "--on-keep", "exit 3", researcher=researcher
    )
    assert ended.exit_code == 0
    assert "the command `exit 3` failed" in ended.output


@pytest.mark.parametrize(
    ("words", "experiments", "reason"),
    [
        (["--until", "2020-01-01T00:00"], 0, "the time is up"),
        (["--hours", "0.0000001"], 0, "the time is up"),
        (["--experiments", "0"], 0, "0 experiments were asked for"),
        (["--experiments", "2"], 2, "2 experiments were asked for"),
        (["--max-cost", "1.5"], 2, "the researcher has cost $2.00"),
    ],
)
def test_limits(
    world: Path, words: list[str], experiments: int, reason: str, invoke: Callable[..., Result]
) -> None:
    asked: list[int] = []

    def step(workspace: Path) -> Proposal:
        asked.append(1)
        (workspace / "recipe.py").write_text(f"x = {len(asked)}\nscore = 2.0\n")
        return Proposal("more", cost=1.0)

    ended = invoke(world, "loop", *words, researcher=Scripted(*([step] * 5)))
    assert ended.exit_code == 0, ended.output
    assert ended.output.endswith(f"stopped: {reason}\n")
    assert len(records(world, "logged")) == 1 + experiments


def test_a_limit_that_is_no_time_is_wrong_usage(world: Path, invoke: Callable[..., Result]) -> None:
    ended = invoke(world, "loop", "--until", "noon", researcher=Scripted())
    assert ended.exit_code == 2
    assert "--until noon: is neither 07:30 nor" in ended.output


def test_max_failures(world: Path, invoke: Callable[..., Result]) -> None:
    researcher = Scripted(*([fails(AgentFailed("dead", cost=0.5))] * 9))
    ended = invoke(
        world, "loop", "--max-failures", "2", "--when-gone", "stop", researcher=researcher
    )
    assert ended.exit_code == 0
    assert "stopped: the researcher is gone: 2 failures in a row, the last: dead" in ended.output
    assert json.loads(invoke(world, "status", "--json").output)
    assert open_world(world).state.cost == 1.0


def test_skips_are_no_experiments_of_the_limit(world: Path) -> None:
    steps: list[Step | str] = [lambda w: None, "score = 1.9\n"]
    lab, _ = run(world, Scripted(*steps), experiments=1)
    assert [status for _, status, _ in told(lab)] == ["skip", "keep"]
    assert rows(lab) == ["keep", "keep"]


def test_run_takes_what_stands_in_the_worktree(world: Path, invoke: Callable[..., Result]) -> None:
    worktree = Layout(world / ".git", "t").worktree
    nothing = invoke(world, "run")
    assert nothing.exit_code == 2
    assert "nothing is changed there" in nothing.output
    (worktree / "recipe.py").write_text("score = 1.9\n")
    ended = invoke(world, "run", "--message", "by hand")
    assert ended.exit_code == 0, ended.output
    lab = open_world(world)
    assert told(lab) == [(1, "keep", None)]
    assert lab.state.experiments[1].hypothesis == "by hand"
    (worktree / "trainer.sh").write_text("exit 0\n")
    assert invoke(world, "run").exit_code in (0, 2)
    assert open_world(world).state.kept == [0, 1]
    sound(world, open_world(world))


@pytest.mark.parametrize("kept", ["1.9", "2.5"])
def test_run_finishes_what_was_cut_short_and_then_runs_the_edit(
    world: Path, kept: str, invoke: Callable[..., Result]
) -> None:
    researcher = Scripted(f"score = {kept}\n")
    lab = open_world(world)
    propose(lab, plan(lab, researcher), researcher)
    (world / ".git/modgrad/t/worktree/recipe.py").write_text("score = 1.8\n")
    ended = invoke(world, "run", "--message", "mine")
    assert ended.exit_code == 0, ended.output
    assert "experiment 1 was cut short" in ended.output
    lab = open_world(world)
    assert [one.hypothesis for one in lab.state.experiments[1:]] == ["step 1", "mine"]
    assert lab.state.experiments[2].status == "keep"
    sound(world, lab)


def test_run_checks_what_is_pinned_and_loses_no_edit(
    world: Path, invoke: Callable[..., Result]
) -> None:
    edit = world / ".git/modgrad/t/worktree/recipe.py"
    edit.write_text("score = 1.8\n")
    data = world / ".git/modgrad/t/data/val.txt"
    content = data.read_bytes()
    data.write_bytes(b"another text")
    ended = invoke(world, "run")
    assert ended.exit_code == 1
    assert "not as it was pinned" in ended.output
    data.write_bytes(content)
    assert edit.read_text() == "score = 1.8\n"
    ended = invoke(world, "run", "--from", str(world / "none"))
    assert ended.exit_code == 2
    assert "no such folder" in ended.output


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["loop", "--researcher", "script:none"], "no such folder"),
        (["loop", "--hours", "nan"], "no finite number"),
        (["loop", "--max-cost", "inf"], "no finite number"),
        (["setup", "--budget", "nan"], "no finite number"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    world: Path, words: list[str], refused: str, invoke: Callable[..., Result]
) -> None:
    ended = invoke(world, *words)
    assert ended.exit_code == 2
    assert refused in ended.output


def test_a_researcher_may_start_from_kept_commits_only(world: Path, waits: list[float]) -> None:
    class Elsewhere(Scripted):
        def base(self, briefing: Briefing) -> str | None:
            return "f" * 40

    _, reason = run(world, Elsewhere("score = 1\n"), failures=2)
    assert "wants to start from fffffff, no kept commit" in reason


def test_a_plan_goes_on_after_every_step(world: Path) -> None:
    """`advance` again and again on a fresh reading of the journal."""
    researcher = Scripted("score = 1.9\n")
    lab = open_world(world)
    one: Experiment = plan(lab, researcher)
    advance(lab, one, researcher)
    again = open_world(world)
    advance(again, again.state.experiments[1], researcher)
    assert told(again) == [(1, "keep", None)]
    assert len(records(world, "logged")) == 2


def test_setup_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    request = setup.Request("t", "language", budget=1.0, baseline_runs=1)
    setup.prepare(Repository(world), request, ignore)
    with pytest.raises(JournalError, match="setup did not finish"):
        open_world(world)
    lab, found = setup.prepare(Repository(world), request, ignore)
    assert "that was cut short" in found
    lab.evaluate, lab.say = read_score, ignore
    setup.measure_baseline(lab)
    assert open_world(world).state.kept == [0]


def test_setup_that_was_cut_short_goes_on_with_the_same_only(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    setup.prepare(Repository(world), setup.Request("t", "language", budget=1.0), ignore)
    with pytest.raises(UsageError, match=r"--budget 2.0: the setup of t was begun with 1.0"):
        setup.prepare(Repository(world), setup.Request("t", "language", budget=2.0), ignore)
    train, val = world / "data" / "train_text.txt", world / "data" / "val.txt"
    again = setup.Request("t", "language", budget=1.0, train=(train,), val=val)
    setup.prepare(Repository(world), again, ignore)  # the default's own files
    train.write_bytes(train.read_bytes()[::-1])
    with pytest.raises(UsageError, match="was begun with other data"):
        setup.prepare(Repository(world), again, ignore)


def test_a_baseline_that_is_mended_is_measured_anew(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    (world / "recipe.py").write_text("crash = True\n")
    git(world, "commit", "--quiet", "--all", "--message", "broken")
    with pytest.raises(UsageError, match="the baseline has no score"):
        set_up(world)
    (world / "recipe.py").write_text("score = 1.5\n")
    git(world, "commit", "--quiet", "--all", "--message", "mended")
    lab = set_up(world)
    assert [one.val_bpb for one in lab.state.experiments] == [1.5]
    sound(world, lab)


def test_text_that_is_trained_on_is_not_scored(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    path = world / "data" / "val.txt"
    request = setup.Request("t", "language", budget=1.0, train=(path,), val=path)
    with pytest.raises(UsageError, match="is trained on too"):
        setup.prepare(Repository(world), request, ignore)


def test_setup_that_is_struck_at_any_point_goes_on(tmp_path: Path) -> None:
    request = setup.Request("t", "language", budget=1.0, baseline_runs=1)

    def set_up_again(world: Path) -> None:
        lab, _ = setup.prepare(Repository(world), request, ignore)
        lab.evaluate, lab.say = read_score, ignore
        setup.measure_baseline(lab)

    for number in range(1, 1000, 2):  # each record is written and synchronised
        world = make_repository(tmp_path / str(number))
        faults.arm(f"eio@{number}")
        try:
            set_up_again(world)
        except (OSError, ModgradError):
            pass
        else:
            break
        finally:
            faults.arm("")
        try:
            set_up_again(world)
        except UsageError as error:
            assert "already" in str(error)  # only the view of it was not written
        assert open_world(world).state.kept == [0], number
    assert number > 30


def test_a_baseline_without_a_score_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world")
    (world / "recipe.py").write_text("crash = True\n")
    git(world, "commit", "--quiet", "--all", "--message", "broken")
    with pytest.raises(UsageError, match=r"the baseline has no score \(usage: error: it broke\)"):
        set_up(world)


def test_a_contract_that_is_not_committed_is_refused(tmp_path: Path) -> None:
    world = make_repository(tmp_path / "world", CONTRACT)
    git(world, "rm", "--quiet", "--cached", "contract.toml")
    git(world, "commit", "--quiet", "--message", "without")
    with pytest.raises(UsageError, match="is not in commit"):
        set_up(world)


def test_a_sha_is_a_sha(world: Path) -> None:
    with pytest.raises(RepositoryError, match="is no commit"):
        Repository(world).move_ref("refs/modgrad/t/1", "--upload-pack=evil", None)
    with pytest.raises(UsageError, match="no such commit"):
        Repository(world).commit("--output=evil")
