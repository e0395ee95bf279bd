"""Agent command lines that are known, and what their output means.

A row of `PROFILES` says how an agent is run without a terminal and how its answer
is read; a row costs nothing to add. The flags are those that each agent's own
documentation names (as of October 2026); flags change, so `--agent-command`
takes any other command line, with the same places to fill in:

    {prompt}       the prompt itself, as one argument
    {prompt_file}  a file that holds it
    {workspace}    the folder to edit, which is the working folder too
    {model}        the model; the flag before it goes where none is asked for
    {files}        the files that may be changed, as arguments of their own
    {beside}       the folder of the prompt file, for an agent's own notes
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from modgrad.autoresearch.digest import one_line
from modgrad.autoresearch.errors import UsageError

_PLACES = ("prompt", "prompt_file", "workspace", "model", "files", "beside")


@dataclass(frozen=True)
class Reply:
    """What an agent's output says."""

    message: str = ""  # its last words
    cost: float = 0.0  # US dollars, where it reports them
    error: str = ""  # what it says went wrong
    text: str = ""  # what it printed for people, where a reason may stand


@dataclass(frozen=True)
class Profile:
    """How to run an agent."""

    name: str
    arguments: tuple[str, ...]  # the program first
    read: Callable[[str], Reply]
    prompt_on_stdin: bool = False

    def command(self, values: dict[str, str | None], files: Iterable[str]) -> list[str]:
        """The command line; an argument that names no model goes, with its flag."""
        words: list[str] = []
        for word in self.arguments:
            if word == "{files}":
                words.extend(files)
            elif "{model}" in word and values["model"] is None:
                if word == "{model}" and words[-1].startswith("-"):
                    words.pop()
            else:
                words.append(re.sub(r"\{(\w+)\}", lambda hit: values.get(hit[1]) or "", word))
        return words


def custom(line: str) -> Profile:
    """The profile of a user's own command line; it is split, and no shell reads it."""
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise UsageError(f"--agent-command: `{line}` cannot be split ({error})") from None
    if not words:
        raise UsageError("--agent-command: names no program")
    for name in re.findall(r"\{(\w+)\}", line):
        if name not in _PLACES:
            raise UsageError(f"--agent-command: {{{name}}} is not one of {', '.join(_PLACES)}")
    told = "{prompt}" in line or "{prompt_file}" in line
    return Profile(words[0].rsplit("/", 1)[-1], words, read_text, prompt_on_stdin=not told)


def read_text(output: str) -> Reply:
    """An agent that prints plain text: its last line that says something."""
    return Reply(message=_last_line(output), text=output)


def read_claude(output: str) -> Reply:
    """One object at the end: `result`, `is_error` and `total_cost_usd`."""
    for event in reversed(_events(output)):
        if event.get("type") == "result":
            words = str(event.get("result") or "")
            error = words or "an error" if event.get("is_error") else ""
            cost = _dollars(event.get("total_cost_usd"))
            return Reply(_last_line(words), cost, error, _plain(output, words))
    return read_text(output)


def read_codex(output: str) -> Reply:
    """Events, a line each; they count tokens, not dollars."""
    message = error = ""
    for event in _events(output):
        item = event.get("item")
        if isinstance(item, dict) and item.get("type") == "agent_message":
            message = str(item.get("text") or "")
        elif event.get("type") == "turn.completed":
            error = ""  # what went wrong before was retried
        elif event.get("type") in ("turn.failed", "error"):
            error = _words(event.get("error") or event.get("message")) or "an error"
    return Reply(_last_line(message), 0.0, error, _plain(output, message))


def read_opencode(output: str) -> Reply:
    """Events, a line each; every finished step has its cost."""
    message, error, cost = "", "", 0.0
    for event in _events(output):
        part = event.get("part")
        if event.get("type") == "error":
            error = _words(event.get("error")) or "an error"
        elif isinstance(part, dict) and event.get("type") == "step_finish":
            cost, error = cost + _dollars(part.get("cost")), ""
        elif isinstance(part, dict) and event.get("type") == "text":
            message = str(part.get("text") or "")
    return Reply(_last_line(message), cost, error, _plain(output, message))


