"""The research loop: `python -m modgrad.autoresearch --help`."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from modgrad.command_line import Commands, Number

PATH = click.Path(path_type=Path)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Research that goes on while you sleep: edit, train, score, keep or roll back.

    \b
    Begin with:
      python -m modgrad.autoresearch setup --task language --budget 300
      python -m modgrad.autoresearch loop                 the built-in search
      python -m modgrad.autoresearch loop --researcher claude
      python -m modgrad.autoresearch status               what runs, what was found
      python -m modgrad.autoresearch report               a picture and a page
    """
    # Whatever a calling git hook left must not steer our git.
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]


def _say(line: str) -> None:
    click.echo(line, err=True)


def _agreed(question: str, yes: bool) -> bool:
    """Asks a person; what runs unattended is never asked."""
    return yes or not sys.stdin.isatty() or click.confirm(question, default=True)


tag_option = click.option("--tag", help="Which setup; may be left out when there is one.")


@main.command()
@click.option("--tag", help="A name for the branch autoresearch/TAG.  [default: from the date]")
@click.option("--task", default="language", show_default=True, help="A task of contract.toml.")
@click.option("--train", type=PATH, multiple=True, help="Training data; may be given again.")
@click.option("--val", type=PATH, help="What is scored.")
@click.option(
    "--budget",
    type=Number(min=1),
    default=300.0,
    show_default=True,
    help="Seconds of training in every experiment.",
)
@click.option(
    "--baseline-runs",
    type=click.IntRange(min=1, max=50),
    default=3,
    show_default=True,
    help="Seeds that the baseline is measured with, for the spread.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--checkpoint-gb",
    type=Number(min=0),
    default=20.0,
    show_default=True,
    help="Disk for the checkpoints of kept commits.",
)
@click.option("--size", type=int, help="Of mazes, in pixels a side.  [default: the contract's]")
@click.option("--layout", help="Of mazes: open or corner.  [default: the contract's]")
@click.option("--yes", is_flag=True, help="Do not ask.")
def setup(
    tag: str | None,
    task: str,
    train: tuple[Path, ...],
    val: Path | None,
    budget: float,
    baseline_runs: int,
    seed: int,
    checkpoint_gb: float,
    size: int | None,
    layout: str | None,
    yes: bool,
) -> None:
    """Fix task, data, budget and evaluator for a tag; measure the baseline."""
    from modgrad.autoresearch import setup as steps
    from modgrad.autoresearch.layout import Layout
    from modgrad.autoresearch.loop import only_one
    from modgrad.autoresearch.repository import Repository

    repository = Repository(Path.cwd())
    chosen = tag or steps.propose_tag(repository, date.today())
    place = Layout(repository.common, chosen)
    request = steps.Request(
        chosen, task, budget, train, val, baseline_runs, seed, checkpoint_gb, size, layout
    )
    lock = place.common / "modgrad" / f".{chosen}.setup-lock"
    with only_one(lock, f"another setup of {chosen}"):
        lab, found = steps.prepare(repository, request, _say)
        lab.say = _say
        lab.progress = _Progress().show
        click.echo(found)
        if not _agreed("Measure the baseline now?", yes):
            raise click.Abort
        with only_one(place.lock, f"the loop of {chosen}"):
            click.echo(steps.measure_baseline(lab))
    click.echo(f"ready: python -m modgrad.autoresearch loop --tag {chosen}")


@main.command()
@click.argument("revisions", metavar="REV|BASE..HEAD")
@click.option("--task", help="A task of contract.toml.  [default: the tag's, else language]")
@tag_option
def check(revisions: str, task: str | None, tag: str | None) -> None:
    """Hold a commit, or a range, against contract.toml: exit 0 clean, 1 violation, 2 usage."""
    from modgrad.autoresearch import contract as contracts
    from modgrad.autoresearch.check import check as check_commits
    from modgrad.autoresearch.errors import UsageError
    from modgrad.autoresearch.layout import tags
    from modgrad.autoresearch.repository import Repository
    from modgrad.autoresearch.tags import find, read

    repository = Repository(Path.cwd())
    before, dots, after = revisions.partition("..")
    if dots:
        base, head = repository.commit(before), repository.commit(after or "HEAD")
    else:
        base, head = repository.commit(f"{before}^"), repository.commit(before)
    settings = None
    if tag is not None or (task is None and len(tags(repository.common)) == 1):
        settings = read(find(tag, Path.cwd())[1]).settings
    if settings is not None:
        contract = contracts.load(settings.contract, task or settings.task)
    else:
        content = repository.file(base, contracts.FILE)
        if content is None:
            raise UsageError(f"{contracts.FILE}: is not in commit {base[:7]}")
        contract = contracts.load(content.decode("utf-8", "replace"), task or "language")
    violations = check_commits(repository, contract, base, head)
    for violation in violations:
        click.echo(str(violation))
    sys.exit(1 if violations else 0)


