"""Orphans: records that say a job runs, though nobody has its run and nobody ends it.

Troupe itself never makes one: the run is a message, acknowledged in the commit
that ends it.  What was restored, imported or mended by hand may be one, and it
would hold its slot for ever; so a scheduler looks once, when it starts.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from runtime.ids import SCHEDULER, address
from runtime.job import AgentJob
from runtime.jobs.events import is_run_of
from runtime.patience import patiently
from runtime.store.contract import BATCH_MAX, Store, StoredMessage


async def orphans(store: Store, running: Sequence[AgentJob]) -> set[str]:
    """The jobs of which neither the run nor its end is a pending message.

    One whose run ends meanwhile may be among them; its record has another
    revision then.
    """
    lost = {job.id for job in running if not await _has_run(store, job)}
    return lost - await ending_jobs(store) if lost else lost


async def _has_run(store: Store, job: AgentJob) -> bool:
    async for message in _pending(store, address(job.organization_id, job.agent)):
        if is_run_of(message.message_id, job.id):
            return True
    return False


async def ending_jobs(store: Store) -> set[str]:
    """Jobs whose end the scheduler has still to read."""
    found = set()
    async for message in _pending(store, SCHEDULER):
        if message.message_id.startswith("job.ended:"):
            with suppress(ValueError, KeyError, TypeError):
                found.add(json.loads(message.body)["content"]["jobId"])
    return found


async def _pending(store: Store, agent: str) -> AsyncIterator[StoredMessage]:
    after = 0
    while page := await patiently(store.inbox, agent, after, BATCH_MAX):
        for message in page:
            yield message
        after = page[-1].seq
