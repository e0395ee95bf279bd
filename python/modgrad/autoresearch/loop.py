"""The loop: experiment after experiment until somebody or a limit says stop.

It never asks. What goes wrong with the researcher or the machine is waited out
and counts as no experiment; what goes wrong with a candidate is its crash.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from modgrad.autoresearch import files, processes
from modgrad.autoresearch.errors import (
    EnvironmentFault,
    ModgradError,
    RepositoryError,
    ResearcherError,
    ResearcherGone,
    UsageError,
)
from modgrad.autoresearch.experiment import (
    abandon,
    advance,
    clear_work,
    plan,
    plan_baseline,
    write_results,
)
from modgrad.autoresearch.lab import Interrupted, Lab
from modgrad.autoresearch.researchers.base import Researcher
from modgrad.autoresearch.state import Experiment

BALLAST = 4 << 20  # bytes
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
SPACE_TO_GO_ON = 256 << 20  # bytes
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 300.0  # seconds
_LONGEST_REQUESTED_WAIT = 1800.0  # where the researcher says when to ask again
_MOST_FAULTS = 20  # of the machine, in a row


@dataclass(frozen=True)
class Limits:
    """When the loop ends by itself; None: never for that reason."""

    experiments: int | None = None
    until: float | None = None  # seconds since the epoch
    cost: float | None = None  # US dollars, of the tag in all
    failures: int = 12  # of the researcher in a row, before another takes over
    when_gone: str = "search"  # or wait, or stop


class Stop:
    """^C: once, finish this experiment; twice, kill it."""

    def __init__(self) -> None:
        self.asked = False
        self.over = False  # it ends now: there is nothing left to kill
        self.busy = False  # whether there is something that is worth finishing

    @contextmanager
    def listening(self, say: Callable[[str], None]) -> Iterator[None]:
        """Takes the signals over while the loop runs."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.over:
                return
            if self.asked:
                self.over = True
                raise Interrupted
            self.asked = True
            if self.busy:
                say("finishing this experiment, then stopping; once more to kill it")

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def only_one(lab_lock: Path, what: str) -> Iterator[None]:
    """Holds the lock of a tag, or says at once who cannot have it."""
    lab_lock.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lab_lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{what} is at work already; see `status`") from None
    try:
        yield
    finally:
        lock.release()


