"""What cron means, said a second time: by looking at every minute.

Nothing here is shared with `runtime.schedule` but the standard library's
`zoneinfo` and the files of the `tzdata` package, and nothing is clever: each UTC
minute is turned into what the wall clock shows, and asked whether it matches.

    wildcard   due at every minute whose reading matches
    fixed      due at every matching reading in the first pass of a fold, and at
               the first minute after a gap when a skipped reading matches

Source: crontab(5) and cron(8) of Debian.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_NAMES = {
    name: number
    for names, first in (("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", 1),
                         ("SUN MON TUE WED THU FRI SAT", 0))
    for number, name in enumerate(names.split(), first)
}  # fmt: skip
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_ALIASES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}  # fmt: skip


@dataclass(frozen=True)
class Sets:
    """A valid expression as sets of numbers; weekdays are 0 (Sunday) to 6."""

    minutes: set[int]
    hours: set[int]
    days: set[int]
    months: set[int]
    weekdays: set[int]
    last_day: bool
    both_days: bool
    fixed: bool

    def shows(self, at: datetime) -> bool:
        """Whether a reading of the wall clock matches."""
        return at.minute in self.minutes and at.hour in self.hours and self.on(at.date())

    def on(self, day: date) -> bool:
        """Whether a date matches."""
        if day.month not in self.months:
            return False
        by_day = day.day in self.days or (self.last_day and (day + _DAY).day == 1)
        by_week = day.isoweekday() % 7 in self.weekdays
        return by_day and by_week if self.both_days else by_day or by_week


def understand(text: str) -> Sets:
    """A valid expression; what an invalid one gives is undefined."""
    fields = _ALIASES.get(text.strip().lower(), text).split()
    sets = [_numbers(*pair) for pair in zip(fields, _RANGES, strict=True)]
    return Sets(
        sets[0], sets[1], sets[2] - {0}, sets[3],
        {number % 7 for number in sets[4]},
        last_day=0 in sets[2],
        both_days=fields[2][0] == "*" or fields[4][0] == "*",
        fixed=fields[0][0] != "*" and fields[1][0] != "*",
    )  # fmt: skip


def _numbers(field: str, bounds: tuple[int, int]) -> set[int]:
    found: set[int] = set()
    for part in field.upper().split(","):
        if part == "L":
            found.add(0)
            continue
        span, _, step = part.partition("/")
        ends = [_NAMES[end] if end in _NAMES else int(end) for end in span.split("-") if end != "*"]
        if not ends:
            ends = [*bounds]
        elif len(ends) == 1:
            ends = [ends[0], bounds[1] if step else ends[0]]
        found.update(range(ends[0], ends[1] + 1, int(step or 1)))
    return found


@dataclass(frozen=True)
class Reading:
    """What the wall clock shows at one minute."""

    utc: datetime
    local: datetime
    """Without zone or fold."""
    again: bool
    """In the second pass of a fold."""
    skipped: tuple[datetime, ...]
    """The readings that a gap left out just before."""


def readings(zone: ZoneInfo, begin: datetime, end: datetime) -> Iterator[Reading]:
    """Every UTC minute in (begin, end]; both are whole minutes in UTC."""
    before = begin.astimezone(zone).replace(tzinfo=None, fold=0)
    utc = begin
    while (utc := utc + MINUTE) <= end:
        shown = utc.astimezone(zone)
        local = shown.replace(tzinfo=None, fold=0)
        missing = (local - before) // MINUTE - 1
        skipped = tuple(before + MINUTE * n for n in range(1, missing + 1))
        yield Reading(utc, local, shown.fold == 1, skipped)
        before = local


class Window:
    """Consecutive minutes; sorted by the minute hand, as an expression looks at few of them."""

    def __init__(self, zone: ZoneInfo, begin: datetime, end: datetime) -> None:
        self._after_gap: list[Reading] = []
        self._by_minute: dict[int, list[Reading]] = {minute: [] for minute in range(60)}
        for one in readings(zone, begin, end):
            self._by_minute[one.local.minute].append(one)
            if one.skipped:
                self._after_gap.append(one)

    def due(self, sets: Sets) -> list[datetime]:
        """The due instants, in order."""
        shown = (one for minute in sets.minutes for one in self._by_minute[minute])
        found = {
            one.utc
            for one in shown
            if one.local.hour in sets.hours
            and not (sets.fixed and one.again)
            and sets.on(one.local.date())
        }
        if sets.fixed:
            found |= {
                one.utc
                for one in self._after_gap
                if any(sets.shows(local) for local in one.skipped)
            }
        return sorted(found)


def due_far(sets: Sets, zone: ZoneInfo, after: datetime, years: int, count: int) -> list[datetime]:
    """The first `count` due instants after one, however rare: only matching days are scanned."""
    found: list[datetime] = []
    day = after.date() - 2 * _DAY
    last = min(day + 366 * years * _DAY, date(9_000, 1, 1))
    seen = after.replace(second=0, microsecond=0)
    while len(found) < count and (day := day + _DAY) <= last:
        if sets.on(day):
            middle = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
            begin, end = max(seen, middle - 2 * _DAY), middle + 2 * _DAY
            if begin < end:
                found += Window(zone, begin, end).due(sets)
                seen = end
    return found[:count]


@lru_cache(1_024)
def zone_info(name: str) -> ZoneInfo:
    """A zone of the `tzdata` package, whatever the machine has."""
    file = resources.files("tzdata.zoneinfo").joinpath(*name.split("/"))
    with file.open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


@lru_cache(4_096)
def changes(name: str, year: int) -> tuple[datetime, ...]:
    """The UTC hours of a year within which a zone's offset changes."""
    zone = zone_info(name)
    hour = datetime(year, 1, 1, tzinfo=UTC)
    found = []
    while hour.year == year:
        day_after = hour + _DAY
        if hour.astimezone(zone).utcoffset() != day_after.astimezone(zone).utcoffset():
            hours = [hour + timedelta(hours=n) for n in range(25)]
            offsets = [one.astimezone(zone).utcoffset() for one in hours]
            found += [hours[n] for n in range(24) if offsets[n] != offsets[n + 1]]
        hour = day_after
    return tuple(found)
