"""`troupe letters`: what was given up, and another try of it."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from actors.commands.base import Session, TroupeGroup
from actors.commands.failures import RefusedError, WrongUsageError
from actors.commands.given import read_json
from actors.commands.http import Api
from actors.commands.output import visible
from actors.commands.words import age, first_line, moment, reason

LOOKED_AT_MAX: Final = 1_000
"""Letters among which one is looked for that is not named by its own id."""
NOT_FOUND: Final = 404


@click.group(cls=TroupeGroup, default="list")
def letters() -> None:
    """List dead letters, show one, or have it delivered once more. Without a command: list.

    A dead letter is a message or a job that was given up: every try of it has
    failed, or three hosts have died of it. It stays until it is redelivered.
    """


@letters.command("list", examples=["troupe letters", "troupe letters list --agent erp:acme --json"])
@click.option("--agent", metavar="AGENT", help="Only those for this agent.")
@click.option("--limit", type=click.IntRange(1, LOOKED_AT_MAX), default=50, show_default=True)
async def list_(session: Session, agent: str | None, limit: int) -> None:
    """List what was given up, the newest first."""
    async with session.api() as api:
        found = await api.items("/api/dead-letters", LOOKED_AT_MAX, agent=agent)
    found = sorted(found, key=lambda letter: letter["at"], reverse=True)[:limit]
    if session.out.as_json:
        return session.out.result(found)
    now = datetime.now(UTC)
    rows = [
        [
            _about(one),
            one["agent"],
            age(one["at"], now),
            str(one["attempts"]),
            one.get("reason") or "",
            first_line(one["error"]),
        ]
        for one in found
    ]
    columns = ["GIVEN UP", "AGENT", "AGE", "TRIES", "REASON", "ERROR"]
    return session.out.table(columns, rows, "Nothing was given up.")


@letters.command(
    "show",
    examples=[
        "troupe letters show job_01JD4W9GZ3N5",
        "troupe letters show job_01JD4W9GZ3N5 --json | jq .payload > payload.json",
    ],
)
@click.argument("id")
async def show(session: Session, id: str) -> None:
    """Show one, with its payload. ID is that of the message, the job or the letter."""
    async with session.api() as api:
        letter = await _find(api, id)
    if session.out.as_json:
        return session.out.result(letter)
    session.out.pairs(
        [
            ("job" if letter.get("jobId") else "message", _about(letter)),
            ("type", letter.get("messageType")),
            ("agent", letter["agent"]),
            ("from", letter["sender"]),
            ("why", reason(letter["reason"]) if letter.get("reason") else None),
            ("error", letter["error"]),
            ("tries", str(letter["attempts"])),
            ("given up", moment(letter["at"])),
            ("what to do", f"Mend the cause, then: troupe letters redeliver {_about(letter)}"),
            ("letter", letter["id"]),
        ]
    )
    session.out.say(visible(json.dumps(letter.get("payload"), indent=2, ensure_ascii=False)))
    return None


@letters.command(
    "redeliver",
    examples=[
        "troupe letters redeliver job_01JD4W9GZ3N5",
        "troupe letters redeliver 01JD4W9GZ3N5 --payload payload.json",
        "troupe letters redeliver job_01JD4W9GZ3N5 --payload -",
    ],
)
@click.argument("id")
@click.option(
    "--payload",
    metavar="FILE",
    help="JSON to be delivered in place of what was; - reads standard input.",
)
async def redeliver(session: Session, id: str, payload: str | None) -> None:
    """Try once more what was given up: as it was, or with another payload.

    A job goes on from its recorded steps. With another payload it is another
    job, which begins anew.
    """
    body = {} if payload is None else {"payload": _json(payload)}
    async with session.api() as api:
        letter = await _find(api, id)
        path = f"/api/dead-letters/{letter['id']}/redeliver"
        answer = await api.post(path, body, idempotency_key=secrets.token_hex(16))
    if session.out.as_json:
        return session.out.result(answer)
    if job := answer.get("jobId"):
        return session.out.say(f"Queued again: {job}. See: troupe jobs show {job}")
    sent, agent = answer["messageId"], letter["agent"]
    return session.out.say(f"Sent again as {sent}. See: troupe agents messages {agent}")


def _json(file: str) -> Any:
    hint = "Begin with: troupe letters show ID --json"
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise WrongUsageError(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WrongUsageError(f"{file} is no UTF-8.", hint) from error
    return read_json(text, file, hint)


def _about(letter: Mapping[str, Any]) -> str:
    """By what a person knows it."""
    return str(letter.get("jobId") or letter.get("messageId") or letter["id"])


async def _find(api: Api, id: str) -> dict[str, Any]:
    """The letter with that id, or about the message or job with it.

    Raises:
        RefusedError: there is none, or there are several.
    """
    listed = await api.items("/api/dead-letters", LOOKED_AT_MAX)
    found = {one["id"] for one in listed if id in (one["id"], _about(one))} or {id}
    if len(found) > 1:
        raise RefusedError(
            f"{len(found)} dead letters are about {id}.",
            "Name one by its own id: " + ", ".join(sorted(found)),
        )
    try:
        opened: dict[str, Any] = await api.get(f"/api/dead-letters/{found.pop()}")
    except RefusedError as error:
        if (error.problem or {}).get("status") != NOT_FOUND:
            raise
        raise RefusedError(
            f"There is no dead letter of {id}.", "See what there is: troupe letters", error.problem
        ) from error
    return opened
