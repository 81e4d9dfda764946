"""The job records the scheduler knows without asking: what it has read, or written itself.

While a job is not running the scheduler is the only writer of its record, so
what it read or wrote last is what the store has.  From a start on the host is
the writer, and the record is forgotten here until it is read again.  Whatever
is wrong here is found by the store: each write names the revision it follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from runtime.clock import LATEST_MS
from runtime.errors import InvalidIdError
from runtime.ids import SCHEDULER_AGENT, agent_id
from runtime.job import AgentJob, JobStatus
from runtime.jobs.events import ms_of
from runtime.patience import patiently
from runtime.store.contract import MANY_MAX, Document, Store

logger = logging.getLogger(__name__)

KEPT_MAX: Final = 4_096
"""Records kept; of more, those that were read first are read again when they are needed."""

OWN: Final = frozenset({JobStatus.PENDING, JobStatus.WAITING, JobStatus.PAUSED})
"""Whose record only the scheduler writes."""


class Record(Struct, frozen=True):
    """A job as it is in the store."""

    job: AgentJob
    revision: int
    organization: str
    """Whose document it is."""


def record_of(document: Document) -> Record | None:
    """The job of a record.

    None: it can't be read, says that it is another job or of another organization, or is for
    nobody who could do it; whoever wrote it can't have it run, and stops nobody else's.
    """
    try:
        job = AgentJob.from_json(document.body)
        own = job.id == document.key and job.organization_id == document.organization
        by = agent_id(job.agent)
        ms_of(job.queued_at)
        if own and by != SCHEDULER_AGENT and job.not_before_ms <= LATEST_MS:
            return Record(job, document.revision, document.organization)
        error = f"it says {job.id} of {job.organization_id} for {job.agent}"
    except (ValueError, InvalidIdError) as unreadable:
        error = str(unreadable)
    logger.warning(
        "the record of %s is passed over: %s",
        document.key,
        error,
        extra={"action": "job.unreadable", "job": document.key},
    )
    return None


class JobRecords:
    """Reads many at once and keeps what can't have changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, Record] = {}
        self._new: set[str] = set()
        """Those read or written since `trim`."""
        self.get = self._kept.get
        """The record of a job, if it is known."""

    async def read(self, job_ids: Iterable[str]) -> None:
        """Know these jobs, those of them that there are."""
        missing = [id for id in dict.fromkeys(job_ids) if id not in self._kept]
        for document in await self.documents("job", missing):
            if (record := record_of(document)) is not None:
                self._kept[document.key] = record
                self._new.add(document.key)

    async def read_anew(self, job_id: str) -> Record | None:
        """What the store says now, whatever was known."""
        self.forget(job_id)
        await self.read([job_id])
        return self.get(job_id)

    async def documents(self, collection: str, keys: list[str]) -> list[Document]:
        """Those of the documents that are there."""
        if len(keys) <= MANY_MAX:
            return await self._many(collection, keys) if keys else []
        parts = [keys[at : at + MANY_MAX] for at in range(0, len(keys), MANY_MAX)]
        calls = (self._many(collection, part) for part in parts)
        return [document for found in await asyncio.gather(*calls) for document in found]

    async def _many(self, collection: str, keys: list[str]) -> list[Document]:
        return await patiently(self._store.get_many, collection, keys)

    def wrote(self, job: AgentJob) -> None:
        """A decision writes this over what is known, or makes it."""
        before = self._kept.get(job.id)
        organization = job.organization_id if before is None else before.organization
        revision = 0 if before is None else before.revision
        self._kept[job.id] = Record(job, revision + 1, organization)
        self._new.add(job.id)

    def forget(self, job_id: str) -> None:
        """Somebody else may write it from now on, or it is not as it was thought to be."""
        self._kept.pop(job_id, None)

    def trim(self) -> None:
        """Forget what others write, and keep the bound; not while something is being decided."""
        for job_id in self._new:
            record = self._kept.get(job_id)
            if record is not None and record.job.status not in OWN:
                del self._kept[job_id]
        self._new.clear()
        while len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
