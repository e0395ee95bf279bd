"""One experiment, step by step: the contract, as code.

    plan → propose → check → rehearse → train → score → decide → apply → log

Each step leaves a record before the next begins and is passed over when its
record is there, so `advance` also is the recovery: after a crash it is called
again and goes on with the first step that has none.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from modgrad.autoresearch import check as checking
from modgrad.autoresearch import crashes, decision, files, results, workspace
from modgrad.autoresearch.decision import Verdict
from modgrad.autoresearch.errors import (
    PaidInVain,
    RepositoryError,
    ResearcherError,
    ResearcherGone,
)
from modgrad.autoresearch.families import guess
from modgrad.autoresearch.fingerprint import fingerprint, lines_of_code
from modgrad.autoresearch.lab import Lab
from modgrad.autoresearch.measure import checkpoint_path, measure, rehearse
from modgrad.autoresearch.researchers.base import Briefing, Failure, Proposal, Researcher
from modgrad.autoresearch.state import Experiment, Measurement

_BASELINE = "baseline"
LEAST_OVERTIME = 3.0  # seconds over the usual that are the machine's own
_LARGEST_MESSAGE = 2000  # characters


def plan(lab: Lab, researcher: Researcher) -> Experiment:
    """Begins an experiment: which files it starts from, on which tip, with which seed."""
    state = lab.state
    tip = state.tip
    assert tip is not None and tip.candidate is not None
    number = len(state.experiments)
    current = state.current
    if current is not None:
        number = current.number
    base = researcher.base(briefing(lab, number)) or tip.candidate
    kept = {state.experiments[one].candidate for one in state.kept}
    if base not in kept:
        raise ResearcherError(f"{researcher.name} wants to start from {base[:7]}, no kept commit")
    lab.record(
        "planned",
        n=number,
        base=base,
        parent=tip.candidate,
        seed=lab.settings.seed,
        researcher=researcher.name,
    )
    return state.experiments[number]


def plan_baseline(lab: Lab) -> Experiment:
    """Experiment 0: the code as it was at `setup`."""
    commit = lab.settings.baseline
    seed = lab.settings.seed
    if not lab.state.experiments:
        lab.record("planned", n=0, base=commit, parent=commit, seed=seed, researcher=_BASELINE)
    one = lab.state.experiments[0]
    if one.candidate is None:
        lab.record(
            "proposed",
            n=0,
            candidate=commit,
            hypothesis=_BASELINE,
            family=_BASELINE,
            fingerprint=fingerprint(mutable_files(lab, commit)),
            cost=0.0,
        )
    if not one.checked:
        lab.record("checked", n=0)
    if not one.rehearsed:
        lab.record("rehearsed", n=0)
    return one


def abandon(lab: Lab, one: Experiment, reason: str) -> None:
    """Records the crash of a candidate that cannot even be judged."""
    _record_decision(lab, one, Verdict("crash", reason), crash="internal")


def advance(lab: Lab, one: Experiment, researcher: Researcher | None) -> None:
    """Takes an experiment to its end. Raises `ResearcherError`, `ResearcherGone` or
    `EnvironmentFault` where it cannot go on now; nothing is lost then."""
    if one.candidate is None:
        assert researcher is not None
        propose(lab, one, researcher)
    if one.status is None:
        _decide(lab, one, researcher)
    if not one.applied:
        _apply(lab, one)
    if one.finished is None:
        lab.record("logged", n=one.number)
    write_results(lab)
    clear_work(lab)
    if one.number > 0 and one.main is not None and one.status != "keep":
        one.main.curve = one.main.curve[-1:]  # a loop that runs for weeks keeps little of each


def propose(lab: Lab, one: Experiment, researcher: Researcher) -> None:
    """Lets the researcher edit a fresh clone, and commits what it changed."""
    folder = _workspace(lab)
    files.remove_tree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lab.repository.clone(one.base, folder)
    proposal = researcher.propose(folder, briefing(lab, one.number))
    try:
        _take(lab, one, proposal, folder)
    except OSError as error:
        raise PaidInVain(error, proposal.cost) from error


def _take(
    lab: Lab, one: Experiment, proposal: Proposal, folder: Path, repair: bool = False
) -> None:
    """Turns what stands in the workspace into a candidate with a ref of its own."""
    edits = workspace.collect(folder, lab.repository.tree(one.base), lab.contract)
    hypothesis = _printable(proposal.hypothesis) or "an edit without a word"
    notes = list(proposal.changes)
    notes += [f"left behind: {name}" for name in edits.dropped[:20]]
    notes += [f"refused: {violation}" for violation in edits.violations[:20]]
    message = "\n\n".join([hypothesis, "\n".join(_printable(line) for line in notes)]).strip()
    candidate = lab.repository.write(one.parent, one.base, edits.files, message[:_LARGEST_MESSAGE])
    ref = lab.layout.candidate(one.number)
    lab.repository.move_ref(ref, candidate, lab.repository.ref(ref))
    lab.record(
        "proposed",
        n=one.number,
        candidate=candidate,
        hypothesis=hypothesis,
        family=proposal.family or guess(lab.repository.diff(one.base, candidate)),
        fingerprint=fingerprint(mutable_files(lab, candidate)),
        cost=proposal.cost,
        notes="\n".join(notes),
        violations=edits.violations,
        repair=repair,
    )


def _decide(lab: Lab, one: Experiment, researcher: Researcher | None) -> None:
    assert one.candidate is not None
    skip = _reason_to_skip(lab, one)
    if skip is not None:
        _record_decision(lab, one, Verdict("skip", skip))
        return
    crash = _check(lab, one) or _rehearse(lab, one)
    if crash is None:
        main = measure(lab, one.number, "main", one.candidate, one.seed, scout=one.number > 0)
        if main.crash is not None:
            crash = (main.crash, main.reason)
        elif main.scouted:
            reason = f"stopped at {main.wall_seconds:.0f} s: its loss lay above the tip's"
            _record_decision(lab, one, Verdict("discard", reason))
            return
    if crash is not None:
        if _repair(lab, one, researcher, *crash):
            _decide(lab, one, researcher)
            return
        _record_decision(lab, one, Verdict("crash", crash[1]), crash=crash[0])
        return
    main_run = one.main
    assert main_run is not None and main_run.val_bpb is not None
    verdict = _mark_overtime(lab, main_run, _judge(lab, one, main_run.val_bpb))
    holdout = None
    if verdict.status == "keep":
        holdout = _holdout(lab, one)
    _record_decision(lab, one, verdict, val_bpb=main_run.val_bpb, holdout_bpb=holdout)


def _mark_overtime(lab: Lab, run: Measurement, verdict: Verdict) -> Verdict:
    """A run that took longer than the baseline beside its budget may have trained
    longer too: what it gained is not known to be the change's."""
    over = run.wall_seconds - lab.state.usual_wall_seconds
    if verdict.status != "keep" or over <= max(LEAST_OVERTIME, 0.02 * lab.settings.budget):
        return verdict
    return replace(
        verdict, reason=f"{verdict.reason}; took {over:.1f} s more than usual", provisional=True
    )


