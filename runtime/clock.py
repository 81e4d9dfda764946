"""Time as a parameter: the runtime asks a `Clock`, never the machine.

Wall time is integer milliseconds since the epoch, UTC.  Sleeping is asyncio's,
whose loop a simulation replaces by one with virtual time.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

LATEST_MS: Final = 253_402_300_799_999
"""The last moment that has a date: the end of the year 9999."""


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall time, milliseconds since the epoch."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told; for tests and simulation."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, seconds: float) -> None:
        self._now_ms += round(seconds * 1000)


_MILLISECONDS = [f".{number:03d}Z" for number in range(1000)]


@lru_cache(maxsize=4)  # what is done at once has one time
def iso(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: 2026-11-21T08:00:00.000Z."""
    return _second(at_ms // 1000) + _MILLISECONDS[at_ms % 1000]


@lru_cache(maxsize=4)
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
