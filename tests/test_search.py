"""The built-in search: what it reads, what it writes, and that it learns."""

from __future__ import annotations

import ast
import dataclasses
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modgrad.autoresearch import contract as contracts
from modgrad.autoresearch.contract import Contract
from modgrad.autoresearch.errors import ResearcherError, ResearcherGone
from modgrad.autoresearch.researchers.base import FAMILIES, Briefing, Failure
from modgrad.autoresearch.researchers.history import Change, History, parse
from modgrad.autoresearch.researchers.literals import Value, value_from, written_as
from modgrad.autoresearch.researchers.moves import Move, moves
from modgrad.autoresearch.researchers.search import PLATEAU, Search
from modgrad.autoresearch.researchers.sources import LINE_LENGTH, SourceText, fits, load
from modgrad.autoresearch.researchers.steps import CHOICE, Scale, friendly, scale_of
from modgrad.autoresearch.researchers.suggest import suggestions
from modgrad.autoresearch.researchers.tunables import Tunable, read, write
from modgrad.autoresearch.state import Experiment, Settings, State

from isis.ffn import DEFAULT_PRESET, PRESETS
from isis.learn_ffn import RECIPES
from tests.conftest import ROOT

LANGUAGE = contracts.load((ROOT / contracts.FILE).read_text(), "language")
TODAY = {path: (ROOT / path).read_bytes().decode() for path in LANGUAGE.tunable}

# Everything that may stand between a reader and a value.
ODD = '''\
"""Größen."""
from dataclasses import dataclass
from modgrad import optim

@dataclass(frozen = True)
class Sizes:
    width : int=128 # of the stream
    naïve_rows: int = 1 << 18   # für jede Sorte
    rate: float = 1e-3
    kind: str = 'plain'  # plain, gated or none
    orders: tuple[int, ...] = ( 2,3 , 5 )
    flag: bool = False
    words: tuple[str, ...] = ("a", 'b',)
    many: int = 10_000
    decay: float = 0.999
    share: float = (
        0.5
    )  # of the budget
    made: object = None
    _hidden: int = 3

TABLE: dict[str, Sizes] = {
    "first": Sizes(width=7),
    "größte": Sizes(width = 320, # not 512
        rate=2E-3,
        # a comment of its own
        orders=(2, 3, 4)
    ), "third": Sizes(),
}
DEFAULT = "größte"

def make(matrices):
    fast, betas = 0.1, (0.9, 0.98)
    return optim.AdamW(matrices, fast, betas, weight_decay=0.1), helper(gain=0.5, stream=7)
'''

FAKE = '''\
"""A fake training file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What can be turned."""

    learning_rate: float = 1e-3
    breadth: int = 64
    forgetting: float = 0.99
    soft: bool = False
    shape: str = "round"  # round, square or flat
    orders: tuple[int, ...] = (2, 3, 4)
'''


def contract(*paths: str) -> Contract:
    return dataclasses.replace(LANGUAGE, mutable=paths, tunable=paths)


def fresh_state(seed: int = 0, budget: float = 20.0, score: float = 2.0) -> State:
    """A state after `setup`: the baseline was kept."""
    values: dict[str, object] = {"baseline": "base", "budget": budget, "seed": seed}
    names = [field.name for field in dataclasses.fields(Settings)]
    state = State(settings=Settings(**{name: values.get(name) for name in names}))  # type: ignore[arg-type]
    add(state, "base", "", "keep", score)
    return state


def add(
    state: State, base: str, notes: str, status: str, score: float | None, family: str = ""
) -> Experiment:
    number = len(state.experiments)
    commit = f"commit{number}" if number else "base"
    parent = state.experiments[state.kept[-1]].candidate if state.kept else "base"
    one = Experiment(number, base, parent or "base", 0, "search", 0.0, candidate=commit)
    one.notes, one.status, one.val_bpb, one.family = notes, status, score, family
    one.finished = 1.0
    state.experiments.append(one)
    if status == "keep":
        state.kept.append(number)
    return one


def briefing(state: State, rules: Contract) -> Briefing:
    return Briefing(len(state.experiments), state, rules, "", "", "", "")


def fill(folder: Path, sources: dict[str, str]) -> None:
    for path, text in sources.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())


def by_name(sources: dict[str, str]) -> dict[str, Tunable]:
    return {one.name: one for one in read(sources)}


