"""One training run: its clock, its checkpoint, its progress line, its ^C.

    run = Run(path, budget=300, steps=None, settings={...})
    run.begin(training, programs)
    while run.continues():
        ...
        run.record(loss, tokens.size)
    run.finish()

An existing checkpoint is resumed: parameters, moments, step, and budget spent.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from filelock import FileLock, Timeout

from modgrad import checkpoint
from modgrad.errors import UsageError
from modgrad.nn import Parameter
from modgrad.program import Array, Program
from modgrad.training import Training
from modgrad.training_curve import TrainingCurve

SECONDS_BETWEEN_LINES = 10.0  # where the progress line is not a terminal
LINES = 25  # of a short run, at least
SECONDS_BETWEEN_UPDATES = 0.25  # where it is
SECONDS_BETWEEN_SAVES = 600.0


LEARNER = "learner/"  # before the names of what learns without gradients


class Learner(Protocol):
    """Something that learns beside a `Training`, without gradients."""

    def state(self) -> dict[str, Array]:
        """What an exact resume needs beside the parameters."""

    def restore(self, state: dict[str, Array]) -> None:
        """Continues from what `state` gave."""


class Run:
    """The state of a run that is not the model's."""

    def __init__(
        self,
        path: Path,
        *,
        task: str,
        settings: Mapping[str, object],
        budget: float | None = None,
        steps: int | None = None,
        unit: str = "B",
    ) -> None:
        """`unit` is what `record` counts, as the progress line names it."""
        self.path = path
        self.task = task
        self.settings = dict(settings)
        self.budget = budget
        self.steps = steps
        self.tokens = 0
        self.trained_seconds = 0.0
        self.interrupted = False
        self._spent = 0.0
        self._steps_left_over, self._first_step = 0, 0
        self._first_recorded: float | None = None
        self._used_up = False
        self._start: float | None = None
        self._learner: Learner | None = None
        self._training: Training
        self._programs: Mapping[str, Program]
        self._saved = self._open()
        self.curve = TrainingCurve(self._saved.meta.get("curve") if self._saved else None)
        self._progress = _Progress(budget, unit)

    def _open(self) -> checkpoint.Checkpoint | None:
        if not self.path.parent.is_dir():
            raise UsageError(f"{self.path.parent}: no such folder to keep the checkpoint in")
        if self.path.is_dir():
            raise UsageError(f"{self.path}: is a folder; name a file for the checkpoint")
        try:
            tempfile.TemporaryFile(dir=self.path.parent).close()
        except OSError as error:  # better now than after the whole budget
            raise UsageError(
                f"{self.path.parent}: no checkpoint can be written there ({error.strerror})"
            ) from None
        self._unlock = self._locked()
        try:
            return self._found()
        except BaseException:
            self._unlock()
            raise

    def _found(self) -> checkpoint.Checkpoint | None:
        if not self.path.exists():
            return None
        saved = checkpoint.load(self.path)
        if saved.meta.get("task") != self.task:
            raise UsageError(
                f"{self.path}: holds a model for the task {saved.meta.get('task')!r}, not "
                f"{self.task!r}; name another file"
            )
        before: dict[str, Any] = saved.meta.get("settings", {})
        for name, value in self.settings.items():
            if name in before and before[name] != value:
                raise UsageError(
                    f"{self.path}: was made with {name} = {before[name]}, not {value}; "
                    "resume it with the same, or name another file"
                )
        return saved

    def _locked(self) -> Callable[[], object]:
        """Locks the checkpoint, of which two runs would each undo what the other saved;
        returns what unlocks it, at the latest when the run is no more."""
        digest = hashlib.sha256(os.fsencode(self.path.name)).hexdigest()[:16]
        lock = FileLock(self.path.with_name(f".{digest}.lock"))  # a name of any length fits
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{self.path}: another run is training it; wait for that, or name another file"
            ) from None
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be locked ({error.strerror})") from None
        return weakref.finalize(self, _unlock, lock)

    def start_clock(self) -> None:
        """Starts the budget's clock; `begin` does where nothing before it is to count."""
        if self._start is None:
            self._start = time.monotonic()

    def saved_weight(self, name: str) -> Array | None:
        """A weight of the checkpoint that is resumed, before `begin`."""
        return None if self._saved is None else self._saved.weights.get(name)

    def saved_setting(self, name: str) -> Any:
        """A setting of the checkpoint that is resumed, before `begin`; None without."""
        return None if self._saved is None else self._saved.meta.get("settings", {}).get(name)

    def begin(
        self,
        training: Training,
        programs: Mapping[str, Program],
        learner: Learner | None = None,
    ) -> None:
        """Restores what the checkpoint holds and starts the clock.

        `programs` are what is saved; "score" is what the evaluator runs. `learner` is
        what learns beside `training`.
        """
        self._training = training
        self._programs = programs
        self._learner = learner
        if self._saved is not None:
            meta = self._saved.meta
            state = self._saved.state
            own = {name: value for name, value in state.items() if not name.startswith(LEARNER)}
            training.restore(self._restored_weights(), own, int(meta["step"]))
            if learner is not None:
                learner.restore({name: state[LEARNER + name] for name in learner.state()})
            self._spent, self.tokens = float(meta["seconds"]), int(meta["tokens"])
            self._progress.say(f"resumed {self.path} at step {training.steps}")
            self._saved = None
        self._handlers = {
            number: signal.signal(number, self._interrupt)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        self.start_clock()
        self._first_step = training.steps
        self._last_save = time.monotonic()

    def _standing(self) -> dict[str, Parameter]:
        """What the saved programs read and training does not."""
        trained = self._training.program.parameters
        programs = self._programs.values()
        read = {name: p for program in programs for name, p in program.parameters.items()}
        return {name: parameter for name, parameter in read.items() if name not in trained}

    def _restored_weights(self) -> dict[str, Array]:
        """The checkpoint's weights for `training`; others go where the programs find them."""
        assert self._saved is not None
        weights, standing = dict(self._saved.weights), self._standing()
        for name in weights.keys() & standing.keys():
            standing[name].value = weights.pop(name)
        return weights

    def leave(self, steps: int) -> None:
        """Leaves the time of so many steps of the budget, a tenth of it at most, to what
        comes after the last."""
        self._steps_left_over = steps

    def say(self, line: str) -> None:
        """Prints a line among those of the progress."""
        self._progress.say(line)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    @property
    def seconds(self) -> float:
        """Wall-clock time spent training, that before a resume included."""
        running = 0.0 if self._start is None else time.monotonic() - self._start
        return self._spent + running

    @property
    def fraction(self) -> float:
        """How much of the budget is used, from 0 to 1: of the seconds, or of the
        steps, whichever is further on; 0 where neither is limited."""
        used = [self._share_of_budget()]
        if self.steps is not None:
            used.append(self._training.steps / self.steps if self.steps else 1.0)
        return min(1.0, max(used))

    def _share_of_budget(self) -> float:
        return (self.seconds + self._left_over()) / self.budget if self.budget else 0.0

    def _left_over(self) -> float:
        """Seconds that the steps left over take, by those after the first, which is slow."""
        steps = self._training.steps - self._first_step - 1
        if self._first_recorded is None or self.budget is None or steps < 1:
            return 0.0
        seconds = self._steps_left_over * (time.monotonic() - self._first_recorded) / steps
        return min(seconds, 0.1 * self.budget)

    def continues(self) -> bool:
        """Whether there is budget left and nobody has pressed ^C."""
        if time.monotonic() - self._last_save > SECONDS_BETWEEN_SAVES:
            self.save()
        # What is left over then is not trained on by a resumed run.
        self._used_up = self._share_of_budget() >= 1.0
        return not self.interrupted and self.fraction < 1.0

    def record(self, loss: float, tokens: int) -> None:
        """Notes a step: its loss in nats and the tokens it was trained on."""
        bits = loss / math.log(2)
        if self._first_recorded is None:
            self._first_recorded = time.monotonic()
        self.tokens += tokens
        self.curve.add(self.seconds, self._training.steps, bits)
        self._progress.step(self, self._training.steps, bits, tokens)

    def save(self) -> None:
        """Writes the checkpoint."""
        meta = {
            "task": self.task,
            "settings": self.settings,
            "step": self._training.steps,
            "seconds": max(self.seconds, self.budget or 0.0) if self._used_up else self.seconds,
            "tokens": self.tokens,
            "curve": self.curve.as_json(),
        }
        checkpoint.save(
            self.path,
            programs=self._programs,
            weights=self._weights(),
            state=self._training.state() | self._learner_state(),
            meta=meta,
        )
        self._last_save = time.monotonic()

    def _weights(self) -> dict[str, Array]:
        standing = {name: parameter.value for name, parameter in self._standing().items()}
        return standing | self._training.weights()

    def _learner_state(self) -> dict[str, Array]:
        state = {} if self._learner is None else self._learner.state()
        return {LEARNER + name: value for name, value in state.items()}

    def finish(self) -> None:
        """Stops the clock, saves, and gives ^C back its meaning."""
        self.trained_seconds = self.seconds
        self._progress.end()
        self.save()
        self._unlock()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.interrupted:
            self._progress.say(
                f"stopped: saved {self.path} at step {self._training.steps}; "
                "the same command goes on from there"
            )


def _unlock(lock: FileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


class _Progress:
    """A line on stderr that says how far a run is."""

    def __init__(self, budget: float | None, unit: str) -> None:
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._every = SECONDS_BETWEEN_UPDATES
        if not self._terminal:
            self._every = min(SECONDS_BETWEEN_LINES, (budget or math.inf) / LINES)
        self._last = time.monotonic()
        self._bits = 0.0
        self._steps = 0
        self._tokens = 0

    def step(self, run: Run, step: int, bits: float, tokens: int) -> None:
        self._bits += bits
        self._steps += 1
        self._tokens += tokens
        now = time.monotonic()
        elapsed = now - self._last
        if elapsed < self._every:
            return
        line = (
            f"step {step:>7}  loss {self._bits / self._steps:.4f} bits  "
            f"{self._tokens / elapsed / 1000:.1f} k{self._unit}/s{_left(run)}"
        )
        if self._terminal:
            print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
        self._last, self._bits, self._steps, self._tokens = now, 0.0, 0, 0

    def end(self) -> None:
        if self._terminal:
            print(file=sys.stderr)

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _left(run: Run) -> str:
    fraction = run.fraction
    if fraction <= 0.0:
        return ""
    left = int(run.seconds * (1.0 - fraction) / fraction)
    return f"  {left // 60}:{left % 60:02} left"
