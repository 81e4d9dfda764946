"""What all commands share: their common options, their help and their session.

A command is a function that takes a `Session` first: async when it speaks HTTP,
plain when it starts or stops processes, so that Ctrl-C ends it at once.  Each
one has `--json`, `--url`, `--token` and `--data`, and an example in its help:
the class adds the former and refuses to be made without the latter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from actors.commands.failures import CommandError, UnreachableError, WrongUsageError
from actors.commands.http import PATIENCE_S, Api, connect
from actors.commands.output import Output
from actors.commands.settings import CommandSettings, is_loopback, local_key
from runtime.cluster import running, starting
from runtime.errors import NotRunningError, SettingsError, TroupeError

_EXPECTED = (CommandError, TroupeError, PermissionError, FileNotFoundError, NotADirectoryError)
"""What a command may fail with; anything else is a fault of ours, and shown as one."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@dataclass(frozen=True)
class Session:
    """One run of a command: where Troupe is, and where the answer goes."""

    settings: CommandSettings
    out: Output

    @property
    def data(self) -> Path:
        return self.settings.data_path

    @asynccontextmanager
    async def api(self, patience_s: float = PATIENCE_S) -> AsyncIterator[Api]:
        """The HTTP API of the Troupe that is meant.

        Raises:
            UnreachableError: none was named and none runs from the data directory.
        """
        url = _checked_url(self.settings.url) if self.settings.url else local_url(self.data)
        local = is_loopback(url)
        token = self.settings.token or (local_key(self.data) if local else None)
        if token and not (token.isascii() and token.isprintable()):
            raise WrongUsageError("The key has characters that no key has.", "Check TROUPE_TOKEN.")
        async with connect(url, token, local=local) as http:
            yield Api(http, patience_s, self.out.remark)


def as_failure(error: Exception) -> CommandError:
    """A failure with its exit code."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, NotRunningError):
        return UnreachableError(str(error), "Start it with: troupe up")
    if isinstance(error, SettingsError):
        return WrongUsageError(str(error))
    return CommandError(str(error))


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0:
            return url
    except ValueError:
        pass  # a bracket or a port that is none
    raise WrongUsageError(f"{url} is not an address.", "For example: http://127.0.0.1:8000")


def local_url(data: Path) -> str:
    """Where the Troupe of a data directory listens."""
    found = running(data)
    if found is None and starting(data):
        raise UnreachableError(
            f"Troupe is just starting here (data directory {data}).",
            "Wait until it answers with: troupe up",
        )
    if found is None:
        raise UnreachableError(
            f"Troupe is not running here (data directory {data}).",
            "Start it with: troupe up    or name one elsewhere with --url or TROUPE_URL",
        )
    return found.url


def _check_texts(params: Mapping[str, Any]) -> None:
    """Raise WrongUsageError for a text that is no UTF-8: no request could carry it."""
    for name, value in params.items():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise WrongUsageError(f"What is given as {name} is no UTF-8.") from error


class TroupeCommand(click.Command):
    """A command with the common options, an example, and failures as exit codes."""

    def __init__(self, *args: Any, examples: Sequence[str], **kwargs: Any) -> None:
        if not examples:
            raise ValueError("a command's help needs an example")
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params.extend(_common_options())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self.examples:
                # Written as it is typed: wrapped, it could not be copied.
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")

    def make_context(
        self, info_name: str | None, args: list[str], *more: Any, **extra: Any
    ) -> click.Context:
        as_json = "--json" in args  # what can't be parsed is told so, too
        try:
            return super().make_context(info_name, args, *more, **extra)
        except click.UsageError as error:
            if not as_json:
                raise
            hint = f"See: {error.ctx.command_path} --help" if error.ctx else None
            failure = WrongUsageError(error.format_message(), hint)
            failure.as_json = True
            raise failure from error

    def invoke(self, ctx: click.Context) -> Any:
        taken = {name: ctx.params.pop(name) for name in ("as_json", "url", "token", "data")}
        found = CommandSettings.from_env()
        given = {name: taken[name] for name in ("url", "token", "data") if taken[name]}
        session = Session(replace(found, **given), Output(taken["as_json"]))
        try:
            _check_texts({**ctx.params, **taken})
            code = self._run(session, ctx.params)
        except _EXPECTED as error:
            failure = as_failure(error)
            failure.as_json = taken["as_json"]
            raise failure from error
        except KeyboardInterrupt:
            session.out.remark("Interrupted; what was asked for goes on.")
            code = INTERRUPTED
        ctx.exit(code or 0)

    def _run(self, session: Session, params: dict[str, Any]) -> int | None:
        assert self.callback is not None
        body: Callable[..., int | Coroutine[Any, Any, int | None] | None] = self.callback
        code = body(session, **params)
        return asyncio.run(code) if isinstance(code, Coroutine) else code


class TroupeGroup(click.Group):
    """A group that runs its `default` when no command is named, and knows near names."""

    command_class = TroupeCommand

    def __init__(self, *args: Any, default: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        helps = {"-h", "--help"} & set(args)
        if self.default and not helps and (not args or args[0].startswith("-")):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are likely to be needed, not of the alphabet."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f" Did you mean `{ctx.command_path} {near[0]}`?" if near else ""
            raise click.UsageError(f"There is no command `{name}`.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON and nothing else."),
        click.Option(["--url"], metavar="URL", help="Troupe's address [TROUPE_URL]."),
        click.Option(["--token"], metavar="KEY", help="API key [TROUPE_TOKEN]."),
        click.Option(
            ["--data"],
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="Data directory [TROUPE_DATA, ~/.local/share/troupe].",
        ),
    ]
