"""Parking: calls that wait for something to happen, without polling.

A call takes a ticket on its keys *before* it looks, so that nothing that
happens between looking and waiting is missed.  A store rings the keys that a
commit touched, and an `Alarm` rings when a moment comes (a reminder is due, a
lease lapses).  What is looked for, and what is an answer, is the store's
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from runtime.clock import Clock
from runtime.errors import StoreUnavailableError

T = TypeVar("T")

NAP_S_MIN: Final = 0.005
"""An alarm never rings more often than this, whatever the clock says."""
NAP_S_MAX: Final = 60.0
"""An alarm looks at the clock at least this often: wall time can jump."""


class Parking:
    def __init__(self) -> None:
        self._tickets: dict[Hashable, dict[asyncio.Future[None], None]] = {}
        """In the order they were taken: who waits longest looks first."""
        self.closed = False

    async def until(
        self,
        keys: tuple[Hashable, ...],
        wait_s: float,
        look: Callable[[], Awaitable[tuple[T, bool]]],
    ) -> T:
        """Look until there is something or `wait_s` has passed; answer the last look.

        Args:
            look: what there is, and whether it is worth answering at once.

        Raises:
            StoreUnavailableError: the store was closed meanwhile.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            with self._ticket(keys) as ticket:
                self.check_open()
                answer, enough = await look()
                left_s = deadline - loop.time()
                if enough or left_s <= 0:
                    return answer
                late = loop.call_later(left_s, _done, ticket)
                try:
                    await ticket
                finally:
                    late.cancel()

    def is_awaited(self, key: Hashable) -> bool:
        """Whether ringing would reach anybody.

        Who takes a ticket later looks later, and sees what has happened by then.
        """
        return key in self._tickets

    def ring(self, key: Hashable) -> None:
        """Let everybody who waits for `key` look again."""
        for ticket in self._tickets.get(key, ()):
            _done(ticket)

    def ring_all(self) -> None:
        """Let everybody who waits look again: rings may have been missed."""
        for key in self._tickets:
            self.ring(key)

    def check_open(self) -> None:
        if self.closed:
            raise StoreUnavailableError("closed")

    def close(self) -> None:
        """End every wait; those calls and later ones raise StoreUnavailableError."""
        self.closed = True
        self.ring_all()

    @contextmanager
    def _ticket(self, keys: tuple[Hashable, ...]) -> Iterator[asyncio.Future[None]]:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for key in keys:
            self._tickets.setdefault(key, {})[ticket] = None
        try:
            yield ticket
        finally:
            for key in keys:
                waiting = self._tickets[key]
                del waiting[ticket]
                if not waiting:
                    del self._tickets[key]


def _done(ticket: asyncio.Future[None]) -> None:
    if not ticket.done():
        ticket.set_result(None)


class Alarm:
    """Rings once at the earliest of the moments it was set to."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at_ms: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at_ms: int | None) -> None:
        """Ring at `at_ms` (clock time) or earlier if it was set so already."""
        if at_ms is None or (self._at_ms is not None and self._at_ms <= at_ms):
            return
        self.cancel()
        self._at_ms = at_ms
        delay_s = (at_ms - self._clock.now_ms()) / 1000
        delay_s = min(max(delay_s, NAP_S_MIN), NAP_S_MAX)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._go_off)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._at_ms = None

    def _go_off(self) -> None:
        self._timer = self._at_ms = None
        self._ring()