def read_aider(output: str) -> Reply:
    """Plain text; the last `Cost: $0.01 message, $0.02 session.` is the sum. It ends
    with success when the service refused it, so its last error counts unless an
    answer, and with it a line `Tokens:`, came after."""
    costs = re.findall(r"\$([0-9]+(?:\.[0-9]+)?) session", output)
    lines = [line for line in output.splitlines() if not line.startswith("Cost:")]
    errors = [at for at, line in enumerate(lines) if re.match(r"litellm\.\w+Error", line)]
    answers = [at for at, line in enumerate(lines) if line.startswith("Tokens:")]
    refused = bool(errors) and errors[-1] > max(answers, default=-1)
    error = " ".join(lines[errors[-1] : errors[-1] + 3]) if refused else ""
    said = "\n".join(line for line in lines if not line.startswith("Tokens:"))
    return Reply(_last_line(said), _dollars(costs[-1]) if costs else 0.0, error, output)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        # https://docs.claude.com/en/docs/claude-code/headless and .../cli-reference.
        # `acceptEdits` allows edits in the working folder and refuses what else
        # would need a person.
        Profile(
            "claude",
            (
                *("claude", "-p", "--output-format", "json", "--permission-mode", "acceptEdits"),
                *("--model", "{model}"),
            ),
            read_claude,
            prompt_on_stdin=True,
        ),
        # https://developers.openai.com/codex/noninteractive; `--full-auto` is the
        # older name of this sandbox. `-` reads the prompt from standard input.
        Profile(
            "codex",
            (
                *("codex", "exec", "--json", "--sandbox", "workspace-write"),
                *("--skip-git-repo-check", "--cd", "{workspace}", "--model", "{model}", "-"),
            ),
            read_codex,
            prompt_on_stdin=True,
        ),
        # https://geminicli.com/docs/cli/headless and .../reference/configuration;
        # `--yolo` is the older form. In a folder that is not trusted the mode would
        # fall back to asking.
        Profile(
            "gemini",
            (
                *("gemini", "--approval-mode", "yolo", "--skip-trust", "--model", "{model}"),
                *("--prompt", "Do what the text before this line asks."),
            ),
            read_text,
            prompt_on_stdin=True,
        ),
        # https://aider.chat/docs/scripting.html and .../config/options.html. It edits
        # the files that it is given; its notes would otherwise lie among them.
        Profile(
            "aider",
            (
                *("aider", "--message-file", "{prompt_file}", "--model", "{model}"),
                *("--yes-always", "--no-auto-commits", "--no-dirty-commits", "--no-gitignore"),
                *("--no-check-update", "--no-show-release-notes", "--no-show-model-warnings"),
                *("--no-pretty", "--no-stream", "--no-suggest-shell-commands", "--no-detect-urls"),
                *("--map-tokens", "0", "--chat-history-file", "{beside}/aider.chat.md"),
                *("--input-history-file", "{beside}/aider.input", "hypothesis.txt", "{files}"),
            ),
            read_aider,
        ),
        # https://opencode.ai/docs/cli. It takes $PWD for the working folder, so the
        # folder is named. `--auto` was `--dangerously-skip-permissions` before 1.18.
        Profile(
            "opencode",
            (
                *("opencode", "run", "--format", "json", "--auto", "--dir", "{workspace}"),
                *("--model", "{model}"),
            ),
            read_opencode,
            prompt_on_stdin=True,
        ),
    )
}

