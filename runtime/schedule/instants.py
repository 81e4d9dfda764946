"""Instants as ISO-8601 text, to UTC milliseconds.

With `Z` or an offset an instant is itself.  Without one it is the time of a wall
clock in the zone, and refused when that clock never shows it or shows it twice:
a person can say which is meant, so nothing is guessed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from runtime.errors import InvalidScheduleError
from runtime.schedule.zones import MINUTE_MAX, MINUTE_MIN, Zone

MINUTE_MS: Final = 60_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def instant(text: str, zone: Zone, position: int = 0) -> int:
    """UTC milliseconds of an ISO-8601 instant; finer digits are dropped.

    Args:
        position: where the text begins, for errors.

    Raises:
        InvalidScheduleError: `bad_instant`, `out_of_range`, `ambiguous_time`
            (a fold shows it twice), `nonexistent_time` (a gap skips it).
    """
    try:
        if not text.isascii() or text[10:11] not in ("T", "t", " ", ""):
            raise ValueError
        read = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidScheduleError(
            "bad_instant", position, f"{text!r} is no instant such as 2026-11-05T09:00:00Z"
        ) from None
    aware = read.tzinfo is not None
    ms = (read - _EPOCH if aware else read.replace(tzinfo=UTC) - _EPOCH) // _MS
    minute, rest = divmod(ms, MINUTE_MS)
    if not MINUTE_MIN < minute < MINUTE_MAX:
        raise InvalidScheduleError("out_of_range", position, f"{text} is too far from now")
    if aware:
        return ms
    passes = zone.passes(minute)
    shown = f"clocks in {zone.name} show {text}"
    if len(passes) > 1:
        raise InvalidScheduleError("ambiguous_time", position, f"{shown} twice; add an offset or Z")
    if not passes:
        raise InvalidScheduleError("nonexistent_time", position, f"{shown} never")
    return passes[0] * MINUTE_MS + rest


def text_of(ms: int) -> str:
    """An instant as UTC text; milliseconds only when there are some."""
    at = _EPOCH + ms * _MS
    return at.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def local_text_of(ms: int, zone: Zone) -> str:
    """An instant as the wall clock of a zone shows it, with its offset."""
    minute = ms // MINUTE_MS
    offset = zone.local(minute) - minute
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    return f"{text_of(ms + offset * MINUTE_MS)[:-1]}{sign}{minutes // 60:02}:{minutes % 60:02}"
