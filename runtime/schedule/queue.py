"""Which job is next: priority with ageing, under limits. Pure.

A job's place is `queued_ms + rank * AGEING_MS`, fixed when it is queued: among
equals the oldest is first, and waiting one AGEING_MS is worth one step of
priority, so nothing starves and nothing has to be re-sorted.  A job that was
interrupted keeps its `queued_ms` and with it its place.

Jobs are kept in one heap an organization; the next job is the best head among
the organizations that are below their limit.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass

from runtime.job import Priority

AGEING_MS = 10 * 60 * 1000
"""Waiting this long outweighs one step of priority."""


@dataclass(frozen=True)
class Limits:
    """How many jobs may run at once."""

    total: int = 5
    organization: int = 5


@dataclass(frozen=True, order=True)
class Place:
    """A queued job; sorts by who is next."""

    key_ms: int
    job_id: str
    organization: str


def place(job_id: str, organization: str, queued_ms: int, priority: Priority) -> Place:
    return Place(queued_ms + priority.rank * AGEING_MS, job_id, organization)


class JobQueue:
    """The queued jobs and the counts of the running ones."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._heaps: dict[str, list[Place]] = {}
        self._queued: dict[str, Place] = {}
        self._running: dict[str, str] = {}
        """Job id -> organization."""
        self._by_organization: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._queued)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._queued or job_id in self._running

    @property
    def running(self) -> int:
        return len(self._running)

    def running_for(self, job_id: str) -> str | None:
        """The organization of a job that counts as running."""
        return self._running.get(job_id)

    def add(self, one: Place) -> None:
        """Queue a job; one that is queued or running already is passed over."""
        if one.job_id in self._queued or one.job_id in self._running:
            return
        self._queued[one.job_id] = one
        heapq.heappush(self._heaps.setdefault(one.organization, []), one)

    def remove(self, job_id: str) -> bool:
        """Take a job out of the queue; False when it was not in it."""
        return self._queued.pop(job_id, None) is not None

    def start(self, job_id: str, organization: str) -> None:
        """Count a job as running."""
        if job_id not in self._running:
            self._running[job_id] = organization
            self._by_organization[organization] += 1

    def end(self, job_id: str) -> None:
        """A running job has let go of its slot. Idempotent."""
        organization = self._running.pop(job_id, None)
        if organization is not None:
            self._by_organization[organization] -= 1

    def next(self) -> Place | None:
        """Take the next job that may run now out of the queue."""
        if len(self._running) >= self.limits.total:
            return None
        best: list[Place] | None = None
        for organization, heap in list(self._heaps.items()):
            while heap and self._queued.get(heap[0].job_id) is not heap[0]:
                heapq.heappop(heap)
            if not heap:
                del self._heaps[organization]
            elif self._by_organization[organization] < self.limits.organization and (
                best is None or heap[0] < best[0]
            ):
                best = heap
        if best is None:
            return None
        chosen = heapq.heappop(best)
        del self._queued[chosen.job_id]
        return chosen

    def ahead_of(self, one: Place) -> int:
        """How many queued jobs are before it."""
        return sum(other < one for other in self._queued.values())
