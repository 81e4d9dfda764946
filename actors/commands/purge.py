"""`troupe purge`: everything of an organization is removed, for good.

Troupe runs meanwhile, and other organizations notice nothing.  It may be cut
off at any point and run again; what it reports is what it found.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import click

from actors.commands import remains
from actors.commands.base import Session, TroupeCommand
from actors.commands.failures import CommandError, WrongUsageError
from actors.commands.quiet import bring_to_rest, revoke_keys
from runtime.client import Client
from runtime.clock import SystemClock
from runtime.cluster import ClusterSettings, local_store
from runtime.cluster.operator import ensure_admin_key
from runtime.cluster.settings import DataDir
from runtime.errors import InvalidIdError
from runtime.ids import HOME, SYSTEM, Ids, organization_id
from runtime.keys import COLLECTION as KEYS
from runtime.keys import Keys
from runtime.retention import UpkeepStore
from runtime.store.contract import Commit, Put

ROWS: Final = 200
"""Removed in one call of the store."""
SHARE: Final = 0.5
"""Of the store's time, at most; somebody waits for it, so it is more than retention's."""
COUNTED: Final = ("issue", "job", "review", "artifact", "agent")


@click.command(
    cls=TroupeCommand,
    examples=["troupe purge --organization acme", "troupe purge --organization acme --yes --json"],
)
@click.option("--organization", required=True, help="Whose everything.")
@click.option("--yes", is_flag=True, help="Do not ask for the organization's name.")
async def purge(session: Session, organization: str, yes: bool) -> None:
    """Remove an organization: everything of it, irreversibly.

    Its keys are revoked, its issues and jobs cancelled. Then its issues, jobs,
    reviews, artifacts, messages, agents, events and keys are removed from the
    store, and from the disk its deliveries, workspaces and the mirrors of
    repositories that nobody else works on. Branches delivered to repositories
    stay, and so do backups: make no more use of those you have.

    Export the audit trail first, if it must be kept: troupe export.
    """
    _check(session, organization, yes)
    async with local_store(session.data) as found:
        store = cast(UpkeepStore, found)
        clock = SystemClock()
        client = Client(store, clock, Ids(clock), organization, "purge")
        counts = {name: await client.count(name) for name in COUNTED}
        rests = await remains.find(store, organization)
        session.out.progress(f"Revoking the keys of {organization}")
        keys = await revoke_keys(store, Keys(store, clock), organization)
        await bring_to_rest(client, session.out.progress)
        session.out.progress("Removing everything")
        rows = await _remove_all(store, organization)
        await _forget_keys(store, keys)
    folders = await remains.clear(session.data, rests)
    if organization == HOME:
        await ensure_admin_key(ClusterSettings.read(DataDir(session.data)))
    _report(session, organization, {**counts, "key": len(keys)}, rows, folders)


def _check(session: Session, organization: str, yes: bool) -> None:
    if session.settings.url:
        raise WrongUsageError(
            "This works on the machine that Troupe runs on.", "Run it there, without --url."
        )
    try:
        organization_id(organization)
    except InvalidIdError as error:
        raise WrongUsageError(str(error)) from error
    if organization == SYSTEM:
        raise WrongUsageError("The organization `system` is Troupe's own.")
    if yes:
        return
    if not session.out.terminal:
        raise WrongUsageError("This can't be undone.", "Say so with --yes.")
    typed = click.prompt(f"This can't be undone. Type {organization} to go on", err=True)
    if typed != organization:
        raise CommandError("That is another name; nothing was done.")


async def _remove_all(store: UpkeepStore, organization: str) -> int:
    """Round after round, until one finds nothing; how many rows went."""
    total = 0
    while rows := await _round(store, organization):
        total += rows
    return total


async def _round(store: UpkeepStore, organization: str) -> int:
    rows, more = 0, True
    clock = asyncio.get_running_loop().time
    while more:
        begun_s = clock()
        swept = await store.purge(organization, ROWS)
        rows, more = rows + swept.rows, swept.more
        await asyncio.sleep((clock() - begun_s) * (1 / SHARE - 1))
    return rows


async def _forget_keys(store: UpkeepStore, keys: list[str]) -> None:
    """Keys are the system's documents, so no purge finds them."""
    for key_id in keys:
        await store.commit([Commit(SYSTEM, puts=(Put(KEYS, key_id, SYSTEM, None),))])


def _report(
    session: Session, organization: str, counts: dict[str, int], rows: int, folders: int
) -> None:
    if session.out.as_json:
        removed = {f"{name}s": count for name, count in counts.items()}
        return session.out.result(
            {"organization": organization, **removed, "rows": rows, "folders": folders}
        )
    told = ", ".join(f"{count} {name}s" for name, count in counts.items())
    session.out.say(f"{organization} is gone: {told}; {rows} rows and {folders} folders in all.")
    session.out.say("Backups that were made before still hold it.")
