"""Intervals: the same span again and again from an anchor.

    every 30 minutes          every day          every 1 hour 30 minutes
    PT30M    P1D    P1M    P1W    PT1H30M
    R/2026-01-01T09:00:00Z/P1D        R10/2026-01-01T09:00:00Z/PT1H        R/PT30M

Occurrence k is the anchor plus k times the span, k = 0, 1, 2, ...  Hours,
minutes and seconds are real time.  Days, weeks, months and years are those of
the wall clock: they keep the local time of day across changes of the clock
(after a gap that skips it; in the first pass of a fold), and a month without
the anchor's day ends earlier: 31 January + P1M is the last of February, and
P2M is 31 March.  `Rn` has n occurrences, the first at its start.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from runtime.errors import InvalidScheduleError
from runtime.schedule.instants import MINUTE_MS, instant
from runtime.schedule.zones import DAY, MINUTE_MAX, Zone

SECOND_MS: Final = 1_000
DAY_MS: Final = DAY * MINUTE_MS
SPAN_MS_MIN: Final = SECOND_MS
"""Nothing is due more often than each second."""
SPAN_DAYS_MAX: Final = 36_600
COUNT_MAX: Final = 1_000_000_000
TEXT_MAX: Final = 256
_EPOCH: Final = date(1970, 1, 1)
_MONTH_MS: Final = int(30.436875 * DAY_MS)
"""On average, to begin a search near its end."""


@dataclass(frozen=True, slots=True)
class Span:
    """Calendar months and days, and real milliseconds on top."""

    months: int = 0
    days: int = 0
    ms: int = 0

    @property
    def about_ms(self) -> int:
        return self.months * _MONTH_MS + self.days * DAY_MS + self.ms


@dataclass(frozen=True, slots=True)
class Interval:
    """A span, from where, and how often."""

    span: Span
    start_ms: int | None = None
    """Occurrence 0, when the text names it."""
    count: int | None = None
    """At most so many occurrences."""


_UNITS: Final = {
    "second": Span(ms=SECOND_MS),
    "minute": Span(ms=MINUTE_MS),
    "hour": Span(ms=60 * MINUTE_MS),
    "day": Span(days=1),
    "week": Span(days=7),
    "month": Span(months=1),
    "year": Span(months=12),
}
_SHORT: Final = {
    "s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "hr": "hour", "d": "day",
    "w": "week",
}  # fmt: skip
_WORD: Final = re.compile(r"[0-9]+|[a-z]+|[^ \t0-9a-z]+", re.IGNORECASE)
_DURATION: Final = re.compile(
    r"P(?:(\d{1,6})Y)?(?:(\d{1,6})M)?(?:(\d{1,6})W)?(?:(\d{1,6})D)?"
    r"(?:T(?=\d)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,12})(?:[.,](\d{1,3}))?S)?)?",
    re.ASCII,
)


def read(text: str, zone: Zone) -> Interval:
    """An interval from its text, which begins with `every`, `P` or `R`.

    Raises:
        InvalidScheduleError: `too_long`, `bad_interval`, `bad_count`,
            `out_of_range`, and those of `instants.instant`.
    """
    if len(text) > TEXT_MAX:
        raise InvalidScheduleError("too_long", TEXT_MAX, f"at most {TEXT_MAX} characters")
    if text[:5].lower() == "every":
        return Interval(_checked(_words(text), 0))
    if text[:1] == "P":
        return Interval(_checked(_duration(text, 0), 0))
    return _repetition(text, zone)


def next_after(interval: Interval, anchor_ms: int, after_ms: int, zone: Zone) -> int | None:
    """The first occurrence strictly after an instant, in UTC milliseconds.

    Args:
        anchor_ms: occurrence 0; the interval's own start goes before it.
    """
    anchor = anchor_ms if interval.start_ms is None else interval.start_ms
    span = interval.span
    if not span.months and not span.days:
        k = max((after_ms - anchor) // span.ms + 1, 0)
        due = anchor + k * span.ms
    else:
        # A calendar month is 28 to 31 days and a change of the clock moves a day by hours:
        # the estimate is early by less than two spans and three days.
        k = max((after_ms - anchor - 3 * DAY_MS) // span.about_ms - 2, 0)
        due = _calendar(span, k, anchor, zone)
        while due <= after_ms:
            k += 1
            due = _calendar(span, k, anchor, zone)
    if interval.count is not None and k >= interval.count:
        return None
    return due if due < MINUTE_MAX * MINUTE_MS else None


def _calendar(span: Span, k: int, anchor_ms: int, zone: Zone) -> int:
    """Occurrence k of a span with days or months in it."""
    minute, rest = divmod(anchor_ms, MINUTE_MS)
    day, minute_of_day = divmod(zone.local(minute), DAY)
    if span.months and k:
        at = _EPOCH + timedelta(days=day)
        year, month = divmod(at.year * 12 + at.month - 1 + span.months * k, 12)
        if year >= 9_000:
            return MINUTE_MAX * MINUTE_MS
        last = monthrange(year, month + 1)[1]
        day = (date(year, month + 1, min(at.day, last)) - _EPOCH).days
    local = (day + span.days * k) * DAY + minute_of_day
    if local >= MINUTE_MAX - 2 * DAY:
        return MINUTE_MAX * MINUTE_MS
    utc = zone.utc(local)
    skipped = utc + zone.offsets[zone.segment(utc)] != local
    return utc * MINUTE_MS + (0 if skipped else rest) + span.ms * k


def _words(text: str) -> Span:
    found = [(match.start(), match.group().lower()) for match in _WORD.finditer(text)]
    words = found[1:]
    if found[0][1] != "every" or not words:
        raise _bad(text, len(text) if found[0][1] == "every" else 0)
    months = days = ms = 0
    number: str | None = "1" if words[0][1].isalpha() else None
    for place, word in words:
        if word.isdigit() and number is None and len(word) <= 9:
            number = word
            continue
        unit = _UNITS.get(_SHORT.get(word, word.removesuffix("s") if len(word) > 3 else word))
        unit = unit or _UNITS.get(_SHORT.get(word.removesuffix("s"), ""))
        if unit is None or number is None:
            raise _bad(text, place)
        amount, number = int(number), None
        months += unit.months * amount
        days += unit.days * amount
        ms += unit.ms * amount
    if number is not None:
        raise _bad(text, len(text))
    return Span(months, days, ms)


def _bad(text: str, place: int) -> InvalidScheduleError:
    return InvalidScheduleError(
        "bad_interval",
        place,
        f"{text!r} is no interval such as `every 30 minutes` or PT30M; "
        "a time of day is cron's: 0 9 * * *",
    )


def _duration(text: str, place: int) -> Span:
    match = _DURATION.fullmatch(text)
    if match is None or len(text) < 3 or text.endswith("T"):
        raise _bad(text, place)
    years, months, weeks, days, hours, minutes, seconds = (
        int(match.group(index) or 0) for index in range(1, 8)
    )
    thousandths = int((match.group(8) or "0").ljust(3, "0"))
    return Span(
        years * 12 + months,
        weeks * 7 + days,
        ((hours * 60 + minutes) * 60 + seconds) * SECOND_MS + thousandths,
    )


def _checked(span: Span, place: int) -> Span:
    if not SPAN_MS_MIN <= span.about_ms <= SPAN_DAYS_MAX * DAY_MS:
        raise InvalidScheduleError(
            "out_of_range", place, f"an interval is 1 second to {SPAN_DAYS_MAX} days long"
        )
    return span


def _repetition(text: str, zone: Zone) -> Interval:
    parts = text.split("/")
    count_text, place = parts[0][1:], len(parts[0]) + 1
    if not 2 <= len(parts) <= 3:
        raise _bad(text, 0)
    count = None
    if count_text:
        if not count_text.isdecimal() or not 1 <= int(count_text[:12]) <= COUNT_MAX:
            raise InvalidScheduleError(
                "bad_count", 1, f"{count_text!r} is no number of occurrences from 1 on"
            )
        count = int(count_text)
    start = None
    if len(parts) == 3:
        start = instant(parts[1], zone, place)
        place += len(parts[1]) + 1
    return Interval(_checked(_duration(parts[-1], place), place), start, count)
