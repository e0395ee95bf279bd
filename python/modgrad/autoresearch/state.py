"""What the journal says: records in, the state of a tag out.

Plain functions on plain data, without files, clocks or processes. `State.apply`
is the only reader of a record's fields; recovery after a crash is to replay the
journal and to go on with the first thing that has no record.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from modgrad.autoresearch.errors import JournalError
from modgrad.autoresearch.journal import Record

# How many numbers of a training curve are kept.
CURVE_POINTS = 20
# Seconds beside the budget that no training process is denied.
LEAST_ALLOWANCE = 10.0


@dataclass(frozen=True)
class DataFile:
    """A pinned file: its name below the tag's data folder, and what it must be."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class MazeSet:
    """The mazes that a tag's models are trained on and scored with."""

    size: int  # pixels a side
    layout: str
    count: int  # that a score is formed over
    held_out: int  # of a secret seed, for the second score

    def standard_error(self, share: float) -> float:
        """Of a share of the mazes; at least one maze's worth, since a share of none
        or all does not say that there is no error."""
        within = min(max(share, 0.0), 1.0)
        return max(math.sqrt(within * (1 - within) / self.count), 1 / self.count)


@dataclass(frozen=True)
class Settings:
    """What `setup` fixed, once for the tag."""

    tag: str
    task: str
    contract: str  # contract.toml as it was
    baseline: str  # commit
    budget: float  # seconds of training
    seed: int
    baseline_runs: int
    train: tuple[DataFile, ...]
    val: DataFile
    holdout: DataFile
    overlap: float  # share of val's 32-grams that stand in the training data
    trusted: str  # SHA-256 over the installation that trains and scores
    checkpoint_gb: float  # of kept checkpoints, the newest first
    machine: str
    evaluator: str = "language"
    mazes: MazeSet | None = None  # where they, and not files, are what is scored

    @staticmethod
    def from_record(record: Record) -> Settings:
        """The settings of a `setup` record."""
        fields: dict[str, Any] = dict(record["settings"])
        fields["train"] = tuple(DataFile(**one) for one in fields["train"])
        fields["val"] = DataFile(**fields["val"])
        fields["holdout"] = DataFile(**fields["holdout"])
        if fields.get("mazes") is not None:
            fields["mazes"] = MazeSet(**fields["mazes"])
        return Settings(**fields)


