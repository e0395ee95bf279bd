"""One training run of a commit with a seed, and its score: the unit of all figures.

Everything that it did stands in the journal before the next step is taken, so a
loop that was killed goes on from there: a run that was cut short begins anew, a
trained checkpoint that is whole is only scored.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modgrad.autoresearch import building, contract, crashes, evaluators, files, sandbox
from modgrad.autoresearch.curve import CurveReader, loss_at
from modgrad.autoresearch.errors import EnvironmentFault, EvaluatorKilled
from modgrad.autoresearch.lab import Lab
from modgrad.autoresearch.processes import Finished
from modgrad.autoresearch.scoring import Score
from modgrad.autoresearch.state import Measurement

LEAST_RUNS_TO_SCOUT = 3  # fewer show no spread


def measure(
    lab: Lab, number: int, role: str, commit: str, seed: int, scout: bool = False
) -> Measurement:
    """Trains and scores, or goes on where an earlier try was cut short."""
    key: dict[str, Any] = {"n": number, "role": role, "commit": commit, "seed": seed}
    with lab.device():
        known = _find(lab, key)
        if known is None or not _is_whole(lab, known):
            _train(lab, key, scout)
            known = _find(lab, key)
        assert known is not None
        if not known.finished:
            _score(lab, key)
            known = _find(lab, key)
            assert known is not None
    if role != "main":
        files.remove_tree(checkpoint_path(lab, role, commit, seed))
    return known


def checkpoint_path(lab: Lab, role: str, commit: str, seed: int) -> Path:
    """Where a run leaves its checkpoint."""
    return lab.layout.work / f"{role}-{commit[:12]}-{seed}.ckpt"


def _path(lab: Lab, key: dict[str, Any]) -> Path:
    return checkpoint_path(lab, key["role"], key["commit"], key["seed"])


def rehearse(lab: Lab, commit: str, seed: int) -> tuple[str, str] | None:
    """One step at full shapes, saved and scored on a little text.

    Returns (crash class, reason) where that fails: seconds, not the budget, are
    lost to a program that the evaluator refuses.
    """
    if not lab.contract.rehearse:
        return None
    log = lab.layout.work / "run.log"
    path = checkpoint_path(lab, "rehearsal", commit, seed)
    with lab.device():
        return _rehearse(lab, commit, seed, path, log)


def _rehearse(lab: Lab, commit: str, seed: int, path: Path, log: Path) -> tuple[str, str] | None:
    done, _ = _run(lab, lab.contract.rehearse, commit, seed, path, log)
    if done is None or done.code != 0:
        crash, reason = _classify(lab, done, log)
        if crash == "environment":
            raise EnvironmentFault(reason)
        return crash, reason
    score = _judge(lab, path, commit, rehearse=True)
    files.remove_tree(path)
    return ("refused", score.refused) if score.refused else None


def _find(lab: Lab, key: dict[str, Any]) -> Measurement | None:
    if key["role"] == "remeasure":
        runs = lab.state.remeasured.get(key["commit"], [])
        return next((run for run in runs if run.seed == int(key["seed"])), None)
    one = lab.state.experiments[int(key["n"])]
    return one.find(key["role"], key["commit"], key["seed"])


def _is_whole(lab: Lab, known: Measurement) -> bool:
    """Whether what the journal says of a run can still be gone on from."""
    if known.finished:
        return True
    path = checkpoint_path(lab, known.role, known.commit, known.seed)
    return known.trained and path.is_file() and files.sha256_of(path) == known.checkpoint_sha256


def _train(lab: Lab, key: dict[str, Any], scout: bool) -> None:
    log = lab.layout.work / "run.log"
    reader = CurveReader(log)
    budget = lab.settings.budget
    scouted = False

    def watch(seconds: float) -> bool:
        nonlocal scouted
        reader.look(seconds)
        lab.progress(f"{key['role']} {key['n']}", seconds, budget)
        scouted = scout and _is_hopeless(lab, reader.points, seconds)
        return scouted

    def started(pid: int) -> None:
        lab.record("train_started", **key, pid=pid)

    path = _path(lab, key)
    done, build_seconds = _run(
        lab, lab.contract.train, key["commit"], key["seed"], path, log, started, watch
    )
    reader.look(done.wall_seconds if done else 0.0)
    if _find(lab, key) is None or not (done and done.code is not None):
        lab.record("train_started", **key, pid=0)  # it never came to be a process
    crash, reason, digest = None, "", None
    if done is not None and done.code == 0 and path.is_file() and not path.is_symlink():
        digest = files.sha256_of(path)
    elif not scouted:
        crash, reason = _classify(lab, done, log)
        if done is not None and done.code == 0:
            crash, reason = "error", "ended without a checkpoint"
        if crash == "environment":
            raise EnvironmentFault(reason)
    lab.record(
        "train_done",
        **key,
        checkpoint_sha256=digest,
        wall_seconds=round(done.wall_seconds, 2) if done else 0.0,
        build_seconds=round(build_seconds, 2),
        peak_rss_mb=round(done.peak_rss_mb, 1) if done else 0.0,
        curve=reader.thinned(),
        crash=crash,
        reason=reason,
        scouted=scouted,
    )
    if key["role"] == "main":
        keep_log(log, lab.layout.log(key["n"]))


def _score(lab: Lab, key: dict[str, Any]) -> None:
    score = _judge(lab, _path(lab, key), key["commit"])
    crash = "refused" if score.refused else None
    if "not finite" in score.refused or "NaN" in score.refused:
        crash = "non-finite"
    lab.record(
        "eval_done",
        **key,
        val_bpb=score.val_bpb,
        crash=crash,
        reason=score.refused[:300],
        seconds=round(score.seconds, 2),
    )


def _judge(lab: Lab, checkpoint: Path, commit: str, rehearse: bool = False) -> Score:
    """The score of a candidate's checkpoint; a refusal where it alone kills the evaluator."""
    try:
        return lab.score(
            checkpoint, lab.settings.val, sources=_sources(lab, commit), rehearse=rehearse
        )
    except EvaluatorKilled as error:
        if not _tip_is_scored(lab):
            raise
        return Score(None, f"only this checkpoint is not scored: {error}", 0.0)


