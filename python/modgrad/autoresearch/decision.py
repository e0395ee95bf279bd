"""Keep or discard: the contract's rule, and what noise makes of it.

The rule is "strictly lower than the branch's tip". A running minimum over many
tries picks out luck, so a gain below twice the seed-to-seed standard deviation
is marked provisional, and `--confirm` asks for a significant difference on
fresh seeds first.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# The score's decimals in the results file; what agrees in them is equal.
DECIMALS = 6
# More than a tenth better in one step is a surprise to be looked at again.
IMPLAUSIBLE = 0.9
PROVISIONAL_SIGMAS = 2.0
# One-sided 1 % points of Student's t by degrees of freedom: of a hundred changes
# that matter nothing, about one passes.
_T_99 = (
    *(31.821, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764),
    *(2.718, 2.681, 2.650, 2.624, 2.602, 2.583, 2.567, 2.552, 2.539, 2.528),
    *(2.518, 2.508, 2.500, 2.492, 2.485, 2.479, 2.473, 2.467, 2.462, 2.457),
)
_Z_99 = 2.326


@dataclass(frozen=True)
class Verdict:
    """What becomes of a scored candidate."""

    status: str  # keep or discard
    reason: str
    provisional: bool = False


def decide(
    score: float,
    tip: float,
    sigma: float | None,
    *,
    fewer_lines: int = 0,
    accept_simpler: bool = False,
) -> Verdict:
    """The contract's rule. `fewer_lines` is by how many the code became shorter."""
    gain = round(tip, DECIMALS) - round(score, DECIMALS)
    if gain > 0:
        return Verdict("keep", *_weigh(gain, sigma))
    if gain == 0 and accept_simpler and fewer_lines > 0:
        return Verdict("keep", f"equal, with {fewer_lines} lines less")
    return Verdict("discard", "equal to the tip" if gain == 0 else f"{-gain:.6f} above the tip")


def _weigh(gain: float, sigma: float | None) -> tuple[str, bool]:
    if sigma is None:
        return f"{gain:.6f} below the tip; the spread between seeds is not known", True
    sigmas = gain / sigma if sigma > 0 else math.inf
    return f"{gain:.6f} below the tip, {sigmas:.1f}σ", sigmas < PROVISIONAL_SIGMAS


def is_implausible(score: float, tip: float) -> bool:
    """Whether a score is too good to be taken at once."""
    return score < IMPLAUSIBLE * tip


def confirm(differences: Sequence[float], sigma: float, freedom: int) -> tuple[bool, str]:
    """Whether the mean paired difference (tip less candidate, on fresh seeds) is
    significant at 1 %, one-sided, given the pooled deviation of a single run."""
    mean = statistics.fmean(differences)
    error = sigma * math.sqrt(2 / len(differences))
    quantile = _T_99[freedom - 1] if 1 <= freedom <= len(_T_99) else _Z_99
    needed = quantile * error if freedom else math.inf
    verdict = mean > needed
    sign = ">" if verdict else "≤"
    return verdict, (
        f"mean gain on {len(differences)} fresh seeds {mean:.6f} {sign} {needed:.6f} needed"
    )
