"""Jitter: a delay that spreads schedules due at one instant, the same each time it is asked for.

The delay is a hash of (schedule id, due time), so a restart, a second scheduler
and an audit years later compute the same.  It moves when a job starts, never
what is due: an occurrence keeps its due time as its identity.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

JITTER_MS_MAX: Final = 15 * 60 * 1000
SHARE_MAX: Final = 10
"""Of the time to the next occurrence, jitter takes at most one in so many parts."""


def jitter_ms(schedule_id: str, due_ms: int, width_ms: int, gap_ms: int | None = None) -> int:
    """Milliseconds to wait after a due time: 0 up to and including the width.

    Args:
        width_ms: the widest delay; never more than `JITTER_MS_MAX`.
        gap_ms: to the next due time, if there is one: the width is at most a
            tenth of it, so that occurrences start in their order.
    """
    width = min(width_ms, JITTER_MS_MAX)
    if gap_ms is not None:
        width = min(width, gap_ms // SHARE_MAX)
    if width <= 0:
        return 0
    digest = blake2b(f"{schedule_id}\0{due_ms}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % (width + 1)
