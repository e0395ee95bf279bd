"""What the built-in search reads of a source, and what it writes back."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modgrad.autoresearch.researchers.literals import Value, value_from, written_as
from modgrad.autoresearch.researchers.sources import SourceText, fits
from modgrad.autoresearch.researchers.steps import scale_of
from modgrad.autoresearch.researchers.suggest import suggestions
from modgrad.autoresearch.researchers.tunables import Tunable, read, write

from isis.ffn import DEFAULT_PRESET, PRESETS
from isis.learn_ffn import RECIPES
from tests.search.world import (
    FAKE,
    ODD,
    TODAY,
    by_name,
)


def test_reads_what_the_default_is() -> None:
    found = read(TODAY)
    assert len({one.key for one in found}) == len(found)
    instances = {"PRESETS": PRESETS[DEFAULT_PRESET], "RECIPES": RECIPES[DEFAULT_PRESET]}
    for table, instance in instances.items():
        prefix = f"{table}[{DEFAULT_PRESET!r}]."
        values = {
            one.label[len(prefix) :]: one.value for one in found if one.label.startswith(prefix)
        }
        assert values == dataclasses.asdict(instance)


def test_reads_odd_sources() -> None:
    found = by_name({"odd.py": ODD})
    assert {name: one.value for name, one in found.items()} == {
        "width": 320,
        "naïve_rows": 1 << 18,
        "rate": 2e-3,
        "kind": "plain",
        "orders": (2, 3, 4),
        "flag": False,
        "words": ("a", "b"),
        "many": 10_000,
        "decay": 0.999,
        "share": 0.5,
        "fast": 0.1,
        "weight_decay": 0.1,
        "gain": 0.5,
        "betas[0]": 0.9,
        "betas[1]": 0.98,
    }
    assert found["kind"].choices == ("plain", "gated", "none")
    assert found["share"].comment == "of the budget"
    assert found["width"].label == "TABLE['größte'].width"


def test_without_a_known_default_only_what_no_instance_states() -> None:
    source = ODD.replace('DEFAULT = "größte"', "")
    found = {one.label for one in read({"odd.py": source})}
    assert "Sizes.many" in found
    assert not any(label.endswith((".width", ".orders")) for label in found)


@pytest.mark.parametrize(
    ("comment", "choices"),
    [
        ("swiglu, geglu, gelu or relu_squared", ("swiglu", "geglu", "gelu", "relu_squared")),
        ("rms or layer", ("rms", "layer")),
        ('"a", `b`, or c.', ("a", "b", "c")),
        ("of the table, for each order and kind of word", ()),
        ("windows a step", ()),
    ],
)
def test_choices_of_a_comment(comment: str, choices: tuple[str, ...]) -> None:
    source = FAKE.replace("round, square or flat", comment)
    assert by_name({"a.py": source})["shape"].choices == choices


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 << 18", 262144),
        ("2**14", 16384),
        ("3 * 64", 192),
        ("-0.5", -0.5),
        ("()", ()),
        ("('a',)", ("a",)),
        ("9 ** 9 ** 9", None),
        ("1 << 10_000", None),
        ("[1]", None),
        ("(1, 'a')", None),
        ("None", None),
        ("f(", None),
    ],
)
def test_literals(text: str, value: Value | None) -> None:
    assert value_from(text) == value


NUMBERS = st.one_of(st.integers(1, 1 << 40), st.floats(1e-12, 1e12))


@given(NUMBERS, st.sampled_from(["1", "1e-3", "0.5", "10_000", "1 << 18", "2E5"]))
def test_a_number_reads_back(value: int | float, like: str) -> None:
    assert value_from(written_as(value, like)) == value


@given(st.text(), st.sampled_from(["'a'", '"a"']))
def test_text_reads_back(value: str, like: str) -> None:
    assert value_from(written_as(value, like)) == value


def test_numbers_keep_their_style() -> None:
    assert written_as(1 << 17, "1 << 18") == "1 << 17"
    assert written_as(2e-3, "1e-3") == "2e-3"
    assert written_as(1.4e-3, "1e-3") == "1.4e-3"
    assert written_as(0.2, "0.1") == "0.2"
    assert written_as(20_000, "10_000") == "20_000"
    assert written_as((2,), "(2, 3)") == "(2,)"


def new_value(draw: st.DataObject, old: Value) -> Value:
    strategies: dict[type, st.SearchStrategy[Value]] = {
        bool: st.booleans(),
        int: st.integers(1, 1 << 30),
        float: st.floats(1e-9, 1e9),
        str: st.text("abc_é'\"\\", max_size=9),
        tuple: st.lists(st.integers(1, 99), max_size=5).map(tuple),
    }
    return draw.draw(strategies[type(old)])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["\n", "\r\n"]))
def test_an_edit_changes_one_value_and_nothing_else(data: st.DataObject, newline: str) -> None:
    sources = {"odd.py": ODD.replace("\n", newline)}
    found = read(sources)
    one = data.draw(st.sampled_from(found))
    value = new_value(data, one.value)
    edited = write(sources, {one.key: value})
    after = {other.key: other for other in read(edited)}
    assert after[one.key].value == value
    assert [other.key for other in found] == list(after)
    for other in found:
        assert other.key == one.key or after[other.key].value == other.value
    before, now = sources["odd.py"].encode(), edited["odd.py"].encode()
    if one.call is None:
        assert one.node is not None
        start, end = SourceText("odd.py", sources["odd.py"]).span(one.node)
        assert now == before[:start] + written_as(value, one.text).encode() + before[end:]
    else:  # added: nothing that was there is lost
        added = f"{one.name}={written_as(value, one.text)}".encode()
        assert before in [now.replace(form, b"", 1) for form in (b", " + added, added)]


@pytest.mark.parametrize(
    ("call", "edited"),
    [
        ("C()", "C(b=2)"),
        ("C( )", "C( b=2)"),
        ("C(a=5)", "C(a=5, b=2)"),
        ("C(a=5,)", "C(a=5, b=2,)"),
        ("C(\n    a=5,\n)", "C(\n    a=5,\n    b=2,\n)"),
        ("C(\n    a=5,  # why\n)", "C(\n    a=5,  # why\n    b=2,\n)"),
        ("C(\n    a=5\n)", "C(\n    a=5, b=2\n)"),
        ("C(\n    a=5  # why, and\n    ,\n)", "C(\n    a=5  # why, and\n    ,\n    b=2,\n)"),
        ("C(  # none\n)", "C(  # none\nb=2)"),
        (
            f"C(a=5, c={'x' * 30!r}, d={'y' * 35!r})",
            f"C(\n    a=5,\n    c={'x' * 30!r},\n    d={'y' * 35!r},\n    b=2,\n)",
        ),
    ],
)
def test_a_keyword_is_added_in_the_style_of_the_call(call: str, edited: str) -> None:
    head = "from dataclasses import dataclass\n@dataclass\nclass C:\n    b: int = 1\n"
    sources = {"a.py": f"{head}one_rather_long_name = {call}\n"}
    after = write(sources, {"a.py:one_rather_long_name.b": 2})
    assert after["a.py"] == f"{head}one_rather_long_name = {edited}\n"
    assert by_name(after)["b"].value == 2
    assert fits(sources, after)


def test_positional_and_unpacked_instances_are_left_alone() -> None:
    head = "from dataclasses import dataclass\n@dataclass\nclass C:\n    b: int = 1\n"
    for call in ("C(3)", "C(**other)"):
        assert read({"a.py": f"{head}one = {call}\n"}) == []


def test_a_line_that_grew_too_long_does_not_fit() -> None:
    before = {"a.py": f"x = {'1' * 90}\n# {'-' * 120}\n"}
    assert fits(before, {"a.py": before["a.py"] + "y = 2\n"})
    assert not fits(before, {"a.py": f"x = {'1' * 97}\n"})
    assert not fits(before, {"a.py": "x = (\n"})


# Of an empty tuple there is nothing to turn.
@pytest.mark.parametrize(
    "one", [one for one in read(TODAY) if one.value != ()], ids=lambda one: one.label
)
def test_every_step_on_todays_files_fits(one: Tunable) -> None:
    scale = scale_of(one)
    assert scale is not None
    for value in suggestions(scale, [(one.value, 0.0)], 0, 1.0, seed=1):
        edited = write(TODAY, {one.key: value})
        assert fits(TODAY, edited)
        assert {other.key: other for other in read(edited)}[one.key].value == value