def _judge(lab: Lab, one: Experiment, score: float) -> Verdict:
    """The rule, and around it what guards against luck and surprise."""
    assert one.candidate is not None
    tip = lab.state.tip
    if tip is None:
        for extra in range(1, lab.settings.baseline_runs):
            measure(lab, one.number, "baseline", one.candidate, one.seed + extra)
        return Verdict("keep", "the code as it was")
    assert tip.val_bpb is not None and tip.candidate is not None
    if decision.is_implausible(score, tip.val_bpb):
        again = [_score_again(lab, one) for _ in range(2)]
        if any(value != score for value in again):
            return Verdict("discard", f"a jump that did not hold: {score}, then {again}")
    before, after = mutable_files(lab, tip.candidate), mutable_files(lab, one.candidate)
    verdict = decision.decide(
        score,
        tip.val_bpb,
        lab.state.sigma,
        fewer_lines=lines_of_code(before) - lines_of_code(after),
        accept_simpler=lab.options.accept_simpler,
    )
    if verdict.status == "keep" and lab.options.confirm:
        return _confirm(lab, one, tip, verdict)
    return verdict


def _confirm(lab: Lab, one: Experiment, tip: Experiment, verdict: Verdict) -> Verdict:
    """Runs tip and candidate on fresh seeds; what was run before is not run again."""
    assert one.candidate is not None and tip.candidate is not None
    differences = []
    for extra in range(1, lab.options.confirm + 1):
        seed = one.seed + extra
        scores = []
        for role, commit in (("tip", tip.candidate), ("confirm", one.candidate)):
            known = lab.state.replicates.get(commit, {}).get(seed)
            if known is None:
                run = measure(lab, one.number, role, commit, seed)
                if run.val_bpb is None:
                    return Verdict("discard", f"with seed {seed} the {role} ended: {run.reason}")
                known = run.val_bpb
            scores.append(known)
        differences.append(scores[0] - scores[1])
    sigma, freedom = lab.state.spread
    holds, reason = decision.confirm(differences, sigma, freedom)
    if holds:
        return Verdict("keep", f"{verdict.reason}; {reason}")
    return Verdict("discard", f"{verdict.reason}, but {reason}")