def _decision_options(command: Any) -> Any:
    for option in reversed(
        [
            click.option(
                "--confirm",
                type=click.IntRange(min=0, max=20),
                default=0,
                show_default=True,
                help="Keep only what is better on N fresh seeds too, significantly.",
            ),
            click.option(
                "--accept-simpler", is_flag=True, help="Keep an equal score with less code."
            ),
            click.option(
                "--scout",
                type=Number(min=0, min_open=True),
                metavar="SECONDS",
                help="Stop a run whose loss after so long lies above the tip's.",
            ),
            click.option("--on-keep", metavar="CMD", help="Run on each keep; see MODGRAD_*."),
        ]
    ):
        command = option(command)
    return command


@main.command()
@tag_option
@click.option(
    "--from", "folder", type=PATH, help="The edited checkout.  [default: the tag's worktree]"
)
@click.option("--message", default="an edit by hand", show_default=True, help="The hypothesis.")
@_decision_options
def run(
    tag: str | None,
    folder: Path | None,
    message: str,
    confirm: int,
    accept_simpler: bool,
    scout: float | None,
    on_keep: str | None,
) -> None:
    """Run one experiment: what was edited in the tag's worktree."""
    from modgrad.autoresearch.lab import Options
    from modgrad.autoresearch.loop import Limits, Stop, only_one, run_loop
    from modgrad.autoresearch.researchers.hand import Hand
    from modgrad.autoresearch.tags import find, load

    repository, layout = find(tag, Path.cwd())
    with only_one(layout.lock, f"the loop of {layout.tag}"):
        lab = load(repository, layout)
        lab.say, lab.progress = _say, _Progress().show
        lab.options = Options(confirm, accept_simpler, scout, on_keep)
        tip = lab.state.tip
        assert tip is not None and tip.candidate is not None
        tree = repository.tree(tip.candidate)
        hand = Hand(folder or layout.worktree, tip.candidate, tree, lab.contract, message)
        lab.verify_data()
        # One that was cut short is finished first.
        current, experiments = lab.state.current, 1
        if current is not None and current.candidate is not None:
            _say(f"experiment {current.number} was cut short: it is finished first")
            experiments = 2
        stop = Stop()
        limits = Limits(experiments, failures=1, when_gone="stop")
        try:
            with stop.listening(_say):
                reason = run_loop(lab, hand, _search, limits, stop)
        finally:
            repository.reset_worktree(layout.worktree, lab.state.tip.candidate)  # type: ignore[union-attr,arg-type]
            if folder is None and not hand.asked:
                hand.write(layout.worktree)  # nothing was made of the edit: it is not lost
    sys.exit(130 if reason == "interrupted" else 0)