def _tip_is_scored(lab: Lab) -> bool:
    """Whether the evaluator works, on what it has scored before."""
    tip = lab.state.tip
    saved = None if tip is None else lab.layout.checkpoint(tip.number)
    if saved is None or not saved.is_file():
        return False
    return lab.score(saved, lab.settings.val).val_bpb is not None


def _run(
    lab: Lab,
    command: tuple[str, ...],
    commit: str,
    seed: int,
    checkpoint: Path,
    log: Path,
    started: Callable[[int], None] | None = None,
    watch: Callable[[float], bool] | None = None,
) -> tuple[Finished | None, float]:
    """Runs a command of the contract in a clean export; (how it ended, seconds of
    compilation). None where the candidate's crate does not compile."""
    layout = lab.layout
    export, scratch = layout.work / "export", layout.work / "scratch"
    for path in (export, scratch, checkpoint):
        files.remove_tree(path)
    layout.work.mkdir(parents=True, exist_ok=True)
    lab.repository.export(commit, export)
    start = time.monotonic()
    python_path = layout.trusted
    if building.is_needed(lab, commit):
        built = building.build(lab, commit, export, scratch, log)
        if built is None:
            return None, time.monotonic() - start
        python_path = built
    build_seconds = time.monotonic() - start
    words = contract.fill(
        command,
        {
            "python": sys.executable,
            "budget": f"{lab.settings.budget:g}",
            "seed": str(seed),
            "checkpoint": str(checkpoint),
            "train": [str(layout.data / one.name) for one in lab.settings.train],
            **evaluators.values(lab.settings),
        },
    )
    done = sandbox.start_trainer(
        words,
        cwd=export,
        scratch=scratch,
        python_path=python_path,
        marker=lab.marker,
        log=log,
        limit_seconds=min(lab.state.training_limit, lab.state.hard_limit - build_seconds),
        started=started,
        watch=watch,
    )
    if done.error:
        raise EnvironmentFault(f"the training cannot be started: {done.error}")
    return done, build_seconds


def _classify(lab: Lab, done: Finished | None, log: Path) -> tuple[str, str]:
    if done is None:
        errors = [line for line in files.tail(log).splitlines() if line.startswith("error")]
        return "syntax", "does not compile" + (f": {errors[0][:200]}" if errors else "")
    crash, reason = crashes.classify(done, files.tail(log))
    for path in (lab.layout.work / "export", lab.layout.work / "scratch"):
        files.remove_tree(path)  # a disk that the candidate filled is its own fault
    if not files.is_writable(lab.layout.work):
        # Whatever it says: not even its log need be whole.
        return "environment", f"the disk is full: {reason}"
    if crash == "environment":
        crash = "error"  # only the candidate says so: it wrote where nobody can
    return crash, reason


def _is_hopeless(lab: Lab, points: list[tuple[float, float]], seconds: float) -> bool:
    """Whether the loss lies above the tip's at the same time by more than the
    spread of the losses of all that was kept."""
    scout, tip = lab.options.scout, lab.state.tip
    if scout is None or seconds < scout or not points or tip is None or tip.main is None:
        return False
    at, loss = points[-1]
    runs = [lab.state.experiments[number].main for number in lab.state.kept]
    runs += lab.state.experiments[0].measurements
    losses = [loss_at(run.curve, at) for run in runs if run is not None]
    known = [one for one in losses if one is not None]
    reference = loss_at(tip.main.curve, at)
    if reference is None or len(known) < LEAST_RUNS_TO_SCOUT:
        return False
    return loss > reference + (max(known) - min(known))


def _sources(lab: Lab, commit: str) -> list[Path]:
    """What the candidate wrote, as git has it: its export may have been changed since."""
    folder = lab.layout.work / "sources"
    files.remove_tree(folder)
    sources = []
    for change in lab.repository.changes(lab.settings.baseline, commit):
        if change.after is not None:
            path = folder / change.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(lab.repository.blob(change.after.sha))
            sources.append(path)
    return sources


def keep_log(log: Path, target: Path) -> None:
    """Keeps the end of a log for the report."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(target, files.tail(log).encode("utf-8", "replace"))