def _reason_to_skip(lab: Lab, one: Experiment) -> str | None:
    """Why there is nothing to learn from running a candidate."""
    assert one.candidate is not None
    if one.number == 0 or _refused(one):
        return None
    base = mutable_files(lab, one.base)
    mine = mutable_files(lab, one.candidate)
    if lab.repository.tree(one.base) == lab.repository.tree(one.candidate):
        return "changes nothing"
    for earlier in lab.state.experiments[: one.number]:
        if earlier.fingerprint != one.fingerprint or earlier.status not in ("keep", "discard"):
            continue
        if earlier.candidate == one.base:
            changed = lab.repository.changes(one.base, one.candidate)
            if all(lab.contract.allows(change.path) for change in changed):
                return "changes comments or layout only"
            return None
        score = "" if earlier.val_bpb is None else f" with {earlier.val_bpb:.6f}"
        return f"is what experiment {earlier.number} tried: {earlier.status}{score}"
    if fingerprint(mine, mask_seeds=True) == fingerprint(base, mask_seeds=True):
        return "changes the seed only"
    return None


def _refused(one: Experiment) -> list[str]:
    """What was found in the workspace that cannot be part of a candidate."""
    marked = [line for line in one.notes.splitlines() if line.startswith("refused: ")]
    return [line.removeprefix("refused: ") for line in marked]


def _check(lab: Lab, one: Experiment) -> tuple[str, str] | None:
    if one.checked:
        return None
    assert one.candidate is not None
    found = _refused(one)
    # From the baseline: what an older commit of the branch holds was checked then.
    found += map(
        str,
        checking.check(lab.repository, lab.contract, lab.settings.baseline, one.candidate),
    )
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return "violation", f"{found[0]}{more}"
    lab.record("checked", n=one.number)
    return None


def _rehearse(lab: Lab, one: Experiment) -> tuple[str, str] | None:
    """Only what is new in kind is rehearsed: other numbers in code that ran before
    fail in the first seconds of training, or not at all."""
    if one.rehearsed:
        return None
    assert one.candidate is not None
    masked = fingerprint(mutable_files(lab, one.candidate), mask_numbers=True)
    tip = lab.state.tip
    ran_before = [one.base] if tip is None or tip.candidate is None else [one.base, tip.candidate]
    if all(
        fingerprint(mutable_files(lab, commit), mask_numbers=True) != masked
        for commit in ran_before
    ):
        crash = rehearse(lab, one.candidate, one.seed)
        if crash is not None:
            return crash
    lab.record("rehearsed", n=one.number)
    return None


def _repair(
    lab: Lab, one: Experiment, researcher: Researcher | None, crash: str, reason: str
) -> bool:
    """Shows a slip to the researcher, once; whether there is a new candidate."""
    folder = _workspace(lab)
    if (
        crash not in crashes.REPAIRABLE
        or one.repaired
        or researcher is None
        or researcher.name != one.researcher
        or folder.is_symlink()
        or not folder.is_dir()
    ):
        return False
    failure = Failure(crash, reason, files.tail(lab.layout.work / "run.log"))
    try:
        proposal = researcher.repair(folder, briefing(lab, one.number), failure)
    except (ResearcherError, ResearcherGone) as error:
        lab.say(f"experiment {one.number}: not mended ({error})")
        return False
    if proposal is None:
        return False
    lab.say(f"experiment {one.number}: mended after {crash}: {reason}")
    _take(lab, one, proposal, folder, repair=True)
    return True


def _record_decision(
    lab: Lab,
    one: Experiment,
    verdict: Verdict,
    *,
    crash: str | None = None,
    val_bpb: float | None = None,
    holdout_bpb: float | None = None,
) -> None:
    lab.record(
        "decided",
        n=one.number,
        status=verdict.status,
        reason=_printable(verdict.reason),
        crash=crash,
        provisional=verdict.provisional,
        val_bpb=val_bpb,
        holdout_bpb=holdout_bpb,
    )