@main.command()
@tag_option
@click.option("--experiments", type=click.IntRange(min=0), metavar="N", help="Stop after N.")
@click.option("--until", metavar="TIME", help="Stop at 07:30, or at 2026-12-31T07:30.")
@click.option("--hours", type=Number(min=0, min_open=True), help="Stop after so long.")
@click.option("--max-cost", type=Number(min=0), metavar="USD", help="Stop over this.")
@click.option(
    "--max-failures",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    help="Of the researcher in a row, before it is given up.",
)
@click.option(
    "--when-gone",
    type=click.Choice(["search", "wait", "stop"]),
    default="search",
    show_default=True,
    help="What follows when the researcher is given up.",
)
@click.option(
    "--researcher",
    default="search",
    show_default=True,
    metavar="NAME",
    help="search; claude, codex, gemini, aider or opencode; script:FOLDER.",
)
@click.option("--agent-command", metavar="CMD", help="Any agent, as 'my-agent {prompt_file}'.")
@click.option("--model", help="The agent's model.")
@click.option(
    "--agent-timeout",
    type=Number(min=1),
    default=900.0,
    show_default=True,
    metavar="SECONDS",
    help="A proposal may take so long.",
)
@_decision_options
@click.option("--on-stop", metavar="CMD", help="Run when the loop ends; see MODGRAD_*.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def loop(
    tag: str | None,
    experiments: int | None,
    until: str | None,
    hours: float | None,
    max_cost: float | None,
    max_failures: int,
    when_gone: str,
    researcher: str,
    agent_command: str | None,
    model: str | None,
    agent_timeout: float,
    confirm: int,
    accept_simpler: bool,
    scout: float | None,
    on_keep: str | None,
    on_stop: str | None,
    yes: bool,
) -> None:
    """Run experiments for ever, or until a limit. ^C finishes the one that runs."""
    from modgrad.autoresearch.errors import ModgradError
    from modgrad.autoresearch.experiment import notify
    from modgrad.autoresearch.lab import Options
    from modgrad.autoresearch.loop import Limits, Stop, only_one, run_loop
    from modgrad.autoresearch.status import as_lines
    from modgrad.autoresearch.tags import find, load

    repository, layout = find(tag, Path.cwd())
    deadline = _deadline(until, hours)
    with only_one(layout.lock, f"the loop of {layout.tag}"):
        lab = load(repository, layout)
        lab.say, lab.progress = _say, _Progress().show
        lab.options = Options(confirm, accept_simpler, scout, on_keep)
        chosen = _researcher(lab, researcher, agent_command, model, agent_timeout)
        lab.verify_data()
        if not _agreed(f"Let {chosen.name} work on autoresearch/{layout.tag}?", yes):
            raise click.Abort
        stop = Stop()
        limits = Limits(experiments, deadline, max_cost, max_failures, when_gone)
        try:
            with stop.listening(_say):
                reason = run_loop(lab, chosen, _search, limits, stop)
        except (ModgradError, OSError) as error:
            if on_stop:
                notify(lab, on_stop, reason=str(error))
            raise
        for line in as_lines(lab.state, time.time(), running=False):
            click.echo(line)
        click.echo(f"stopped: {reason}")
        if on_stop:
            notify(lab, on_stop, reason=reason)
    sys.exit(130 if reason == "interrupted" else 0)


def _search() -> Any:
    from modgrad.autoresearch.researchers.search import Search

    return Search()


def _researcher(
    lab: Any, name: str, agent_command: str | None, model: str | None, limit: float
) -> Any:
    from modgrad.autoresearch import sandbox
    from modgrad.autoresearch.errors import UsageError
    from modgrad.autoresearch.researchers import profiles
    from modgrad.autoresearch.researchers.command import Command
    from modgrad.autoresearch.researchers.script import Script

    if agent_command is None and name == "search":
        return _search()
    if agent_command is None and name.startswith("script:"):
        folder = Path(name.removeprefix("script:"))
        if not folder.is_dir():
            raise UsageError(f"--researcher {name}: no such folder")
        return Script(folder)
    if agent_command is not None:
        profile = profiles.custom(agent_command)
    elif name in profiles.PROFILES:
        profile = profiles.PROFILES[name]
    else:
        known = ", ".join(["search", *profiles.PROFILES, "script:FOLDER"])
        raise UsageError(f"--researcher {name}: is none of {known}; or give --agent-command")

    def start(command: list[str], **given: Any) -> Any:
        scratch = lab.layout.work / "researcher"
        return sandbox.start_researcher(command, scratch=scratch, marker=lab.marker, **given)

    return Command(profile, start, model=model, limit_seconds=limit)


def _deadline(until: str | None, hours: float | None) -> float | None:
    """Seconds since the epoch at which the loop ends."""
    from modgrad.autoresearch.errors import UsageError

    ends = [time.time() + 3600 * hours] if hours is not None else []
    if until is not None:
        now = datetime.now()
        try:
            if "T" in until or "-" in until:
                moment = datetime.fromisoformat(until)
            else:
                clock = datetime.strptime(until, "%H:%M").time()
                moment = datetime.combine(now.date(), clock)
                if moment <= now:
                    moment += timedelta(days=1)
        except ValueError:
            raise UsageError(f"--until {until}: is neither 07:30 nor 2026-12-31T07:30") from None
        ends.append(moment.timestamp())
    return min(ends, default=None)


