"""IANA zones as tables of offsets, so that stepping through time is arithmetic on integers.

All times are whole minutes since 1970-01-01: `utc` minutes are real, `local`
minutes are what a wall clock shows.  A zone is a row of segments of constant
offset.  `high` of a segment is the first local minute that no earlier segment
has shown: below it local time repeats (a fold), and when the segment begins
above it local time was skipped (a gap).  Both rules of cron and those of
calendar intervals follow from these three numbers.

Offsets come from the `tzdata` package, not from the machine, so that all nodes
of a cluster agree and the version can be kept beside what was computed.
Offsets are whole minutes in every zone since 1972-01-07; earlier ones are
rounded down.  A zone is for one thread.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from importlib import metadata, resources
from typing import Final
from zoneinfo import ZoneInfo

from runtime.errors import InvalidScheduleError

TZDATA_VERSION: Final = metadata.version("tzdata")
"""The release that offsets are computed from, such as `2026.6` for IANA's 2026f."""
ZONES_MAX: Final = 1_024
"""Tables kept; there are about 600 zones."""
YEARS_MAX: Final = 400
"""Years a table holds before it is begun anew."""
DAY: Final = 1_440
_MARGIN: Final = 8 * DAY
"""Looked at before a year, so that a fold over New Year is seen whole."""
_NAME: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")
_SHORT: Final = re.compile(r"[A-Z]{2,4}([0-9][A-Z]{3})?|(Etc/)?(GMT|UTC)[+-]?[0-9]+")


def _new_year(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) // 60


YEAR_MIN, YEAR_MAX = 1900, 9_000
MINUTE_MIN: Final = _new_year(YEAR_MIN)
MINUTE_MAX: Final = _new_year(YEAR_MAX)
"""Nothing is due before the first and at or after the second of these UTC minutes."""