# Only looked for in what an agent said when it failed.
RATE_LIMIT = re.compile(
    r"(?<![\d.])(?:429|529)(?![\d.]*\d)|rate.?limit|too many requests|overloaded|quota|"
    r"usage.?limit|hit your limit|resource.?exhausted|insufficient.balance",
    re.IGNORECASE,
)
AUTHENTICATION = re.compile(
    r"(?:status|code|error|http)\W{0,4}401\b|unauthori[sz]ed|authentication.?(?:error|failed)|"
    r"(?:invalid|incorrect|missing|no).{0,3}(?:x-)?api.?key|api key not valid|"
    r"(?:please|need to) (?:log|sign) ?in|please run [`'\"]?/login|not logged in",
    re.IGNORECASE,
)
_WAIT = re.compile(
    r"(?:retry|try)(?:ing)?.{0,12}?(?:after|in|delay)[\"']?\s*[:=]?\s*[\"']?"
    r"(\d+(?:\.\d+)?)\s*(ms|m(?:in)?(?:ute)?s?\b|h(?:ou)?r?s?\b|d(?:ay)?s?\b|s|)",
    re.IGNORECASE,
)
_RESETS_IN = re.compile(r"resets_in_seconds\W{0,4}(\d+)")
_RESETS_AT = re.compile(r"(?:limit reached\||resets_at\W{0,4})(\d{10})\b")
_RESETS_CLOCK = re.compile(
    r"resets? (?:at )?(\d{1,2})(?::(\d\d))?\s*([ap])m(?:\s*\(([\w+/-]+)\))?", re.IGNORECASE
)
_UNITS = {"ms": 0.001, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def retry_after(text: str, now: float) -> float | None:
    """The seconds that a rate limit asks to wait, where the text says so."""
    if hit := _RESETS_IN.search(text):
        return float(hit[1])
    if hit := _RESETS_AT.search(text):
        return max(0.0, float(hit[1]) - now)
    if hits := _WAIT.findall(text):
        number, unit = hits[-1]  # of several tries, the latest
        return float(number) * _UNITS.get("ms" if unit == "ms" else unit[:1].lower(), 1.0)
    hit = _RESETS_CLOCK.search(text)
    return hit and _until(int(hit[1]), int(hit[2] or 0), hit[3].lower() == "p", hit[4], now)


def _until(hour: int, minute: int, afternoon: bool, zone: str | None, now: float) -> float | None:
    """Seconds until that time of day comes next."""
    try:
        present = datetime.fromtimestamp(now, ZoneInfo(zone) if zone else None)
        at = present.replace(hour=hour % 12 + 12 * afternoon, minute=minute, second=0)
    except (ValueError, OSError, KeyError):  # no such time, or no such zone here
        return None
    return ((at - present) % timedelta(days=1)).total_seconds()


def _events(output: str) -> list[dict[str, Any]]:
    """The lines that are JSON objects, or lists of them; others are not the agent's."""
    events: list[dict[str, Any]] = []
    for line in output.splitlines():
        if line.startswith(("{", "[")):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            several = value if isinstance(value, list) else [value]
            events.extend(event for event in several if isinstance(event, dict))
    return events


def _plain(output: str, message: str) -> str:
    """What stands between the events, and the agent's message: in the events
    themselves stand figures and names that look like a reason."""
    lines = [line for line in output.splitlines() if not line.startswith(("{", "["))]
    return "\n".join([*lines, message])


def _words(value: object, depth: int = 5) -> str:
    """An error's text, wherever it stands in what was reported."""
    if isinstance(value, dict) and depth:
        return " ".join(filter(None, (_words(one, depth - 1) for one in value.values())))
    return str(value) if isinstance(value, str | int) else ""


def _dollars(value: object) -> float:
    """An amount that can be added up: nothing negative, infinite or strange."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return 0.0
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return amount if math.isfinite(amount) and amount > 0 else 0.0


def _last_line(text: str) -> str:
    """The last line in which something can be read."""
    lines = (one_line(line) for line in reversed(text.splitlines()))
    return next(filter(None, lines), "")
