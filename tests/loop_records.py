"""Journals made up for tests: what a tag's records look like after N experiments.

`records(30)` is a plausible history (a measured baseline, keeps that get rarer,
discards, crashes of every class, a failure of the researcher now and then), the
same for the same seed. `State.replay(records(30))` is its state.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modgrad.autoresearch.state import CURVE_POINTS, DataFile, Settings

Record = dict[str, Any]

CONTRACT = (Path(__file__).parent.parent / "contract.toml").read_text()
BASELINE_BPB = 1.7
SIGMA = 0.003
BUDGET = 300.0
START = 1_790_000_000.0  # seconds since the epoch
# What a holdout score looks like below; no score on the validation file ever does.
HOLDOUT = 7.654321

IDEAS = (
    ("architecture", "widen the hidden layer 640 → 704"),
    ("architecture", "add an order-12 hashed slot"),
    ("optimiser", "raise AdamW's second beta to 0.99"),
    ("schedule", "begin the cooldown at half of the budget"),
    ("data order", "halve the batch and double the updates"),
    ("regularisation", "drop table slots less often: 0.25 → 0.15"),
    ("kernel", "fold the two table look-ups into one pass"),
    ("simplification", "remove the clip of the gradient's norm"),
)
CRASHES = (
    ("syntax", "isis/ffn.py:12: '(' was never closed"),
    ("import", "isis/ffn.py: imports os, which the contract does not list"),
    ("shape", "add: f32[8, 128, 320] and f32[8, 128, 336] do not broadcast"),
    ("out of memory", "held more memory than the machine can give"),
    ("non-finite", "the loss is not finite at step 41"),
    ("time-out", "was killed after 600 s: over the budget"),
)


def commit(*parts: object) -> str:
    """A commit's name, made up from what it stands for."""
    return hashlib.sha1(repr(parts).encode()).hexdigest()


def settings(tag: str = "test") -> Settings:
    """What `setup` fixed."""
    return Settings(
        tag=tag,
        task="language",
        contract=CONTRACT,
        baseline=commit("baseline"),
        budget=BUDGET,
        seed=0,
        baseline_runs=3,
        train=(DataFile("train_5m.txt", 5 << 20, commit("train") + "0" * 24),),
        val=DataFile("val.txt", 262_144, commit("val") + "0" * 24),
        holdout=DataFile("holdout.txt", 262_144, commit("holdout") + "0" * 24),
        overlap=0.0105,
        trusted=commit("trusted") + "0" * 24,
        checkpoint_gb=10.0,
        machine="2 cores, AVX-512, 8 GB",
    )


def curve(end: float, points: int = CURVE_POINTS) -> list[list[float]]:
    """(seconds, loss in bits): falls from 8 to near `end`."""
    shares = [(index + 1) / points for index in range(points)]
    return [[round(BUDGET * x, 1), round(end + (8 - end) * (0.05 / x) ** 1.5, 4)] for x in shares]


