"""Virtual time: an event loop that never waits, and a wall clock on it that can step.

When nothing is ready the loop's clock jumps to the next timer, so an hour of
timeouts takes as long as the work between them.  Callbacks run in the order
asyncio gives them, which is a function of the program alone; with seeded
randomness the same seed makes the same run.

Threads and sockets have no place here.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

EPOCH_MS: Final = 1_700_000_000_000
"""Wall time at which a simulation begins."""


class StalledError(Exception):
    """Nothing is ready and no timer is set: what the program waits for can't come."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time, which begins at 0 s."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.at_end: list[Callable[[], None]] = []
        """Called when `run` is over: what is left unfinished on purpose is thrown away."""
        super().__init__(_Jumps(self))

    def time(self) -> float:
        return self._now_s

    def jump(self, seconds: float) -> None:
        self._now_s += seconds


class _Jumps(selectors.DefaultSelector):
    """Instead of waiting, moves the loop's clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StalledError
        self._loop.jump(timeout)
        return []


class LoopClock:
    """Wall time on a virtual loop; `step` moves it, as NTP or an operator would."""

    def __init__(self, loop: asyncio.AbstractEventLoop, offset_ms: int = 0) -> None:
        self._loop = loop
        self.offset_ms = offset_ms
        """How far this clock is ahead of true time."""

    def now_ms(self) -> int:
        return EPOCH_MS + round(self._loop.time() * 1000) + self.offset_ms

    def step(self, seconds: float) -> None:
        self.offset_ms += round(seconds * 1000)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a virtual loop of its own to its end."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        for end in loop.at_end:
            end()
        loop.close()
