"""What counting alone predicts: the baselines beside a byte model's score.

The order-k model gives byte c after the k bytes h the probability

    P_k(c | h) = (n(hc) + t(h) · P_{k−1}(c | h')) / (n(h) + t(h)),

with n the counts in the training data, t(h) how many different bytes followed h
there, and h' the context without its oldest byte (interpolated Witten–Bell
smoothing, IEEE Trans. Inf. Theory 37(4), 1991). Where h never occurred, P_{k−1}
stands; P_0 is the add-one estimate of single bytes. The training data alone is
counted: nothing is learned from the bytes that are scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modgrad.data import Bytes

LARGEST_ORDER = 3  # contexts and their next byte fill 32 bits

Codes = NDArray[np.uint32]
Numbers = NDArray[np.float64]


def bits_per_byte(training: Bytes, scored: Bytes, orders: tuple[int, ...] = (1, 2, 3)) -> Numbers:
    """Mean bits of every byte of `scored` but the first, for each order.

    These are the bytes that an evaluation scores. Contexts reach back over the
    whole text, so that counting isn't held up by a window's start; the text's
    first bytes have the shorter contexts that there are.
    """
    if not all(0 <= order <= LARGEST_ORDER for order in orders):
        raise ValueError(f"orders {orders} must be from 0 to {LARGEST_ORDER}")
    if scored.size < 2:
        raise ValueError("a text of less than two bytes has none to score")
    singles = np.bincount(training, minlength=256)
    probability = ((singles + 1.0) / (training.size + 256.0))[scored[1:]]
    found = {0: probability}
    for order in range(1, max(orders, default=0) + 1):
        probability = probability.copy()
        table = _Table.of(training, order)
        # Target i stands at byte i + 1: the first with `order` bytes before it is order − 1.
        probability[order - 1 :] = table.mix(_codes(scored, order), probability[order - 1 :])
        found[order] = probability
    return np.array([-np.log2(found[order]).mean() for order in orders])


def _codes(data: Bytes, order: int) -> Codes:
    """Every stretch of `order` + 1 bytes as one number, the last byte lowest."""
    count = max(0, data.size - order)
    codes = np.zeros(count, np.uint32)
    for offset in range(order + 1):
        codes = (codes << np.uint32(8)) | data[offset : offset + count]
    return codes


@dataclass(frozen=True)
class _Table:
    """What followed each context of one length."""

    codes: Codes  # context and next byte, sorted
    counts: Numbers
    contexts: Codes  # sorted
    totals: Numbers  # n(h)
    kinds: Numbers  # t(h)

    @staticmethod
    def of(data: Bytes, order: int) -> _Table:
        codes, counts = np.unique(_codes(data, order), return_counts=True)
        contexts, starts, kinds = np.unique(
            codes >> np.uint32(8), return_index=True, return_counts=True
        )
        totals = np.add.reduceat(counts, starts) if starts.size else np.zeros(0)
        return _Table(
            codes,
            counts.astype(np.float64),
            contexts,
            totals.astype(np.float64),
            kinds.astype(np.float64),
        )

    def mix(self, codes: Codes, shorter: Numbers) -> Numbers:
        """P_k of each code, where `shorter` is P_{k−1}."""
        count = _look_up(self.codes, self.counts, codes)
        contexts = codes >> np.uint32(8)
        total = _look_up(self.contexts, self.totals, contexts)
        kinds = _look_up(self.contexts, self.kinds, contexts)
        seen = np.maximum(total + kinds, 1.0)
        mixed: Numbers = np.where(total > 0, (count + kinds * shorter) / seen, shorter)
        return mixed


def _look_up(keys: Codes, values: Numbers, wanted: Codes) -> Numbers:
    """The value at each wanted key, 0 where there is no such key."""
    if keys.size == 0:
        return np.zeros(wanted.size)
    at = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[at] == wanted, values[at], 0.0)
