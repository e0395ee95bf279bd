"""What all commands share: a refusal is one line and an exit code, no traceback."""

from __future__ import annotations

import math
import sys
from typing import Any

import click


class Number(click.FloatRange):
    """A number in a range; neither infinite nor none."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class _Refusals(click.Command):
    """Whose refusals are one line, never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("error: interrupted", err=True)
            sys.exit(130)
        except BrokenPipeError:
            sys.exit(1)
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            line = str(error)
            if isinstance(error, OverflowError):
                line = f"a number that was given is too large: {line}"
            click.echo(f"error: {line}", err=True)
            sys.exit(code)


class OneCommand(_Refusals):
    """A program that is one command."""


class Commands(_Refusals, click.Group):
    """A program of several commands."""


def _exit_code(error: Exception) -> int | None:
    """1 for a refusal, 2 for wrong usage; None for what is a bug of ours."""
    # Importing the core at the top would cost more than --help may take.
    try:
        from modgrad.errors import ModgradError, UsageError
    except Exception:
        return 1  # the core refused to load, and `error` says why
    if isinstance(error, OverflowError):
        return 2
    if isinstance(error, OSError):
        return 1  # the system's own words name the file and the reason
    if not isinstance(error, ModgradError):
        return None
    code: int = getattr(error, "exit_code", 2 if isinstance(error, UsageError) else 1)
    return code
