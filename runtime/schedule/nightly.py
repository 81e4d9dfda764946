"""Nightly windows such as 22:00-04:00: the time inside, and how long it is caught up.

A nightly is a cron time in its window, chosen by the schedule's name.  The window
for catching up is kept as it was asked for: how much of the night is left follows
from the spec, so it ends with the nightly when the schedule gets another time.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from runtime.errors import InvalidScheduleError
from runtime.schedule.record import Spec

DAY_MINUTES: Final = 1_440
_WINDOW: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def chosen(window: str, agent: str, name: str) -> str:
    """The cron expression of the time that a schedule has in a window.

    Raises:
        InvalidScheduleError: `bad_window`.
    """
    match = _WINDOW.fullmatch(window)
    if match is None:
        raise InvalidScheduleError("bad_window", 0, "a window is such as 01:00-05:00")
    from_h, from_m, to_h, to_m = (int(part) for part in match.groups())
    begin = from_h * 60 + from_m
    width = (to_h * 60 + to_m - begin) % DAY_MINUTES
    if width == 0:
        raise InvalidScheduleError("bad_window", 6, "a window ends at another time than it begins")
    digest = blake2b(f"{agent}\0{name}".encode(), digest_size=8).digest()
    minute = (begin + int.from_bytes(digest) % width) % DAY_MINUTES
    return f"{minute % 60} {minute // 60} * * *"


def window_s(spec: Spec) -> int:
    """For how long due times are caught up; of a nightly only while its window lasts."""
    if spec.nightly is None:
        return spec.catch_up.window_s
    minute, hour = (int(field) for field in spec.expression.split()[:2])
    to_h, to_m = (int(part) for part in spec.nightly.partition("-")[2].split(":"))
    left = (to_h * 60 + to_m - hour * 60 - minute) % DAY_MINUTES
    return min(spec.catch_up.window_s, left * 60)
