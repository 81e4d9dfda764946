"""What nobody waits for: done while the store has nothing else to do, or every second.

Two things are put off: what is to enter the index, and the log, which SQLite moves into the
database file once it is long, in the middle of somebody's commit.  A shorter one that is moved
before is a shorter wait for whoever comes just then, and what comes next has a log that is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

CHECKPOINT_EVERY_S: Final = 1.0
"""With durability `process kill`: what a power loss can cost."""
LOG_PAGES: Final = 512
"""Pages (4 KiB) from which on the log is moved while nobody is at work: some 5 ms."""
IDLE_S: Final = 0.02
"""Nothing has been written for so long: what was put off is done in the meantime. Between two
calls of somebody who is at work it would make the second wait."""


class Idle:
    """Two timers; neither goes off inside a transaction."""

    def __init__(
        self,
        is_open: Callable[[], bool],
        piece: Callable[[], bool],
        write_back: Callable[[], object],
    ) -> None:
        """
        Args:
            is_open: whether a transaction is.
            piece: does a piece of what was put off; False: that was all, or it failed.
            write_back: syncs what was written since the last time.
        """
        self._is_open = is_open
        self._piece = piece
        self._write_back = write_back
        self._loop = asyncio.get_running_loop()
        self._ended_s = 0.0
        """When the last transaction was over, by the loop's clock."""
        self._idle: asyncio.TimerHandle | None = None
        self._checkpoint: asyncio.TimerHandle | None = None

    def ended(self) -> None:
        """A transaction is over."""
        self._ended_s = self._loop.time()

    def put_off(self) -> None:
        """There may be something that is to be done as soon as nobody is at work."""
        if self._idle is None:
            self._idle = self._loop.call_later(IDLE_S, self._when_idle)

    def sync_soon(self) -> None:
        """There is something that was not synced."""
        if self._checkpoint is None:
            self._checkpoint = self._loop.call_later(CHECKPOINT_EVERY_S, self._sync)

    def cancel(self) -> None:
        for timer in (self._idle, self._checkpoint):
            if timer is not None:
                timer.cancel()

    def _when_idle(self) -> None:
        self._idle = None
        left_s = self._ended_s + IDLE_S - self._loop.time()
        if self._is_open():
            left_s = IDLE_S
        if left_s > 0:
            self._idle = self._loop.call_later(left_s, self._when_idle)
        elif self._piece():
            self.put_off()

    def _sync(self) -> None:
        self._checkpoint = None
        if self._is_open():
            self._checkpoint = self._loop.call_later(IDLE_S, self._sync)
        else:
            self._write_back()