@dataclass
class Measurement:
    """One training run of a commit with a seed, and its score."""

    role: str  # main, baseline, confirm, tip, remeasure
    commit: str
    seed: int
    started: float = 0.0  # seconds since the epoch
    pid: int = 0
    trained: bool = False
    checkpoint_sha256: str | None = None
    wall_seconds: float = 0.0
    build_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    peak_rss_mb: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)  # (seconds, loss in bits)
    crash: str | None = None  # a crash class
    reason: str = ""
    scouted: bool = False  # stopped early for a loss above the tip's
    val_bpb: float | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run: it has a score, or will never."""
        return self.crash is not None or self.scouted or self.val_bpb is not None


@dataclass
class Experiment:
    """One candidate, from its plan to its decision. Number 0 is the baseline."""

    number: int
    base: str  # commit whose files the researcher was given
    parent: str  # the branch's tip at that time
    seed: int
    researcher: str
    planned: float  # seconds since the epoch
    candidate: str | None = None
    hypothesis: str = ""
    family: str = ""
    fingerprint: str = ""  # of what the code means, comments aside
    cost: float = 0.0  # as the researcher reports it, in US dollars
    notes: str = ""
    checked: bool = False
    repaired: bool = False
    rehearsed: bool = False
    measurements: list[Measurement] = field(default_factory=list)
    status: str | None = None  # keep, discard or crash; skip where it was not run
    reason: str = ""
    crash: str | None = None
    provisional: bool = False
    val_bpb: float | None = None
    holdout_bpb: float | None = None
    applied: bool = False
    finished: float | None = None  # seconds since the epoch

    def find(self, role: str, commit: str, seed: int) -> Measurement | None:
        """The measurement of that commit with that seed in that role."""
        for one in self.measurements:
            if (one.role, one.commit, one.seed) == (role, commit, seed):
                return one
        return None

    @property
    def main(self) -> Measurement | None:
        """The measurement of the candidate that is decided on."""
        return None if self.candidate is None else self.find("main", self.candidate, self.seed)

    @property
    def memory_gb(self) -> float:
        """The most memory that its training held."""
        return self.main.peak_rss_mb / 1024 if self.main else 0.0

    @property
    def wall_seconds(self) -> float:
        """From its plan to its end; 0 while it runs."""
        return (self.finished or self.planned) - self.planned


@dataclass
class State:
    """A tag, as its journal tells it."""

    settings: Settings | None = None
    experiments: list[Experiment] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)  # numbers, oldest first
    failures: int = 0  # of the researcher, in a row
    fallback: str | None = None  # why the built-in search took over
    paused: str | None = None  # why the loop waits
    stops: list[tuple[float, str]] = field(default_factory=list)
    remeasured: dict[str, list[Measurement]] = field(default_factory=dict)  # by commit
    cost: float = 0.0
    last_time: float = 0.0
    # Scores of the same commit under several seeds, for the spread.
    replicates: dict[str, dict[int, float]] = field(default_factory=dict)

    @staticmethod
    def replay(records: Iterable[Record]) -> State:
        """The state after all of the records."""
        state = State()
        for record in records:
            state.apply(record)
        return state

    @property
    def tip(self) -> Experiment | None:
        """The last kept experiment: where the branch stands."""
        return self.experiments[self.kept[-1]] if self.kept else None

    @property
    def baseline(self) -> Experiment | None:
        """The experiment that measured the code as it was at `setup`."""
        return self.experiments[0] if self.experiments else None

    @property
    def current(self) -> Experiment | None:
        """The experiment that is not finished yet."""
        last = self.experiments[-1] if self.experiments else None
        return last if last is not None and last.finished is None else None

    @property
    def training_limit(self) -> float:
        """Seconds after which a training process is killed: the budget, and a few
        times what the baseline took beside it to start and to save."""
        assert self.settings is not None
        budget = self.settings.budget
        main = self.experiments[0].main if self.experiments else None
        if main is None or not main.trained or main.crash is not None:
            return 2 * budget + 60
        return budget + max(LEAST_ALLOWANCE, 3 * (main.wall_seconds - budget))

    @property
    def usual_wall_seconds(self) -> float:
        """How long the baseline's process took, start and saving included."""
        main = self.experiments[0].main if self.experiments else None
        return main.wall_seconds if main is not None and main.trained else math.inf

    @property
    def hard_limit(self) -> float:
        """Seconds that an experiment's run may take in all, compilation included."""
        assert self.settings is not None
        return max(600.0, 2 * self.settings.budget)

    @property
    def sigma(self) -> float | None:
        """The standard deviation of val_bpb that a gain is held against: see `spread`;
        None where nothing was run with several seeds."""
        sigma, freedom = self.spread
        return sigma if freedom else None

    @property
    def spread(self) -> tuple[float, int]:
        """(standard deviation, degrees of freedom): from seed to seed, but where a
        score is a share of a few mazes not below the standard error of the tip's.

        Such scores come in steps, and a few seeds that agree do not say that all do.
        """
        sigma, freedom = self.seed_spread
        return max(sigma, self.resolution), freedom

    @property
    def resolution(self) -> float:
        """The standard error of the tip's score as a share of so many mazes; 0 where
        scores are continuous."""
        mazes, tip = self.settings.mazes if self.settings else None, self.tip
        score = tip.val_bpb if tip is not None else None
        return 0.0 if mazes is None or score is None else mazes.standard_error(score)

    @property
    def seed_spread(self) -> tuple[float, int]:
        """(standard deviation, degrees of freedom) from seed to seed, pooled over all
        commits that were run with several seeds."""
        squares, freedom = 0.0, 0
        for scores in self.replicates.values():
            if len(scores) > 1:
                mean = statistics.fmean(scores.values())
                squares += sum((score - mean) ** 2 for score in scores.values())
                freedom += len(scores) - 1
        return (math.sqrt(squares / freedom) if freedom else 0.0), freedom

    def ready(self) -> Settings:
        """The settings, or an error where `setup` did not finish."""
        if self.settings is None or self.tip is None:
            raise JournalError("setup did not finish for this tag: run `setup` with it again")
        return self.settings

    def apply(self, record: Record) -> None:
        """Takes one record in."""
        self.last_time = record["time"]
        reader = getattr(self, f"_on_{record['kind']}", None)
        if reader is None:
            raise JournalError(
                f"a record of the unknown kind `{record['kind']}`: the journal was written by a "
                "later version of modgrad"
            )
        reader(record)

    def _experiment(self, record: Record) -> Experiment:
        number: int = record["n"]
        if number >= len(self.experiments):
            raise JournalError(f"a record `{record['kind']}` of experiment {number} has no plan")
        return self.experiments[number]

    def _measurement(self, record: Record) -> Measurement:
        key = (record["role"], record["commit"], record["seed"])
        if record["role"] == "remeasure":
            found = [m for m in self.remeasured.get(record["commit"], []) if m.seed == key[2]]
            one = found[0] if found else None
        else:
            one = self._experiment(record).find(*key)
        if one is None:
            raise JournalError(f"a record `{record['kind']}` of a run that never started")
        return one

    def _on_setup(self, record: Record) -> None:
        self.settings = Settings.from_record(record)

    def _on_planned(self, record: Record) -> None:
        if record["n"] == len(self.experiments) - 1 and self.experiments[-1].candidate is None:
            self.experiments.pop()  # planned, never proposed: planned anew
        if record["n"] != len(self.experiments):
            raise JournalError(f"experiment {record['n']} is planned out of order")
        self.experiments.append(
            Experiment(
                number=record["n"],
                base=record["base"],
                parent=record["parent"],
                seed=record["seed"],
                researcher=record["researcher"],
                planned=record["time"],
            )
        )

    def _on_proposed(self, record: Record) -> None:
        one = self._experiment(record)
        one.candidate = record["candidate"]
        one.hypothesis = record["hypothesis"]
        one.family = record["family"]
        one.fingerprint = record["fingerprint"]
        one.notes = record.get("notes", "")
        one.repaired = record.get("repair", False)
        one.checked = one.rehearsed = False
        one.cost += record["cost"]
        self.cost += record["cost"]
        self.failures = 0
        self.paused = None

    def _on_checked(self, record: Record) -> None:
        self._experiment(record).checked = True

    def _on_rehearsed(self, record: Record) -> None:
        self._experiment(record).rehearsed = True

    def _on_train_started(self, record: Record) -> None:
        key = (record["role"], record["commit"], record["seed"])
        one = Measurement(*key, started=record["time"], pid=record["pid"])
        if record["role"] == "remeasure":
            runs = self.remeasured.setdefault(record["commit"], [])
        else:
            runs = self._experiment(record).measurements
        # A run that was cut short begins anew.
        runs[:] = [run for run in runs if (run.role, run.commit, run.seed) != key] + [one]

    def _on_train_done(self, record: Record) -> None:
        one = self._measurement(record)
        one.trained = True
        one.checkpoint_sha256 = record["checkpoint_sha256"]
        one.wall_seconds = record["wall_seconds"]
        one.build_seconds = record["build_seconds"]
        one.peak_rss_mb = record["peak_rss_mb"]
        one.curve = [(seconds, loss) for seconds, loss in record["curve"]]
        one.crash = record["crash"]
        one.reason = record["reason"]
        one.scouted = record.get("scouted", False)

    def _on_eval_done(self, record: Record) -> None:
        one = self._measurement(record)
        one.crash = record["crash"]
        one.reason = record["reason"]
        one.val_bpb = record["val_bpb"]
        one.evaluation_seconds = record["seconds"]
        if one.val_bpb is not None:
            self.replicates.setdefault(one.commit, {})[one.seed] = one.val_bpb

    def _on_decided(self, record: Record) -> None:
        one = self._experiment(record)
        one.status = record["status"]
        one.reason = record["reason"]
        one.crash = record["crash"]
        one.provisional = record["provisional"]
        one.val_bpb = record["val_bpb"]
        one.holdout_bpb = record["holdout_bpb"]
        self.paused = None

    def _on_applied(self, record: Record) -> None:
        one = self._experiment(record)
        one.applied = True
        if one.status == "keep":
            self.kept.append(one.number)

    def _on_logged(self, record: Record) -> None:
        self._experiment(record).finished = record["time"]

    def _on_interrupted(self, record: Record) -> None:
        """The running experiment was killed by the user; it begins anew later."""

    def _on_researcher_failed(self, record: Record) -> None:
        self.failures += 1
        self.cost += record.get("cost", 0.0)

    def _on_fallback(self, record: Record) -> None:
        self.fallback = record["reason"]
        self.failures = 0

    def _on_started(self, record: Record) -> None:
        if self.current is not None:  # a run that was cut short begins anew
            runs = self.current.measurements
            runs[:] = [run for run in runs if run.finished or run.trained]
        self.fallback = self.paused = None
        self.failures = 0

    def _on_paused(self, record: Record) -> None:
        self.paused = record["reason"]
        self.cost += record.get("cost", 0.0)

    def _on_healed(self, record: Record) -> None:
        """Something that a crash left behind was put right."""

    def _on_stopped(self, record: Record) -> None:
        self.stops.append((record["time"], record["reason"]))
