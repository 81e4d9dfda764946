"""IANA zones as segments of constant offset, so that stepping is arithmetic on integers.

All times are whole minutes since 1970-01-01: `utc` minutes are real, `local`
minutes are what a wall clock shows.  `high` of a segment is the first local
minute that no earlier segment has shown: below it local time repeats (a fold),
and when the segment begins above it local time was skipped (a gap).  The rules
of cron and of calendar intervals follow from these numbers alone.

Offsets come from the `tzdata` package, not from the machine, so that all nodes
of a cluster agree and the version can be kept beside what was computed.
Offsets are whole minutes in every zone since 1972-01-07; earlier ones are
rounded down.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from difflib import get_close_matches
from functools import lru_cache
from importlib import metadata, resources
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from runtime.errors import InvalidScheduleError

TZDATA_VERSION: Final = metadata.version("tzdata")
"""The release that offsets are computed from, such as `2026.6` for IANA's 2026f."""
ZONES_MAX: Final = 1_024
"""Tables kept; there are about 600 zones."""
BLOCKS_MAX: Final = 1_000
"""Blocks kept of a zone; then it begins anew."""
DAY: Final = 1_440
MINUTE_MIN: Final = (date(1900, 1, 1) - date(1970, 1, 1)).days * DAY
YEAR_MAX: Final = 9_000
MINUTE_MAX: Final = (date(YEAR_MAX, 1, 1) - date(1970, 1, 1)).days * DAY
"""Nothing is due before the one and at or after the other of these UTC minutes."""
_BLOCK_BITS: Final = 19
"""A block is 2^19 minutes, 364 days: it is computed when one of its minutes is asked for."""
_PROBE: Final = 4 * DAY
"""Offsets are compared so far apart; no two changes in tzdata are nearer than 6.9 days."""
_MARGIN: Final = 8 * DAY
"""Looked at before a block, so that a fold at its border is seen whole."""
_NO_ZONES: Final = frozenset({"Factory", "localtime", "posixrules"})
"""Names for a machine that has not been told where it is, or for its own settings."""
_SHORT: Final = re.compile(r"[A-Z]{2,4}([0-9][A-Z]{3})?|(Etc/)?(GMT|UTC)[+-]?[0-9]+")


class Segment(NamedTuple):
    """A time of constant offset; at the border of a block one may end for no other reason."""

    start: int
    """Its first UTC minute."""
    end: int
    """The first UTC minute after it."""
    offset: int
    """Minutes that local time is ahead of UTC."""
    high: int
    """The first local minute that no segment before has shown."""


class Zone:
    """One zone; its segments are computed as they are asked for."""

    def __init__(self, name: str, info: ZoneInfo) -> None:
        self.name = name
        self._info = info
        self._blocks: dict[int, list[Segment]] = {}

    def segment(self, utc: int) -> Segment:
        """The segment that holds a UTC minute."""
        block = self._blocks.get(utc >> _BLOCK_BITS)
        if block is None:
            block = self._block(utc >> _BLOCK_BITS)
        for segment in block:
            if utc < segment.end:
                break
        return segment

    def local(self, utc: int) -> int:
        """What the wall clock shows at a UTC minute."""
        return utc + self.segment(utc).offset

    def utc(self, local: int) -> int:
        """When the wall clock first shows a local minute; the end of the gap if it never does."""
        segment = self.segment(local - 2 * DAY)
        while segment.end + segment.offset <= local:
            segment = self.segment(segment.end)
        return max(local - segment.offset, segment.start)

    def passes(self, local: int) -> list[int]:
        """Every UTC minute at which the wall clock shows a local minute: none, one or two."""
        segment = self.segment(local - 2 * DAY)
        found = []
        while True:
            utc = local - segment.offset
            if segment.start <= utc < segment.end:
                found.append(utc)
            if segment.end > local + 2 * DAY:
                return found
            segment = self.segment(segment.end)

    def _block(self, number: int) -> list[Segment]:
        if len(self._blocks) >= BLOCKS_MAX:
            self._blocks.clear()
        begin, end = number << _BLOCK_BITS, (number + 1) << _BLOCK_BITS
        starts, offsets = [begin - _MARGIN], [self._offset(begin - _MARGIN)]
        for low in range(begin - _MARGIN, end, _PROBE):
            self._changes(low, min(low + _PROBE, end - 1), starts, offsets)
        block, shown = [], starts[0] + offsets[0]
        for start, until, offset in zip(starts, [*starts[1:], end], offsets, strict=True):
            if until > begin:
                if start < begin:
                    shown = max(shown, begin + offset)
                block.append(Segment(max(start, begin), until, offset, shown))
            shown = until + offset  # a segment is longer than any fold
        self._blocks[number] = block
        return block

    def _changes(self, low: int, high: int, starts: list[int], offsets: list[int]) -> None:
        """Append the changes in (low, high]."""
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

    _ONLY: Final = Segment(-(2**62), 2**62, 0, -(2**62))

    def segment(self, utc: int) -> Segment:
        return self._ONLY


@lru_cache(ZONES_MAX)
def zone(name: str) -> Zone:
    """The zone of an IANA name such as `Europe/Berlin`, or `UTC`.

    Raises:
        InvalidScheduleError: `unknown_zone`; `ambiguous_zone` for abbreviations
            (`EST`, `CET`) and bare offsets (`+02:00`, `Etc/GMT+5`): the former mean
            different things to different people, the latter have no summer time.
    """
    if name in ("UTC", "Etc/UTC"):
        return _Utc(name, ZoneInfo("UTC"))
    if _SHORT.fullmatch(name) or name[:1] in ("+", "-"):
        raise InvalidScheduleError(
            "ambiguous_zone", 0, f"{name!r} is an abbreviation or an offset; name Area/City or UTC"
        )
    if name in _names():
        file = resources.files("tzdata.zoneinfo").joinpath(*name.split("/"))
        with file.open("rb") as data:
            return Zone(name, ZoneInfo.from_file(data, key=name))
    near = get_close_matches(name, _names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InvalidScheduleError("unknown_zone", 0, f"there is no IANA zone {name[:64]!r}{hint}")


@lru_cache(1)
def _names() -> list[str]:
    """Those that the package lists and that are places."""
    listed = resources.files("tzdata").joinpath("zones").read_text().split()
    return [name for name in listed if name not in _NO_ZONES]
