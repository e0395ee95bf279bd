"""Command lines of known agents, and what their output and their file are taken to mean."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from modgrad.autoresearch.errors import UsageError
from modgrad.autoresearch.researchers import profiles
from modgrad.autoresearch.researchers.command import read_hypothesis

NOW = 1_790_000_000.0


@pytest.mark.parametrize("name", sorted(profiles.PROFILES))
@pytest.mark.parametrize("model", [None, "some-model"])
def test_command_lines(name: str, model: str | None) -> None:
    profile = profiles.PROFILES[name]
    values = {"prompt": "P {model}", "prompt_file": "/p.md", "workspace": "/w", "beside": "/b"}
    command = profile.command({**values, "model": model}, ["isis/ffn.py", "isis/learn_ffn.py"])
    assert command[0] == name
    assert not any("{" in word for word in command)
    assert ("--model" in command) == (model is not None) == ("some-model" in command)
    told = profile.prompt_on_stdin or "/p.md" in command
    assert told


def test_command_lines_of_the_user() -> None:
    profile = profiles.custom("my-agent 'two words' --ask={prompt} -m {model} --about={model}")
    assert profile.name == "my-agent" and not profile.prompt_on_stdin
    values = {"prompt": "do {files}", "model": None}
    command = profile.command(values, [])
    assert command == ["my-agent", "two words", "--ask=do {files}"]
    assert profiles.custom("/opt/my-agent --quiet").prompt_on_stdin
    for line in ("", "a 'b", "a {unknown}"):
        with pytest.raises(UsageError, match="--agent-command"):
            profiles.custom(line)


def test_answers_of_claude() -> None:
    good = {"type": "result", "is_error": False, "result": "Wider.\nDone.", "total_cost_usd": 0.25}
    reply = profiles.read_claude("a warning\n" + json.dumps(good) + "\n")
    assert (reply.message, reply.cost, reply.error) == ("Done.", 0.25, "")
    assert profiles.read_claude(json.dumps([{"type": "system"}, good])).cost == 0.25
    bad = {"type": "result", "is_error": True, "result": "usage limit reached|1", "x": 1}
    assert profiles.read_claude(json.dumps(bad)).error == "usage limit reached|1"
    for amount in ("NaN", "-1", "1e999", '"many"', "null", "true", "[]"):
        text = '{"type":"result","result":"","total_cost_usd":AMOUNT}'.replace("AMOUNT", amount)
        assert profiles.read_claude(text).cost == 0.0
    assert profiles.read_claude("Invalid API key").text == "Invalid API key"


def test_answers_of_codex() -> None:
    said = {"type": "item.completed", "item": {"type": "agent_message", "text": "a\nWider."}}
    lost = {"type": "error", "message": "Reconnecting... 1/5"}
    done = {"type": "turn.completed", "usage": {"rate_limits": 429}}
    reply = profiles.read_codex("\n".join(map(json.dumps, [lost, said, done])))
    assert (reply.message, reply.error) == ("Wider.", "")
    assert not profiles.RATE_LIMIT.search(reply.text)
    end = {"type": "turn.failed", "error": {"message": "Rate limit reached", "code": 429}}
    assert profiles.read_codex(json.dumps(end)).error == "Rate limit reached 429"


def test_answers_of_opencode_and_aider() -> None:
    events = [
        {"type": "text", "part": {"type": "text", "text": "Wider."}},
        {"type": "step_finish", "part": {"cost": 0.01}},
        {"type": "step_finish", "part": {"cost": 0.02}},
    ]
    reply = profiles.read_opencode("\n".join(map(json.dumps, events)))
    assert reply.message == "Wider." and reply.cost == pytest.approx(0.03)
    failure = {"type": "error", "error": {"name": "APIError", "data": {"message": "quota"}}}
    assert profiles.read_opencode(json.dumps(failure)).error == "APIError quota"
    text = "Wider.\nTokens: 4k sent.\nCost: $0.01 message, $0.02 session.\n"
    reply = profiles.read_aider("litellm.RateLimitError: slow down\nRetrying\n" + text)
    assert (reply.message, reply.cost, reply.error) == ("Wider.", 0.02, "")
    refused = profiles.read_aider("litellm.RateLimitError: slow down\nTry again in 9 s\n")
    assert refused.error == "litellm.RateLimitError: slow down Try again in 9 s"


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("HTTP 429 Too Many Requests, retry-after: 30", 30.0),
        ("Rate limit is exceeded. Try again in 17 seconds.; retrying 5/5 in 3.32s", 3.32),
        ("Rate limit reached. Please try again in 21.509s. Visit https://x", 21.509),
        ("rate limited, please try again in 5 minutes", 300.0),
        ("API Error: 529 overloaded_error: Overloaded", None),
        ("You exceeded your current quota", None),
        (f"Claude AI usage limit reached|{int(NOW) + 90}", 90.0),
        ('{"type":"usage_limit_reached","resets_in_seconds":444287}', 444287.0),
        ('RESOURCE_EXHAUSTED "retryDelay": "38s"', 38.0),
    ],
)
def test_limits_and_waits(said: str, wait: float | None) -> None:
    assert profiles.RATE_LIMIT.search(said)
    assert profiles.retry_after(said, NOW) == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(
    "said",
    [
        "Invalid API key · Please run /login",
        "exceeded retry limit, last status: 401 Unauthorized",
        "Error: please log in first",
        "litellm.AuthenticationError: AnthropicException - invalid x-api-key",
    ],
)
def test_a_missing_login_is_seen(said: str) -> None:
    assert profiles.AUTHENTICATION.search(said)


def test_a_time_of_day_is_waited_for() -> None:
    noon = 1_790_000_000 // 86_400 * 86_400 + 43_200
    said = "You've hit your limit · resets 1:30pm (UTC)"
    assert profiles.RATE_LIMIT.search(said)
    assert profiles.retry_after(said, noon) == pytest.approx(5400)
    assert profiles.retry_after("resets 11am (UTC)", noon) == pytest.approx(23 * 3600)
    assert profiles.retry_after("resets 99am (No/Where)", noon) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ("", None)),
        ("\n\n  one  \n", ("one", None)),
        ("family: optimizer\n", ("", "optimiser")),
        ("x\nFamily: `Data-Order`.\n", ("x", "data order")),
        ("x\nfamily: magic\n", ("x", None)),
        ("y" * 100_000, ("y" * 239 + "…", None)),
        ("\ufeffx\x07\x00\u202e\u2028z\n", ("x", None)),
    ],
)
def test_hypothesis_files(tmp_path: Path, content: str, expected: tuple[str, str | None]) -> None:
    (tmp_path / "hypothesis.txt").write_text(content, encoding="utf-8")
    assert read_hypothesis(tmp_path) == expected
    assert not (tmp_path / "hypothesis.txt").exists()


def test_strange_hypothesis_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    path = tmp_path / "hypothesis.txt"
    path.symlink_to(secret)
    assert read_hypothesis(tmp_path) == ("", None)
    assert secret.read_text() == "not yours" and not path.is_symlink()
    os.mkfifo(path)
    assert read_hypothesis(tmp_path) == ("", None)
    path.mkdir()
    assert read_hypothesis(tmp_path) == ("", None)
    assert not path.exists()
