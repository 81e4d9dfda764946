"""An organization brought to rest: nothing new comes, and nothing of it is under way.

Its keys are revoked first.  Then whatever is open is cancelled by the same
messages a person would send, again and again until nothing is left, because an
issue may have begun another job meanwhile.  At rest also means that the scheduler
has heard of every end: what it still waits for would hold a slot.  Last, agents
that are held are let go.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final

from actors.commands.failures import CommandError
from runtime.client import Client
from runtime.ids import SCHEDULER, SCHEDULER_AGENT, SYSTEM, split
from runtime.job import JobStatus
from runtime.jobs.holds import HOLDS
from runtime.keys import CACHE_TTL_S, Keys
from runtime.keys import COLLECTION as KEYS
from runtime.store.contract import Store

REST_WAIT_S: Final = 60.0
LOOK_S: Final = 0.2
PAGE: Final = 200
OPEN_ISSUES: Final = ("pending", "queued", "processing", "review")
OPEN_JOBS: Final = tuple(status.value for status in JobStatus if not status.final)


async def revoke_keys(store: Store, keys: Keys, organization: str) -> list[str]:
    """Revoke every key of the organization; returns, with their ids, when none opens any more."""
    found: list[str] = []
    active = 0
    terms, after = [f"organization={organization}"], None
    while page := await store.list_documents(KEYS, SYSTEM, terms, after, PAGE, False):
        for document in page:
            found.append(document.key)
            if not json.loads(document.body).get("revokedAt"):
                await keys.revoke(document.key, organization)
                active += 1
        after = page[-1].key
    if active:
        await asyncio.sleep(2 * CACHE_TTL_S)  # a key is remembered, and a stream looks, that long
    return found


async def bring_to_rest(client: Client, on_progress: Callable[[str], None]) -> None:
    """Cancel what is open, and return when nothing of the organization is under way.

    Raises:
        CommandError: something did not end within `REST_WAIT_S`; repeat it.
    """
    asked: set[str] = set()
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + REST_WAIT_S
    while True:
        issues = await _open(client, "issue", OPEN_ISSUES)
        jobs = await _open(client, "job", OPEN_JOBS)
        at_rest = not issues and not jobs and not await _unheard(client)
        if at_rest and not await _let_go(client):
            return
        if clock() > deadline_s:
            raise CommandError(
                f"{len(issues)} issues and {len(jobs)} jobs did not end; nothing was purged.",
                "Its keys are revoked. Run it again, or after: troupe down && troupe up",
            )
        fresh = [id for id in (*issues, *jobs) if id not in asked]
        if fresh:
            on_progress(f"Cancelling {len(issues)} issues and {len(jobs)} jobs")
            await _cancel(client, fresh)
            asked.update(fresh)
        await asyncio.sleep(LOOK_S)


async def _open(client: Client, collection: str, statuses: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for status in statuses:
        after = None
        while page := await client.list(collection, {"status": status}, after, PAGE):
            found += [document.key for document in page]
            after = page[-1].key
    return found


async def _cancel(client: Client, ids: list[str]) -> None:
    for id in ids:
        if id.startswith("issue"):
            await client.send(f"issue:{id}", {"by": "purge"}, "issue.cancel")
        else:
            await client.send(SCHEDULER_AGENT, {"jobId": id, "by": "purge"}, "job.cancel")


async def _let_go(client: Client) -> bool:
    """Have the scheduler forget the agents that are held; whether there are any.

    It keeps them in mind: whoever has the organization's name next would find them held.
    """
    held = await client.list(HOLDS, None, limit=PAGE)
    for document in held:
        content = {"agentId": split(document.key)[1], "by": "purge"}
        await client.send(SCHEDULER_AGENT, content, "agent.resume")
    return bool(held)


async def _unheard(client: Client) -> bool:
    """Whether the scheduler has yet to hear something from the organization."""
    after, own = 0, f"{client.organization}/"
    while page := await client.store.inbox(SCHEDULER, after, PAGE):
        if any(message.sender.startswith(own) for message in page):
            return True
        after = page[-1].seq
    return False
