"""Orphans: records that say a job runs, though nobody has its run and nobody ends it.

Troupe itself never makes one: the run is a message, acknowledged in the commit
that ends it.  What was restored, imported or mended by hand may be one, and it
would hold its slot for ever; so a scheduler looks once, when it starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from runtime.ids import SCHEDULER, address
from runtime.job import AgentJob
from runtime.jobs.events import is_run_of
from runtime.jobs.rounds import Heard
from runtime.patience import patiently
from runtime.store.contract import BATCH_MAX, Store, StoredMessage


async def orphans(store: Store, running: Sequence[AgentJob]) -> set[str]:
    """The jobs of which neither the run nor its end is a pending message.

    One whose run ends meanwhile may be among them; its record has another
    revision then.
    """
    lost = [job for job in running if not await _has_run(store, job)]
    return {job.id for job in lost} - await ending(store, lost) if lost else set()


async def _has_run(store: Store, job: AgentJob) -> bool:
    async for message in _pending(store, address(job.organization_id, job.agent)):
        if is_run_of(message.message_id, job.id):
            return True
    return False


async def ending(store: Store, jobs: Sequence[AgentJob]) -> set[str]:
    """Those of the jobs of whose runs the scheduler has still to read an end.

    Only their own agents are believed: anybody may give a message such an id.
    """
    agents = {job.id: address(job.organization_id, job.agent) for job in jobs}
    found = set()
    async for stored in _pending(store, SCHEDULER):
        if stored.message_id.startswith("job.ended:"):
            heard = Heard.of(stored)
            if heard.ends and heard.job_id and agents.get(heard.job_id) == stored.sender:
                found.add(heard.job_id)
    return found


async def _pending(store: Store, agent: str) -> AsyncIterator[StoredMessage]:
    after = 0
    while page := await patiently(store.inbox, agent, after, BATCH_MAX):
        for message in page:
            yield message
        after = page[-1].seq
