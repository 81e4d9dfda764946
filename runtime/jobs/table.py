"""Where each job is that has not ended: queued, running, waiting or paused. In memory only.

It is rebuilt from the jobs' records at every start of the scheduler, and holds
nothing that they do not say.
"""

from __future__ import annotations

import heapq
from typing import Final

from runtime.job import AgentJob, JobStatus
from runtime.jobs.decisions import place_of
from runtime.schedule.queue import JobQueue, Limits, Place

STALE_MAX: Final = 64
"""Ends of waits that may outnumber the waits, as these have ended otherwise."""


class JobTable:
    """Places of jobs; every method is idempotent."""

    def __init__(self, limits: Limits) -> None:
        self._queue = JobQueue(limits)
        self._due: list[tuple[int, str]] = []
        """(time, job id); an entry that `_waiting` does not confirm is stale."""
        self._waiting: dict[str, int | None] = {}
        """Jobs without a slot -> when they are due; None: only a message makes them ready."""
        self._later: dict[str, tuple[Place, bool]] = {}
        """Those of `_waiting` with a place in the line: it, and whether it is for a due time."""
        self._aside: dict[tuple[str, str], str] = {}
        """(organization, held agent) -> the job whose own agent it is, and which had its turn."""
        self._paused: set[str] = set()

    def admit(self, job: AgentJob, now_ms: int) -> None:
        """Put a job where its record says it is; one that has ended is nowhere."""
        if job.status.final:
            return
        if job.status is JobStatus.RUNNING:
            self.started(job)
        elif job.status is JobStatus.PAUSED:
            self.paused(job.id)
        elif job.status is JobStatus.WAITING:
            self.wait_until(job.id, job.not_before_ms or None)
        elif job.not_before_ms > now_ms:
            self.queued_at(job, job.not_before_ms)
        else:  # one that has run before says nothing of when its wait was over
            has_run = job.started_at is not None
            self.queued(job, job.not_before_ms or (now_ms if has_run else 0))

    def queued(self, job: AgentJob, since_ms: int = 0) -> None:
        """It may run as soon as there is a slot, at its own place.

        Args:
            since_ms: when it came into the queue, unless it was filed later.
        """
        self._waiting.pop(job.id, None)
        self._later.pop(job.id, None)
        self._paused.discard(job.id)
        self._queue.add(_place(job, since_ms))

    def started(self, job: AgentJob) -> None:
        """It holds a slot; until it has let go it is nowhere else, whatever its record says."""
        self.forget(job.id)
        self._queue.start(place_of(job))

    def ended(self, job_id: str) -> None:
        """It has let go of its slot."""
        self._queue.end(job_id)

    def running_for(self, job_id: str) -> str | None:
        """Whose job it is, if it holds a slot."""
        return self._queue.running_for(job_id)

    def paused(self, job_id: str) -> None:
        self.forget(job_id)
        self._paused.add(job_id)

    def wait_until(self, job_id: str, at_ms: int | None) -> None:
        """It waits without a slot; None: only a message makes it ready."""
        self._waiting[job_id] = at_ms
        self._later.pop(job_id, None)
        if at_ms is not None:
            heapq.heappush(self._due, (at_ms, job_id))
            if len(self._due) > 2 * len(self._waiting) + STALE_MAX:
                self._due = [(at, job) for job, at in self._waiting.items() if at is not None]
                heapq.heapify(self._due)

    def queued_at(self, job: AgentJob, at_ms: int) -> None:
        """It is pending, but not before its time: an attempt has failed, or a due time is ahead."""
        self.wait_until(job.id, at_ms)
        self._later[job.id] = (_place(job, at_ms), is_for_due_time(job))

    def forget(self, job_id: str) -> None:
        """It is neither queued nor waiting nor paused any more."""
        self._queue.remove(job_id)
        self._waiting.pop(job_id, None)
        self._later.pop(job_id, None)
        self._paused.discard(job_id)

    def hold(self, organization: str, agent: str) -> None:
        """Start no job of an agent."""
        self._queue.hold(organization, agent)

    def let_go(self, organization: str, agent: str) -> None:
        """Start its jobs again."""
        self._queue.let_go(organization, agent)
        job_id = self._aside.pop((organization, agent), "")
        if job_id in self._later:
            del self._waiting[job_id]
            self._queue.add(self._later.pop(job_id)[0])

    def set_aside(self, place: Place, agent: str) -> None:
        """It has its turn, but its own agent is held: it holds no slot until that is let go."""
        self._queue.end(place.job_id)
        self.wait_until(place.job_id, None)
        self._later[place.job_id] = (place, False)
        self._aside[place.organization, agent] = place.job_id

    def is_open(self, job_id: str) -> bool:
        """Whether it is anywhere here: it has not ended."""
        return job_id in self._queue or job_id in self._waiting or job_id in self._paused

    def is_waiting(self, job_id: str) -> bool:
        return job_id in self._waiting

    def next(self) -> Place | None:
        """Take the next job that may start now; it holds a slot from here on."""
        chosen = self._queue.next()
        if chosen is not None:
            self._queue.start(chosen)
        return chosen

    def next_due_ms(self) -> int | None:
        """When the next timed wait ends; it may be stale, never late."""
        return self._due[0][0] if self._due else None

    def take_due(self, now_ms: int) -> tuple[list[str], list[int]]:
        """Queue the pending jobs whose time has come, and take the others whose wait has ended.

        Returns:
            Those others, and the due times of schedules whose jobs were queued.
        """
        waited: list[str] = []
        dues: list[int] = []
        while self._due and self._due[0][0] <= now_ms:
            at_ms, job_id = heapq.heappop(self._due)
            if self._waiting.get(job_id, -1) != at_ms:
                continue
            del self._waiting[job_id]
            later = self._later.pop(job_id, None)
            if later is None:
                waited.append(job_id)
                continue
            place, for_due_time = later
            self._queue.add(place)
            if for_due_time:
                dues.append(at_ms)
        return waited, dues

    @property
    def has_queued(self) -> bool:
        """Whether a job is in the queue; those that wait for their time are not."""
        return len(self._queue) > 0

    def oldest_ms(self) -> int | None:
        """Since when the job has been in the queue that has been there for longest.

        One that waits for its time, or has waited, is there only from the end of that on.
        """
        return self._queue.oldest_ms()

    def counts(self) -> dict[str, int]:
        """How many jobs are where; `queued` as the records say `pending`."""
        return {
            "running": self._queue.running,
            "queued": len(self._queue) + len(self._later),
            "waiting": len(self._waiting) - len(self._later),
            "paused": len(self._paused),
        }


def is_for_due_time(job: AgentJob) -> bool:
    """Whether a pending job with a time is that of a schedule's due time, decided early."""
    pending = job.status is JobStatus.PENDING and not job.attempts
    return pending and job.occurrence_id is not None and job.not_before_ms > 0


def _place(job: AgentJob, since_ms: int) -> Place:
    """The job's place, whose age is counted from a time on."""
    place = place_of(job)
    return place if since_ms <= place.queued_ms else place._replace(queued_ms=since_ms)
