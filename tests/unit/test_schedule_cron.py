"""Cron: the published vectors, and what they leave open."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import InvalidScheduleError
from runtime.schedule.cron import Cron
from runtime.schedule.cronfields import read
from runtime.schedule.instants import local_text_of, text_of
from runtime.schedule.plan import parse
from runtime.verify import cron as cron_verification

VECTORS = json.loads(Path(cron_verification.__file__).with_name("cron_vectors.json").read_text())


def ms(text: str) -> int:
    """UTC milliseconds of an ISO instant with an offset."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda v: v["id"])
def test_a_vector_is_due_when_it_says(vector: dict[str, Any]) -> None:
    """Work would run at another time than cron promises, twice, or never."""
    plan = parse(vector["expr"], vector["tz"])
    assert isinstance(plan.when, Cron)
    assert plan.when.wildcard == (vector["kind"] == "wildcard")
    due, found = ms(vector["after"]), []
    for _ in vector["expect_utc"]:
        due = plan.next_after(due)
        assert due is not None
        found.append(due)
    assert [text_of(one) for one in found] == [t[:-1] + ":00Z" for t in vector["expect_utc"]]
    assert [local_text_of(one, plan.zone) for one in found] == vector["expect_local"]
    assert plan.due_between(ms(vector["after"]), found[-1], 100) == found


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda v: v["expr"] or "empty")
def test_an_invalid_vector_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    """A mistyped schedule would be accepted and run at times nobody meant."""
    with pytest.raises(InvalidScheduleError) as caught:
        parse(vector["expr"])
    assert caught.value.code == vector["error"]
    assert 0 <= caught.value.position <= len(vector["expr"])


@pytest.mark.parametrize(
    ("text", "code", "position"),
    [
        ("0 24 * * *", "out_of_range", 2),
        ("0 0 1,32 * *", "out_of_range", 6),
        ("0 0 * 1-13 *", "out_of_range", 8),
        ("100 * * * *", "out_of_range", 0),
        ("*/0 * * * *", "bad_step", 2),
        ("1-5/ * * * *", "bad_step", 4),
        ("0 1/2/3 * * *", "bad_step", 4),
        ("0 0 * * */8", "step_exceeds_field", 10),
        ("0 0 20-10 * *", "reversed_range", 4),
        ("0 0 * * 5,SAT-MON", "reversed_range", 10),
        ("0 0 * MON *", "bad_value", 6),
        ("0 0 * * JAN", "bad_value", 8),
        ("0 0 L-3 * *", "bad_value", 4),
        ("0 0 L/2 * *", "bad_value", 4),
        ("0 0 * * 5L", "bad_value", 8),
        ("0 0 * * 5#2", "bad_value", 8),
        ("0 0 ? * *", "bad_value", 4),
        ("0 0 *-5 * *", "bad_value", 4),
        ("0 0 1-2-3 * *", "bad_value", 6),
        ("+1 * * * *", "bad_value", 0),
        ("0\t0 * *  x", "bad_value", 9),
        ("0 0 * * * *", "wrong_field_count", 10),
        ("CRON_TZ=UTC 0 0 * * *", "wrong_field_count", 20),
        ("  @fortnightly", "unknown_alias", 2),
        ("0\u00a00 * * *", "non_ascii", 1),
        ("\u30000 0 * * *", "non_ascii", 0),
        ("0 0 * * *" + " " * 300, "too_long", 256),
        ("0 0 30 2 *", "unsatisfiable", 4),
        ("0 0 31 4,6,9,11 *", "unsatisfiable", 4),
        ("0 0 30,31 feb *", "unsatisfiable", 4),
        ("0 0 */2 * 1", "ambiguous_day_fields", 4),
        ("0 0 13 * */2", "ambiguous_day_fields", 9),
        ("0 0 */10 * */2", "ambiguous_day_fields", 4),
        ("0 0 */1 * 1", "ambiguous_day_fields", 4),
        ("0 0 1 * */1", "ambiguous_day_fields", 8),
        ("0 0 */2 * */1", "ambiguous_day_fields", 4),
        ("1" * 200 + " * * * *", "out_of_range", 0),
        ("*/" + "1" * 200 + " * * * *", "step_exceeds_field", 2),
    ],
)
def test_what_is_wrong_is_named_at_its_place(text: str, code: str, position: int) -> None:
    """A person would have to guess which of five fields is meant."""
    with pytest.raises(InvalidScheduleError) as caught:
        parse(text)
    assert (caught.value.code, caught.value.position) == (code, position)