class Zone:
    """One zone; its table grows by whole years as they are asked for."""

    def __init__(self, name: str, info: ZoneInfo) -> None:
        self.name = name
        self._info = info
        self._first_year = self._last_year = 0
        self.since = self.until = 0
        """The UTC minutes that the table covers: from, and up to but without."""
        self.starts: list[int] = []
        """The first UTC minute of each segment; a year always begins one."""
        self.offsets: list[int] = []
        """Minutes to add to UTC in each segment."""
        self.highs: list[int] = []
        """The first local minute that no segment before has shown."""

    def segment(self, utc: int) -> int:
        """The index of the segment that holds a UTC minute, good until the next call."""
        if not self.since <= utc < self.until:
            self._cover(utc)
        return bisect_right(self.starts, utc) - 1

    def end(self, index: int) -> int:
        """The first UTC minute after a segment; afterwards the next one exists."""
        if index + 1 == len(self.starts):
            self._append(self._last_year)
        return self.starts[index + 1]

    def local(self, utc: int) -> int:
        """What the wall clock shows at a UTC minute."""
        return utc + self.offsets[self.segment(utc)]

    def utc(self, local: int) -> int:
        """When the wall clock first shows a local minute; the end of the gap if it never does."""
        index = self.segment(local - 2 * DAY)
        while self.end(index) + self.offsets[index] <= local:
            index += 1
        return max(local - self.offsets[index], self.starts[index])

    def passes(self, local: int) -> list[int]:
        """Every UTC minute at which the wall clock shows a local minute: none, one or two."""
        index = self.segment(local - 2 * DAY)
        found = []
        while True:
            utc, end = local - self.offsets[index], self.end(index)
            if self.starts[index] <= utc < end:
                found.append(utc)
            if end > local + 2 * DAY:
                return found
            index += 1

    def _cover(self, utc: int) -> None:
        year = datetime.fromtimestamp(utc * 60, UTC).year
        near = self._first_year - YEARS_MAX < year < self._last_year + YEARS_MAX
        if not near or self._last_year - self._first_year > YEARS_MAX:
            self.starts, self.offsets, self.highs = [], [], []
            self._first_year = self._last_year = year
            self.since = _new_year(year)
        while self._last_year <= year:
            self._append(self._last_year)
        while year < self._first_year:
            self._first_year -= 1
            starts, offsets, highs = self._year(self._first_year)
            self.starts = starts + self.starts
            self.offsets = offsets + self.offsets
            self.highs = highs + self.highs
            self.since = _new_year(self._first_year)

    def _append(self, year: int) -> None:
        starts, offsets, highs = self._year(year)
        self.starts += starts
        self.offsets += offsets
        self.highs += highs
        self._last_year = year + 1
        self.until = _new_year(year + 1)

    def _year(self, year: int) -> tuple[list[int], list[int], list[int]]:
        """The segments of one year; the first begins with it."""
        begin, end = _new_year(year), _new_year(year + 1)
        starts, offsets = [begin - _MARGIN], [self._offset(begin - _MARGIN)]
        for day in range(begin - _MARGIN, end, DAY):
            self._changes(day, min(day + DAY, end - 1), starts, offsets)
        highs = [starts[0] + offsets[0]]
        for index in range(1, len(starts)):
            highs.append(max(highs[-1], starts[index] + offsets[index - 1]))
        last_before = bisect_right(starts, begin) - 1
        if starts[last_before] < begin:
            shown = max(highs[last_before], begin + offsets[last_before])
            starts[last_before], highs[last_before] = begin, shown
        return starts[last_before:], offsets[last_before:], highs[last_before:]

    def _changes(self, low: int, high: int, starts: list[int], offsets: list[int]) -> None:
        """Append the changes in (low, high]; two that cancel within a day would be missed."""
        last = self._offset(high)
        while offsets[-1] != last:
            same, other = low, high
            while other - same > 1:
                middle = (same + other) // 2
                if self._offset(middle) == offsets[-1]:
                    same = middle
                else:
                    other = middle
            starts.append(other)
            offsets.append(self._offset(other))
            low = other

    def _offset(self, utc: int) -> int:
        delta = datetime.fromtimestamp(utc * 60, self._info).utcoffset()
        assert delta is not None
        return (delta.days * 86_400 + delta.seconds) // 60


class _Utc(Zone):
    """UTC: one segment, for ever."""

    def __init__(self, name: str) -> None:
        super().__init__(name, ZoneInfo("UTC"))
        self.since, self.until = -(2**62), 2**62
        self.starts, self.offsets = [self.since, self.until], [0, 0]
        self.highs = [self.since, self.until]


@lru_cache(ZONES_MAX)
def zone(name: str) -> Zone:
    """The zone of an IANA name such as `Europe/Berlin`, or `UTC`.

    Raises:
        InvalidScheduleError: `unknown_zone`; `ambiguous_zone` for abbreviations
            (`EST`, `CET`) and bare offsets (`+02:00`, `Etc/GMT+5`): the former mean
            different things to different people, the latter have no summer time.
    """
    if name in ("UTC", "Etc/UTC"):
        return _Utc(name)
    if _SHORT.fullmatch(name) or name[:1] in ("+", "-"):
        raise InvalidScheduleError(
            "ambiguous_zone", 0, f"{name!r} is an abbreviation or an offset; name Area/City or UTC"
        )
    if _NAME.fullmatch(name):
        file = resources.files("tzdata.zoneinfo").joinpath(*name.split("/"))
        if file.is_file():
            with file.open("rb") as data:
                if data.read(4) == b"TZif":
                    data.seek(0)
                    return Zone(name, ZoneInfo.from_file(data, key=name))
    near = get_close_matches(name, _names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InvalidScheduleError("unknown_zone", 0, f"there is no IANA zone {name[:64]!r}{hint}")


@lru_cache(1)
def _names() -> list[str]:
    return resources.files("tzdata").joinpath("zones").read_text().split()
