"""Pictures of a thought, and the attention that they show."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import modgrad
import numpy as np
import pytest
from modgrad import _core, mazes, nn, spec, trace
from modgrad import functional as F
from modgrad.ctm import ContinuousThoughtMachine, certainty
from modgrad.ctm.attention_map import attention_map
from modgrad.errors import CheckpointError, ModgradError, UsageError
from modgrad.maze_picture import animate, draw, shown_ticks
from modgrad.maze_thought import Thought, watch
from modgrad.program import Tensor

TICKS, ROUTE = 5, 6


def _glu(x: Any, axis: int) -> Any:
    first, second = np.split(x, 2, axis)
    return first / (1 + np.exp(-second))


def _norm(x: Any, weight: Any, bias: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-5
    ) * weight + bias


def test_the_map_is_the_attention_that_the_machine_pays() -> None:
    """With one head, tick after tick is formed anew from the weights of the map."""
    nn.manual_seed(2)
    machine = ContinuousThoughtMachine(
        3, 2, neurons=6, width=4, ticks=4, memory=2, hidden=0, heads=1, action_pairs=5,
        output_pairs=3,
    )  # fmt: skip
    machine.name_parameters()
    for parameter in machine.parameters():
        if parameter.trainable:
            parameter.value[...] += nn.normal(parameter.value.shape, 0.4)
    machine.action.decay.value[:] = 0.3

    def both(features: Tensor) -> dict[str, Tensor]:
        states, _ = machine.think(features)
        return {"states": states, "attention": attention_map(machine, features, states)}

    features = np.random.default_rng(1).standard_normal((2, 5, 3)).astype(np.float32)
    seen = trace(both, features=spec((2, 5, 3))).run(features=features)
    weights = {name: one.value.astype(np.float64) for name, one in machine.named_parameters()}
    np.testing.assert_allclose(seen["attention"].sum(-1), 1.0, rtol=1e-5)
    assert seen["attention"].std() > 0.02

    tokens = features @ weights["join.weight"].T + weights["join.bias"]
    tokens = _norm(tokens, weights["norm.weight"], weights["norm.bias"])
    values = tokens @ weights["attention.2.weight"].T + weights["attention.2.bias"]
    state = np.repeat(weights["start_state"][None], 2, 0)
    memory = np.repeat(weights["start_trace"][None], 2, 0)
    for tick in range(4):
        heard = np.einsum("bl,blc->bc", seen["attention"][:, tick], values)
        heard = heard @ weights["attention.3.weight"].T + weights["attention.3.bias"]
        joined = (
            np.concatenate([heard, state], -1) @ weights["synapse.blocks.0.weight"]
            + weights["synapse.blocks.0.bias"]
        )
        activation = _norm(
            _glu(joined, -1),
            weights["synapse.blocks.0.norm.weight"],
            weights["synapse.blocks.0.norm.bias"],
        )
        memory = np.concatenate([memory[:, :, 1:], activation[:, :, None]], -1)
        level = np.einsum("bnm,mon->bno", memory, weights["level1"]) + weights["level1_bias"].T
        state = _glu(level / weights["temperatures"][0], -1)[:, :, 0]
        np.testing.assert_allclose(seen["states"][:, tick], state, atol=2e-5)


def walker(pixels: Tensor, ticks: int) -> dict[str, Tensor]:
    """Moves right at every tick, more certainly each time; looks at one token after another."""
    batch = pixels.shape[0]
    none = pixels[:, 0, 0, 0:1] * 0.0  # [B, 1]
    logits = F.concat([none, none, none, none + 1.0, none - 1.0], 1).reshape(batch, 1, 1, 5)
    rising = (F.arange(ticks) + 1.0).reshape(1, ticks, 1, 1)
    routes = (logits * rising).broadcast_to(batch, ticks, ROUTE, 5)
    tokens = F.softmax(F.arange(16).reshape(1, 1, 16) * rising.reshape(1, ticks, 1) * 0.1)
    attention = tokens + none.reshape(batch, 1, 1)
    return {"logits": routes, "certainty": certainty(routes), "attention": attention}


def save(path: Path, meta: str = "{}", **programs: Any) -> Path:
    """A checkpoint with programs that map mazes of 9 × 9 pixels, unless they say so."""
    given = {"pixels": spec((1, 3, 9, 9))}
    traced = {
        name: (one if isinstance(one, modgrad.Program) else trace(one, **given)).core
        for name, one in programs.items()
    }
    _core.save_checkpoint(path, traced, {}, {}, meta)
    return path


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modgrad.mazes", "picture", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_makes_both_files(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    points = '{"curve": {"stretch": 1, "points": [[0.5, 1, 2.5], [1.0, 2, 2.0]]}}'
    path = save(tmp_path / "m.ckpt", points, watch=lambda pixels: walker(pixels, TICKS))
    done = command(path, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "m.png"), str(tmp_path / "m.gif")]
    with image.open(tmp_path / "m.gif") as gif:
        assert gif.n_frames == TICKS
    with image.open(tmp_path / "m.png") as png:
        assert png.format == "PNG" and png.size[0] > 600


def test_what_is_watched_is_what_the_program_says(tmp_path: Path) -> None:
    path = save(tmp_path / "m.ckpt", watch=lambda pixels: walker(pixels, TICKS))
    thought = watch(path, seed=3, maze=4)
    [pixels] = mazes.generate(1, size=9, seed=3, first=4, route_len=ROUTE).pixels
    assert (thought.pixels == pixels.transpose(1, 2, 0)).all()
    assert thought.ticks == TICKS and thought.attention is not None
    assert (np.diff(thought.certainty) > 0).all()
    cells, in_wall = thought.route(0)
    start = np.argwhere((thought.pixels == (1, 0, 0)).all(-1))[0]
    assert (cells[0] == start).all() and (cells[:, 0] == start[0]).all()
    assert (np.diff(cells[:, 1]) == 1).all()
    assert in_wall == (not thought.pixels[tuple(cells[-1])].any())
    solution = thought.solution()
    assert len(solution) == 1 + (thought.target != mazes.WAIT).sum()
    assert all(thought.pixels[tuple(cell)].any() for cell in solution)


def test_a_score_alone_is_one_tick(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")

    def score(pixels: Tensor) -> dict[str, Tensor]:
        return {"logits": walker(pixels, 1)["logits"].reshape(pixels.shape[0], ROUTE, 5)}

    several = trace(score, pixels=spec((4, 3, 9, 9)))
    path = save(
        tmp_path / "m.ckpt", score=several, score_13=trace(score, pixels=spec((1, 3, 13, 13)))
    )
    thought = watch(path)
    assert (thought.ticks, thought.attention, thought.curve) == (1, None, [])
    assert 0 < thought.certainty[0] < 1
    assert watch(path, size=13).pixels.shape == (13, 13, 3)
    with pytest.raises(UsageError, match=r"--size 11: .* holds no program for mazes of that size"):
        watch(path, size=11)
    done = command(path, "--out", tmp_path / "a.GIF", tmp_path / "b.png", "--threads", 1)
    assert done.returncode == 0, done.stderr
    with image.open(tmp_path / "a.GIF") as gif:
        assert gif.n_frames == 1


def test_steps_that_are_right_and_ticks_that_are_shown() -> None:
    pixels = np.ones((5, 5, 3), np.float32)
    pixels[[0, 4]] = pixels[:, [0, 4]] = 0
    pixels[1, 1] = (1, 0, 0)
    logits = np.zeros((3, 4, 5), np.float32)
    for tick, moves in enumerate(([3, 3, 4, 4], [3, 1, 4, 4], [0, 3, 4, 4])):
        logits[tick, range(4), moves] = 1
    thought = Thought(pixels, np.array([3, 3, 4, 4]), logits, np.array([0.1, 0.9, 0.2]), None, [])
    assert [thought.right_steps(tick) for tick in range(3)] == [4, 1, 0]
    assert [thought.route(tick)[1] for tick in range(3)] == [False, False, True]
    for ticks in (1, 2, 6, 7, 16, 75):
        for certain in (0, ticks // 2, ticks - 1):
            values = np.zeros(ticks)
            values[certain] = 1
            many = Thought(pixels, thought.target, np.zeros((ticks, 4, 5)), values, None, [])
            shown = shown_ticks(many)
            assert len(shown) == min(6, ticks) == len(set(shown))
            assert {0, certain, ticks - 1} <= set(shown) and shown == sorted(shown)


def test_tokens_of_any_number_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pixels = mazes.generate(1, size=9).pixels[0].transpose(1, 2, 0)
    for tokens in (1, 16, 81, 7):
        attention = np.full((2, tokens), 1 / tokens, np.float32)
        thought = Thought(
            pixels, np.array([4]), np.zeros((2, 1, 5)), np.zeros(2), attention, [(0.1, 1, math.pi)]
        )
        assert draw(thought).startswith(b"\x89PNG")
        assert animate(thought).startswith(b"GIF8")


def _bare(pixels: Tensor) -> Tensor:
    return pixels.reshape(pixels.shape[0], -1)[:, :1]


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to watch": ({"other": lambda pixels: walker(pixels, 2)}, "nothing to watch"),
    "no logits": ({"watch": lambda pixels: {"certainty": _bare(pixels)}}, "no output `logits`"),
    "logits of another shape": (
        {"watch": lambda pixels: {"logits": _bare(pixels)}},
        "`logits` of the program `watch` has a wrong shape",
    ),
    "ticks in score": (
        {"score": lambda pixels: {"logits": walker(pixels, 2)["logits"]}},
        "are not those of ticks",
    ),
    "attention without ticks": (
        {
            "watch": lambda pixels: {
                **walker(pixels, 2),
                "attention": walker(pixels, 3)["attention"],
            }
        },
        "are not those of ticks",
    ),
    "certainty of another rank": (
        {"watch": lambda pixels: {**walker(pixels, 2), "certainty": walker(pixels, 2)["logits"]}},
        "are not those of ticks",
    ),
    "more ticks than a picture holds": (
        {"watch": lambda pixels: walker(pixels, 1001)},
        "are not those of ticks",
    ),
    "not finite": (
        {
            "watch": lambda pixels: {
                "logits": (walker(pixels, 2)["logits"] - 9.0).log()  # of negative numbers
            }
        },
        "not finite",
    ),
    "another input": (
        {"watch": trace(lambda tokens: {"logits": tokens.float()}, tokens=spec((1, 9), "u8"))},
        "does not map mazes to routes",
    ),
    "pixels that are no square": (
        {
            "watch": trace(
                lambda pixels: {"logits": walker(pixels, 2)["logits"]},
                pixels=spec((1, 3, 9, 11)),
            )
        },
        "does not map mazes to routes",
    ),
    "an even size": (
        {
            "watch": trace(
                lambda pixels: {"logits": walker(pixels, 2)["logits"]},
                pixels=spec((1, 3, 10, 10)),
            )
        },
        "10x10 pixels is impossible",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_checkpoints_get_one_line(tmp_path: Path, name: str) -> None:
    programs, message = HOSTILE[name]
    path = save(tmp_path / "m.ckpt", **programs)
    with pytest.raises(ModgradError, match=message) as refusal:
        watch(path)
    assert "\n" not in str(refusal.value)


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    path = save(tmp_path / "m.ckpt", watch=lambda pixels: walker(pixels, 2))
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(path.read_bytes()[:-3])
    for words, code, message in (
        ([cut], 1, "cut.ckpt"),
        ([tmp_path / "none.ckpt"], 1, "none.ckpt"),
        ([path, "--out", "a.jpg"], 2, "name a file that ends in .png or .gif"),
        ([path, "--out", tmp_path / "no" / "a.png"], 2, "no such folder"),
        ([path, "--size", "11"], 2, "no program for mazes of that size"),
        ([path, "--maze", "-1"], 2, "must not be negative"),
    ):
        done = command(*words)
        assert done.returncode == code, (words, done.stderr)
        assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
        assert message in done.stderr


def test_without_matplotlib_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "m.ckpt", watch=lambda pixels: walker(pixels, 2))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert mazes.main(["picture", str(path)]) == 2
    said = capsys.readouterr().err
    assert said == 'error: no picture without matplotlib: pip install "modgrad[report]"\n'


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError):
        watch(tmp_path / "m.ckpt")
