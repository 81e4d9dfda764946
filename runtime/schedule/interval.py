"""Intervals: the same span again and again from an anchor.

    every 30 minutes          every day          every 1 hour 30 minutes
    PT30M    P1D    P1M    P1W    PT1H30M
    R/2026-01-01T09:00:00Z/P1D        R10/2026-01-01T09:00:00Z/PT1H        R/PT30M

Occurrence k is the anchor plus k times the span, never the last one plus the
span: nothing drifts, and occurrence 0 is the anchor itself.  Hours, minutes and
seconds are real time.  Days, weeks, months and years are those of the wall clock:
they keep the local time of day across changes of the clock (in the first pass of
a fold; right after a gap that skips it), and a month without the anchor's day
ends earlier: 31 January + P1M is the last of February, and + P2M is 31 March.
Two occurrences that fall on one instant are one.  `Rn` has n occurrences, the
first at its start.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from runtime.errors import InvalidScheduleError
from runtime.schedule.instants import MINUTE_MS, instant
from runtime.schedule.zones import DAY, MINUTE_MAX, YEAR_MAX, Zone

SECOND_MS: Final = 1_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = DAY * MINUTE_MS
SPAN_MS_MIN: Final = SECOND_MS
"""Nothing is due more often than each second."""
SPAN_DAYS_MAX: Final = 36_600
COUNT_MAX: Final = 1_000_000_000
COUNT_DIGITS_MAX: Final = 12
"""Of a count, with zeros before it."""
_EPOCH: Final = date(1970, 1, 1)
_MONTH_MS: Final = int(30.436875 * DAY_MS)
"""On average, to begin a search near its end."""
_FAR_MS: Final = MINUTE_MAX * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Span:
    """Months and days of the calendar, and real milliseconds on top."""

    months: int = 0
    days: int = 0
    ms: int = 0

    @property
    def about_ms(self) -> int:
        return self.months * _MONTH_MS + self.days * DAY_MS + self.ms

    def times(self, factor: int) -> Span:
        return Span(self.months * factor, self.days * factor, self.ms * factor)

    def plus(self, other: Span) -> Span:
        return Span(self.months + other.months, self.days + other.days, self.ms + other.ms)


@dataclass(frozen=True, slots=True)
class Interval:
    """A span, from where, and how often."""

    span: Span
    anchor_ms: int
    """UTC milliseconds of occurrence 0."""
    first: int
    """The number of the first occurrence that is due: 1 when the anchor is only where it began."""
    count: int | None = None
    """At most so many occurrences are due."""

    def next_after(self, after_ms: int, zone: Zone) -> int | None:
        """The first occurrence strictly after an instant, in UTC milliseconds."""
        span = self.span
        if not span.months and not span.days:
            k = max((after_ms - self.anchor_ms) // span.ms + 1, self.first)
            due = self.anchor_ms + k * span.ms
        else:
            # A month is at most 3 days from average and clocks differ by at most a day,
            # so this is early, by a few spans.
            k = max((after_ms - self.anchor_ms - 3 * DAY_MS) // span.about_ms - 2, self.first)
            due = self._calendar(k, zone)
            while due <= after_ms:
                k += 1
                due = self._calendar(k, zone)
        if self.count is not None and k >= self.first + self.count:
            return None
        return due if due < _FAR_MS else None

    def _calendar(self, k: int, zone: Zone) -> int:
        """Occurrence k of a span with days or months in it."""
        if k == 0:  # an instant: it may lie in the second pass of a fold
            return self.anchor_ms
        minute, rest = divmod(self.anchor_ms, MINUTE_MS)
        day, minute_of_day = divmod(zone.local(minute), DAY)
        if self.span.months:
            at = _EPOCH + timedelta(days=day)
            year, month = divmod(at.year * 12 + at.month - 1 + self.span.months * k, 12)
            if year >= YEAR_MAX:
                return _FAR_MS
            last = monthrange(year, month + 1)[1]
            day = (date(year, month + 1, min(at.day, last)) - _EPOCH).days
        local = (day + self.span.days * k) * DAY + minute_of_day
        if local >= MINUTE_MAX - 2 * DAY:
            return _FAR_MS
        utc = zone.utc(local)
        skipped = zone.local(utc) != local
        return utc * MINUTE_MS + (0 if skipped else rest) + self.span.ms * k


_UNITS: Final = {
    "second": Span(ms=SECOND_MS),
    "minute": Span(ms=MINUTE_MS),
    "hour": Span(ms=HOUR_MS),
    "day": Span(days=1),
    "week": Span(days=7),
    "month": Span(months=1),
    "year": Span(months=12),
}
_SHORT: Final = {
    "s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "hr": "hour",
    "d": "day", "w": "week",
}  # fmt: skip
_NAMES: Final = {
    name: _UNITS[unit]
    for short, unit in (*_SHORT.items(), *((unit, unit) for unit in _UNITS))
    for name in (short, short + "s")
    if name not in ("ss", "ms", "hs", "ds", "ws")
}
_WORD: Final = re.compile(r"[0-9]+|[a-z]+|[^ \t0-9a-z]+")
_DURATION: Final = re.compile(
    r"P(?=[0-9T])(?:(\d{1,6})Y)?(?:(\d{1,6})M)?(?:(\d{1,6})W)?(?:(\d{1,6})D)?"
    r"(?:T(?=\d)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,12})(?:[.,](\d{1,3}))?S)?)?",
    re.ASCII,
)


def read(text: str, zone: Zone, anchor_ms: int, first: int) -> Interval:
    """An interval from its text.

    Args:
        text: ASCII that begins with `every`, `P` or `R`, in any case.
        anchor_ms, first: of an interval that names no start.

    Raises:
        InvalidScheduleError: `bad_interval`, `bad_count`, `out_of_range`, and those
            of `instants.instant`.
    """
    if text[:5].lower() == "every":
        return Interval(_checked(_words(text.lower()), 0), anchor_ms, first)
    if text[:1] in ("P", "p"):
        return Interval(_checked(_duration(text.upper(), 0), 0), anchor_ms, first)
    return _repetition(text.upper(), zone, anchor_ms, first)


def _words(text: str) -> Span:
    words = [(match.start(), match.group()) for match in _WORD.finditer(text)]
    if words[0][1] != "every":
        raise _bad(text, 0)
    span, number = Span(), 1 if words[1:] and words[1][1].isalpha() else None
    for place, word in words[1:]:
        unit = _NAMES.get(word)
        if number is None and word.isdigit() and len(word) <= 9:
            number = int(word)
        elif number is not None and unit is not None:
            span, number = span.plus(unit.times(number)), None
        else:
            raise _bad(text, place)
    if number is not None or len(words) == 1:
        raise _bad(text, len(text))
    return span


def _duration(text: str, place: int) -> Span:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise _bad(text, place)
    years, months, weeks, days, hours, minutes, seconds = (
        int(match.group(index) or 0) for index in range(1, 8)
    )
    thousandths = int((match.group(8) or "0").ljust(3, "0"))
    real_ms = hours * HOUR_MS + minutes * MINUTE_MS + seconds * SECOND_MS + thousandths
    return Span(years * 12 + months, weeks * 7 + days, real_ms)


def _repetition(text: str, zone: Zone, anchor_ms: int, first: int) -> Interval:
    head, *parts = text.split("/")
    if len(parts) not in (1, 2):
        raise _bad(text, 0)
    count = None
    if head[1:]:
        digits = head[1:]
        short = digits.isdecimal() and len(digits) <= COUNT_DIGITS_MAX
        if not short or not 1 <= int(digits) <= COUNT_MAX:
            raise InvalidScheduleError(
                "bad_count", 1, f"{digits!r} is no number of occurrences: 1-{COUNT_MAX}"
            )
        count = int(digits)
    place = len(head) + 1
    if len(parts) == 2:
        anchor_ms, first = instant(parts[0], zone, place), 0
        place += len(parts[0]) + 1
    return Interval(_checked(_duration(parts[-1], place), place), anchor_ms, first, count)


def _checked(span: Span, place: int) -> Span:
    if not SPAN_MS_MIN <= span.about_ms <= SPAN_DAYS_MAX * DAY_MS:
        raise InvalidScheduleError(
            "out_of_range", place, f"an interval is 1 second to {SPAN_DAYS_MAX} days long"
        )
    return span


def _bad(text: str, place: int) -> InvalidScheduleError:
    return InvalidScheduleError(
        "bad_interval",
        place,
        f"{text!r} is no interval such as `every 30 minutes` or PT30M; "
        "a time of day is cron's: 0 9 * * *",
    )
