"""A store for whoever lives in its process: no socket, and nobody is kept waiting (decision 17)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from runtime.store.through import Through

T = TypeVar("T")


class Beside(Through):
    """The contract over a store of this very process: each call lets everybody else have a turn.

    The store answers a read at once, so a loop of them (all schedules, all open jobs)
    would leave its sockets unheard until it is through.
    """

    async def _call(self, call: Awaitable[T], wait_s: float = 0.0) -> T:
        await asyncio.sleep(0)
        return await call
