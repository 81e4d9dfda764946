"""Cases for the verification of cron: seeded, and biased to where implementations go wrong.

Seven in ten lie around a change of the clock, with hours near those skipped or
repeated; the rest around month and year ends, leap days, and far away.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Final

from runtime.verify.cronscan import changes, zone_info

ZONES: Final = (
    "America/New_York", "Europe/London", "Europe/Dublin", "Europe/Berlin", "Australia/Lord_Howe",
    "Antarctica/Troll", "Pacific/Chatham", "America/St_Johns", "America/Sao_Paulo",
    "America/Havana", "America/Santiago", "Asia/Beirut", "Asia/Amman", "Asia/Tehran",
    "Asia/Gaza", "Asia/Damascus", "Africa/Casablanca", "Africa/Cairo", "Pacific/Apia",
    "Pacific/Kiritimati", "Asia/Kathmandu", "America/Caracas", "Asia/Pyongyang",
    "Atlantic/Azores", "America/Scoresbysund", "Asia/Kolkata", "UTC",
)  # fmt: skip
"""Gaps and folds of 20, 30, 60, 90 minutes, of 2, 3 and 24 hours, and at midnight."""
YEARS: Final = (1975, 2099)
_MONTH_NAMES: Final = ("jan", "FEB", "Mar", "apr", "MAY", "Jun", "jul", "AUG", "Sep", "oct", "NOV",
                       "Dec")  # fmt: skip
_DAY_NAMES: Final = ("SUN", "mon", "Tue", "wed", "THU", "Fri", "sat")
_FAR: Final = ("29 2", "31 *", "L *", "30 4,6", "L 2", "31 12", "1 1", "29 2,3")


@dataclass(frozen=True)
class Case:
    """From here on, when is it due?"""

    expression: str
    zone: str
    after: datetime
    """In UTC, to the millisecond."""
    far: bool
    """Rare: the first two due times are compared; else all of the next days."""


@dataclass(frozen=True)
class Place:
    """An instant of a zone around which several expressions are tried."""

    zone: str
    middle: datetime
    """A whole hour in UTC."""


def place(rng: Random) -> Place:
    """Where the next cases lie."""
    zone = rng.choice(ZONES) if rng.random() < 0.7 else rng.choice(_all_zones())
    year = rng.randint(*YEARS) if rng.random() < 0.4 else rng.randint(2005, 2037)
    found = changes(zone, year)
    if found and rng.random() < 0.85:
        return Place(zone, rng.choice(found))
    month = rng.choice((1, 2, 3, 12, rng.randint(1, 12)))
    first = datetime(year, month, 1, tzinfo=UTC)
    return Place(zone, first + timedelta(hours=rng.randint(-48, 24 * 28)))


def case(rng: Random, at: Place) -> Case:
    """One case at a place."""
    after = at.middle + timedelta(
        minutes=rng.choice((0, rng.randint(-90, 90), rng.randint(-1500, 1500))),
        milliseconds=rng.choice((0, 0, 1, 59_999, rng.randint(0, 59_999))),
    )
    far = rng.random() < 0.1
    local = at.middle.astimezone(zone_info(at.zone))
    return Case(_expression(rng, local, far), at.zone, after, far)


def _expression(rng: Random, near: datetime, far: bool) -> str:
    """A valid expression, often one whose hour is near a reading of the clock."""
    minute, hour = _minute(rng), _hour(rng, near.hour)
    if far:
        star = "*" if rng.random() < 0.8 else rng.choice(("0", "SUN", "*/7"))
        return f"{minute} {hour} {rng.choice(_FAR)} {star}"
    if rng.random() < 0.05:
        return rng.choice(("@hourly", "@daily", "@weekly", "@monthly", "@midnight"))
    near_day = (near + timedelta(days=rng.choice((-1, 0, 0, 0, 1)))).date()
    day = rng.choice(
        ("*", "*", "*", "*", str(near_day.day), "L", f"{near_day.day},L", "*/2", "1-15/2",
         f"1,{near_day.day}-31", "10/5")
    )  # fmt: skip
    month = rng.choice(
        ("*", "*", "*", "*", str(near_day.month), _MONTH_NAMES[near_day.month - 1],
         f"{near_day.month}-12", "1-12/2", "*/3")
    )  # fmt: skip
    weekday = near_day.isoweekday()
    week = rng.choice(
        ("*", "*", "*", "*", str(weekday), _DAY_NAMES[weekday % 7], "1-5", "5-7", "0,7", "*/2",
         "SUN,mon-Wed", f"{weekday % 7}/2", "6-6")
    )  # fmt: skip
    return f"{minute} {hour} {day} {month} {week}"


def _minute(rng: Random) -> str:
    some = rng.randint(0, 59)
    return rng.choice(
        ("0", "30", "15", "*", "*/15", "*/7", f"{some}", f"{some}", f"{some}-59", f"{some}/10",
         "0,15,30,45", f"{min(some, 50)}-{min(some, 50) + 9}/3", "5-5")
    )  # fmt: skip


def _hour(rng: Random, near: int) -> str:
    hour = (near + rng.randint(-3, 3)) % 24
    to = min(23, hour + rng.randint(0, 4))
    return rng.choice(
        (str(hour), str(hour), str(hour), f"{hour}-{to}", f"{hour},{(hour + 1) % 24}", "*", "*/2",
         "*/5", f"{hour}/3", f"{hour}-{to}/2", "0", "02")
    )  # fmt: skip


@lru_cache(1)
def _all_zones() -> list[str]:
    names = resources.files("tzdata").joinpath("zones").read_text().split()
    return [name for name in names if "/" in name and not name.startswith("Etc/")]
