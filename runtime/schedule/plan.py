"""A plan: one text that says when, read once, then asked for due times.

    cron      30 2 * * *     @daily     0 0 L * *
    interval  every 30 minutes     PT30M     R10/2026-01-01T09:00:00Z/P1D
    once      2026-11-05T09:00:00Z     2026-11-05T09:00     at 2026-11-05 09:00

`parse` is pure: the same arguments give the same due times, on any machine with
the same tzdata.  All instants are UTC milliseconds.  A plan has no state: keep
the arguments and parse again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from runtime.errors import InvalidScheduleError
from runtime.schedule import interval as intervals
from runtime.schedule.cron import Cron, cron
from runtime.schedule.cronfields import Dialect
from runtime.schedule.instants import MINUTE_MS, instant
from runtime.schedule.interval import Interval
from runtime.schedule.zones import MINUTE_MAX, MINUTE_MIN, Zone, zone

Kind = Literal["cron", "interval", "once"]
TEXT_MAX: Final = 256
_BLANKS: Final = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """When something is due."""

    text: str
    """As it was given, without blanks around it."""
    kind: Kind
    zone: Zone
    when: Cron | Interval | int
    """What the text says; `int` is the instant of `once`."""
    start_ms: int | None = None
    """Nothing is due before; what is due at it, is."""
    end_ms: int | None = None
    """Nothing is due after; what is due at it, is."""

    def next_after(self, instant_ms: int) -> int | None:
        """The first due time strictly after an instant; None if there is none any more."""
        after = instant_ms
        if self.start_ms is not None and after < self.start_ms:
            after = self.start_ms - 1
        due = self._next(after)
        return None if due is None or (self.end_ms is not None and due > self.end_ms) else due

    def due_between(self, after_ms: int, until_ms: int, limit: int) -> list[int]:
        """The due times in (after, until], oldest first, at most `limit`.

        To go on after a full answer, ask again with its last as `after_ms`.
        """
        found: list[int] = []
        due = self.next_after(after_ms) if limit > 0 else None
        while due is not None and due <= until_ms:
            found.append(due)
            due = self.next_after(due) if len(found) < limit else None
        return found

    def _next(self, after: int) -> int | None:
        when = self.when
        if isinstance(when, int):
            return when if when > after else None
        minute = max(after // MINUTE_MS, MINUTE_MIN)
        if minute >= MINUTE_MAX:
            return None
        if isinstance(when, Interval):
            return when.next_after(after, self.zone)
        due = when.next_utc(minute, self.zone)
        return None if due is None else due * MINUTE_MS


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
        anchor_ms: when the schedule was made: an interval without a start is first
            due one span later.  With `start_ms` it is first due at that.
        dialect: `debian` accepts `*/2` beside a restricted day and requires both.

    Raises:
        InvalidScheduleError: with a code, the position in `text` (in `zone_name` for
            `unknown_zone` and `ambiguous_zone`) and what to write instead.
    """
    place = zone(zone_name)
    stripped = _plain(text)
    anchor, first = (anchor_ms, 1) if start_ms is None else (start_ms, 0)
    try:
        kind, when = _read(stripped, place, dialect, anchor, first)
    except InvalidScheduleError as error:
        lead = len(text) - len(text.lstrip(_BLANKS))
        raise InvalidScheduleError(error.code, lead + error.position, error.detail) from None
    return Plan(stripped, kind, place, when, start_ms, end_ms)


def once(text: str, zone_name: str = "UTC") -> Plan:
    """Read one instant, without an `at` before it.  Raises as `parse` does."""
    place = zone(zone_name)
    stripped = _plain(text)
    return Plan(stripped, "once", place, instant(stripped, place, text.index(stripped)))


def _plain(text: str) -> str:
    """The text without blanks around it; refuse what no schedule is made of."""
    if len(text) > TEXT_MAX:
        raise InvalidScheduleError("too_long", TEXT_MAX, f"at most {TEXT_MAX} characters")
    if not text.isascii():
        place = next(i for i, character in enumerate(text) if not character.isascii())
        raise InvalidScheduleError("non_ascii", place, f"{text[place]!r} is not ASCII")
    return text.strip(_BLANKS)


def _read(
    text: str, place: Zone, dialect: Dialect | None, anchor_ms: int, first: int
) -> tuple[Kind, Cron | Interval | int]:
    head = text[:5].lower()
    one_word = " " not in text
    if head == "every" or (one_word and head[:1] in ("p", "r")):
        return "interval", intervals.read(text, place, anchor_ms, first)
    if head.startswith("at "):
        lead = len(text) - len(text[3:].lstrip(_BLANKS))
        return "once", instant(text[lead:], place, lead)
    if text[:4].isdigit() and text[4:5] == "-":
        return "once", instant(text, place)
    return "cron", cron(text, dialect)
