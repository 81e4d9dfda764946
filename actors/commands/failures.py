"""How a command can fail: one class an exit code, each with the next thing to do.

    0 done   1 failed   2 wrong usage   3 not running or unreachable
    4 refused by the server   5 timed out   130 interrupted

The sentence goes to standard error; with `--json` it is one JSON object there,
so that standard output holds results only.
"""

from __future__ import annotations

import json
from typing import IO, Any

import click

EXIT_CODES = """\b
Exit codes:
  0  done
  1  it failed: the work ended without its result
  2  wrong usage
  3  Troupe is not running, or can't be reached
  4  the server refused
  5  timed out; what was asked for goes on
  130  interrupted; what was asked for goes on"""


class CommandError(click.ClickException):
    """The command failed; `hint` says what to do next."""

    exit_code = 1

    def __init__(
        self, message: str, hint: str | None = None, problem: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.problem = problem
        self.as_json = False

    def to_wire(self) -> dict[str, Any]:
        """The failure as `--json` shows it."""
        wire = {"exitCode": self.exit_code, "message": self.message, "hint": self.hint}
        return {**wire, "problem": self.problem} if self.problem else wire

    def show(self, file: IO[Any] | None = None) -> None:
        if self.as_json:
            click.echo(json.dumps({"error": self.to_wire()}), file=file, err=file is None)
            return
        click.echo(f"Error: {self.message}", file=file, err=file is None)
        if self.hint:
            click.echo(self.hint, file=file, err=file is None)


class WrongUsageError(CommandError):
    """What was typed can't be meant."""

    exit_code = 2


class UnreachableError(CommandError):
    """Troupe is not running here, or does not answer there."""

    exit_code = 3


class RefusedError(CommandError):
    """The server answered with an error."""

    exit_code = 4


class TimedOutError(CommandError):
    """It took longer than the user wanted to wait."""

    exit_code = 5
