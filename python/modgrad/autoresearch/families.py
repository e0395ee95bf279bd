"""What a change is about, guessed from its diff where the researcher does not say.

The guess only sorts experiments for the statistics that a researcher is shown
and for the built-in search, which leaves a family that stopped paying. So it is
simple: a kernel is known by its folder, a simplification by adding nothing, and
the rest by the words of the changed lines, where each line votes once for each
family that it speaks of. A wrong guess costs nothing but a blurred statistic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Words, or parts of names, that speak of a family. On equal votes the first
# family wins, as the words of the later ones are commoner.
_WORDS: dict[str, tuple[str, ...]] = {
    "regularisation": ("dropout", "weight_decay", "smoothing", "noise", "penalt", "regulari[sz]"),
    "schedule": (
        "warm_?down",
        "cool_?down",
        "warm_?up",
        "cosine",
        "anneal",
        "schedule",
        "fraction",
    ),
    "data order": (
        "batch",
        "windows",
        "starts",
        "shuffle",
        "dream",
        "recall",
        "curriculum",
        "epoch",
    ),
    "optimiser": (
        *("optim", "adam", "adagrad", "muon", "momentum", "beta", "epsilon"),
        *("learning_rate", r"\blr\b", "clip", "gradient", "average"),
    ),
    "architecture": (
        *("width", "hidden", "layer", "block", "linear", "embed", "norm", "activation", r"glu\b"),
        *("silu", "relu", "orders", "words", "rows", "slots", "head", "logits", "context", "gate"),
        *("attention", "convolution", "scan", "shift", "hash", "memory", "residual", r"\bnn\."),
    ),
}
_PATTERNS = {family: re.compile("|".join(words)) for family, words in _WORDS.items()}
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


@dataclass
class _Changes:
    paths: set[str] = field(default_factory=set)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def guess(diff: str) -> str:
    """One of `researchers.base.FAMILIES`: the likeliest for a unified diff."""
    changes = _read(diff)
    if any(path.startswith("crates/") for path in changes.paths):
        return "kernel"
    if changes.removed and not changes.added:
        return "simplification"
    lines = [line.lower() for line in changes.added + changes.removed]
    votes = {
        family: sum(bool(pattern.search(line)) for line in lines)
        for family, pattern in _PATTERNS.items()
    }
    best = max(votes, key=lambda family: votes[family])
    return best if votes[best] else "architecture"


def _read(diff: str) -> _Changes:
    """The changed lines, without headers, blank lines and comments.

    Hunks are counted out by their headers, because a changed line may itself
    begin with what a header begins with.
    """
    changes = _Changes()
    old = new = 0  # lines that the present hunk still holds
    for line in diff.splitlines():
        if old > 0 or new > 0:
            sign, content = line[:1], line[1:].strip()
            old -= sign in ("-", " ", "")
            new -= sign in ("+", " ", "")
            if content and not content.startswith("#"):
                if sign == "+":
                    changes.added.append(content)
                elif sign == "-":
                    changes.removed.append(content)
        elif header := _HUNK.match(line):
            old, new = (int(count or 1) for count in header.groups())
        elif line.startswith(("--- ", "+++ ")):
            name = line[4:].split("\t")[0].strip().strip('"')
            if name != "/dev/null":
                changes.paths.add(re.sub(r"^[ab]/", "", name))
    return changes