class Simulation:
    """Runs a researcher against a score that is computed from its sources."""

    def __init__(
        self, folder: Path, sources: dict[str, str], score: Callable[[dict[str, str]], float | None]
    ) -> None:
        self.folder, self.score = folder, score
        self.rules = contract(*sources)
        self.files = {"base": dict(sources)}
        self.state = fresh_state(score=score(sources) or 9.0)
        self.proposals: list[tuple[str, frozenset[str]]] = []

    def step(self, seed: int = 0) -> None:
        search, told = Search(), briefing(self.state, self.rules)
        tip = self.state.tip
        assert tip is not None
        base = search.base(told) or tip.candidate or ""
        fill(self.folder, self.files[base])
        proposal = search.propose(self.folder, told)
        edited = {path: (self.folder / path).read_bytes().decode() for path in self.files[base]}
        assert edited != self.files[base]
        assert edited not in self.files.values()
        assert proposal.family in FAMILIES
        self.proposals.append((base, frozenset(proposal.changes)))
        score = self.score(edited)
        best = tip.val_bpb or 9.0
        status = "crash" if score is None else "keep" if score < best else "discard"
        notes = "\n".join(proposal.changes)
        one = add(self.state, base, notes, status, score, proposal.family or "")
        self.files[one.candidate or ""] = edited


# ---- reading -----------------------------------------------------------------


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


# ---- writing -----------------------------------------------------------------

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


# ---- scales ------------------------------------------------------------------


def scale(value: Value, name: str = "thing", comment: str = "") -> Scale:
    found = scale_of(Tunable("a.py", name, name, value, str(value), comment))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("number", "like", "result"),
    [
        (704.4, 512, 704),
        (226.3, 320, 224),
        (4.2, 8, 4),
        (1.5, 3, 2),
        (0.2, 1, 1),
        (90.5, 128, 88),
        (200_000, 1 << 18, 1 << 18),
        (180_000, 1 << 18, 1 << 17),
    ],
)
def test_friendly_numbers(number: float, like: int, result: int) -> None:
    assert friendly(number, like) == result


@pytest.mark.parametrize(
    ("value", "name", "comment", "kind"),
    [
        (8, "batch", "", "count"),
        (1e-3, "learning_rate", "", "rate"),
        (0.25, "slot_dropout", "", "fraction"),
        (0.6, "cooldown", "", "fraction"),
        (0.5, "thing", "share of the budget", "fraction"),
        (0.999, "average_decay", "", "remainder"),
        (0.98, "betas[1]", "", "remainder"),
        (1.0, "clip_norm", "", "rate"),
        (0.1, "weight_decay", "", "rate"),
        (0.0, "dropout", "", "choice"),
        (True, "flag", "", "choice"),
    ],
)
def test_kinds_of_scales(value: Value, name: str, comment: str, kind: str) -> None:
    assert scale(value, name, comment).kind == kind


@given(st.floats(-4, 4), st.sampled_from([1, 3, 8, 24, 320, 640, 1 << 18]))
def test_counts_stay_counts(position: float, value: int) -> None:
    found = scale(value).at(position)
    assert isinstance(found, int)
    assert found >= 1


@given(st.floats(-9, 9), st.sampled_from([0.05, 0.5, 0.9, 0.98, 0.9999]))
def test_shares_stay_shares(position: float, value: float) -> None:
    for name in ("dropout", "decay"):
        found = scale(value, name).at(position)
        assert isinstance(found, float)
        if scale(value, name).kind in ("fraction", "remainder"):
            assert found < 1.0 and (found >= 0.0 or name == "decay")


def test_steps_of_tuples() -> None:
    options = scale((2, 3, 5)).options
    assert {(3, 5), (2, 5), (2, 3), (2, 3, 4, 5), (2, 3, 5, 6), (2, 3, 6), (2, 4, 5)} <= set(
        options
    )
    assert all(len(set(one)) == len(one) for one in options if isinstance(one, tuple))
    assert set(scale(("a", "b")).options) == {("a",), ("b",), ("b", "a")}
    assert scale_of(Tunable("a.py", "x", "x", ("a",), "('a',)")) is None


def test_what_cannot_be_turned() -> None:
    for value in ("text", -1, -0.5, (), float("inf")):
        assert scale_of(Tunable("a.py", "x", "x", value, "")) is None


def test_suggestions_follow_what_was_seen() -> None:
    """Twice as much was worse, half as much better: further down first."""
    half = scale(1e-3, "learning_rate")
    points: list[tuple[Value, float]] = [(1e-3, 0.0), (2e-3, 0.1), (4e-3, 0.3)]
    first = [next(suggestions(half, points, 0, 1.0, seed)) for seed in range(20)]
    assert sum(float(str(one)) < 1e-3 for one in first) >= 15
    untried = [next(suggestions(half, points[:1], 1, 1.0, seed)) for seed in range(5)]
    assert untried == [2e-3] * 5


# ---- history -----------------------------------------------------------------


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


# ---- moves -------------------------------------------------------------------


