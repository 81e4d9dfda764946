"""What is asked for, as a spec: its places, its windows, and what was stored before."""

from __future__ import annotations

import zoneinfo
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from runtime.schedule.nightly import window_s
from runtime.schedule.policy import Moment, drain, settle
from runtime.schedule.record import Schedule, Spec, Waiting, decode_spec, encode
from runtime.schedule.spec import (
    FieldError,
    ScheduleBody,
    is_over_budget,
    local_day,
    plan_of,
    spec_of,
)
from runtime.schedule.view import body_of, schedule_view

AGENT = "qa:acme.api"
MINUTE_MS = 60_000


def spec(**asked: Any) -> Spec:
    return spec_of(ScheduleBody.model_validate(asked), AGENT, 0)


@pytest.mark.parametrize(
    ("asked", "code", "position"),
    [
        ({"at": "garbage"}, "bad_instant", 0),
        ({"at": ""}, "bad_instant", 0),
        ({"at": "   "}, "bad_instant", 0),
        ({"at": " \tgarbage"}, "bad_instant", 2),
        ({"at": "  2026-03-08T02:30", "timezone": "America/New_York"}, "nonexistent_time", 2),
        ({"at": " \uff12026-01-01"}, "non_ascii", 1),
        ({"cron": "  61 * * * *"}, "out_of_range", 2),
        ({"cron": " \n0 61 * * *"}, "out_of_range", 4),
        ({"cron": "  PT30M"}, "wrong_kind", 2),
        ({"cron": "\u00a00 0 * * *"}, "non_ascii", 0),
        ({"interval": "   every fortnight"}, "bad_interval", 9),
        ({"cron": "@daily", "start": ""}, "bad_instant", 0),
        ({"cron": "@daily", "end": ""}, "bad_instant", 0),
    ],
)
def test_a_place_counts_in_the_text_as_it_was_given(
    asked: dict[str, Any], code: str, position: int
) -> None:
    """A form would mark a character that is right, and an empty bound would be no bound."""
    with pytest.raises(FieldError) as caught:
        spec(**asked)
    error = caught.value.error
    assert (error.code, error.position) == (code, position)


@pytest.mark.parametrize(
    ("field", "text"),
    [("cron", " 0 9 * * *\n"), ("interval", "\tPT5M "), ("at", " 2026-11-05T09:00 ")],
)
def test_blanks_around_a_text_are_not_kept(field: str, text: str) -> None:
    """The same schedule would be another revision for a blank."""
    found = spec(**{field: text})
    assert found == spec(**{field: text.strip()})
    assert found.expression == plan_of(found).text == text.strip()


def test_a_nightly_is_caught_up_while_its_window_lasts() -> None:
    """A night's work would run in the day, or the next schedule inherit the night's end."""
    nightly = spec(nightly="22:00-04:00", catchUp={"policy": "latest"})
    due_ms = plan_of(nightly).next_after(0)
    assert due_ms is not None
    left_ms = (4 * 60 * MINUTE_MS - due_ms) % (24 * 60 * MINUTE_MS)
    assert window_s(nightly) * 1000 == left_ms
    for passed_ms, waits in ((left_ms, 1), (left_ms + 1, 0)):
        moment = Moment(due_ms + passed_ms)
        assert len(settle(nightly, [], [due_ms], moment, late=1).waiting) == waits
        drained = drain(nightly, [Waiting(due_ms, True)], moment, paced=True)
        assert len(drained.fires) == waits
    kept = body_of(nightly, "default")
    assert kept.catch_up.window_s == 86_400
    assert window_s(spec(nightly="22:00-04:00", catchUp={"windowS": 30})) == 30


def test_a_nightly_that_was_stored_with_its_shortened_window_can_be_read() -> None:
    """An upgrade would stop the schedules that are there."""
    stored = b"""{"kind":"cron","expression":"12 1 * * *","nightly":"01:00-02:00",
        "catchUp":{"windowS":2880}}"""
    found = decode_spec(stored)
    assert window_s(found) == 2_880
    assert decode_spec(encode(found)) == found


def test_an_empty_repository_is_none() -> None:
    """Nothing would ever be unchanged, and nobody be told."""
    with pytest.raises(ValidationError, match="onlyIfChanged needs a repository"):
        spec(cron="@daily", repository="", onlyIfChanged=True)
    stored = Spec("cron", "@daily", repository="", only_if_changed=True)
    assert not body_of(stored, "default").only_if_changed


DAY_MS = 1_440 * MINUTE_MS
EVENING_MS = 1_700_164_800_000
"""2023-11-16T20:00Z, the 17th in Tokyo."""


def test_the_day_of_a_budget_is_that_of_the_zone_by_our_tzdata(tmp_path: Path) -> None:
    """Nodes with other rules would begin the day of a budget at different hours."""
    rules = resources.files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo").read_bytes()
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_bytes(rules)
    zoneinfo.reset_tzpath([tmp_path])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        berlin = spec(cron="0 9 * * *", timezone="Europe/Berlin")
        assert local_day(berlin, EVENING_MS) == "2023-11-16"
        assert local_day(spec(cron="0 9 * * *", timezone="Asia/Tokyo"), EVENING_MS) == "2023-11-17"
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()


@pytest.mark.parametrize(("later_ms", "spent_usd"), [(0, 0.6), (DAY_MS, 0.0), (40 * DAY_MS, 0.0)])
def test_what_was_spent_another_day_was_not_spent_today(later_ms: int, spent_usd: float) -> None:
    """A schedule would seem over its budget for as long as it does not run."""
    daily = spec(cron="0 9 * * *", budgetUsdPerDay=0.5)
    record = Schedule(
        "schedule_1", "acme", AGENT, "default", 1, msgspec.Raw(encode(daily)), EVENING_MS,
        spent_day=local_day(daily, EVENING_MS), spent_usd=0.6,
    )  # fmt: skip
    assert schedule_view(record, EVENING_MS + later_ms).spent_usd_today == spent_usd
    assert is_over_budget(daily, record, EVENING_MS + later_ms) is bool(spent_usd)


@pytest.mark.parametrize(("later_ms", "status"), [(0, "active"), (1, "ended")])
def test_a_schedule_that_waits_for_an_event_ends_with_its_end(later_ms: int, status: str) -> None:
    """It would be shown as one that still runs when it is told."""
    push = spec(event="push", end="2023-11-16T20:00:00Z")
    record = Schedule(
        "schedule_1", "acme", AGENT, "default", 1, msgspec.Raw(encode(push)), EVENING_MS
    )
    assert schedule_view(record, EVENING_MS + later_ms).status == status
