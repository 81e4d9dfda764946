"""Which schedule is next: all schedules in memory, by the time they wake.  In memory only.

Schedules that wake at the same millisecond share a bucket, so the heap has one
entry a moment and a thousand that are due together are taken at once, without a
look at each.  What is here is read from the documents at every start of the
scheduler.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from runtime.schedule.jitter import jitter_ms
from runtime.schedule.plan import Plan
from runtime.schedule.record import Schedule, Spec, decode_spec
from runtime.schedule.spec import plan_of


class Entry:
    """One schedule: its document as it was last written or read."""

    __slots__ = ("_plan", "_spec", "bucket", "doc_revision", "key", "ready", "record")

    def __init__(self, key: str, doc_revision: int, record: Schedule) -> None:
        self.key = key
        self.bucket: dict[str, Entry] | None = None
        """Those that wake when it does, by their keys."""
        self.ready: object | None = None
        """What `writer.prepared` has made of its next due time."""
        self.set(record, doc_revision)

    def set(self, record: Schedule, doc_revision: int) -> None:
        self.record = record
        self.doc_revision = doc_revision
        self.ready = None
        self._spec: Spec | None = None
        self._plan: Plan | None = None

    def moved(self, record: Schedule) -> None:
        """Its document was written once more, the spec as it was."""
        self.record = record
        self.doc_revision += 1
        self.ready = None

    @property
    def spec(self) -> Spec:
        if self._spec is None:
            self._spec = decode_spec(self.record.spec)
        return self._spec

    @property
    def plan(self) -> Plan | None:
        """What its due times are; None: events alone make it run.

        Raises:
            InvalidScheduleError: the expression has no meaning any more.
        """
        if self._plan is None and self.spec.kind != "event":
            self._plan = plan_of(self.spec)
        return self._plan

    def start_ms(self, due_ms: int) -> int:
        """When a due time is to start: with its jitter."""
        width_s = self.spec.jitter_s
        if not width_s or self.plan is None:
            return due_ms
        next_ms = self.plan.next_after(due_ms)
        gap_ms = None if next_ms is None else next_ms - due_ms
        return due_ms + jitter_ms(self.record.id, due_ms, width_s * 1000, gap_ms)

    @property
    def can_catch_up(self) -> bool:
        """Something waits, and only its turn keeps it from starting."""
        record = self.record
        return (
            record.status == "active"
            and bool(record.waiting)
            and (not record.active or self.spec.overlap == "allow")
        )


class PlanTable:
    """Every schedule there is; each of the indexes follows `put` and `remove`."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._buckets: dict[int, dict[str, Entry]] = {}
        self._moments: list[int] = []
        self._jobs: dict[str, Entry] = {}
        self._late: dict[str, dict[str, Entry]] = {}
        """Organization -> the schedules that may catch up, in the order of their turns."""
        self._on_event: dict[tuple[str, str], dict[str, Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def put(self, entry: Entry) -> None:
        """Add a schedule, or file it anew after it has changed."""
        record = entry.record
        self._entries[entry.key] = entry
        for job in record.active:
            self._jobs[job] = entry
        self._file(entry, record.wake_ms)
        self._file_late(entry)
        if record.next_ms is None and entry.spec.kind == "event":
            self._on_event.setdefault((record.organization_id, entry.spec.expression), {})[
                entry.key
            ] = entry

    def _file(self, entry: Entry, wake_ms: int | None) -> None:
        """Into the bucket of a time, out of the one that it was in."""
        bucket = None
        if wake_ms is not None:
            bucket = self._buckets.get(wake_ms)
            if bucket is None:
                bucket = self._buckets[wake_ms] = {}
                heapq.heappush(self._moments, wake_ms)
        if bucket is entry.bucket:
            return
        if entry.bucket is not None:
            entry.bucket.pop(entry.key, None)
        entry.bucket = bucket
        if bucket is not None:
            bucket[entry.key] = entry

    def _file_late(self, entry: Entry) -> None:
        if entry.can_catch_up:
            mine = self._late.setdefault(entry.record.organization_id, {})
            mine.setdefault(entry.key, entry)
        elif self._late:
            self.not_late(entry)

    def not_late(self, entry: Entry) -> None:
        """It has nothing to catch up until it is filed again."""
        mine = self._late.get(entry.record.organization_id)
        if mine is not None and mine.pop(entry.key, None) is not None and not mine:
            del self._late[entry.record.organization_id]

    def remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._file(entry, None)
        self.not_late(entry)
        for job in entry.record.active:
            self._jobs.pop(job, None)
        if entry.spec.kind == "event":
            self._on_event.get((entry.record.organization_id, entry.spec.expression), {}).pop(
                key, None
            )

    def of_job(self, job_id: str) -> Entry | None:
        """The schedule that a job was fired by, until it is known to have ended."""
        return self._jobs.get(job_id)

    def forget_jobs(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            self._jobs.pop(job, None)

    def of_event(self, organization: str, event: str) -> list[Entry]:
        return list(self._on_event.get((organization, event), {}).values())

    def next_wake_ms(self) -> int | None:
        """When the next schedule wakes; it may be stale, never late."""
        return self._moments[0] if self._moments else None

    def next_look_ms(self, near_ms: int, early_ms: int) -> int | None:
        """When the next schedule wakes, or is `early_ms` before it if it wakes after `near_ms`."""
        near, then_ms = self._near(near_ms)
        looks = near[:1] if then_ms is None else [*near[:1], then_ms - early_ms]
        return min(looks, default=None)

    def _near(self, until_ms: int) -> tuple[list[int], int | None]:
        """The moments up to a time, in order, and the first after them; looks at no others."""
        near: list[int] = []
        then_ms: int | None = None
        places = [0]
        while places:
            place = places.pop()
            if place >= len(self._moments):
                continue
            at_ms = self._moments[place]
            if at_ms <= until_ms:
                near.append(at_ms)
                places += (2 * place + 1, 2 * place + 2)  # in a heap what is later is below
            elif then_ms is None or at_ms < then_ms:
                then_ms = at_ms
        return sorted(near), then_ms

    def take_due(self, now_ms: int) -> list[Entry]:
        """Take the schedules that wake up to now, those due first first."""
        found: list[Entry] = []
        while self._moments and self._moments[0] <= now_ms:
            found += self._buckets.pop(heapq.heappop(self._moments)).values()
        return found

    def soon(self, until_ms: int, limit: int) -> list[Entry]:
        """Some of the schedules that wake next, up to a time, that are not prepared."""
        return list(islice((one for one in self._waking(until_ms) if one.ready is None), limit))

    def prepared(self, until_ms: int) -> list[Entry]:
        """The schedules that wake next, up to a time, and are prepared; those due first first."""
        return [entry for entry in self._waking(until_ms) if entry.ready is not None]

    def _waking(self, until_ms: int) -> Iterator[Entry]:
        return chain.from_iterable(
            self._buckets[at_ms].values() for at_ms in self._near(until_ms)[0]
        )

    def late_organizations(self) -> list[str]:
        """Those with something to catch up, in the order of their turns."""
        return list(self._late)

    def take_late(self, organization: str) -> Entry | None:
        """The one whose turn it is."""
        mine = self._late.get(organization)
        if not mine:
            return None
        entry = next(iter(mine.values()))
        self.not_late(entry)
        if organization in self._late:  # the others first
            self._late[organization] = self._late.pop(organization)
        return entry
