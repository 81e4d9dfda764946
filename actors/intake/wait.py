"""How long a new job will wait, from what jobs took so far: a pure function.

Slots come free one after the other, every `mean / slots` seconds on average; a
job that finds `n` others before it waits for `n + 1` of them, less what is free
already.  Where nothing was measured yet nothing is promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from runtime.console.load import Load, ServiceTime

SOON = "less than a minute"
UNKNOWN = "unknown"


def estimated_wait(load: Load, jobs_at_once: int) -> str:
    """In words: `less than a minute`, `2 minutes`, `3 hours`, `unknown`."""
    free = max(0, jobs_at_once - load.running)
    if load.pending == 0 and free > 0:
        return SOON
    mean_s = _mean_s(load.service_times.values())
    if mean_s is None:
        return UNKNOWN
    to_end = max(0, load.pending + 1 - free)
    return in_words(to_end * mean_s / jobs_at_once)


def in_words(wait_s: float) -> str:
    """Seconds as a person says them, rounded up."""
    if wait_s < 60:
        return SOON
    minutes = math.ceil(wait_s / 60)
    if minutes < 120:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{math.ceil(minutes / 60)} hours"


def _mean_s(times: Iterable[ServiceTime]) -> float | None:
    """The mean over all jobs; None when there was none."""
    known = [time for time in times if time.count > 0]
    jobs = sum(time.count for time in known)
    return sum(time.mean_s * time.count for time in known) / jobs if jobs else None
