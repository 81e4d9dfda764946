"""The month of schedules: its books, the same month for the same seed, and that it can fail."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runtime.plans.book import PlanBook
from runtime.schedule import policy
from runtime.schedule.audit import Present, audit
from runtime.schedule.record import Occurrence, Outcome, Revision, Spec, encode
from runtime.verify.month import Size
from runtime.verify.schedules import one_month, verify

SMALL = Size(schedules=24, days=3, outages=10, edits=20, pauses=12, steps=8, handovers=5)


def test_every_due_time_of_a_few_troubled_days_has_one_outcome_and_so_again() -> None:
    """A due time would be lost or run twice under kills, edits, pauses and clock steps."""
    outcome = verify(3, SMALL)
    assert outcome.good, (outcome.figure, outcome.details)
    assert outcome.figure["unaccounted"] == outcome.figure["double"] == 0
    assert outcome.figure["sum"] == outcome.figure["due"] > 400
    assert outcome.figure["fenced"] and outcome.figure["refused"]
    assert len(outcome.figure["outcomes"]) >= 5


def test_a_due_time_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The books would balance whatever the planner does."""
    end = policy.Fates.end

    def forgetful(self: Any, due_ms: int, outcome: Outcome, reason: str, *more: Any) -> None:
        if outcome is not Outcome.SKIPPED_OVERLAP:
            end(self, due_ms, outcome, reason, *more)

    monkeypatch.setattr(policy.Fates, "end", forgetful)
    assert one_month(3, SMALL).tally.unaccounted


def test_a_job_that_the_queue_was_never_given_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A due time would have its outcome and its job, and nobody to do it."""
    monkeypatch.setattr(PlanBook, "_look_at", lambda *_: None)
    assert one_month(3, SMALL).jobs_lost


def _ledger(*dues: int, **more: Any) -> list[Occurrence]:
    return [
        Occurrence(f"o{at}", "schedule_1", "a:b", "default", 1, "fired", at, at, **more)
        for at in dues
    ]


MINUTE = 60_000
REVISION = Revision(
    "schedule_1", "a:b", "default", 1, msgspec.Raw(encode(Spec("cron", "* * * * *"))), 0, "t", "ann"
)


@pytest.mark.parametrize(
    ("ledger", "wrong"),
    [
        (_ledger(MINUTE, 2 * MINUTE, 3 * MINUTE), {}),
        (_ledger(MINUTE, 3 * MINUTE), {"unaccounted": 1}),
        (_ledger(MINUTE, 2 * MINUTE, 3 * MINUTE, 3 * MINUTE), {"double": 1}),
        (_ledger(MINUTE, 2 * MINUTE, 3 * MINUTE, 4 * MINUTE), {"strange": 1}),
        (_ledger(MINUTE, to_ms=3 * MINUTE, count=3), {}),
        (_ledger(MINUTE, to_ms=3 * MINUTE, count=2), {"strange": 1}),
        (_ledger(MINUTE, to_ms=2 * MINUTE, count=2) + _ledger(2 * MINUTE, 3 * MINUTE),
         {"double": 1}),
        (_ledger(MINUTE, to_ms=3 * MINUTE, count=3) + _ledger(90_000, cause="manual"), {}),
    ],
)  # fmt: skip
def test_the_audit_finds_each_kind_of_mistake(
    ledger: list[Occurrence], wrong: dict[str, int]
) -> None:
    """An audit that can't fail says nothing."""
    tally = audit([REVISION], ledger, {"schedule_1": Present(3 * MINUTE)})
    found = {"unaccounted": tally.unaccounted, "double": tally.double, "strange": tally.strange}
    assert {name: count for name, count in found.items() if count} == wrong
    assert tally.good is (not wrong)
    assert tally.due == 3


@pytest.mark.parametrize(
    "later",
    [[REVISION, msgspec.structs.replace(REVISION, revision=2, from_ms=5 * MINUTE)],
     [msgspec.structs.replace(REVISION, to_ms=5 * MINUTE)]],
    ids=["changed", "deleted"],
)  # fmt: skip
def test_what_is_decided_after_an_audit_has_begun_is_not_looked_at(later: list[Revision]) -> None:
    """A schedule that is changed or deleted just then would have due times without an outcome."""
    found = _ledger(MINUTE, 2 * MINUTE, 3 * MINUTE)
    tally = audit(later, found, {"schedule_1": Present(3 * MINUTE)})
    assert (tally.good, tally.due) == (True, 3)
