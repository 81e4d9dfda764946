"""A schedule's ledger as the API tells it, and its audit: due times computed anew, and compared.

The judge is `runtime.schedule.audit`; here its records are made of what any
client can read, so the server's own reckoning has no part in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from actors.commands.failures import CommandError, RefusedError
from actors.commands.http import Api
from actors.commands.words import parse_time
from runtime.schedule.audit import Present, audit
from runtime.schedule.instants import text_of
from runtime.schedule.record import Occurrence, Revision, encode
from runtime.schedule.spec import FieldError, ScheduleBody, spec_of

REVISIONS_MAX: Final = 100_000
"""Revisions that an audit reads: a script that sets a schedule each hour makes so many in years."""
PAGE: Final = 200
OCCURRENCES_MAX: Final = 1_000_000
"""Outcomes that an audit reads; a year has about half as many minutes."""
NOT_FOUND: Final = 404


async def audited(
    api: Api,
    agent: str,
    name: str,
    since: datetime,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], list[str]]:
    """The audit of a schedule's ledger from `since` on: its figure, and a note for each mistake.

    `tell` is told how far it is. Where the schedule stands is read first: what is decided
    afterwards is not looked at.

    Raises:
        CommandError: there is more than an audit reads; of a part nothing could be said.
    """
    path = f"/api/agents/{quote(agent, safe=':')}/schedule"
    present: dict[str, Present] = {}
    whole_since = (await api.get("/api/scheduler/status")).get("ledgerSince")
    since_ms = max(round(since.timestamp() * 1000), _ms(whole_since) if whole_since else 0)
    try:
        now = await api.get(path, name=name)
        waiting = tuple(_ms(text) for text in now["waiting"])
        present[now["id"]] = Present(_ms(now["accountedUntil"]), waiting)
    except RefusedError as error:
        if (error.problem or {}).get("status") != NOT_FOUND:
            raise
    revisions = await api.items(f"{path}/revisions", REVISIONS_MAX + 1, name=name)
    if len(revisions) > REVISIONS_MAX:
        raise CommandError(f"It has more than {REVISIONS_MAX:,} revisions, too many to audit.")
    found: list[Occurrence] = []
    async for one in _occurrences(api, f"{path}/occurrences", name, since_ms):
        until = present.get(one.schedule_id)
        if until is None or one.cause != "time" or one.due_ms <= until.accounted_ms:
            found.append(one)
            to_ms = one.to_ms or one.due_ms
            if until and one.cause == "time" and to_ms > until.accounted_ms:  # it has grown since
                present[one.schedule_id] = replace(until, accounted_ms=to_ms)
        tell(f"Read {len(found):,} outcomes, back to {text_of(one.due_ms)}")
    tally = audit([_revision(one) for one in revisions], found, present, since_ms=since_ms)
    return tally.figure(), tally.notes


async def _occurrences(api: Api, path: str, name: str, since_ms: int) -> AsyncIterator[Occurrence]:
    cursor: str | None = None
    for _ in range(OCCURRENCES_MAX // PAGE):
        page = await api.get(path, limit=PAGE, cursor=cursor, name=name)
        for one in page["items"]:
            yield _occurrence(one)
        cursor = page.get("nextCursor")
        oldest = page["items"][-1] if page["items"] else None
        if not cursor or (oldest and _ms(oldest.get("until") or oldest["due"]) <= since_ms):
            return
    sentence = f"It has more than {OCCURRENCES_MAX:,} outcomes in that time, too many to audit."
    raise CommandError(sentence, "Look at fewer days: --days")


def _occurrence(one: dict[str, Any]) -> Occurrence:
    return Occurrence(
        id=one["id"],
        schedule_id=one["scheduleId"],
        agent_id=one["agentId"],
        name=one["name"],
        revision=one["revision"],
        outcome=one["outcome"],
        due_ms=_ms(one["due"]),
        at_ms=_ms(one["decidedAt"]),
        cause=one["cause"],
        to_ms=_ms(one["until"]) if one.get("until") else None,
        count=one["count"],
    )


def _revision(one: dict[str, Any]) -> Revision:
    after_ms = _ms(one["after"])
    body = ScheduleBody.model_validate(one["schedule"])
    try:
        spec = spec_of(body, one["agentId"], _ms(one.get("anchor") or one["after"]))
    except FieldError as error:
        sentence = f"Revision {one['revision']} can't be computed any more: {error.error}."
        raise CommandError(sentence, "Look at a time after it: --days") from error
    return Revision(
        schedule_id=one["scheduleId"],
        agent_id=one["agentId"],
        name=one["name"],
        revision=one["revision"],
        spec=msgspec.Raw(encode(spec)),
        from_ms=after_ms,
        tzdata=one["tzdata"],
        by=one["by"],
        to_ms=_ms(one["until"]) if one.get("until") else None,
    )


def _ms(text: str) -> int:
    at = parse_time(text)
    assert at is not None
    return round(at.timestamp() * 1000)
