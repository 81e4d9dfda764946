"""How the scheduler stands: what was asked of it, where the jobs are, and which one it is.

    document  (`scheduler`, `control`)   Control    written when somebody pauses or resumes it
    document  (`scheduler`, `present`)   Present    written when a scheduler takes over

With the jobs' records this is all there is to tell, so whoever can read the
store can tell it: no message to the scheduler, nothing written.  The counts are
of every organization's jobs, because the queue is one; nothing else of a job
is ever in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import Field

from runtime.job import JobStatus
from runtime.store.contract import Document, Store
from runtime.wire import WireModel

COLLECTION: Final = "scheduler"
COUNTED: Final = {
    "running": JobStatus.RUNNING,
    "queued": JobStatus.PENDING,
    "waiting": JobStatus.WAITING,
    "paused": JobStatus.PAUSED,
}
"""Name of a count -> the status of the records it counts."""

SCHEDULERS: Final = "scheduler"
"""How owner ids of schedulers begin; the others are hosts'."""

M = TypeVar("M", bound=WireModel)


class Control(WireModel):
    """What was asked of the scheduler last."""

    paused: bool = False
    draining: bool = False
    by: str = ""
    at: str = ""
    reason: str = ""
    """Why, as whoever asked has put it."""


class Present(WireModel):
    """The scheduler that took over last."""

    owner: str = ""
    epoch: int = 0
    max_concurrent: int = 0
    limits: dict[str, int] = Field(default_factory=dict)
    """Jobs at once of one organization, repository, agent and limit key; 0: as many as you like."""


def standing(control: Control, present: Present, counts: Mapping[str, int]) -> dict[str, Any]:
    """The status as the API answers it."""
    busy = counts["running"] or counts["queued"]
    return {
        "state": "PAUSED" if control.paused else "RUNNING" if busy else "IDLE",
        "draining": control.draining,
        **counts,
        "maxConcurrent": present.max_concurrent,
        "limits": present.limits,
        "changedBy": control.by,
        "changedAt": control.at,
        "reason": control.reason,
        "owner": present.owner,
        "epoch": present.epoch,
    }


async def read_standing(store: Store) -> dict[str, Any]:
    """The status as the store knows it; ERROR when no scheduler is at work."""
    (alive, control), counts = await asyncio.gather(
        asyncio.gather(read_alive(store), store.get(COLLECTION, "control")),
        asyncio.gather(
            *(store.count("job", None, [f"status={status.value}"]) for status in COUNTED.values())
        ),
    )
    counted = dict(zip(COUNTED, counts, strict=True))
    status = standing(read(control, Control), alive.present, counted)
    return status if alive.scheduler else {**status, "state": "ERROR"}


@dataclass(frozen=True)
class Alive:
    """Who holds a live lease, as the store knows it."""

    present: Present
    scheduler: bool
    """The scheduler that took over last is at work."""
    hosts: int


async def read_alive(store: Store) -> Alive:
    """Who is there; a process that was killed counts until its lease lapses."""
    health, document = await asyncio.gather(store.health(), store.get(COLLECTION, "present"))
    present = read(document, Present)
    hosts = sum(not owner.startswith(SCHEDULERS) for owner in health.owners)
    return Alive(present, present.owner in health.owners, hosts)


def read(document: Document | None, model: type[M]) -> M:
    """What a document says; the defaults when there is none."""
    return model() if document is None else model.model_validate_json(document.body)
