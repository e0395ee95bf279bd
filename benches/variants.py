"""Variants of the default byte model side by side, over several texts and seeds.

    python -m benches.variants runs.jsonl --text news train.txt val.txt \\
        base "recipe.batch=1 steps=1200" "model.recurrence=0"

A variant is `base`, or fields of `FFNConfig` (model), `Counts` (counts) and `Recipe`
(recipe) with other values. What cannot be said so is edited in another checkout, run
there as NAME:FIELDS, and kept in the same file. Every run trains on one thread for as
many updates as all others, unless its fields say otherwise, so that a busy machine does
not change a figure; --jobs of them run side by side. Runs that stand in the file already
are not repeated. Exits with 1 where a run failed.

Prints for every text the mean of the scores, and of each seed's difference from `base`
with its standard error.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from modgrad.data import read_bytes
from modgrad.evaluate import evaluate

from isis import ffn, learn_ffn

PRESET = ffn.DEFAULT_PRESET
TABLES: dict[str, dict[str, Any]] = {
    "model": ffn.PRESETS,
    "counts": ffn.COUNTS,
    "recipe": learn_ffn.RECIPES,
}


def split(variant: str) -> tuple[str, str]:
    """The name of a variant and its assignments."""
    name, colon, assignments = variant.partition(":")
    if colon:
        return name, assignments
    return variant, "" if variant == "base" else variant


def assign(assignments: str, steps: int) -> int:
    """Changes the preset; returns the updates to train for."""
    for assignment in assignments.split():
        target, _, value = assignment.partition("=")
        table, _, field = target.partition(".")
        if target == "steps":
            steps = int(value)
            continue
        presets = TABLES[table]
        presets[PRESET] = replace(presets[PRESET], **{field: ast.literal_eval(value)})
    return steps


def run_one(job: dict[str, Any]) -> None:
    """Trains and scores one model, in a process of its own; prints its result."""
    key = job["key"]
    steps = assign(job["assignments"], key["steps"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.ckpt"
        data = read_bytes([Path(job["train"])])
        learn_ffn.train(path, data, preset=PRESET, steps=steps, seed=key["seed"], threads=1)
        score = evaluate(path, Path(job["val"]), threads=1)
    print(json.dumps({**key, "bits_per_byte": score["bits_per_byte"]}))


def run_all(jobs: list[dict[str, Any]], side_by_side: int, results: Path) -> bool:
    """Runs jobs, each result appended to the file as soon as it is there; says whether
    all ended well."""

    def run(job: dict[str, Any]) -> bool:
        command = [sys.executable, "-m", "benches.variants", "--one", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            print(f"{job['key']}: {lines[-1]}", file=sys.stderr)
            return False
        line = done.stdout.strip().splitlines()[-1]
        with results.open("a") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)
        return True

    with ThreadPoolExecutor(side_by_side) as pool:
        return all(list(pool.map(run, jobs)))


def read(results: Path) -> list[dict[str, Any]]:
    """The runs of the file, if there is one."""
    lines = results.read_text().splitlines() if results.exists() else []
    return [json.loads(line) for line in lines]


def table(scores: dict[tuple[str, str, int], float]) -> str:
    """Scores by (variant, text, seed) as a table in Markdown."""
    variants = list(dict.fromkeys(variant for variant, _, _ in scores))
    texts = list(dict.fromkeys(text for _, text, _ in scores))
    lines = ["| | " + " | ".join(texts) + " |", "|---" * (len(texts) + 1) + "|"]
    for variant in variants:
        cells = [cell(scores, variant, text) for text in texts]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(scores: dict[tuple[str, str, int], float], variant: str, text: str) -> str:
    """The mean score; behind it the mean difference from the base and its error."""
    own = {seed: x for (name, where, seed), x in scores.items() if (name, where) == (variant, text)}
    base = {seed: x for (name, where, seed), x in scores.items() if (name, where) == ("base", text)}
    if not own:
        return ""
    mean = f"{statistics.mean(own.values()):.4f}"
    pairs = [own[seed] - base[seed] for seed in own if seed in base]
    if variant == "base" or not pairs:
        return mean
    error = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else float("nan")
    return f"{mean} ({statistics.mean(pairs):+.4f} ± {error:.4f})"


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        run_one(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        "benches.variants", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("results", type=Path, help="a file of JSON lines")
    parser.add_argument("variants", nargs="*", help="base, FIELDS or NAME:FIELDS")
    parser.add_argument(
        "--text", nargs=3, action="append", default=[], metavar=("NAME", "TRAIN", "VAL")
    )
    parser.add_argument("--seeds", type=int, default=3, help="so many (3)")
    parser.add_argument("--steps", type=int, default=600, help="updates of every run (600)")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side (2)")
    options = parser.parse_intermixed_args()

    done = read(options.results)
    jobs = []
    for variant in options.variants:
        name, assignments = split(variant)
        for seed in range(options.seeds):
            for text, train, val in options.text:
                key = {"variant": name, "text": text, "steps": options.steps, "seed": seed}
                if not any(key.items() <= result.items() for result in done):
                    files = {"train": train, "val": val}
                    jobs.append({"key": key, "assignments": assignments, **files})
    well = run_all(jobs, options.jobs, options.results)
    results = [run for run in read(options.results) if run["steps"] == options.steps]
    print(table({(r["variant"], r["text"], r["seed"]): r["bits_per_byte"] for r in results}))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
