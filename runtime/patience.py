"""Calls to the store that are safe to repeat, repeated until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from runtime.errors import StoreUnavailableError

P = ParamSpec("P")
T = TypeVar("T")

FIRST_S = 0.05
CAP_S = 1.0


async def patiently(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """The answer of `call` with these arguments, however long the store is away."""
    wait_s = FIRST_S
    while True:
        try:
            return await call(*args, **kwargs)
        except StoreUnavailableError:
            await asyncio.sleep(wait_s)
            wait_s = min(CAP_S, wait_s * 2)
