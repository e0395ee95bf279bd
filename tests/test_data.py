"""Reading bytes, drawing windows, and schedules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modgrad.data import Windows, read_bytes
from modgrad.errors import DataError
from modgrad.schedule import cosine, warmdown


def test_files_are_joined_in_order(tmp_path: Path) -> None:
    for name, content in (("b", b"\xff\x00"), ("a", b"xyz")):
        (tmp_path / name).write_bytes(content)
    assert read_bytes([tmp_path / "b", tmp_path / "a"]).tobytes() == b"\xff\x00xyz"


@given(
    size=st.integers(2, 500),
    batch=st.integers(1, 20),
    length=st.integers(1, 100),
    step=st.integers(0, 1000),
)
def test_windows_lie_in_the_data_and_targets_follow_tokens(
    size: int, batch: int, length: int, step: int
) -> None:
    data = (np.arange(size) % 251).astype(np.uint8)
    if size < length + 1:
        with pytest.raises(DataError, match="a window needs"):
            Windows(data, batch, length, seed=1)
        return
    windows = Windows(data, batch, length, seed=1)
    starts = windows.starts(step)
    assert (starts >= 0).all() and (starts + length < size).all()
    tokens, targets = windows.draw(step)
    assert tokens.shape == targets.shape == (batch, length)
    np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])
    np.testing.assert_array_equal(windows.draw(step)[0], tokens)


@given(
    held_out=st.integers(1, 12),
    length=st.integers(1, 30),
    before=st.integers(0, 50),
    after=st.integers(0, 50),
    more=st.integers(0, 500),
    step=st.integers(0, 1000),
)
def test_windows_held_out_are_never_drawn(
    held_out: int, length: int, before: int, after: int, more: int, step: int
) -> None:
    size = before + length + max(after, 1) - 1 + 4 * held_out * length + more
    data = (np.arange(size) % 251).astype(np.uint8)
    windows = Windows(data, 7, length, 0, before=before, after=after, held_out=held_out)
    assert windows.held_out.size == held_out
    tokens, targets = windows.at(windows.held_out)
    assert tokens.shape == (held_out, before + length + after)
    assert targets.shape == (held_out, length)
    starts = windows.starts(step)
    assert abs(starts[:, None] - windows.held_out).min() >= length
    assert windows.draw(step)[0].shape == (7, before + length + after)


def test_every_other_window_is_as_likely_as_without() -> None:
    windows = Windows(np.zeros(300, np.uint8), 1, 10, 0, held_out=3)
    drawn = np.concatenate([windows.starts(step) for step in range(20_000)])
    counts = np.bincount(drawn, minlength=290)
    allowed = abs(np.arange(290)[:, None] - windows.held_out).min(1) >= 10
    assert (counts[~allowed] == 0).all() and counts.size == 290
    # 86 each; Poisson's deviation is 9.
    assert counts[allowed].min() > 40 and counts[allowed].max() < 140


def test_more_held_out_than_there_is_room_for_is_refused() -> None:
    with pytest.raises(DataError, match="too few to hold out 3 windows"):
        Windows(np.zeros(120, np.uint8), 1, 10, 0, held_out=3)


def test_draws_differ_by_step_and_seed_and_reach_every_byte() -> None:
    data = np.zeros(1000, np.uint8)
    windows = Windows(data, 4, 10, seed=0)
    assert (windows.starts(0) != windows.starts(1)).any()
    assert (windows.starts(0) != Windows(data, 4, 10, seed=1).starts(0)).any()
    starts = np.concatenate([windows.starts(step) for step in range(3000)])
    assert starts.min() == 0 and starts.max() == 989


@given(fraction=st.floats(0, 1))
@pytest.mark.parametrize("schedule", [warmdown, cosine])
def test_schedules_stay_between_zero_and_one(schedule, fraction: float) -> None:  # type: ignore[no-untyped-def]
    assert 0.0 <= schedule(fraction) <= 1.0


def test_warmdown_rises_holds_and_falls() -> None:
    factors = [warmdown(f, warmup=0.1, cooldown=0.5) for f in (0.0, 0.05, 0.3, 0.75, 1.0)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])