def fires(text: str, after: str, count: int, zone: str = "UTC", **more: Any) -> list[str]:
    plan, due, found = parse(text, zone, **more), ms(after), []
    while len(found) < count and (following := plan.next_after(due)) is not None:
        found.append(text_of(due := following))
    return found


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0 0 L * *", ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"]),
        ("0 0 15,l * *", ["2028-01-15", "2028-01-31", "2028-02-15", "2028-02-29"]),
        ("0 0 L 2 *", ["2028-02-29", "2029-02-28", "2030-02-28", "2031-02-28"]),
        ("0 0 L * fri", ["2028-01-07", "2028-01-14", "2028-01-21", "2028-01-28", "2028-01-31"]),
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("0 0 * * */7", ["2028-01-02", "2028-01-09"]),
        ("0 0 1-31 * 1", ["2028-01-02", "2028-01-03", "2028-01-04"]),
        ("0 0 */1 * *", ["2028-01-02", "2028-01-03"]),
        ("0 0 */1 * */1", ["2028-01-02", "2028-01-03"]),
        ("0 0 *,1 * 1", ["2028-01-03", "2028-01-10"]),
        ("0 0 1,* * 1", ["2028-01-02", "2028-01-03"]),
        ("0 0 * * 3/2", ["2028-01-02", "2028-01-05", "2028-01-07", "2028-01-09"]),
        ("@yearly", ["2029-01-01", "2030-01-01"]),
    ],
)
def test_days_are_those_of_crontab(text: str, days: list[str]) -> None:
    """Month ends and weekdays would be other days than the manual says."""
    found = fires(text, "2028-01-01T00:00:00Z", len(days))
    assert found == [f"{day}T00:00:00Z" for day in days]


def test_a_named_dialect_settles_which_days_are_meant() -> None:
    """Who knows how it is meant could not say it: Debian requires both."""
    found = fires("0 0 */2 * 1", "2026-06-01T00:00:00Z", 3, dialect="debian")
    assert found == ["2026-06-15T00:00:00Z", "2026-06-29T00:00:00Z", "2026-07-13T00:00:00Z"]
    mondays = fires("0 0 */1 * 1", "2028-01-01T00:00:00Z", 2, dialect="debian")
    assert mondays == ["2028-01-03T00:00:00Z", "2028-01-10T00:00:00Z"]


@pytest.mark.parametrize("field", ["1" * 5_000, "*/" + "1" * 5_000])
def test_thousands_of_digits_are_refused_and_never_read(field: str) -> None:
    """Python would raise an error of its own, which nobody awaits."""
    with pytest.raises(InvalidScheduleError):
        read(f"{field} * * * *")


def test_the_rarest_day_is_found_and_nothing_is_searched_for_ever() -> None:
    """29 February on a Sunday is 40 years away over 2100; the end of time is not a loop."""
    rare = parse("0 0 29 2 */7", dialect="debian")
    assert text_of(rare.next_after(ms("2088-02-29T00:00:00Z")) or 0) == "2128-02-29T00:00:00Z"
    assert parse("* * * * *").next_after(2**62) is None
    assert parse("59 23 31 12 *", "Asia/Tokyo").next_after(-(2**62)) is not None


