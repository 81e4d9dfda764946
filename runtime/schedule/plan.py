"""A plan: one text that says when, read once, then asked for due times.

    cron      30 2 * * *     @daily     0 0 L * *
    interval  every 30 minutes     PT30M     R10/2026-01-01T09:00:00Z/P1D
    once      2026-11-05T09:00:00Z     2026-11-05T09:00     at 2026-11-05 09:00

`parse` is pure: the same arguments give the same due times, on any machine with
the same tzdata.  All instants are UTC milliseconds.  A plan is to be kept as
its arguments and parsed again; it has no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.errors import InvalidScheduleError
from runtime.schedule import interval as intervals
from runtime.schedule.cron import Cron, cron
from runtime.schedule.cronfields import Dialect
from runtime.schedule.instants import MINUTE_MS, instant
from runtime.schedule.interval import Interval
from runtime.schedule.zones import MINUTE_MAX, MINUTE_MIN, Zone, zone

Kind = Literal["cron", "interval", "once"]


@dataclass(frozen=True, slots=True)
class Plan:
    """When something is due."""

    text: str
    """As it was given, without blanks around it."""
    kind: Kind
    zone: Zone
    when: Cron | Interval | int
    """What the text says; `int` is the instant of `once`."""
    anchor_ms: int = 0
    """Where an interval that names no start begins: its occurrence 0."""
    start_ms: int | None = None
    """Nothing is due before; due at it is."""
    end_ms: int | None = None
    """Nothing is due after; due at it is."""

    def next_after(self, instant_ms: int) -> int | None:
        """The first due time strictly after an instant; None if there is none any more."""
        after = max(instant_ms, MINUTE_MIN * MINUTE_MS)
        if self.start_ms is not None and after < self.start_ms:
            after = self.start_ms - 1
        when = self.when
        due: int | None
        if isinstance(when, Cron):
            if after >= MINUTE_MAX * MINUTE_MS:
                return None
            minute = when.next_utc(after // MINUTE_MS, self.zone)
            due = None if minute is None else minute * MINUTE_MS
        elif isinstance(when, Interval):
            due = intervals.next_after(when, self.anchor_ms, after, self.zone)
        else:
            due = when if when > after else None
        if due is None or (self.end_ms is not None and due > self.end_ms):
            return None
        return due

    def due_between(self, after_ms: int, until_ms: int, limit: int) -> list[int]:
        """The due times in (after, until], oldest first, at most `limit`.

        To go on after a full answer, ask again with its last as `after_ms`.
        """
        found: list[int] = []
        due = self.next_after(after_ms)
        while due is not None and due <= until_ms and len(found) < limit:
            found.append(due)
            due = self.next_after(due)
        return found


def parse(
    text: str,
    zone_name: str = "UTC",
    *,
    anchor_ms: int = 0,
    start_ms: int | None = None,
    end_ms: int | None = None,
    dialect: Dialect | None = None,
) -> Plan:
    """Read what a person wrote.

    Args:
        zone_name: an IANA name, or `UTC`; wall-clock times are of this zone.
        anchor_ms: when the schedule was made: an interval without a start of its own
            counts from `start_ms`, or from here, and is first due one span later.
        dialect: `debian` accepts `*/2` beside a restricted day and requires both.

    Raises:
        InvalidScheduleError: with a code, the position in `text` (in `zone_name` for
            `unknown_zone` and `ambiguous_zone`) and what to write instead.
    """
    place = zone(zone_name)
    lead = len(text) - len(text.lstrip())
    stripped = text.strip()
    try:
        kind, when = _read(stripped, place, dialect)
    except InvalidScheduleError as error:
        raise InvalidScheduleError(error.code, lead + error.position, error.detail) from None
    if start_ms is not None:
        anchor_ms = start_ms
    return Plan(stripped, kind, place, when, anchor_ms, start_ms, end_ms)


def _read(text: str, place: Zone, dialect: Dialect | None) -> tuple[Kind, Cron | Interval | int]:
    head = text[:6].lower()
    if head.startswith("every") or (text[:1] in ("P", "R") and " " not in text):
        return "interval", intervals.read(text, place)
    if head.startswith("at "):
        lead = len(text) - len(text[3:].lstrip())
        return "once", instant(text[lead:], place, lead)
    if text[:4].isdecimal() and text[4:5] == "-" and text[7:8] == "-":
        return "once", instant(text, place)
    return "cron", cron(text, dialect)
