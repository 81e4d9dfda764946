"""The audit of a schedule: its due times, computed anew, against what the ledger says.  Pure.

Each revision covers the time after its `from_ms` up to the next one's; the last
one up to where the schedule is accounted for, or to where it was deleted.  In
that time each due time must be in the ledger once (alone or in a range), or
wait; and the ledger must say nothing of other times.  What was triggered by
hand or by an event is no due time: those are counted only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.schedule.record import Occurrence, Revision, Spec, decode_spec
from runtime.schedule.spec import plan_of

Dues = Callable[[Spec, int, int], list[int]]
"""The due times of a spec in (after, until], in order."""


@dataclass(frozen=True)
class Present:
    """How far a schedule has come that is not deleted."""

    accounted_ms: int
    waiting: tuple[int, ...] = ()


@dataclass
class Tally:
    """What an audit found; the sums are equal when `good`."""

    due: int = 0
    """Due times, computed anew."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Due times by outcome."""
    waiting: int = 0
    unaccounted: int = 0
    """Due times of which the ledger says nothing."""
    double: int = 0
    """Due times that have more than one outcome."""
    strange: int = 0
    """Outcomes of times that were never due, and ranges with a wrong count."""
    asked: int = 0
    """Runs by hand or by an event; no due times."""
    notes: list[str] = field(default_factory=list)
    """The first of each kind that is wrong."""

    @property
    def good(self) -> bool:
        return not (self.unaccounted or self.double or self.strange)

    def add(self, other: Tally) -> None:
        self.due += other.due
        self.outcomes += other.outcomes
        self.waiting += other.waiting
        self.unaccounted += other.unaccounted
        self.double += other.double
        self.strange += other.strange
        self.asked += other.asked
        self.notes += other.notes

    def figure(self) -> dict[str, Any]:
        return {
            "due": self.due,
            "outcomes": dict(sorted(self.outcomes.items())),
            "waiting": self.waiting,
            "sum": self.outcomes.total() + self.waiting,
            "unaccounted": self.unaccounted,
            "double": self.double,
            "strange": self.strange,
            "asked": self.asked,
        }


def due_times(spec: Spec, after_ms: int, until_ms: int) -> list[int]:
    """The due times as the scheduler computes them."""
    if spec.kind == "event":
        return []
    plan, found = plan_of(spec), []
    due_ms = plan.next_after(after_ms)
    while due_ms is not None and due_ms <= until_ms:
        found.append(due_ms)
        due_ms = plan.next_after(due_ms)
    return found


def audit(
    revisions: Iterable[Revision],
    occurrences: Iterable[Occurrence],
    present: dict[str, Present],
    dues: Dues = due_times,
    since_ms: int = 0,
) -> Tally:
    """Compare schedules with their ledger.

    Args:
        present: by schedule id; of those that are not deleted.
        dues: how due times are computed anew.
        since_ms: nothing before is looked at, nor what is in a range with what is before.
    """
    history: dict[str, list[Revision]] = defaultdict(list)
    for revision in revisions:
        history[revision.schedule_id].append(revision)
    ledger: dict[tuple[str, int], list[Occurrence]] = defaultdict(list)
    since: dict[str, int] = defaultdict(lambda: since_ms)
    for one in occurrences:
        if one.due_ms > since_ms:
            ledger[one.schedule_id, one.revision].append(one)
        elif one.to_ms is not None and one.to_ms > since_ms:
            since[one.schedule_id] = max(since[one.schedule_id], one.to_ms)
    total = Tally()
    for id, known in history.items():
        known.sort(key=lambda one: one.revision)
        now = present.get(id, Present(0))
        for place, revision in enumerate(known):
            last = place + 1 == len(known)
            ends = revision.to_ms or now.accounted_ms
            until_ms = ends if last else known[place + 1].from_ms
            if id in present:  # it may have been changed or deleted since
                until_ms = min(until_ms, now.accounted_ms)
            after_ms = max(revision.from_ms, since[id])
            spec = decode_spec(revision.spec)
            expected = dues(spec, after_ms, until_ms)
            entries = [e for e in ledger.pop((id, revision.revision), []) if e.due_ms > after_ms]
            timed = last and revision.to_ms is None and spec.kind != "event"
            waiting = now.waiting if timed else ()
            total.add(_one(f"{id}/{revision.revision}", expected, entries, waiting))
    for (id, number), entries in ledger.items():
        total.strange += len(entries)
        total.notes.append(f"{id}/{number} has {len(entries)} outcomes and no revision")
    return total


def _one(
    name: str, dues: Sequence[int], entries: Sequence[Occurrence], waiting: Sequence[int]
) -> Tally:
    tally = Tally(due=len(dues))
    seen = [0] * len(dues)
    for one in entries:
        if one.cause != "time":
            tally.asked += one.count
            continue
        first = bisect_left(dues, one.due_ms)
        last = bisect_right(dues, one.to_ms if one.to_ms is not None else one.due_ms)
        tally.outcomes[one.outcome] += one.count
        if last - first != one.count or first == len(dues) or dues[first] != one.due_ms:
            tally.strange += 1
            tally.notes.append(f"{name}: {one.id} tells of {one.count}, {last - first} were due")
        for place in range(first, last):
            seen[place] += 1
    for due_ms in waiting:
        place = bisect_left(dues, due_ms)
        if place < len(dues) and dues[place] == due_ms:
            seen[place] += 1
        tally.waiting += 1
    for place, count in enumerate(seen):
        if count != 1:
            tally.unaccounted += count == 0
            tally.double += count > 1
            tally.notes.append(f"{name}: {dues[place]} has {count} outcomes")
    return tally