def test_leap_days_skip_a_century() -> None:
    """2100 has no 29 February."""
    assert fires("0 0 29 2 *", "2096-02-29T00:00:00Z", 1) == ["2104-02-29T00:00:00Z"]


def test_two_hours_and_half_an_hour_are_gaps_like_any() -> None:
    """Only shifts of one hour would be right."""
    troll = fires("30 1 * * *", "2026-03-28T12:00:00Z", 2, "Antarctica/Troll")
    assert troll == ["2026-03-29T01:00:00Z", "2026-03-29T23:30:00Z"]
    back = fires("30 1 * * *", "2026-10-24T12:00:00Z", 2, "Antarctica/Troll")
    assert back == ["2026-10-24T23:30:00Z", "2026-10-26T01:30:00Z"]
    howe = fires("*/15 1-2 * * *", "2026-04-04T14:20:00Z", 8, "Australia/Lord_Howe")
    assert [one[11:16] for one in howe] == [
        "14:30", "14:45", "15:00", "15:15", "15:30", "15:45", "16:00", "16:15",
    ]  # fmt: skip


def test_a_rare_wildcard_is_due_in_the_second_pass_too() -> None:
    """From within the first pass the search would jump over the second to next month."""
    found = fires("*/30 1 26 * *", "2025-10-26T00:30:00Z", 3, "Europe/London")
    assert found == ["2025-10-26T01:00:00Z", "2025-10-26T01:30:00Z", "2025-11-26T01:00:00Z"]


def test_what_is_next_does_not_depend_on_what_was_asked_before() -> None:
    """A clock set back, a restart in a fold or a jump of years would change due times."""
    plan = parse("30 1,2 * * *", "America/New_York")
    around = ms("2026-11-01T04:00:00Z")
    asked = [around + minute * 60_000 for minute in range(-120, 300)]
    forward = [plan.next_after(at) for at in asked]
    plan.next_after(ms("2090-01-01T00:00:00Z"))
    plan.next_after(ms("1975-01-01T00:00:00Z"))
    assert [plan.next_after(at) for at in reversed(asked)] == forward[::-1]
    assert sorted({text_of(one) for one in forward if one}) == [
        "2026-11-01T05:30:00Z", "2026-11-01T07:30:00Z", "2026-11-02T06:30:00Z",
    ]  # fmt: skip


def test_start_and_end_are_due_and_nothing_beyond() -> None:
    """An operator's window would lose its first or last run."""
    bounds = {"start_ms": ms("2026-01-02T00:00:00Z"), "end_ms": ms("2026-01-03T00:00:00Z")}
    found = fires("0 0,12 * * *", "2025-01-01T00:00:00Z", 9, **bounds)
    assert found == ["2026-01-02T00:00:00Z", "2026-01-02T12:00:00Z", "2026-01-03T00:00:00Z"]


def test_due_times_come_in_parts_without_a_hole() -> None:
    """A long outage would be accounted for with gaps, or twice."""
    plan, first = parse("*/7 * * * *", "Europe/Berlin"), ms("2026-10-24T00:00:00Z")
    until = first + 3 * 86_400_000
    whole = plan.due_between(first, until, 10_000)
    parts, after = [], first
    while part := plan.due_between(after, until, 100):
        parts += part
        after = part[-1]
    assert parts == whole
    assert len(whole) == 3 * 24 * 9
    assert plan.due_between(first, first, 5) == []
    assert plan.due_between(first, until, 0) == []
    assert plan.due_between(first, whole[4], 5)[-1] == whole[4]


@pytest.mark.parametrize(
    ("text", "said", "interval"),
    [("30m", "1 field instead", True), ("* * * *", "4 fields instead", False)],
)
def test_a_word_that_is_no_cron_is_told_of_intervals(text: str, said: str, interval: bool) -> None:
    """Who wants an interval would be told to count fields."""
    with pytest.raises(InvalidScheduleError) as caught:
        parse(text)
    assert said in caught.value.detail
    assert ("every 30 minutes" in caught.value.detail) is interval
