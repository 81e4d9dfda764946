"""Intervals, single instants and jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from runtime.errors import InvalidScheduleError
from runtime.schedule.instants import local_text_of, text_of
from runtime.schedule.jitter import JITTER_MS_MAX, jitter_ms
from runtime.schedule.plan import parse
from runtime.verify.croncases import ZONES
from runtime.verify.cronscan import zone_info

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)


def ms(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // MS


MADE = ms("2026-01-31T10:07:30Z")


def due(text: str, count: int, zone: str = "UTC", after: int = MADE, **more: Any) -> list[str]:
    plan, found = parse(text, zone, **{"anchor_ms": MADE, **more}), []
    while len(found) < count and (following := plan.next_after(after)) is not None:
        after = following
        found.append(local_text_of(after, plan.zone) if zone != "UTC" else text_of(after))
    return found


@pytest.mark.parametrize(
    "text",
    ["every 30 minutes", "every 30 min", "Every 30m", "PT30M", "pt1800s", "P0DT0H30M", "R/PT30M",
     "every 20 minutes 600 seconds"],
)  # fmt: skip
def test_half_an_hour_is_half_an_hour_however_it_is_written(text: str) -> None:
    """One interval would mean two things; the first run is one interval after it was made."""
    assert due(text, 2) == ["2026-01-31T10:37:30Z", "2026-01-31T11:07:30Z"]


def test_occurrences_do_not_drift() -> None:
    """Asked late, the next one would be counted from the question."""
    plan = parse("PT7M", anchor_ms=MADE)
    for late in range(0, 400_000_000, 12_345_678):
        following = plan.next_after(MADE + late)
        assert following is not None
        assert (following - MADE) % 420_000 == 0
        assert 0 < following - MADE - late <= 420_000


def test_hours_are_real_and_days_are_those_of_the_clock() -> None:
    """A run each 24 hours would wander to another time of day, or one each hour would skip."""
    start = {"start_ms": ms("2026-03-28T08:00:00Z"), "after": 0, "zone": "Europe/Berlin"}
    assert due("PT24H", 2, **start) == ["2026-03-28T09:00:00+01:00", "2026-03-29T10:00:00+02:00"]
    assert due("P1D", 2, **start) == ["2026-03-28T09:00:00+01:00", "2026-03-29T09:00:00+02:00"]
    assert due("every week", 2, **start)[1] == "2026-04-04T09:00:00+02:00"


def test_a_day_whose_time_is_skipped_or_repeated_has_one_run() -> None:
    """It would be lost in a gap and doubled in a fold."""
    gap = {"start_ms": ms("2026-03-28T01:30:15Z"), "after": 0, "zone": "Europe/Berlin"}
    assert due("P1D", 3, **gap) == [
        "2026-03-28T02:30:15+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:15+02:00",
    ]  # fmt: skip
    fold = {"start_ms": ms("2026-10-24T00:30:00Z"), "after": 0, "zone": "Europe/Berlin"}
    assert due("P1D", 3, **fold) == [
        "2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00",
    ]  # fmt: skip


def test_an_interval_begins_at_the_instant_it_names_in_either_pass() -> None:
    """It would be due an hour before the start that was named; bounded by that, never at it."""
    second = "2026-10-25T02:30:15+01:00"
    days = [second, "2026-10-26T02:30:15+01:00"]
    said = {"zone": "Europe/Berlin", "after": 0}
    for bounds in ({}, {"start_ms": ms(second)}):
        assert due(f"R/{second}/P1D", 2, **said, **bounds) == days
        assert due(f"R1/{second}/P1M", 2, **said, **bounds) == days[:1]
    assert due("P1D", 2, **said, start_ms=ms(second)) == days


def test_a_day_that_never_was_merges_with_the_next() -> None:
    """Samoa had no 30 December 2011: two runs would share one instant."""
    found = due("P1D", 3, zone="Pacific/Apia", after=0, start_ms=ms("2011-12-29T00:00:00-10:00"))
    assert found == [
        "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00",
    ]  # fmt: skip


def test_months_end_where_they_end_and_come_back() -> None:
    """The 31st would become the 28th for good after February."""
    assert due("P1M", 4) == [
        "2026-02-28T10:07:30Z", "2026-03-31T10:07:30Z", "2026-04-30T10:07:30Z",
        "2026-05-31T10:07:30Z",
    ]  # fmt: skip
    leap = {"start_ms": ms("2028-02-29T00:00:00Z"), "after": 0}
    assert [one[:10] for one in due("P1Y", 5, **leap)] == [
        "2028-02-29", "2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29",
    ]  # fmt: skip


def test_a_repetition_has_its_start_and_its_number() -> None:
    """It would begin elsewhere, or never end."""
    text = "R3/2026-02-01T09:00:00Z/PT1H"
    assert due(text, 9, after=0) == [
        "2026-02-01T09:00:00Z", "2026-02-01T10:00:00Z", "2026-02-01T11:00:00Z",
    ]  # fmt: skip
    assert due(text, 9, after=ms("2026-02-01T10:30:00Z")) == ["2026-02-01T11:00:00Z"]
    assert len(due("R3/PT1H", 9)) == 3
    assert due("R3/PT1H", 9, start_ms=MADE, after=0)[0] == text_of(MADE)
    local = due("R/2026-07-01T09:00/P1D", 1, zone="America/New_York")
    assert local == ["2026-07-01T09:00:00-04:00"]


def test_calendar_days_equal_those_counted_on_the_clock() -> None:
    """Far from its anchor an interval would be off by one, or never found."""
    random = Random(7)
    for _ in range(150):
        zone = random.choice(ZONES)
        info = zone_info(zone)
        start = datetime(random.randint(1990, 2030), random.randint(1, 12), random.randint(1, 28),
                         random.randint(0, 23), random.choice((0, 15, 30)), tzinfo=UTC)  # fmt: skip
        days, k = random.randint(1, 40), random.randint(1, 400)
        wall = start.astimezone(info).replace(tzinfo=None, fold=0) + timedelta(days=days * k)
        shown = wall.replace(tzinfo=info).astimezone(UTC)
        if shown.astimezone(info).replace(tzinfo=None) != wall:
            shown -= timedelta(days=1)  # in a gap: the first minute that shows no less
            while shown.astimezone(info).replace(tzinfo=None, fold=0) < wall:
                shown += timedelta(minutes=1)
        plan = parse(f"P{days}D", zone, start_ms=(start - EPOCH) // MS)
        expected = (shown - EPOCH) // MS
        assert plan.next_after(expected - 1) == expected, (zone, start, days, k)


@pytest.mark.parametrize(
    ("text", "code", "position"),
    [
        ("every", "bad_interval", 5), ("every 5", "bad_interval", 7),
        ("every other day", "bad_interval", 6), ("every day at 9", "bad_interval", 10),
        ("every 5 fortnights", "bad_interval", 8), ("everything", "bad_interval", 0),
        ("every -5 minutes", "bad_interval", 6), ("every 1.5 hours", "bad_interval", 7),
        ("every 0 minutes", "out_of_range", 0), ("PT0S", "out_of_range", 0),
        ("PT0.5S", "out_of_range", 0), ("P500Y", "out_of_range", 0), ("P", "bad_interval", 0),
        ("PT", "bad_interval", 0), ("P1DT", "bad_interval", 0), ("P1H", "bad_interval", 0),
        ("PT1.5H", "bad_interval", 0), ("R0/PT1H", "bad_count", 1), ("Rx/PT1H", "bad_count", 1),
        ("R1000000001/PT1H", "bad_count", 1),
        ("R000000000001" + "9" * 100 + "/PT1H", "bad_count", 1),
        ("R/PT1H/2026-01-01", "bad_instant", 2), ("R", "bad_interval", 0),
        ("R/2026-01-01T00:00Z/PT1H/x", "bad_interval", 0),
        ("R/2026-01-01T00:00Z/x", "bad_interval", 20),
        ("R/2026-10-25T02:30/P1D", "ambiguous_time", 2),
        (" 2026-10-25T02:30", "ambiguous_time", 1), ("2026-03-29T02:30", "nonexistent_time", 0),
        ("at 2026-03-29 02:30", "nonexistent_time", 3), ("2026-13-01", "bad_instant", 0),
        ("2026-01-01T25:00", "bad_instant", 0), ("0001-01-01", "out_of_range", 0),
        ("9999-12-31", "out_of_range", 0), ("every \uff13 minutes", "non_ascii", 6),
        ("every wee\u212a", "non_ascii", 9), ("every " + "9" * 300 + " days", "too_long", 256),
        ("every 9999999999 days", "bad_interval", 6),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused_at_its_place(text: str, code: str, position: int) -> None:
    """A guess would run work at a time that nobody meant."""
    with pytest.raises(InvalidScheduleError) as caught:
        parse(text, "Europe/Berlin")
    assert (caught.value.code, caught.value.position) == (code, position)


def test_one_instant_is_due_once() -> None:
    """It would come again after a restart that is asked from later on."""
    assert due("2026-11-05T09:00:00Z", 5) == ["2026-11-05T09:00:00Z"]
    assert due("at 2026-11-05 09:00", 5, zone="Europe/Berlin") == ["2026-11-05T09:00:00+01:00"]
    assert due("2026-10-25T02:30+01:00", 5, zone="Europe/Berlin") == ["2026-10-25T02:30:00+01:00"]
    assert due("2026-11-05T09:00:00Z", 5, after=ms("2026-11-05T09:00:00Z")) == []
    assert due("2026-11-05T09:00", 5) == ["2026-11-05T09:00:00Z"]
    assert due("2026-11-05T09:00:00.250Z", 1) == ["2026-11-05T09:00:00.250Z"]


def test_an_interval_ends_and_so_does_time() -> None:
    """A search for what never comes would not return."""
    assert due("PT1H", 9, end_ms=MADE + 2 * 3_600_000) == [
        "2026-01-31T11:07:30Z", "2026-01-31T12:07:30Z",
    ]  # fmt: skip
    for text in ("PT1H", "P1D", "P1M", "P100Y"):
        assert parse(text, "Asia/Tokyo", anchor_ms=MADE).next_after(2**62) is None
        assert parse(text, "Asia/Tokyo", anchor_ms=MADE).next_after(-(2**62)) is not None


def test_jitter_is_the_same_each_time_and_spreads() -> None:
    """A restart would move a run, or a thousand schedules would start in one second."""
    width = 60_000
    delays = [jitter_ms(f"schedule-{n}", MADE, width) for n in range(2_000)]
    assert delays == [jitter_ms(f"schedule-{n}", MADE, width) for n in range(2_000)]
    assert all(0 <= one <= width for one in delays)
    tenths = [sum(one * 10 // (width + 1) == part for one in delays) for part in range(10)]
    assert min(tenths) > 140
    assert len({jitter_ms("one", MADE + n * 60_000, width) for n in range(100)}) > 90


def test_jitter_is_pinned() -> None:
    """Another hash in a release would move every run of every operator."""
    assert jitter_ms("schedule-1", 1_767_225_600_000, 60_000) == 45_038


def test_jitter_has_a_bound_and_keeps_the_order() -> None:
    """A run could start after the next one, or an hour late."""
    assert jitter_ms("s", MADE, 0) == 0
    assert jitter_ms("s", MADE, -5) == 0
    assert max(jitter_ms("s", MADE + n, 10**9) for n in range(200)) <= JITTER_MS_MAX
    assert max(jitter_ms("s", MADE + n, 60_000, gap_ms=1_000) for n in range(200)) <= 100


def test_any_text_is_read_or_refused_and_never_hangs() -> None:
    """A text from outside would crash whoever reads it, or keep it busy."""
    random = Random(11)
    good = ["30 2 * * *", "@daily", "*/5 9-17 1,L jan-MAR 1-5", "every 30 minutes", "P1DT12H",
            "R3/2026-02-01T09:00Z/PT1H", "at 2026-11-05 09:00", "2026-11-05T09:00:00+01:00",
    ]  # fmt: skip
    parts = [*"0123456789*/-,LPTRYMWDHSZ@:+. \t\n\0é", "every ", "mon", "9999"]
    kinds = set()
    for _ in range(6_000):
        text = random.choice(good)
        for _ in range(random.randint(0, 3)):
            place = random.randint(0, len(text))
            text = text[:place] + random.choice(parts) + text[place + random.randint(0, 2) :]
        try:
            plan = parse(text, random.choice(ZONES), anchor_ms=random.choice((0, MADE)))
        except InvalidScheduleError as error:
            assert 0 <= error.position <= len(text)
            kinds.add(error.code)
            continue
        kinds.add(plan.kind)
        for after in (-(2**62), 0, MADE, 2**62):
            following = plan.next_after(after)
            assert following is None or following > after
    assert {"cron", "interval", "once", "bad_value", "bad_interval", "non_ascii"} <= kinds