def _apply(lab: Lab, one: Experiment) -> None:
    """Moves the branch to what is kept, and leaves it where it is otherwise."""
    layout, candidate = lab.layout, one.candidate
    assert candidate is not None
    if one.status == "keep":
        saved = _checkpoint(lab, one)
        if saved.is_file():
            layout.checkpoints.mkdir(parents=True, exist_ok=True)
            files.move(saved, layout.checkpoint(one.number))
        if one.number > 0:
            stands = lab.repository.ref(layout.branch)
            if stands != candidate:
                if stands != one.parent:
                    raise RepositoryError(
                        f"{layout.branch} stands on {(stands or 'nothing')[:7]}, not on the last "
                        f"kept commit {one.parent[:7]}: somebody moved it. Put it back with "
                        f"`git update-ref {layout.branch} {one.parent}`"
                    )
                lab.repository.move_ref(layout.branch, candidate, one.parent)
            lab.repository.reset_worktree(layout.worktree, candidate)
    lab.record("applied", n=one.number)
    _limit_checkpoints(lab)
    if one.status == "keep" and one.number > 0 and lab.options.on_keep:
        notify(lab, lab.options.on_keep, one)


def _limit_checkpoints(lab: Lab) -> None:
    """Drops the oldest kept checkpoints over the limit, never the tip's."""
    left = lab.settings.checkpoint_gb * (1 << 30)
    for index, number in enumerate(reversed(lab.state.kept)):
        path = lab.layout.checkpoint(number)
        if path.is_file():
            left -= path.stat().st_size
            if left < 0 and index > 0:
                files.remove_tree(path)


def _holdout(lab: Lab, one: Experiment) -> float | None:
    """The second score, on text that no researcher is shown; no decision uses it."""
    with lab.device():
        return lab.score(_checkpoint(lab, one), lab.settings.holdout).val_bpb


def _score_again(lab: Lab, one: Experiment) -> float | None:
    """Another scoring of the same checkpoint, with other secrets."""
    with lab.device():
        return lab.score(_checkpoint(lab, one), lab.settings.val).val_bpb


def _checkpoint(lab: Lab, one: Experiment) -> Path:
    """What the candidate is decided on."""
    assert one.candidate is not None
    return checkpoint_path(lab, "main", one.candidate, one.seed)


def clear_work(lab: Lab) -> None:
    """Removes what an experiment needed while it ran."""
    for path in sorted(lab.layout.work.glob("*")):
        if path.name != "run.log":
            files.remove_tree(path)


def write_results(lab: Lab) -> None:
    """Makes the results file anew from the journal."""
    path = lab.layout.worktree / lab.contract.results
    files.write_atomically(path, results.table(lab.state).encode())


def mutable_files(lab: Lab, commit: str) -> dict[str, bytes]:
    """What a candidate may write, as a commit has it."""
    return {
        path: lab.repository.blob(entry.sha)
        for path, entry in lab.repository.tree(commit).items()
        if lab.contract.allows(path) and entry.mode.startswith("100")
    }


def briefing(lab: Lab, number: int) -> Briefing:
    """What the researcher is told, made afresh from the journal and the user's files."""
    tip = lab.state.tip
    assert tip is not None and tip.candidate is not None
    ideas, steer = (
        path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for path in (lab.layout.ideas, lab.layout.steer)
    )
    finished = [one for one in lab.state.experiments if one.finished and one.status != "skip"]
    log_tail = files.tail(lab.layout.log(finished[-1].number)) if finished else ""
    return Briefing(
        number=number,
        state=lab.state,
        contract=lab.contract,
        tip_diff=lab.repository.diff(lab.settings.baseline, tip.candidate),
        log_tail=log_tail,
        ideas=ideas,
        steer=steer,
    )


def notify(lab: Lab, command: str, one: Experiment | None = None, reason: str = "") -> None:
    """Runs a command of the user's own; its failure is said, and stops nothing."""
    about = {"MODGRAD_TAG": lab.layout.tag, "MODGRAD_REASON": reason}
    if one is not None:
        about |= {
            "MODGRAD_EXPERIMENT_NUMBER": str(one.number),
            "MODGRAD_VAL_BPB": "" if one.val_bpb is None else f"{one.val_bpb:.6f}",
            "MODGRAD_HYPOTHESIS": one.hypothesis,
        }
    try:
        subprocess.run(command, shell=True, timeout=60, check=True, env={**os.environ, **about})
    except (subprocess.SubprocessError, OSError) as error:
        lab.say(f"the command `{command}` failed: {error}")


def _workspace(lab: Lab) -> Path:
    return lab.layout.work / "researcher" / "candidate"


def _printable(text: str) -> str:
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:500]
