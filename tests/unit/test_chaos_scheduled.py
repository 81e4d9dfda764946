"""I8 in a chaos run: the ledger as it is stored, against due times computed anew."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runtime.console.settings import ConsoleSettings
from runtime.keys import Role
from runtime.schedule.record import Occurrence, Revision, Schedule, Spec, encode
from runtime.verify.chaos import scheduled
from runtime.verify.invariants.plans import occurrences_accounted
from tests.histories import Told
from tests.http import HttpTroupe
from tests.troupe import LocalTroupe

SECOND_MS = 1_000
EVERY_3 = Spec("interval", "every 3 seconds", anchor_ms=0)
EVERY_5 = Spec("interval", "every 5 seconds", anchor_ms=0)


def revision(number: int, spec: Spec, from_s: int, to_s: int | None = None) -> Revision:
    to_ms = None if to_s is None else to_s * SECOND_MS
    raw = msgspec.Raw(encode(spec))
    return Revision(
        "s", "worker:1", "default", number, raw, from_s * SECOND_MS, "t", "ann", to_ms=to_ms
    )


def outcome(due_s: int, outcome: str = "fired", **more: int) -> Occurrence:
    due_ms = due_s * SECOND_MS
    return Occurrence(f"o{due_s}", "s", "worker:1", "default", 1, outcome, due_ms, due_ms, **more)


def judged(revisions: list[Revision], ledger: list[Occurrence]) -> list[str]:
    told = Told()
    for one in revisions:
        told.put(f"s/{one.revision:08d}", encode(one), "schedule_revision")
    for number, one in enumerate(ledger):
        told.put(f"{one.id}.{number}", encode(one), "occurrence")
    told.end()
    scheduled.tell(told)
    return [one.text for one in occurrences_accounted(told.facts)]


def test_a_ledger_that_has_each_due_time_once_is_fine() -> None:
    """Every chaos run would end in a violation."""
    gap = outcome(9, "missed", to_ms=15 * SECOND_MS, count=3)
    assert judged([revision(1, EVERY_3, 0, 15)], [outcome(3), outcome(6), gap]) == []
    edited = [revision(1, EVERY_3, 0), revision(2, EVERY_5, 6, 15)]
    ledger = [outcome(3), outcome(6), outcome(10, "superseded"), outcome(15)]
    assert judged(edited, ledger) == []


@pytest.mark.parametrize(
    ("ledger", "text"),
    [
        ([outcome(3), outcome(9)], "s at 6000 has 0 outcomes"),
        ([outcome(3), outcome(6), outcome(6), outcome(9)], "s at 6000 has 2 outcomes"),
        ([outcome(3), outcome(4), outcome(6), outcome(9)], "s was not due at 4000"),
        ([outcome(3, to_ms=9 * SECOND_MS, count=2)], "s tells of 2, 3 were due"),
        ([], "s at 3000 has 0 outcomes"),
    ],
)
def test_a_doctored_ledger_is_found(ledger: list[Occurrence], text: str) -> None:
    """A run lost in a kill, or repeated, would not be seen."""
    assert text in judged([revision(1, EVERY_3, 0, 9)], ledger)


def test_a_schedule_that_stands_is_judged_up_to_where_it_is_accounted_for() -> None:
    """What was not deleted in time would not be judged at all."""
    told = Told()
    told.put("s/00000001", encode(revision(1, EVERY_3, 0)), "schedule_revision")
    spec = msgspec.Raw(encode(EVERY_3))
    record = Schedule("s", "acme", "worker:1", "default", 1, spec, 9 * SECOND_MS)
    told.put("acme/worker:1/default", encode(record), "schedule")
    told.put("o", encode(outcome(3, to_ms=6 * SECOND_MS, count=2)), "occurrence")
    told.end()
    scheduled.tell(told)
    assert [one.text for one in occurrences_accounted(told.facts)] == ["s at 9000 has 0 outcomes"]


async def test_what_a_run_makes_is_accepted_deleted_and_accounted_for() -> None:
    """A chaos run would wait for its schedules for ever, or judge none."""
    troupe = LocalTroupe({})
    api = HttpTroupe(troupe.store, troupe.clock, ConsoleSettings(command_wait_s=5.0))
    troupe.start_scheduler()
    told = Told()
    async with await api.client(Role.ADMIN) as client:

        async def request(method: str, path: str, body: dict[str, Any] | None) -> None:
            answer = await client.request(method, path, json=body)
            assert answer.is_success, answer.text

        await scheduled.begin(request)
        await scheduled.end(request)
    await troupe.kill_scheduler()
    for collection in ("schedule", "schedule_revision", "occurrence"):
        found = await troupe.store.list_documents(collection)
        told.add("reader", "ok", "final.put", key=collection, value=found)
    await troupe.store.close()
    scheduled.tell(told)
    assert sum(fact.f == "due" for fact in told.facts) == len(scheduled.PLANS)
    assert occurrences_accounted(told.facts) == []