@main.command()
@tag_option
@click.option("--json", "as_data", is_flag=True, help="The same, for programs.")
@click.option("--once", is_flag=True, help="Print once also on a terminal.")
def status(tag: str | None, as_data: bool, once: bool) -> None:
    """Show what runs now, the best so far, and the last experiments; live on a terminal."""
    from modgrad.autoresearch import status as view
    from modgrad.autoresearch.digest import as_json
    from modgrad.autoresearch.loop import is_running
    from modgrad.autoresearch.tags import StateReader, find, read

    _, layout = find(tag, Path.cwd())
    if as_data:
        click.echo(json.dumps({**as_json(read(layout)), "running": is_running(layout.lock)}))
    elif once or not sys.stdout.isatty():
        state = read(layout)
        for line in view.as_lines(state, time.time(), running=is_running(layout.lock)):
            click.echo(line)
        click.echo(f"files: {layout.root}")
    else:
        reader = StateReader(layout)
        view.live(lambda: (reader.read(), is_running(layout.lock)))


@main.command()
@tag_option
@click.option("--output", type=PATH, help="A folder.  [default: ./autoresearch-TAG]")
@click.option(
    "--remeasure",
    type=click.IntRange(min=1, max=20),
    metavar="K",
    help="First train baseline and tip again, with K fresh seeds each.",
)
def report(tag: str | None, output: Path | None, remeasure: int | None) -> None:
    """Write a picture and one self-contained HTML page."""
    from modgrad.autoresearch import report as view
    from modgrad.autoresearch import verify as steps
    from modgrad.autoresearch.files import tail
    from modgrad.autoresearch.loop import heal, only_one
    from modgrad.autoresearch.tags import find, load, read

    repository, layout = find(tag, Path.cwd())
    if remeasure is not None:
        with only_one(layout.lock, f"the loop of {layout.tag}"):
            lab = load(repository, layout)
            lab.say, lab.progress = _say, _Progress().show
            lab.verify_data()
            heal(lab)
            steps.remeasure(lab, remeasure, _say)
    state = read(layout)
    state.ready()

    def details(number: int) -> view.Details:
        one = state.experiments[number]
        if one.candidate is None or number == 0:
            return view.Details("", tail(layout.log(number)))
        return view.Details(repository.diff(one.base, one.candidate), tail(layout.log(number)))

    folder = output or Path(f"autoresearch-{layout.tag}")
    paths = view.write(folder, state, details, now=time.time())
    for path in (paths.picture, paths.page):
        if path is not None:
            click.echo(path)
    if paths.note is not None:
        _say(paths.note)


@main.command()
@tag_option
@click.option("--replay", type=click.IntRange(min=0), metavar="N", help="Train experiment N again.")
def verify(tag: str | None, replay: int | None) -> None:
    """Check journal, refs, data and contract; score kept checkpoints again."""
    from modgrad.autoresearch import verify as steps
    from modgrad.autoresearch.loop import only_one
    from modgrad.autoresearch.tags import find, load

    repository, layout = find(tag, Path.cwd())
    with only_one(layout.lock, f"the loop of {layout.tag}"):
        lab = load(repository, layout)
        lab.say, lab.progress = _say, _Progress().show
        layout.work.mkdir(parents=True, exist_ok=True)
        wrong = steps.verify(lab, click.echo)
        for line in wrong:
            click.echo(f"WRONG: {line}")
        if replay is not None:
            click.echo(steps.replay(lab, replay, _say))
    click.echo("all of it holds" if not wrong else f"{len(wrong)} things do not hold")
    sys.exit(1 if wrong else 0)


class _Progress:
    """A line that grows while something is trained, where a person can see it."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def show(self, what: str, seconds: float, budget: float) -> None:
        """Shows how far a run is."""
        if self._terminal:
            width = min(30, int(30 * seconds / budget)) if budget else 0
            bar = "█" * width + "░" * (30 - width)
            click.echo(f"\r{what:<16} {bar} {seconds:5.0f}/{budget:.0f} s ", nl=False, err=True)
            if seconds + 0.5 >= budget:
                click.echo("\r" + " " * 70 + "\r", nl=False, err=True)


if __name__ == "__main__":
    main(prog_name="python -m modgrad.autoresearch")
