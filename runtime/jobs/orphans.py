"""Orphans: records that say a job runs, though nobody has its run and nobody ends it.

Troupe itself never makes one: the run is a message, acknowledged in the commit
that ends it.  What was restored, imported or mended by hand may be one, and it
would hold its slot for ever; so a scheduler looks once, when it starts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    return lost - await _ending(store) if lost else lost


async def _has_run(store: Store, job: AgentJob) -> bool:
    pending = await _pending(store, address(job.organization_id, job.agent))
    return any(is_run_of(message.message_id, job.id) for message in pending)


async def _ending(store: Store) -> set[str]:
    """Jobs whose end the scheduler has still to read."""
    found = set()
    for message in await _pending(store, SCHEDULER):
        if message.message_id.startswith("job.ended:"):
            with suppress(ValueError, KeyError, TypeError):
                found.add(json.loads(message.body)["content"]["jobId"])
    return found


async def _pending(store: Store, agent: str) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    while True:
        after = found[-1].seq if found else 0
        page = await patiently(store.inbox, agent, after, BATCH_MAX)
        if not page:
            return found
        found += page
