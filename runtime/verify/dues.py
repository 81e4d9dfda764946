"""The due times of a schedule, found by a reader that shares nothing with the planner.

Of a cron expression by looking at every minute (`cronscan`), of an interval by
adding it to its anchor again and again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from runtime.schedule.record import Spec
from runtime.verify.cronscan import Window, understand, zone_info

DAY_S: Final = 86_400
_EVERY: Final = re.compile(r"every (\d+) (second|minute|hour)s?|PT(\d+)M")
_UNIT_S: Final = {"second": 1, "minute": 60, "hour": 3_600}


def scanned(spec: Spec, after_ms: int, until_ms: int) -> list[int]:
    """The due times of a cron expression, by looking at every minute; of an interval, by adding."""
    if spec.kind == "event":
        return []
    if spec.kind == "interval":
        return _added(spec, after_ms, until_ms)
    sets = understand(spec.expression)
    first_ms, last_ms = after_ms // 60_000 * 60_000, until_ms // 60_000 * 60_000
    found = []
    for day in range(first_ms // (DAY_S * 1000), last_ms // (DAY_S * 1000) + 1):
        due = _window(spec.timezone, day).due(sets)
        found += [round(at.timestamp() * 1000) for at in due]
    return [due_ms for due_ms in found if after_ms < due_ms <= until_ms]


@cache
def _window(timezone: str, day: int) -> Window:
    begin = datetime.fromtimestamp(day * DAY_S, UTC) - timedelta(minutes=1)
    return Window(zone_info(timezone), begin, begin + timedelta(days=1))


def _added(spec: Spec, after_ms: int, until_ms: int) -> list[int]:
    zone, anchor = zone_info(spec.timezone), datetime.fromtimestamp(spec.anchor_ms / 1000, UTC)
    local = anchor.astimezone(zone)
    found: list[int] = []
    number = 0
    while True:
        number += 1
        if spec.expression == "P1D":  # the same time of day, whatever the clock does
            at = (local + timedelta(days=number)).astimezone(UTC)
        else:
            at = anchor + number * _span(spec.expression)
        due_ms = round(at.timestamp() * 1000)
        if due_ms > until_ms:
            return found
        if due_ms > after_ms:
            found.append(due_ms)


def _span(expression: str) -> timedelta:
    """Of an interval in real time, in the two ways in which the tests write one."""
    found = _EVERY.fullmatch(expression)
    assert found is not None, expression
    if found[3]:
        return timedelta(minutes=int(found[3]))
    return timedelta(seconds=int(found[1]) * _UNIT_S[found[2]])
