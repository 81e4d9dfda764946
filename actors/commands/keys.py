"""`troupe keys`: API keys, made and revoked on the machine that Troupe runs on.

There is no HTTP route for this on purpose: whoever can open the data directory
is the administrator, and nobody else can make a key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import click
from pydantic import ValidationError

from actors.commands.base import Session, TroupeGroup
from actors.commands.failures import WrongUsageError
from actors.commands.words import age
from runtime.clock import SystemClock
from runtime.cluster import local_store
from runtime.errors import InvalidIdError
from runtime.keys import Key, Keys, Role

ROLES = tuple(role.value for role in Role)


@click.group(cls=TroupeGroup, default="list")
def keys() -> None:
    """Make, list and revoke API keys; on this machine only. Without a command: list."""


@keys.command(
    "create",
    examples=[
        "troupe keys create --organization acme --role operator --name ci",
        "TROUPE_TOKEN=$(troupe keys create --role viewer --json | jq -r .token)",
    ],
)
@click.option("--organization", default="default", show_default=True, help="Whose key it is.")
@click.option("--role", type=click.Choice(ROLES), default="operator", show_default=True)
@click.option("--name", default="key", show_default=True, help="Who will use it; shown in records.")
async def create(session: Session, organization: str, role: str, name: str) -> None:
    """Make a key. It is shown once and kept nowhere.

    A viewer reads, an operator also submits, reviews and cancels. An admin of
    `default`, which runs this installation, also stops the scheduler.
    """
    async with _keys(session) as known:
        try:
            token, key = await known.create(organization, Role(role), name)
        except (InvalidIdError, ValidationError) as error:
            raise WrongUsageError(
                f"No key can be made for {name!r} of {organization!r}.",
                "An organization is 1..64 letters, digits, `_`, `.`, `-`; a name is one line.",
            ) from error
    if session.out.as_json:
        return session.out.result({**key.to_wire(), "token": token})
    session.out.say(token)
    session.out.remark(f"{key.id}: {role} of {organization}. It is not shown again.")


@keys.command("list", examples=["troupe keys", "troupe keys list --organization acme --json"])
@click.option("--organization", help="Only keys of this organization.")
async def list_(session: Session, organization: str | None) -> None:
    """List keys, revoked ones too; the keys themselves are kept nowhere."""
    async with _keys(session) as known:
        found = await known.list(organization)
    if session.out.as_json:
        return session.out.result([key.to_wire() for key in found])
    rows = [_row(key, datetime.now(UTC)) for key in found]
    columns = ["KEY", "ORGANIZATION", "ROLE", "AGE", "STATUS", "NAME"]
    session.out.table(columns, rows, "No keys. Make one: troupe keys create")


@keys.command("revoke", examples=["troupe keys revoke key_3f2a9c10be77"])
@click.argument("id")
async def revoke(session: Session, id: str) -> None:
    """Make a key worthless; what it has open ends within seconds."""
    async with _keys(session) as known:
        key = await known.revoke(id)
    if session.out.as_json:
        return session.out.result(key.to_wire())
    session.out.say(f"{key.id} ({key.name}) is revoked.")


@asynccontextmanager
async def _keys(session: Session) -> AsyncIterator[Keys]:
    if session.settings.url:
        raise WrongUsageError(
            "Keys are made on the machine that Troupe runs on.", "Run it there, without --url."
        )
    async with local_store(session.data) as store:
        yield Keys(store, SystemClock())


def _row(key: Key, now: datetime) -> list[str]:
    status = "revoked" if key.revoked_at else "active"
    return [key.id, key.organization_id, key.role.value, age(key.created_at, now), status, key.name]