@pytest.mark.parametrize("move", moves(TODAY), ids=lambda move: move.name)
def test_every_move_applies_to_todays_files(move: Move) -> None:
    edited = move.apply(TODAY)
    assert edited is not None
    changed = [path for path in TODAY if edited[path] != TODAY[path]]
    assert changed
    assert edited.keys() == TODAY.keys()
    for path in changed:
        assert LANGUAGE.allows(path)
        assert len(ast.parse(edited[path]).body) == len(ast.parse(TODAY[path]).body)
        assert max(map(len, edited[path].splitlines())) <= LINE_LENGTH
    assert move.family in FAMILIES


def test_moves_leave_other_files_alone() -> None:
    for text in ("", "x = 1\n", FAKE, ODD):
        for move in moves({"a.py": text}):
            edited = move.apply({"a.py": text})
            assert edited is None or fits({"a.py": text}, edited)
    assert all(move.apply({"a.py": "x = 1\n"}) is None for move in moves(TODAY))


def test_a_move_is_not_made_twice() -> None:
    for move in moves(TODAY):
        edited = move.apply(TODAY)
        assert edited is not None
        again = move.apply(edited)
        if move.name not in ("shorter-windows", "longer-windows", "soft-cap", "skip"):
            assert again is None


@pytest.mark.slow
@pytest.mark.parametrize("move", moves(TODAY), ids=lambda move: move.name)
def test_every_move_trains(move: Move, corpus: tuple[Path, Path], tmp_path: Path) -> None:
    edited = move.apply(TODAY)
    assert edited is not None
    fill(tmp_path, {str(one.relative_to(ROOT)): one.read_text() for one in ROOT.glob("isis/*.py")})
    fill(tmp_path, edited)
    done = subprocess.run(
        [sys.executable, "-m", "isis", "learn-ffn", "--steps", "2", "model.ckpt", str(corpus[0])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# ---- the search --------------------------------------------------------------


def learning_rate_score(sources: dict[str, str]) -> float:
    """Lower at a larger learning rate, up to 0.1; all else costs a little."""
    found = by_name(sources)
    rate, breadth = found["learning_rate"].value, found["breadth"].value
    assert isinstance(rate, float)
    assert isinstance(breadth, int)
    return 2.0 + 0.1 * abs(math.log2(rate / 0.1)) + 0.01 * abs(math.log2(breadth / 64))


def test_it_learns_where_a_random_walk_does_not(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, {"train.py": FAKE}, learning_rate_score)
    for _ in range(40):
        simulation.step()
    tip = simulation.state.tip
    assert tip is not None
    assert tip.val_bpb is not None

    def walk(seed: int) -> float:
        """Keeps what is better of single changes, argument and size at random."""
        generator, sources = random.Random(seed), {"train.py": FAKE}
        for _ in range(40):
            one = generator.choice([one for one in read(sources) if scale_of(one)])
            around = scale_of(one)
            assert around is not None
            if around.kind == CHOICE:
                value = generator.choice(around.options)
            else:
                value = around.at(generator.uniform(-around.reach, around.reach))
            edited = write(sources, {one.key: value})
            if learning_rate_score(edited) < learning_rate_score(sources):
                sources = edited
        return learning_rate_score(sources)

    walks = sorted(walk(seed) for seed in range(5))
    assert tip.val_bpb < walks[2]
    assert tip.val_bpb < 2.1


def test_it_never_repeats_itself_and_goes_on(tmp_path: Path) -> None:
    """On a file with little to turn, where nothing helps and some things crash."""
    source = FAKE[: FAKE.index("    forgetting")]

    def score(sources: dict[str, str]) -> float | None:
        value = by_name(sources)["breadth"].value
        return None if value == 128 else 2.0 + len(sources["train.py"]) / 1000

    simulation = Simulation(tmp_path, {"train.py": source}, score)
    for _ in range(60):
        simulation.step()
    assert len(set(simulation.proposals)) == 60


def test_only_mutable_files_are_touched(tmp_path: Path) -> None:
    everything = {str(one.relative_to(ROOT)): one.read_text() for one in ROOT.glob("isis/*.py")}
    state = fresh_state()
    for number in range(1, 16):
        fill(tmp_path, everything)
        proposal = Search().propose(tmp_path, briefing(state, LANGUAGE))
        for path, text in everything.items():
            if not LANGUAGE.allows(path):
                assert (tmp_path / path).read_text() == text
        assert len(list(tmp_path.rglob("*.*"))) == len(everything)
        assert proposal.hypothesis
        assert "\n" not in proposal.hypothesis
        assert proposal.changes
        add(state, "base", "\n".join(proposal.changes), "discard", 2.0 + number / 100)
    assert len({one.notes for one in state.experiments[1:]}) == 15


def test_a_tunable_file_that_may_not_be_changed_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, {"train.py": FAKE})
    rules = dataclasses.replace(LANGUAGE, mutable=(), tunable=("train.py",))
    with pytest.raises(ResearcherError, match=r"train\.py"):
        Search().propose(tmp_path, briefing(fresh_state(), rules))


def test_the_same_state_gives_the_same_proposal(tmp_path: Path) -> None:
    state, proposals = fresh_state(seed=3), []
    for index in range(1, 9):
        add(state, "base", f"train.py:Recipe.breadth: 64 -> {64 + index}", "discard", 2.1)
    for _ in range(2):
        fill(tmp_path, {"train.py": FAKE})
        proposals.append(Search().propose(tmp_path, briefing(state, contract("train.py"))))
    assert proposals[0] == proposals[1]
    others = set()
    for seed in range(8):
        fill(tmp_path, {"train.py": FAKE})
        told = briefing(fresh_state(seed), contract("train.py"))
        others.add(Search().propose(tmp_path, told).changes)
    assert len(others) > 1


def test_first_proposals_are_likely_ones(tmp_path: Path) -> None:
    """Arguments of the step's cost and the rates, before switches and moves."""
    for seed in range(3):
        state = fresh_state(seed)
        for _ in range(4):
            fill(tmp_path, TODAY)
            proposal = Search().propose(tmp_path, briefing(state, LANGUAGE))
            assert len(proposal.changes) == 1
            ((change,), _) = parse(proposal.changes[0])
            assert isinstance(value_from(change.new), int | float)
            add(state, "base", proposal.changes[0], "discard", 2.1)


def test_a_long_history(tmp_path: Path) -> None:
    state, best = fresh_state(), 2.0
    values = [1e-3 * (1 + index / 1000) for index in range(10_000)]
    tip, old = "base", "1e-3"
    for index, value in enumerate(values):
        kept = index % 200 == 199
        best -= 0.001 if kept else 0.0
        new = written_as(value, "1e-3")
        notes = f"train.py:Recipe.learning_rate: {old} -> {new}"
        one = add(state, tip, notes, "keep" if kept else "discard", best if kept else best + 0.1)
        if kept:
            tip, old = one.candidate or "", new
    source = FAKE.replace("1e-3", old)
    fill(tmp_path, {"train.py": source})
    assert Search().propose(tmp_path, briefing(state, contract("train.py"))).changes


def test_experiments_of_an_agent_leave_no_trouble(tmp_path: Path) -> None:
    state = fresh_state()
    add(state, "base", "what an agent: has -> to say\nmore", "keep", 1.9, "architecture")
    add(state, "commit1", "", "crash", None, "kernel")
    fill(tmp_path, {"train.py": FAKE})
    assert Search().propose(tmp_path, briefing(state, contract("train.py"))).changes


def test_a_plateau_goes_back_to_an_older_keep() -> None:
    state = fresh_state()
    for score in (1.9, 1.8):
        add(state, "base", f"train.py:Recipe.breadth: 64 -> {int(score * 100)}", "keep", score)
    assert Search().base(briefing(state, LANGUAGE)) is None
    bases = []
    for _ in range(PLATEAU + 40):
        bases.append(Search().base(briefing(state, LANGUAGE)))
        add(state, "commit2", "", "discard", 2.5)
    assert set(bases[:PLATEAU]) == {None}
    assert {"base", "commit1"} <= set(bases)
    assert bases.count(None) > len(bases) / 2


def test_repair_is_left_to_others(tmp_path: Path) -> None:
    failure = Failure("shape", "no", "")
    assert Search().repair(tmp_path, briefing(fresh_state(), LANGUAGE), failure) is None


@pytest.mark.parametrize(
    "text",
    [b"", b"# nothing\n", b"def f(:\n", b"\xff\xfe", b"x = 1\x00", b"\xef\xbb\xbfx = 1\n"],
)
def test_a_file_that_offers_nothing_is_refused_in_one_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "train.py").write_bytes(text)
    with pytest.raises(ResearcherError) as caught:
        Search().propose(tmp_path, briefing(fresh_state(), contract("train.py")))
    assert str(caught.value).startswith("train.py: ")
    assert "\n" not in str(caught.value)


def test_without_optuna_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"train.py": FAKE})
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ResearcherGone, match="pip install optuna"):
        Search().propose(tmp_path, briefing(fresh_state(), contract("train.py")))
    assert (tmp_path / "train.py").read_text() == FAKE


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResearcherError, match=r"train\.py: cannot be read"):
        load(tmp_path, ("train.py",))


def test_messages_read_like_a_persons(tmp_path: Path) -> None:
    source = FAKE.replace("breadth", "hidden")
    messages = set()
    for seed in range(12):
        fill(tmp_path, {"train.py": source})
        told = briefing(fresh_state(seed), contract("train.py"))
        messages.add(Search().propose(tmp_path, told).hypothesis)
    assert "halve hidden 64 → 32: cheaper steps, so more of them" in messages
