"""The bridge: the embedded store, reached from another machine through the actor that keeps it.

Beside the store, processes speak to it over its socket; a host on another node
has no such path and calls the scheduler's actor instead, one Ray call a batch of
commits.  Every error of Ray is an unknown outcome, so it is told as the store
being unavailable, and whoever called repeats with the same ids.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import ray
from ray.exceptions import RayError

from runtime.cluster.settings import NAMESPACE
from runtime.errors import StoreUnavailableError

ANSWER_MARGIN_S: Final = 15.0
"""No answer this long after the call's own wait: the outcome is unknown."""


class ActorTransport:
    """Carries calls to the store's keeper; implements `runtime.store.wire.Transport`."""

    def __init__(self) -> None:
        self._keeper: Any = None
        self._closed = False

    async def call(self, method: str, payload: bytes, wait_s: float) -> bytes:
        if self._closed:
            raise StoreUnavailableError("closed")
        try:
            if self._keeper is None:
                self._keeper = ray.get_actor("scheduler", NAMESPACE)
            answer = self._keeper.answer.remote(method, payload)
            return bytes(await asyncio.wait_for(answer, wait_s + ANSWER_MARGIN_S))
        except (RayError, ValueError, TimeoutError) as error:  # ValueError: there is no such actor
            self._keeper = None
            raise StoreUnavailableError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        self._closed = True
