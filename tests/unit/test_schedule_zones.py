"""Zones: the tables that stepping relies on are those of the tzdata files."""

from __future__ import annotations

import struct
from datetime import datetime
from importlib import resources
from itertools import pairwise

import pytest

from runtime.errors import InvalidScheduleError
from runtime.schedule import zones
from runtime.schedule.cron import cron
from runtime.schedule.zones import DAY, TZDATA_VERSION, Zone, zone
from runtime.verify.cronscan import zone_info

SINCE = 3 * 366 * DAY
"""1973: offsets are whole minutes."""
NAMES = [
    name
    for name in resources.files("tzdata").joinpath("zones").read_text().split()
    if "/" in name and not name.startswith("Etc/")
]


def transitions(name: str) -> list[tuple[int, int]]:
    """(UTC second, offset in seconds from then on), read from the TZif file itself."""
    data = resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).read_bytes()
    head = ">4s1c15x6l"
    _, _, isut, isstd, leaps, times, types, letters = struct.unpack(head, data[:44])
    skip = 44 + times * 5 + types * 6 + letters + leaps * 8 + isstd + isut
    _, _, _, _, _, times, types, _ = struct.unpack(head, data[skip : skip + 44])
    at = skip + 44
    seconds = struct.unpack(f">{times}q", data[at : at + 8 * times])
    kinds = data[at + 8 * times : at + 9 * times]
    at += 9 * times
    offsets = [struct.unpack(">l", data[at + 6 * n : at + 6 * n + 4])[0] for n in range(types)]
    return [(second, offsets[kind]) for second, kind in zip(seconds, kinds, strict=True)]


def minutes(text: str) -> int:
    """Minutes since 1970 of what is written."""
    return int(datetime.fromisoformat(text + "+00:00").timestamp()) // 60


def test_no_two_changes_are_nearer_than_they_are_looked_for() -> None:
    """Offsets are compared four days apart: a pair that cancels in between is never seen."""
    for name in NAMES:
        rows = [row for row in transitions(name) if row[0] >= SINCE * 60]
        changes = [b for a, b in pairwise(rows) if a[1] != b[1]]
        near = [(a, b) for a, b in pairwise(changes) if b[0] - a[0] <= zones._PROBE * 60]
        assert near == [], name
        assert all(second % 60 == 0 and offset % 60 == 0 for second, offset in rows), name


@pytest.mark.parametrize(
    "name",
    ["America/New_York", "Africa/Casablanca", "Antarctica/Troll", "Australia/Lord_Howe",
     "Pacific/Apia", "Asia/Gaza", "America/Caracas", "Asia/Pyongyang"],
)  # fmt: skip
def test_offsets_change_where_the_file_says(name: str) -> None:
    """Work would run an hour early or late for half a year."""
    table, before = zone(name), None
    for second, offset in transitions(name):
        if SINCE * 60 <= second < 2_145_916_800:
            minute = second // 60
            assert table.local(minute) - minute == offset // 60
            if before is not None:
                assert table.local(minute - 1) - minute + 1 == before // 60
        before = offset


def test_a_local_time_is_found_in_a_gap_and_in_a_fold() -> None:
    """A daily run would vanish on the day of a change, or come twice."""
    berlin = zone("Europe/Berlin")
    gap, fold = minutes("2026-03-29T01:00:00"), minutes("2026-10-25T01:00:00")
    skipped, repeated = minutes("2026-03-29T02:30:00"), minutes("2026-10-25T02:30:00")
    assert (berlin.utc(skipped), berlin.passes(skipped)) == (gap, [])
    assert berlin.utc(repeated) == fold - 30
    assert berlin.passes(repeated) == [fold - 30, fold + 30]
    for utc in range(gap - 10_000, fold + 10_000, 30):
        passes = berlin.passes(berlin.local(utc))
        assert utc in passes
        assert berlin.utc(berlin.local(utc)) == passes[0]


def test_a_change_at_a_border_of_two_blocks_is_seen() -> None:
    """Tables are made in blocks: a fold over a border would be repeated."""
    for name in ("Europe/Berlin", "Pacific/Apia", "America/New_York"):
        table = zone(name)
        for block in range(4, 90):
            border = block << 19
            before, after = table.segment(border - 1), table.segment(border)
            assert before.end == after.start == border
            assert after.high >= max(before.high, border + before.offset)


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("Europe/Berlin", "2026-10-25T01:00:00"), ("America/New_York", "2026-03-08T07:00:00"),
        ("Antarctica/Troll", "2026-10-25T01:00:00"), ("Africa/Casablanca", "2026-02-15T02:00:00"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00"), ("Pacific/Apia", "2011-12-30T10:00:00"),
    ],
)  # fmt: skip
def test_borders_of_blocks_do_not_matter(
    name: str, around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold over the border of two blocks would be repeated, once in some years."""
    every = cron("0,7,30 0-23 * * *")
    asked = range(minutes(around) - 1_800, minutes(around) + 1_800, 5)
    whole = [every.next_utc(utc, zone(name)) for utc in asked]
    for bits in (4, 5, 7):
        monkeypatch.setattr(zones, "_BLOCK_BITS", bits)
        cut = Zone(name, zone_info(name))
        assert [every.next_utc(utc, cut) for utc in asked] == whole


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("EST", "ambiguous_zone"), ("CET", "ambiguous_zone"), ("EST5EDT", "ambiguous_zone"),
        ("Etc/GMT+5", "ambiguous_zone"), ("UTC+2", "ambiguous_zone"), ("+02:00", "ambiguous_zone"),
        ("Europe/Berln", "unknown_zone"), ("europe/berlin", "unknown_zone"), ("", "unknown_zone"),
        ("../../etc/passwd", "unknown_zone"), ("Europe", "unknown_zone"),
        ("tzdata.zi", "unknown_zone"),
        ("Factory", "unknown_zone"), ("localtime", "unknown_zone"), ("posixrules", "unknown_zone"),
        ("/etc/localtime", "unknown_zone"), ("Europe/Berlin\0", "unknown_zone"),
        ("zone.tab", "unknown_zone"), ("a" * 5_000, "unknown_zone"),
    ],
)  # fmt: skip
def test_only_iana_zones_are_taken(name: str, code: str) -> None:
    """`CST` is three places on earth; a path is none, nor is a machine's own setting."""
    with pytest.raises(InvalidScheduleError) as caught:
        zone(name)
    assert caught.value.code == code
    assert len(str(caught.value)) < 300


def test_a_near_zone_is_offered() -> None:
    """A typing error would send the user to a list of 600 names."""
    with pytest.raises(InvalidScheduleError, match="did you mean Europe/Berlin"):
        zone("Europe/Berln")


def test_the_release_of_the_rules_is_known() -> None:
    """Nobody could tell which rules a stored due time was computed with."""
    assert TZDATA_VERSION.split(".")[0].isdigit()
