"""What the built-in search remembers of experiments."""

from __future__ import annotations

from modgrad.autoresearch.researchers.history import Change, History, parse

from tests.search.world import (
    add,
    fresh_state,
)


def test_notes_read_back() -> None:
    change = Change("isis/ffn.py:PRESETS['memory'].orders", "(2, 3)", "(2, 3, 4)")
    assert parse(f"{change.line()}\nmove: muon\nsomething else") == ((change,), ("muon",))


def test_points_are_chained_to_the_present_value() -> None:
    state = fresh_state(score=2.0)
    add(state, "base", "a.py:C.x: 1 -> 2", "keep", 1.5)
    add(state, "commit1", "a.py:C.x: 2 -> 4", "discard", 1.75)
    add(state, "commit1", "a.py:C.x: 2 -> 3", "crash", None)
    add(state, "commit1", "a.py:C.x: 7 -> 8", "discard", 1.0)  # linked to nothing
    add(state, "commit1", "a.py:C.x: 2 -> 6\na.py:C.y: 0 -> 1", "discard", 2.0)
    points = History.of(state).points("a.py:C.x", 2)
    assert sorted(points, key=str) == [(1, 0.5), (2, 0.0), (3, 1.0), (4, 0.25), (6, 0.25)]


def test_what_is_a_repetition() -> None:
    state = fresh_state()
    x, y = Change("a.py:C.x", "1", "2"), Change("a.py:C.y", "1", "2")
    add(state, "base", x.line(), "discard", 2.5)
    add(state, "base", y.line(), "keep", 1.9)
    add(state, "commit2", "move: muon", "discard", 2.5)
    history = History.of(state)
    assert history.repeats("base", [x])
    assert history.repeats("commit2", [x])  # the same edit, a moment ago
    assert history.repeats("commit2", [Change("a.py:C.y", "2", "1")])  # the baseline again
    assert history.repeats("commit2", [], ["muon"])
    assert not history.repeats("commit2", [Change("a.py:C.x", "1", "3")])
    for index in range(3):
        add(state, "commit2", f"a.py:C.z: {index} -> {index + 1}", "keep", 1.8 - index / 10)
    assert not History.of(state).repeats("commit6", [x])  # another model by now
