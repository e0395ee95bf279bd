"""What two candidates have in common: comments and seeds aside, everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modgrad.autoresearch.fingerprint import fingerprint, lines_of_code

CODE = '''
"""A module."""
import numpy as np

RATE = 1e-3


def noise(rows, seed=0, *, scale=0.1):
    """Draws rows."""
    generator = np.random.default_rng((seed, rows))
    return generator.normal(size=rows) * scale  # of unit variance


def train(data, batch, seed):
    windows = Windows(data, batch, 128, seed)
    nn.manual_seed(seed)
    rng = np.random.default_rng(seed)
    hidden = noise(batch, seed=seed, scale=0.2)
    return windows, rng, hidden
'''


def same(before: str, after: str, **masks: bool) -> bool:
    one, other = (fingerprint({"a.py": text.encode()}, **masks) for text in (before, after))
    return one == other


def edited(old: str, new: str) -> str:
    assert CODE.count(old) == 1, old
    return CODE.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # of unit variance", ""),
        ('"""A module."""', '"""Another module."""\n# and a comment'),
        ('    """Draws rows."""\n', ""),
        ("RATE = 1e-3", "RATE = 0.001"),
        ("RATE = 1e-3", "RATE = (1e-3)"),
        ("RATE = 1e-3", "RATE   =   \\\n    1e-3"),
        (
            "def noise(rows, seed=0, *, scale=0.1):",
            "def noise(\n    rows, seed=0, *, scale=0.1\n):",
        ),
        ("rng = np", "'a note that stands alone'\n    rng = np"),
    ],
)
def test_comments_docstrings_and_layout_do_not_matter(old: str, new: str) -> None:
    assert same(CODE, edited(old, new))


GENUINE = [
    ("RATE = 1e-3", "RATE = 2e-3"),
    ("RATE = 1e-3", "RATES = 1e-3"),
    ("128, seed)", "256, seed)"),
    ("scale=0.2", "scale=0.3"),
    ("scale=0.1", "scale=1"),
    ("* scale", "+ scale"),
    ("generator.normal", "generator.uniform"),
    ("size=rows", "size=2 * rows"),
    ("noise(batch, seed", "noise(2 * batch, seed"),
    ("return windows, rng", "return rng, windows"),
    # Half of the draws only: other noise in kind, not another draw.
    ("default_rng((seed, rows))", "default_rng((seed, rows // 2))"),
    ("default_rng((seed, rows))", "default_rng((seed, rows % 4))"),
    # The same noise for every row count.
    ("default_rng((seed, rows))", "default_rng(seed)"),
]


@pytest.mark.parametrize(("old", "new"), GENUINE)
def test_numbers_and_names_matter(old: str, new: str) -> None:
    after = edited(old, new)
    assert not same(CODE, after)
    assert not same(CODE, after, mask_seeds=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed=0,", "seed=7,"),
        ("(seed, rows)", "(seed, rows, 7)"),
        ("(seed, rows)", "(seed + 1, rows)"),
        ("(seed, rows)", "(rows, seed)"),
        ("default_rng((seed, rows))", "default_rng([seed, rows])"),
        ("default_rng((seed, rows))", "default_rng(hash((seed, rows)))"),
        ("128, seed)", "128, seed + 1)"),
        ("128, seed)", "128, seed * 31 + 7)"),
        ("128, seed)", "128, (seed * 2654435761) % 4294967296)"),
        ("manual_seed(seed)", "manual_seed(seed + 1)"),
        ("manual_seed(seed)", "manual_seed(seed ^ 0x5EED)"),
        ("default_rng(seed)\n", "default_rng(seed - 3)\n"),
        ("noise(batch, seed=seed", "noise(batch, seed=seed + 7"),
        ("    windows =", "    seed += 1\n    windows ="),
        ("    windows =", "    seed = seed + 1\n    windows ="),
        ("    windows =", "    np.random.seed(7)\n    windows ="),
        ("    windows =", "    random.seed(seed + 7)\n    windows ="),
    ],
)
def test_a_change_of_seed_is_recognised(old: str, new: str) -> None:
    after = edited(old, new)
    assert not same(CODE, after)
    assert same(CODE, after, mask_seeds=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("nn.manual_seed(0)", "nn.manual_seed(7)"),
        ("random_state = 1", "random_state = 2"),
        ("DATA_SEED = 1", "DATA_SEED = 2"),
        ("seed: int = 1", "seed: int = 2"),
        ("self.seed = 1", "self.seed = 2"),
        ("seed_offset = 1", "seed_offset = 2"),
        ("seed, rate = 1, 0.5", "seed, rate = 2, 0.5"),
        ("x = f(random_state=1)", "x = f(random_state=2)"),
        ("x = f(np.random.RandomState(1))", "x = f(np.random.RandomState(2))"),
        (
            "x = np.random.Generator(np.random.PCG64(1))",
            "x = np.random.Generator(np.random.PCG64(2))",
        ),
        ("x = random.Random(1)", "x = random.Random(2)"),
        ("x = SeedSequence(1)", "x = SeedSequence([1, 2])"),
        ("def f(a, *, init_seed=1): pass", "def f(a, *, init_seed=2): pass"),
        ("f = lambda seed=1: seed", "f = lambda seed=2: seed"),
    ],
)
def test_many_spellings_of_a_seed(before: str, after: str) -> None:
    assert not same(before, after)
    assert same(before, after, mask_seeds=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("learning_rate = 1e-3", "learning_rate = 2e-3"),
        # About rows, whatever they are seeded with: the last word of a name says what
        # it is. To run one draw too many costs an experiment; to call an idea a change
        # of seed loses it.
        ("seeded_rows = 3", "seeded_rows = 4"),
        ("seed_length = 3", "seed_length = 4"),
        ("linseed = 3", "linseed = 4"),
        ("reseed_every = 3", "reseed_every = 4"),
        ("rng_dropout = 0.1", "rng_dropout = 0.2"),
        ("wrangle = 1", "wrangle = 2"),
        ("f(seed, 3)", "f(seed, 4)"),
        ("f(seed=1, rate=3)", "f(seed=1, rate=4)"),
        ("seed, rate = 1, 0.5", "seed, rate = 1, 0.6"),
        ("x = f(rng).normal(0, 0.02)", "x = f(rng).normal(0, 0.03)"),
        ("x = rng.normal(0, 0.02)", "x = rng.normal(0, 0.03)"),
        ("rows = seed % 2", "rows = seed % 3"),
    ],
)
def test_a_genuine_change_is_no_change_of_seed(before: str, after: str) -> None:
    assert not same(before, after, mask_seeds=True)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_numbers_count_unless_they_are_masked(one: int, other: int) -> None:
    before, after = f"width = {one}", f"width = {other}"
    assert same(before, after) == (one == other)
    assert same(before, after, mask_numbers=True)
    assert not same(before, f"depth = {other}", mask_numbers=True)


def test_a_switch_is_no_number() -> None:
    assert not same("bias = True", "bias = False", mask_numbers=True)


@pytest.mark.parametrize("terms", [900, 1500, 20_000])
def test_code_that_is_nested_too_deeply_has_a_fingerprint(terms: int) -> None:
    deep = "x = " + "+".join(["1"] * terms)
    for masks in ({}, {"mask_seeds": True}, {"mask_numbers": True}):
        assert same(deep, deep, **masks)
        assert not same(deep, deep.replace("x", "y"), **masks)


@pytest.mark.parametrize("content", [b"x = (", b"x = '\xff'", b"\0", b""])
def test_code_that_does_not_parse_has_one_too(content: bytes) -> None:
    assert fingerprint({"a.py": content}) == fingerprint({"a.py": content})
    assert fingerprint({"a.py": content}) != fingerprint({"a.py": content + b"y"})


def test_paths_and_absent_files_matter() -> None:
    assert fingerprint({"a.py": b"x = 1"}) != fingerprint({"b.py": b"x = 1"})
    assert fingerprint({"a.py": b""}) != fingerprint({})
    assert fingerprint({"a.py": b"", "b.py": b""}) != fingerprint({"a.py": b""})


def test_comments_of_a_crate_do_not_matter() -> None:
    def of(text: str) -> str:
        return fingerprint({"a.rs": text.encode()})

    plain = "fn f() -> f32 { 1.0 }"
    assert of(plain) == of("// one\nfn f() -> f32 {\n    1.0 /* unit */\n}\n")
    assert of(plain) != of("fn f() -> f32 { 2.0 }")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('let u = "http://a";', 'let u = "http://b";'),
        ('let u = "a b";', 'let u = "a  b";'),
        ('let u = "/*"; f(1); "*/"', 'let u = "/*"; f(2); "*/"'),
        ('let u = r#" "/* "#; f(1); "*/"', 'let u = r#" "/* "#; f(2); "*/"'),
        ("let u = '\"'; f(1); // '\"'", "let u = '\"'; f(2); // '\"'"),
        ("f::<'a>(1); g::<'a>()", "f::<'a>(2); g::<'a>()"),
    ],
)
def test_strings_of_a_crate_are_no_comments(before: str, after: str) -> None:
    assert fingerprint({"a.rs": before.encode()}) != fingerprint({"a.rs": after.encode()})


def test_lines_of_code_leave_out_what_says_nothing() -> None:
    assert lines_of_code({"a.py": b"# one\n\nx = 1\n    \ny = 2  # two\n", "b.rs": b"// z\n"}) == 2
