"""Calling a handler, and ending one that takes too long.

One clock looks after all handlers of a host, and begins to count when it has
seen one for the first time: a timer for each turn, or only the time it began at,
is a cost for every message and of use to none of a million.
"""

from __future__ import annotations

import asyncio
from typing import Final

TURN_TIMEOUT_S = 60.0
"""A handler that takes longer after its host has first seen it has failed, as soon as it looks."""
_UNSEEN: Final = -1.0
_OVERDUE: Final = -2.0


class Calling:
    """The handler of one agent that runs, if any: `begin`, call it, and always `end`."""

    __slots__ = ("_seen_s",)

    def __init__(self) -> None:
        self._seen_s: float | None = None
        """When it was first seen; _UNSEEN: not yet; _OVERDUE: it has been told to end."""

    def begin(self) -> None:
        self._seen_s = _UNSEEN

    def end(self) -> None:
        self._seen_s = None

    def why(self, cancelled: asyncio.CancelledError) -> BaseException:
        """What has ended the handler that was cancelled: its time, or something else."""
        task = asyncio.current_task()
        if self._seen_s != _OVERDUE or task is None or task.uncancel():
            return cancelled
        return TimeoutError(f"it took longer than {TURN_TIMEOUT_S:.0f} s")

    def check(self, now_s: float, task: asyncio.Task[None]) -> None:
        """Cancel the handler, which runs in `task`, if its time is over."""
        seen_s = self._seen_s
        if seen_s is None or seen_s == _OVERDUE:
            return
        if seen_s == _UNSEEN:
            self._seen_s = now_s
        elif now_s - seen_s > TURN_TIMEOUT_S:
            self._seen_s = _OVERDUE
            task.cancel()
