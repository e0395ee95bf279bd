"""`setup`: what is fixed once for a tag, and the baseline's score."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from modgrad.autoresearch import contract as contracts
from modgrad.autoresearch import evaluators, files, pins, trusted
from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.errors import RepositoryError, UsageError
from modgrad.autoresearch.journal import Journal
from modgrad.autoresearch.lab import Lab
from modgrad.autoresearch.layout import Layout
from modgrad.autoresearch.loop import run_baseline
from modgrad.autoresearch.repository import Repository
from modgrad.autoresearch.state import DataFile, MazeSet, Settings, State
from modgrad.machine import processor_name, resolve_threads
from modgrad.mazes import generate

_LEAST_SPACE = 2 << 30  # bytes: some checkpoints and an export
PINNED_MAZES = 200  # as `val_bpb` of mazes is defined
HELD_OUT_MAZES = 2000
_IDEAS = "# Ideas for the researcher\n\nOne a line; read before every proposal.\n"


@dataclass(frozen=True)
class Request:
    """What the user asks `setup` for."""

    tag: str
    task: str
    budget: float
    train: tuple[Path, ...] = ()
    val: Path | None = None
    baseline_runs: int = 3
    seed: int = 0
    checkpoint_gb: float = 20.0
    size: int | None = None  # of mazes; the contract's where it is left out
    layout: str | None = None


def propose_tag(repository: Repository, today: date) -> str:
    """A tag from the date that is not taken."""
    base = today.strftime("%b%d").lower()
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        layout = Layout(repository.common, base + suffix)
        if not layout.root.exists() and repository.ref(layout.branch) is None:
            return base + suffix
    raise UsageError(f"a hundred tags begin with {base}; name one with --tag")


def prepare(
    repository: Repository, request: Request, say: Callable[[str], None]
) -> tuple[Lab, str]:
    """Everything but the baseline's runs; (the lab, what was found, for the user).

    A `setup` that was cut short is gone on with. Raises `UsageError` where the
    branch or the tag is there already.
    """
    layout = Layout(repository.common, request.tag)
    journal = Journal(layout.journal, layout.key)
    if layout.journal.is_file() and (records := journal.read(repair=True)):
        state = State.replay(records)
        if state.tip is not None:
            raise UsageError(
                f"--tag {request.tag}: was set up already; see `status --tag {request.tag}`"
            )
        if state.settings is not None and not (state.experiments and state.experiments[0].finished):
            _same(request, state.settings)
            lab = open_lab(repository, layout, journal, state)
            found = f"going on with the setup of {request.tag} that was cut short"
            return lab, f"{found}\n{_describe(lab)}"
        # The baseline had no score: nothing is lost with it, and the code may be mended.
        _forget(repository, layout)
        journal = Journal(layout.journal, layout.key)
    if repository.ref(layout.branch) is not None:
        raise UsageError(
            f"--tag {request.tag}: the branch {layout.branch.removeprefix('refs/heads/')} exists; "
            "choose another --tag"
        )
    if (unfinished := repository.unfinished()) is not None:
        raise UsageError(f"{repository.top}: {unfinished} is going on; finish or abort it first")
    baseline = repository.head()
    text = _contract_text(repository, baseline)
    contract = contracts.load(text, request.task)
    evaluators.find(contract.evaluator)
    files.remove_tree(layout.root)
    layout.work.mkdir(parents=True)
    if pins.free_space(layout.root) < _LEAST_SPACE:
        raise UsageError(f"{layout.root}: less than 2 GiB are free on its disk")
    digest = trusted.snapshot(layout.trusted)
    mazes = _mazes(request, contract)
    pinned: tuple[DataFile, ...] = ()
    overlap = 0.0
    if mazes is not None:
        pinned_val, holdout = pins.pin_mazes(layout.data, mazes)
    else:
        train, val = _data(repository, request, layout, baseline, say)
        pinned, pinned_val, holdout, overlap = pins.pin(layout.data, train, val)
    settings = Settings(
        tag=request.tag,
        task=request.task,
        contract=text,
        baseline=baseline,
        budget=request.budget,
        seed=request.seed,
        baseline_runs=request.baseline_runs,
        train=pinned,
        val=pinned_val,
        holdout=holdout,
        overlap=round(overlap, 6),
        trusted=digest,
        checkpoint_gb=request.checkpoint_gb,
        machine=f"{processor_name()}, {resolve_threads(None)} threads, "
        f"{psutil.virtual_memory().total / (1 << 30):.0f} GiB",
        evaluator=contract.evaluator,
        mazes=mazes,
    )
    layout.ideas.write_text(_IDEAS, encoding="utf-8")
    journal.create()
    lab = Lab(layout, repository, journal, State(), contract, say=say)
    lab.record("setup", settings=asdict(settings))
    return lab, _describe(lab)


def _same(request: Request, settings: Settings) -> None:
    """Raises where a setup that was cut short was begun otherwise."""
    asked = asdict(request)
    for name in ("task", "budget", "seed", "baseline_runs", "checkpoint_gb"):
        if asked[name] != getattr(settings, name):
            _refuse_other(request.tag, name, getattr(settings, name), asked[name])
    if (mazes := settings.mazes) is not None:
        for name in ("size", "layout"):
            if asked[name] not in (None, getattr(mazes, name)):
                _refuse_other(request.tag, name, getattr(mazes, name), asked[name])
    if request.train and request.val and not pins.is_pinned(request.train, request.val, settings):
        raise UsageError(
            f"--train, --val: the setup of {request.tag} was begun with other data and cut "
            "short; give the same, or choose another --tag"
        )


def _refuse_other(tag: str, name: str, before: object, now: object) -> None:
    flag = name.replace("_", "-")
    raise UsageError(
        f"--{flag} {now}: the setup of {tag} was begun with {before} and cut short; "
        "give the same, or choose another --tag"
    )


def _forget(repository: Repository, layout: Layout) -> None:
    """Removes a tag of which nothing was kept."""
    files.remove_tree(layout.root)
    repository.run("worktree", "prune")
    for refs in (layout.branch, layout.candidates):
        repository.delete_refs(refs)


def open_lab(repository: Repository, layout: Layout, journal: Journal, state: State) -> Lab:
    """The lab of a tag that was set up."""
    assert state.settings is not None
    contract = contracts.load(state.settings.contract, state.settings.task)
    return Lab(layout, repository, journal, state, contract)


def measure_baseline(lab: Lab) -> str:
    """Makes the branch and its worktree, runs the baseline; what came of it, in words.

    Raises `UsageError` where the code as it is does not train or score.
    """
    layout, settings = lab.layout, lab.settings
    stands = lab.repository.ref(layout.branch)
    if stands is None:
        lab.repository.move_ref(layout.branch, settings.baseline, None)
    elif stands != settings.baseline:
        raise RepositoryError(f"{layout.branch} stands on {stands[:7]}: somebody moved it")
    if not layout.worktree.is_dir():
        lab.repository.run("worktree", "prune")
        lab.repository.add_worktree(layout.worktree, layout.branch)
    one = run_baseline(lab)
    if one.status != "keep":
        raise UsageError(f"the baseline has no score ({one.crash}: {one.reason}); mend it first")
    sigma, freedom = lab.state.spread
    seeds = lab.state.seed_spread[0]
    main = one.main
    assert main is not None and one.val_bpb is not None
    aside = main.wall_seconds - settings.budget + main.evaluation_seconds
    lines = [
        f"baseline: val_bpb {one.val_bpb:.6f}, "
        f"holdout {math.nan if one.holdout_bpb is None else one.holdout_bpb:.6f}",
        f"a run takes {settings.budget:g} s of training and {aside:.1f} s beside it, "
        f"{one.memory_gb:.1f} GB",
    ]
    if freedom:
        lines.append(
            f"seed to seed it moves by σ = {seeds:.6f} ({freedom + 1} runs); "
            + (f"of so many mazes it is known to {sigma:.6f}; " if sigma > seeds else "")
            + f"a gain below {2 * sigma:.6f} is marked provisional"
        )
    else:
        lines.append("its spread is not known (--baseline-runs 1): every keep is provisional")
    if (warning := evaluators.nothing_left(settings, one.val_bpb)) is not None:
        lines.append(warning)
    return "\n".join(lines)


def _describe(lab: Lab) -> str:
    settings = lab.settings
    runs = max(1, settings.baseline_runs)
    return "\n".join(
        [
            f"task:      {settings.task}: {lab.contract.summary}",
            f"branch:    autoresearch/{settings.tag}, from {settings.baseline[:7]}",
            *_describe_data(settings),
            f"machine:   {settings.machine}",
            f"mutable:   {', '.join(lab.contract.mutable)}",
            f"now:       {runs} baseline run{'s' if runs > 1 else ''} of {settings.budget:g} s; "
            "then `loop` edits, trains, scores, and keeps what is strictly lower",
            f"all of it: {lab.layout.root}; your checkout is not touched",
        ]
    )


def _describe_data(settings: Settings) -> list[str]:
    if (mazes := settings.mazes) is not None:
        return [
            f"mazes:     {evaluators.described(mazes)}; ever new ones to train on, {mazes.count} "
            f"pinned ones to score, {mazes.held_out:,} of a secret seed held out"
        ]
    train = sum(one.bytes for one in settings.train)
    return [
        f"data:      {train:,} bytes to train on, {settings.val.bytes:,} to score, "
        f"{settings.holdout.bytes:,} held out",
        f"overlap:   {settings.overlap:.1%} of val's 32-grams stand in the training data",
    ]


def _mazes(request: Request, contract: Contract) -> MazeSet | None:
    """What is trained on and scored where that is mazes, proven by making one."""
    if contract.evaluator != "mazes":
        for flag, value in (("--size", request.size), ("--layout", request.layout)):
            if value is not None:
                raise UsageError(f"{flag}: the task {request.task} has no mazes; leave it out")
        return None
    if request.train or request.val:
        raise UsageError(
            f"--train, --val: the task {request.task} makes its mazes itself; leave them out"
        )
    size = request.size if request.size is not None else int(contract.mazes["size"])
    layout: Any = request.layout or str(contract.mazes["layout"])
    generate(1, size=size, layout=layout)
    return MazeSet(size, layout, count=PINNED_MAZES, held_out=HELD_OUT_MAZES)


def _contract_text(repository: Repository, commit: str) -> str:
    content = repository.file(commit, contracts.FILE)
    if content is None:
        raise UsageError(f"{contracts.FILE}: is not in commit {commit[:7]}; commit it first")
    return content.decode("utf-8", "replace")


def _data(
    repository: Repository,
    request: Request,
    layout: Layout,
    baseline: str,
    say: Callable[[str], None],
) -> tuple[Sequence[Path], Path]:
    if request.train and request.val:
        for path in request.train:
            if path.exists() and request.val.exists() and path.samefile(request.val):
                raise UsageError(
                    f"--val {request.val}: is trained on too, so its score says nothing"
                )
        return request.train, request.val
    if request.train or request.val:
        raise UsageError("--train and --val go together")
    folder = repository.top / "data"
    train = sorted(folder.glob("train_*.txt"))
    if train and (folder / "val.txt").is_file():
        say(f"data: {folder}")
        return train, folder / "val.txt"
    say("data: preparing the default corpus, the running Python's own library")
    export, folder = layout.work / "export", layout.work / "corpus"
    files.remove_tree(export)
    repository.export(baseline, export)
    done = subprocess.run(
        [sys.executable, "-m", "isis", "prepare", "--output", str(folder)],
        cwd=export,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["isis prepare failed"]
        raise UsageError(f"{lines[-1].removeprefix('error: ')}; or name --train and --val")
    return sorted(folder.glob("train_*.txt")), folder / "val.txt"


def results_path(lab: Lab) -> Path:
    """Where the table of results stands."""
    return lab.layout.worktree / lab.contract.results
