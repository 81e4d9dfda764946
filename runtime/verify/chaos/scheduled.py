"""Schedules of a chaos run: made and deleted over HTTP, and their ledger as facts.

They are deleted when the strikes are over, so that everything can come to its
end; what they were due at is then computed anew (`runtime.verify.dues`) from
their revisions and compared with what the ledger says of it: rule I8.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from runtime.schedule.record import (
    OCCURRENCES,
    REVISIONS,
    SCHEDULES,
    decode_occurrence,
    decode_revision,
    decode_schedule,
    decode_spec,
)
from runtime.verify.chaos.part import Request
from runtime.verify.dues import scanned
from runtime.verify.history import Fact, History
from runtime.verify.invariants.reading import stored_documents
from runtime.verify.reader import READER

PAYLOAD: Final = {"steps": [], "hopeless": False, "artifact": None}
PLANS: Final[Sequence[dict[str, Any]]] = (
    {"interval": "every 3 seconds", "overlap": "allow"},
    {"interval": "every 5 seconds", "overlap": "queue_one",
     "catchUp": {"policy": "all", "cap": 5}},
    {"interval": "every 7 seconds", "overlap": "skip", "catchUp": {"policy": "none"}},
    {"cron": "* * * * *", "timezone": "America/New_York"},
)  # fmt: skip


async def begin(request: Request) -> None:
    """Make them."""
    for number, schedule in enumerate(PLANS):
        await request("POST", _path(number), {**schedule, "payload": PAYLOAD})


async def end(request: Request) -> None:
    """Delete them; what still waits is superseded."""
    for number, _ in enumerate(PLANS):
        await request("DELETE", _path(number), None)


def _path(number: int) -> str:
    return f"/api/agents/worker:planned{number}/schedule"


def tell(history: History) -> None:
    """Add what was due, and what became of it, to a history that has what is stored."""
    for schedule, due in _dues(history.facts).items():
        history.add(READER, "info", "due", key=schedule, value=due)
    for document in stored_documents(history.facts, OCCURRENCES).values():
        one = decode_occurrence(document.body)
        if one.cause != "time":  # it was asked for, and due never
            continue
        value: dict[str, Any] = {"dueMs": one.due_ms}
        if one.to_ms is not None:
            value = {"fromMs": one.due_ms, "toMs": one.to_ms, "count": one.count}
        value["outcome"] = one.outcome
        history.add(READER, "ok", "occurrence", key=one.schedule_id, value=value)


def _dues(facts: Sequence[Fact]) -> dict[str, list[int]]:
    """Schedule id -> its due times, each revision's up to the next one or to its end."""
    schedules = stored_documents(facts, SCHEDULES).values()
    ends = {one.id: one.accounted_ms for one in (decode_schedule(it.body) for it in schedules)}
    due: dict[str, list[int]] = defaultdict(list)
    documents = stored_documents(facts, REVISIONS)
    revisions = [decode_revision(documents[key].body) for key in sorted(documents)]
    for one, following in zip(revisions, (*revisions, None)[1:], strict=True):
        until_ms = one.to_ms or ends.get(one.schedule_id, 0)
        if following is not None and following.schedule_id == one.schedule_id:
            until_ms = following.from_ms
        due[one.schedule_id] += scanned(decode_spec(one.spec), one.from_ms, until_ms)
    return due
