"""A store that answers in bounded time: what is late is unavailable.

A request must be told within two seconds that the store is out, also when the
store hangs instead of failing.  Calls that park get their own waiting time on
top.  A commit that was given up may still land: that is what
StoreUnavailableError says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from runtime.errors import StoreUnavailableError
from runtime.store.contract import Store
from runtime.store.through import Through

T = TypeVar("T")


class DeadlineStore(Through):
    """Every call of `store`, given up after `limit_s`; implements `Store`."""

    def __init__(self, store: Store, limit_s: float) -> None:
        super().__init__(store)
        self._limit_s = limit_s

    async def _call(self, call: Awaitable[T], wait_s: float = 0.0) -> T:
        try:
            async with asyncio.timeout(self._limit_s + wait_s):
                return await call
        except TimeoutError as error:
            raise StoreUnavailableError(f"no answer within {self._limit_s} s") from error