def is_running(lab_lock: Path) -> bool:
    """Whether a loop holds the lock of a tag."""
    if not lab_lock.is_file():
        return False
    lock = FileLock(lab_lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def run_loop(
    lab: Lab,
    researcher: Researcher,
    fallback: Callable[[], Researcher],
    limits: Limits,
    stop: Stop,
) -> str:
    """Runs experiments; returns why it ended. The tag's lock must be held."""
    try:
        heal(lab)
        lab.record("started", researcher=researcher.name)
        reason = _run_experiments(lab, researcher, fallback, limits, stop)
    except Interrupted:
        lab.record("interrupted")
        reason = "interrupted"
    except RepositoryError as error:
        stop.over = True
        lab.record("stopped", reason=str(error))
        raise
    stop.over = True
    lab.record("stopped", reason=reason)
    return reason


def _run_experiments(
    lab: Lab,
    researcher: Researcher,
    fallback: Callable[[], Researcher],
    limits: Limits,
    stop: Stop,
) -> str:
    begun = sum(one.status != "skip" for one in lab.state.experiments if one.finished)
    active = researcher
    faults = skips = 0
    reason = None
    while reason is None:
        reason = _limit_reached(lab, limits, begun, stop)
        if reason is not None:
            break
        current = lab.state.current
        try:
            stop.busy = True
            if current is None or current.candidate is None:
                current = plan(lab, active)
                lab.say(f"experiment {current.number}: asking {active.name}")
            _advance(lab, current, active)
            _announce(lab, current)
            faults = 0
            skips = skips + 1 if current.status == "skip" else 0
            if skips > 1:  # a single one is asked again at once
                raise ResearcherError(f"{skips} proposals in a row with nothing to run")
        except ResearcherGone as error:
            reason = _replace(lab, limits, stop, str(error))
            active, skips = fallback() if lab.state.fallback else active, 0
        except ResearcherError as error:
            in_a_row = max(lab.state.failures + 1, skips)
            wait = getattr(error, "retry_after", None) or _back_off(in_a_row - (skips > 1))
            wait = min(wait, _LONGEST_REQUESTED_WAIT)
            lab.record(
                "researcher_failed",
                reason=str(error),
                researcher=active.name,
                cost=getattr(error, "cost", 0.0),
                wait=wait,
            )
            if in_a_row >= limits.failures:
                reason = _replace(
                    lab, limits, stop, f"{in_a_row} failures in a row, the last: {error}"
                )
                active, skips = fallback() if lab.state.fallback else active, 0
            else:
                lab.say(f"{active.name}: {error}; asking again in {wait:.0f} s")
                stop.busy = False
                _wait(wait, stop)
        except EnvironmentFault as error:
            faults += 1
            if faults >= _MOST_FAULTS:
                reason = f"the machine failed {faults} times in a row, at last: {error}"
                break
            wait = _back_off(faults)
            _record_pause(lab, str(error))
            lab.say(f"paused for {wait:.0f} s: {error}")
            stop.busy = False
            _wait(wait, stop)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            faults += 1
            if faults >= _MOST_FAULTS:
                reason = f"there was no space {faults} times in a row, at last: {error}"
                break
            stop.busy = False
            _wait_for_space(lab, stop, error)
            # The disk that is full may be another one, or the quota used up.
            _wait(_back_off(faults), stop)
    return reason


def _advance(lab: Lab, one: Experiment, researcher: Researcher) -> None:
    """`advance`; what it does not foresee is the candidate's, and ends that alone."""
    try:
        advance(lab, one, researcher)
    except (ModgradError, OSError, Interrupted):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        if one.candidate is None:
            raise ResearcherError(f"what it left cannot be taken in: {reason}") from error
        if one.status is not None:
            raise
        abandon(lab, one, reason)
        advance(lab, one, researcher)


def run_baseline(lab: Lab) -> Experiment:
    """Measures the code as it was at `setup`; goes on where it was cut short."""
    heal(lab)
    one = plan_baseline(lab)
    advance(lab, one, None)
    return one


def heal(lab: Lab) -> None:
    """Puts right what a crash left: processes, locks of git, files half-made."""
    survivors = processes.kill_marked(lab.marker)
    layout = lab.layout
    locks = lab.repository.stale_locks(layout.worktree, [layout.branch, layout.candidates])
    for lock in locks:
        lock.unlink()
    for folder in (layout.root, layout.worktree, layout.logs):
        for temporary in folder.glob(".*.tmp"):
            temporary.unlink()
    if lab.state.current is None:
        clear_work(lab)
    if survivors or locks:
        lab.record("healed", processes=survivors, locks=[str(lock) for lock in locks])
    _make_ballast(lab)
    tip = lab.state.tip
    if tip is not None and tip.candidate is not None:
        stands = lab.repository.ref(layout.branch)
        current = lab.state.current
        allowed = {tip.candidate}
        if current is not None and current.status == "keep" and current.candidate is not None:
            allowed.add(current.candidate)  # moved, and not yet recorded
        if stands not in allowed:
            raise RepositoryError(
                f"{layout.branch} stands on {(stands or 'nothing')[:7]}, the journal says "
                f"{tip.candidate[:7]}: somebody moved it. Put it back with "
                f"`git update-ref {layout.branch} {tip.candidate}`"
            )
        if lab.repository.private(layout.worktree) is None:
            files.remove_tree(layout.worktree)
            lab.repository.run("worktree", "prune")
            lab.repository.add_worktree(layout.worktree, layout.branch)
        lab.repository.reset_worktree(layout.worktree, stands or tip.candidate)
        write_results(lab)


def _limit_reached(lab: Lab, limits: Limits, begun: int, stop: Stop) -> str | None:
    if stop.asked:
        return "^C"
    done = sum(one.status != "skip" for one in lab.state.experiments if one.finished) - begun
    if limits.experiments is not None and done >= limits.experiments:
        return f"{done} experiments were asked for"
    if limits.until is not None and time.time() >= limits.until:
        return "the time is up"
    if limits.cost is not None and lab.state.cost >= limits.cost:
        return f"the researcher has cost ${lab.state.cost:.2f}"
    return None


def _replace(lab: Lab, limits: Limits, stop: Stop, reason: str) -> str | None:
    """What follows when a researcher is given up: why the loop ends, or None."""
    if limits.when_gone == "stop" or lab.state.fallback is not None:
        return f"the researcher is gone: {reason}"
    if limits.when_gone == "search":
        lab.record("fallback", reason=reason)
        lab.say(f"the built-in search takes over: {reason}")
        return None
    lab.record("paused", reason=reason)
    _wait(_LONGEST_WAIT, stop)
    return None


def _announce(lab: Lab, one: Experiment) -> None:
    score = "no score" if one.val_bpb is None else f"{one.val_bpb:.6f}"
    mark = " (provisional)" if one.provisional else ""
    lab.say(f"experiment {one.number}: {one.status}{mark} {score}: {one.hypothesis} [{one.reason}]")


def _wait(seconds: float, stop: Stop) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop.asked:
        time.sleep(min(0.2, max(0.0, end - time.monotonic())))


def _back_off(failures: int) -> float:
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** max(0, failures - 1))


def _record_pause(lab: Lab, reason: str, cost: float = 0.0) -> None:
    """Frees the ballast where the journal cannot take it otherwise; a pause that cannot
    be recorded even so is only said."""
    try:
        lab.record("paused", reason=reason, cost=cost)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        lab.layout.ballast.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            lab.record("paused", reason=reason, cost=cost)


def _make_ballast(lab: Lab) -> None:
    if not lab.layout.ballast.is_file():
        files.write_atomically(lab.layout.ballast, b"\0" * BALLAST)


def _wait_for_space(lab: Lab, stop: Stop, error: OSError) -> None:
    """Waits until there is some."""
    _record_pause(lab, "the disk is full", getattr(error, "cost", 0.0))
    lab.say(f"paused: the disk is full ({lab.layout.root}); free some space")
    while shutil.disk_usage(lab.layout.root).free < SPACE_TO_GO_ON and not stop.asked:
        _wait(5.0, stop)
    if not stop.asked:
        with contextlib.suppress(OSError):  # made at the next start
            _make_ballast(lab)
