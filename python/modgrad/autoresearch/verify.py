"""`verify`: whether a tag's numbers still stand, checked from the ground up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from modgrad.autoresearch import check, results, trusted
from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.lab import Lab
from modgrad.autoresearch.measure import measure
from modgrad.autoresearch.state import Experiment

# Seeds that no experiment used, for runs that measure what was kept once more.
_FRESH_SEEDS = 10_000


def verify(lab: Lab, say: Callable[[str], None]) -> list[str]:
    """Goes through everything that was recorded; what does not hold, a line each.

    The journal's chain was verified when it was read.
    """
    wrong: list[str] = []
    trusted.verify(lab.layout.trusted, lab.settings.trusted)
    lab.verify_data()
    count = len(lab.state.experiments)
    say(f"journal: {count} experiments, chain whole; data and evaluator as pinned")
    wrong += _refs(lab)
    wrong += _chain(lab)
    path = lab.layout.worktree / lab.contract.results
    if path.is_file() and path.read_text(encoding="utf-8") != results.table(lab.state):
        wrong.append(f"{path}: is not what the journal says; the next loop makes it anew")
    for number in lab.state.kept:
        wrong += _rescore(lab, lab.state.experiments[number], say)
    return wrong


def replay(lab: Lab, number: int, say: Callable[[str], None]) -> str:
    """Trains an experiment's candidate again, with its seed; how the scores compare."""
    if not 0 <= number < len(lab.state.experiments):
        raise UsageError(
            f"--replay {number}: there are experiments 0 to {len(lab.state.experiments) - 1}"
        )
    one = lab.state.experiments[number]
    if one.val_bpb is None or one.candidate is None:
        raise UsageError(f"--replay {number}: it has no score to compare with ({one.status})")
    say(f"training experiment {number} again ({lab.settings.budget:g} s): {one.hypothesis}")
    run = measure(lab, number, "remeasure", one.candidate, one.seed)
    if run.val_bpb is None:
        return f"experiment {number}: recorded {one.val_bpb:.6f}, again: {run.crash}: {run.reason}"
    difference = run.val_bpb - one.val_bpb
    sigma = lab.state.sigma
    scale = f" = {difference / sigma:+.1f}σ" if sigma else ""
    return (
        f"experiment {number}: recorded {one.val_bpb:.6f}, again {run.val_bpb:.6f} "
        f"({difference:+.6f}{scale})"
    )


def remeasure(lab: Lab, seeds: int, say: Callable[[str], None]) -> None:
    """Trains baseline and tip with fresh seeds, for the report: a running minimum
    over many tries flatters its own score."""
    tip = lab.state.tip
    assert tip is not None and tip.candidate is not None
    commits = {lab.settings.baseline: 0, tip.candidate: tip.number}
    for extra in range(seeds):
        for commit, number in commits.items():
            seed = lab.settings.seed + _FRESH_SEEDS + extra
            say(f"measuring {commit[:7]} again with seed {seed}")
            measure(lab, number, "remeasure", commit, seed)


def _refs(lab: Lab) -> list[str]:
    wrong = []
    refs = lab.repository.refs(lab.layout.candidates)
    for one in lab.state.experiments[1:]:
        name = lab.layout.candidate(one.number)
        if one.candidate is not None and refs.get(name) != one.candidate:
            wrong.append(f"{name}: stands on {refs.get(name)}, the journal says {one.candidate}")
    tip = lab.state.tip
    stands = lab.repository.ref(lab.layout.branch)
    if tip is not None and stands != tip.candidate:
        wrong.append(f"{lab.layout.branch}: stands on {stands}, the journal says {tip.candidate}")
    return wrong


def _chain(lab: Lab) -> list[str]:
    """Each keep below the one before it, on top of it, and within the contract."""
    wrong = []
    kept = [lab.state.experiments[number] for number in lab.state.kept]
    for before, after in pairwise(kept):
        assert before.val_bpb is not None and after.val_bpb is not None
        assert after.candidate is not None
        name = f"experiment {after.number}"
        if after.val_bpb > before.val_bpb:
            wrong.append(f"{name}: kept with {after.val_bpb}, above {before.val_bpb}")
        if after.parent != before.candidate:
            wrong.append(f"{name}: was not judged against the last keep")
        for violation in check.check(
            lab.repository, lab.contract, lab.settings.baseline, after.candidate
        ):
            wrong.append(f"{name}: {violation}")
    return wrong


def _rescore(lab: Lab, one: Experiment, say: Callable[[str], None]) -> list[str]:
    path = lab.layout.checkpoint(one.number)
    if not path.is_file():
        say(f"experiment {one.number}: its checkpoint is not stored any more")
        return []
    with lab.device():
        score = lab.score(path, lab.settings.val)
    if score.val_bpb != one.val_bpb:
        return [
            f"experiment {one.number}: recorded {one.val_bpb}, scored now {score.val_bpb} "
            f"{score.refused}".rstrip()
        ]
    say(f"experiment {one.number}: scored again, {score.val_bpb:.6f} to the last bit")
    return []
