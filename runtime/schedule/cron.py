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

from runtime.schedule.cronfields import LAST_DAY, Dialect, Fields, read
from runtime.schedule.zones import DAY, MINUTE_MAX, Zone

CACHED_MAX: Final = 4_096
"""Expressions kept read."""
YEARS_MAX: Final = 50
"""29 February on a Sunday is 40 years apart over 2100; nothing is further."""
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_ALL_DAYS: Final = 0xFFFFFFFE
_ALL_MONTHS: Final = 0x1FFE
_ALL_WEEKDAYS: Final = 0x7F


class Cron:
    """One expression; `next_utc` answers for any zone."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.wildcard = fields.wildcard
        self._minutes = fields.minutes
        self._hours = fields.hours
        self._first_minute = _lowest(fields.minutes)
        self._first_time = _lowest(fields.hours) * 60 + self._first_minute
        days = fields.days & _ALL_DAYS == _ALL_DAYS
        weekdays = fields.weekdays == _ALL_WEEKDAYS
        every = (days or weekdays) if fields.either_day else (days and weekdays)
        self._every_day = every and fields.months == _ALL_MONTHS

    def next_utc(self, after: int, zone: Zone) -> int | None:
        """The first due UTC minute after a UTC minute; None if there is none in `YEARS_MAX`."""
        utc = after + 1
        limit = min(MINUTE_MAX, utc + YEARS_MAX * 366 * DAY)
        index = zone.segment(utc)
        begun = zone.starts[index] == utc
        while utc < limit:
            offset, end = zone.offsets[index], zone.end(index)
            local = utc + offset
            if not self.wildcard:
                high = zone.highs[index]
                if begun and high < local and self._next_local(high, local) is not None:
                    return utc
                local = max(local, high)
            found = self._next_local(local, end + offset)
            if found is not None:
                return found - offset
            utc, index, begun = end, index + 1, True
        return None

    def _next_local(self, local: int, until: int) -> int | None:
        """The first matching local minute in [local, until)."""
        if local >= until:
            return None
        day, minute = divmod(local, DAY)
        time = self._time_from(minute)
        if time is None:
            day, time = day + 1, self._first_time
        if not self._every_day:
            matching = self._day_from(day, until // DAY)
            if matching is None:
                return None
            if matching > day:
                day, time = matching, self._first_time
        found = day * DAY + time
        return found if found < until else None

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
        while day <= last:
            at = date.fromordinal(day + _EPOCH_ORDINAL)
            length = _length(at.year, at.month)
            if self.fields.months >> at.month & 1:
                mask = self._month_mask(at, length) >> at.day
                if mask:
                    found = day + _lowest(mask)
                    return found if found <= last else None
            day += length - at.day + 1
        return None

    def _month_mask(self, at: date, length: int) -> int:
        """The matching days of a month, bit 1 its first."""
        fields = self.fields
        first_weekday = (at.isoweekday() - at.day + 1) % 7
        days = fields.days & ((2 << length) - 1)
        if fields.days & LAST_DAY:
            days |= 1 << length
        weeks = _WEEKS[fields.weekdays] >> first_weekday
        weekdays = (weeks << 1) & ((2 << length) - 1)
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
