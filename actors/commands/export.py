"""`troupe export`: an organization's audit trail as JSON Lines.

On the machine that Troupe runs on it reads the store itself, for any
organization: whoever can open the data directory may.  Elsewhere it asks over
HTTP, with an admin key of the organization.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click

from actors.commands.base import Session, TroupeCommand
from actors.commands.failures import CommandError, WrongUsageError
from runtime.client import Client
from runtime.clock import SystemClock, iso
from runtime.cluster import local_store
from runtime.errors import InvalidIdError
from runtime.ids import Ids, organization_id


@click.command(
    cls=TroupeCommand,
    examples=[
        "troupe export --organization acme trail.jsonl",
        "troupe export --organization acme --since 2026-11-01 --url https://troupe.example",
    ],
)
@click.argument("file", default="-", metavar="[FILE|-]")
@click.option("--organization", default="default", show_default=True, help="Whose trail.")
@click.option("--since", metavar="ISO", help="Only from this day or moment on (UTC).")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
async def export(
    session: Session, file: str, organization: str, since: str | None, force: bool
) -> None:
    """Write an organization's audit trail: who decided what and when, and what came of it.

    One JSON object a line, in the order of time; the last one says that the
    export is whole. Keys made and revoked, issues, jobs with cost and outcome,
    reviews, deliveries and commands of people, and every message without its
    content. Commands and messages are as old as retention lets them be: export
    at least that often to keep them for good.
    """
    moment = _moment(since)
    lines = _remote(session, organization, moment) if session.settings.url else _local(
        session, organization, moment
    )  # fmt: skip
    count = 0
    with _destination(file, force) as target:
        async with aclosing(lines) as found:
            async for line in found:
                await asyncio.to_thread(target.write, line + "\n")
                count += 1
    if file != "-":
        if session.out.as_json:
            return session.out.result({"file": file, "lines": count})
        session.out.say(f"{file}: {count} lines")


async def _local(session: Session, organization: str, since: str) -> AsyncGenerator[str]:
    from actors import audit  # noqa: PLC0415 - the other commands need no SQLite

    try:
        organization_id(organization)
    except InvalidIdError as error:
        raise WrongUsageError(str(error)) from error
    clock = SystemClock()
    async with local_store(session.data) as store:
        spool = await audit.gather(Client(store, clock, Ids(clock), organization), since)
    try:
        async for lines in spool.lines():
            for line in lines:
                yield line
        yield audit.end(spool)
    finally:
        spool.close()


async def _remote(session: Session, organization: str, since: str) -> AsyncGenerator[str]:
    from actors import audit  # noqa: PLC0415 - as above

    async with session.api() as api:
        whole = False
        async for line in _of(api.lines("/api/audit", since=since or None), organization):
            whole = json.loads(line)["type"] == audit.END
            yield line
        if not whole:
            raise CommandError("The export broke off before its end.", "Run it again.")


async def _of(lines: AsyncIterator[str], organization: str) -> AsyncIterator[str]:
    """The lines, if they are of the organization that was asked for."""
    async for line in lines:
        found = json.loads(line).get("organizationId", organization)
        if found != organization:
            raise WrongUsageError(
                f"This key is of the organization {found}.", f"Use --organization {found}."
            )
        yield line


def _moment(since: str | None) -> str:
    """A day or a moment as RFC 3339 in UTC; empty for none."""
    if since is None:
        return ""
    try:
        at = datetime.fromisoformat(since)
    except ValueError as error:
        raise WrongUsageError(
            f"{since} is no day and no moment.", "For example: 2026-11-01"
        ) from error
    return iso(round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000))


@contextmanager
def _destination(file: str, force: bool) -> Iterator[IO[str]]:
    """Standard output, or a file that gets its name when all is in it."""
    if file == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    final = Path(file).absolute()
    if final.exists() and not force:
        raise WrongUsageError(f"{file} is there already.", "Replace it with --force.")
    part = final.with_name(f".{final.name}.{secrets.token_hex(8)}.part")
    try:
        part.touch(mode=0o600)
        with part.open("w") as target:
            yield target
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)
