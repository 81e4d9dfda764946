"""Cron made exact: which UTC minutes an expression means in a zone.

An expression is *wildcard* when its minute or hour begins with `*`: it follows
real time, so every real minute whose wall clock matches is due (nothing in a
gap, both passes of a fold).  Otherwise it is *fixed*: each matching time of the
wall clock is due once, in the first pass of a fold, and at the first instant
after the gap that skipped it.  A due time is its UTC instant; nothing here
knows when something last ran, so a restart inside a fold or a clock that is set
changes nothing.

Source: cron(8) and crontab(5) of Debian; tests/data/cron_vectors.json.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Final

from runtime.schedule.cronfields import ALL_DAYS, ALL_WEEKDAYS, LAST_DAY, Dialect, Fields, read
from runtime.schedule.zones import DAY, MINUTE_MAX, Zone

CACHED_MAX: Final = 4_096
"""Expressions kept read."""
YEARS_MAX: Final = 50
"""29 February on a Sunday is 40 years apart over 2100; nothing is further."""
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_EPOCH_WEEKDAY: Final = 4
"""1970-01-01 was a Thursday; Sunday is 0."""
_ALL_MONTHS: Final = 0x1FFE


class Cron:
    """One expression; `next_utc` answers for any zone."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.wildcard = fields.wildcard
        self._minutes = fields.minutes
        self._hours = fields.hours
        self._first_minute = _lowest(fields.minutes)
        self._first_time = _lowest(fields.hours) * 60 + self._first_minute
        days = fields.days & ALL_DAYS == ALL_DAYS
        weekdays = fields.weekdays == ALL_WEEKDAYS
        every = (days or weekdays) if fields.either_day else (days and weekdays)
        self._every_day = every and fields.months == _ALL_MONTHS

    def next_utc(self, after: int, zone: Zone) -> int | None:
        """The first due UTC minute after a UTC minute; None if there is none in `YEARS_MAX`."""
        utc = after + 1
        last_day = (utc + YEARS_MAX * 366 * DAY) // DAY
        since, found = 0, -1
        while utc < MINUTE_MAX:
            start, end, offset, high = zone.segment(utc)
            first = local = utc + offset
            if not self.wildcard:
                # Where a segment starts, what was skipped before it counts, too.
                first = high if utc == start or high > local else local
            if not since <= first <= found:
                since, following = first, self._next_local(first, last_day)
                if following is None:
                    return None
                found = following
            if found < end + offset:
                due = max(found - offset, utc)
                return due if due < MINUTE_MAX else None
            # A fold within two days may show what is before `local` again; after them no
            # clock shows anything that matches until two days before `found`.
            utc = max(end, found - 2 * DAY) if end - utc >= 2 * DAY else end
        return None

    def _next_local(self, local: int, last_day: int) -> int | None:
        """The first matching local minute from one on, up to the end of a day."""
        day, minute = divmod(local, DAY)
        time = self._time_from(minute)
        if time is None:
            day, time = day + 1, self._first_time
        if not self._every_day:
            matching = self._day_from(day, last_day)
            if matching is None:
                return None
            if matching > day:
                day, time = matching, self._first_time
        return day * DAY + time

    def _time_from(self, minute_of_day: int) -> int | None:
        """The first matching minute of a day, from one on."""
        hour, minute = divmod(minute_of_day, 60)
        hours = self._hours >> hour
        if hours & 1:
            minutes = self._minutes >> minute
            if minutes:
                return minute_of_day + _lowest(minutes)
        hours &= ~1
        return (hour + _lowest(hours)) * 60 + self._first_minute if hours else None

    def _day_from(self, day: int, last: int) -> int | None:
        """The first matching day (days since 1970), from one on up to and including the last."""
        at = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month, first = at.year, at.month, day - at.day + 1
        from_day, months = at.day, self.fields.months
        while first <= last:
            if months >> month & 1:
                mask = self._month_mask(first, _length(year, month)) >> from_day
                if mask:
                    return first + from_day + _lowest(mask) - 1
            later = months >> month + 1
            if later:
                month += 1 + _lowest(later)
            else:
                year, month = year + 1, _lowest(months)
            first, from_day = date(year, month, 1).toordinal() - _EPOCH_ORDINAL, 1
        return None

    def _month_mask(self, first: int, length: int) -> int:
        """The matching days of the month that begins on a day, bit 1 its first."""
        fields = self.fields
        within = (2 << length) - 1
        days = fields.days & within
        if fields.days & LAST_DAY:
            days |= 1 << length
        weekdays = _WEEKS[fields.weekdays] >> (first + _EPOCH_WEEKDAY) % 7 << 1 & within
        return days | weekdays if fields.either_day else days & weekdays


def _lowest(mask: int) -> int:
    """The number of the lowest bit."""
    return (mask & -mask).bit_length() - 1


def _length(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


_WEEKS: Final = [sum(mask << 7 * week for week in range(6)) for mask in range(128)]
"""A set of weekdays repeated over six weeks from a Sunday on."""


@lru_cache(CACHED_MAX)
def cron(text: str, dialect: Dialect | None = None) -> Cron:
    """Read an expression.

    Raises:
        InvalidScheduleError: see `cronfields.read`.
    """
    return Cron(read(text, dialect))
