"""The count baselines against counting done the slow way."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from modgrad.counts import bits_per_byte


def slowly(training: bytes, scored: bytes, order: int) -> float:
    """The formula of `modgrad.counts`, one byte at a time."""
    following: dict[bytes, Counter[int]] = defaultdict(Counter)
    for length in range(order + 1):
        for at in range(length, len(training)):
            following[training[at - length : at]][training[at]] += 1

    def probability(context: bytes, byte: int) -> float:
        seen = following[context]
        if not context:
            return (seen[byte] + 1) / (len(training) + 256)
        shorter = probability(context[1:], byte)
        if not seen:
            return shorter
        return (seen[byte] + len(seen) * shorter) / (seen.total() + len(seen))

    bits = [
        -math.log2(probability(scored[max(0, at - order) : at], scored[at]))
        for at in range(1, len(scored))
    ]
    return sum(bits) / len(bits)


@pytest.mark.parametrize("length", [0, 1, 3, 400])
def test_counts_agree_with_the_formula(length: int) -> None:
    generator = np.random.default_rng(length)
    training = generator.integers(97, 101, length).astype(np.uint8)
    scored = generator.integers(96, 102, 60).astype(np.uint8)
    scored[5:8] = 255, 0, 255
    found = bits_per_byte(training, scored, (0, 1, 2, 3))
    wanted = [slowly(training.tobytes(), scored.tobytes(), order) for order in range(4)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_probabilities_of_all_next_bytes_sum_to_one() -> None:
    training = np.frombuffer(b"abracadabra abracadabra", np.uint8)
    for context in (b"abr", b"zzz", b"a", b"ra\xff"):
        total = 0.0
        for byte in range(256):
            text = np.frombuffer(context + bytes([byte]), np.uint8)
            before = np.frombuffer(context, np.uint8)
            bits = bits_per_byte(training, text, (3,))[0] * (text.size - 1)
            if before.size > 1:
                bits -= bits_per_byte(training, before, (3,))[0] * (before.size - 1)
            total += 2.0**-bits
        assert total == pytest.approx(1.0)


def test_what_cannot_be_counted_is_refused() -> None:
    data = np.frombuffer(b"abc", np.uint8)
    with pytest.raises(ValueError, match="from 0 to 3"):
        bits_per_byte(data, data, (4,))
    with pytest.raises(ValueError, match="less than two bytes"):
        bits_per_byte(data, data[:1])