class History:
    """Appends records as the loop would; each method one thing that happens."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.time = START
        self.records: list[Record] = []
        self.number = 0  # of the next experiment
        self.tip = commit("baseline")
        self.best = BASELINE_BPB

    def add(self, kind: str, **fields: Any) -> None:
        """Appends one record, a second after the last."""
        self.time += 1
        # As the journal gives it back: tuples have become lists.
        record = json.dumps({"kind": kind, "time": self.time, **fields})
        self.records.append(json.loads(record))

    def begin(self, runs: int = 3) -> None:
        """`setup`, with the baseline measured under `runs` seeds."""
        fixed = settings()
        self.add("setup", settings=asdict(fixed))
        self.plan("setup")
        self.propose(fixed.baseline, "the code as it was at setup", family="", cost=0.0)
        self.measure("main", fixed.baseline, 0, self.best)
        for seed in range(1, runs):
            score = self.best + self.random.gauss(0, SIGMA)
            self.measure("baseline", fixed.baseline, seed, score)
        self.decide("keep", self.best, reason="the baseline")

    def plan(self, researcher: str = "search") -> None:
        """The next experiment, on the branch's tip."""
        self.add(
            "planned",
            n=self.number,
            base=self.tip,
            parent=self.tip,
            seed=0,
            researcher=researcher,
        )

    def propose(self, candidate: str, hypothesis: str, *, family: str, cost: float) -> None:
        """The researcher's answer."""
        self.candidate = candidate
        self.add(
            "proposed",
            n=self.number,
            candidate=candidate,
            hypothesis=hypothesis,
            family=family,
            fingerprint=commit("fingerprint", candidate),
            cost=cost,
            notes="",
            repair=False,
        )

    def measure(
        self,
        role: str,
        of: str,
        seed: int,
        score: float | None,
        *,
        crash: str | None = None,
        reason: str = "",
    ) -> None:
        """A training run and its evaluation, or its crash."""
        key = {"n": self.number, "role": role, "commit": of, "seed": seed}
        self.add("train_started", **key, pid=4242)
        self.time += BUDGET if crash is None else 20
        self.add(
            "train_done",
            **key,
            checkpoint_sha256=None if crash else commit("checkpoint", of, seed) + "0" * 24,
            wall_seconds=BUDGET + 2 if crash is None else 20.0,
            build_seconds=0.0,
            peak_rss_mb=round(self.random.uniform(700, 1400), 1),
            curve=[] if crash else curve((score or 2.0) - 0.1),
            crash=crash,
            reason=reason,
        )
        if crash is None:
            self.add("eval_done", **key, crash=None, reason="", val_bpb=score, seconds=8.5)

    def decide(
        self,
        status: str,
        score: float | None,
        *,
        crash: str | None = None,
        reason: str = "",
        provisional: bool = False,
    ) -> None:
        """The decision, its effect and its row; ends the experiment."""
        self.add(
            "decided",
            n=self.number,
            status=status,
            reason=reason,
            crash=crash,
            provisional=provisional,
            val_bpb=score,
            holdout_bpb=HOLDOUT if status == "keep" else None,
        )
        self.add("applied", n=self.number)
        self.add("logged", n=self.number)
        if status == "keep":
            self.tip = self.candidate
            self.best = score if score is not None else self.best
        self.number += 1

    def experiment(self, outcome: str, delta: float = -0.004) -> None:
        """A whole experiment: `outcome` is keep, discard or crash, `delta` what its
        score differs from the tip's by."""
        family, idea = self.random.choice(IDEAS)
        self.plan()
        self.propose(commit("candidate", self.number), idea, family=family, cost=0.05)
        if outcome == "crash":
            crash, reason = self.random.choice(CRASHES)
            self.add("checked", n=self.number)
            self.measure("main", self.candidate, 0, None, crash=crash, reason=reason)
            self.decide("crash", None, crash=crash, reason=reason)
            return
        score = round(self.best + delta, 6)
        self.add("checked", n=self.number)
        self.add("rehearsed", n=self.number)
        self.measure("main", self.candidate, 0, score)
        reason = "strictly lower" if outcome == "keep" else "not lower than the tip"
        provisional = outcome == "keep" and -delta < 2 * SIGMA
        self.decide(outcome, score, reason=reason, provisional=provisional)


def records(count: int, seed: int = 0) -> list[Record]:
    """The journal after `count` experiments that followed the baseline."""
    history = History(seed)
    history.begin()
    draw = history.random
    for index in range(count):
        if draw.random() < 0.05:
            history.add("researcher_failed", reason="no answer within 600 s", cost=0.01)
        chance = draw.random()
        if chance < 0.15:
            history.experiment("crash")
        elif chance < 0.15 + 0.5 / (1 + index / 8):
            history.experiment("keep", -draw.uniform(0.0005, 0.02 / (1 + index / 10)))
        else:
            history.experiment("discard", draw.uniform(0, 0.03))
    return history.records
