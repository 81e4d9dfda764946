"""Agents that were claimed and can't live here: no class for them, or none that takes their state.

Their messages hear of it as if a turn of each had failed: they are tried again
after a while, and given up at last, or at once when no later try can do better.
Until then the agent is held, so that it is not claimed over and over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from runtime.deadletters import burial
from runtime.hosting.activation import DELIVERIES_MAX
from runtime.hosting.claims import Claims
from runtime.hosting.services import HostServices
from runtime.ids import split
from runtime.store.contract import Activation, Commit, Fence, Retry


class Unfit:
    """Of one host."""

    def __init__(self, host: HostServices, claims: Claims, ending: asyncio.Event) -> None:
        """Args: ending: set when the host is to end; nothing is waited for any more."""
        self._host = host
        self._claims = claims
        self._ending = ending
        self._held: set[str] = set()

    def __contains__(self, agent: str) -> bool:
        """Whether an agent is held until its messages have been told."""
        return agent in self._held

    def refuse(
        self, claimed: Activation, incarnation: str, error: str, final: bool
    ) -> Coroutine[None, None, None]:
        """Hold the agent from now on; what is left to do with it.

        Args:
            final: no later try can do better.
        """
        self._claims.early.pop(claimed.agent, None)
        self._held.add(claimed.agent)
        return self._give_back(claimed, Fence(incarnation, claimed.epoch), error, final)

    async def _give_back(self, claimed: Activation, fence: Fence, error: str, final: bool) -> None:
        host = self._host
        tries = max((message.attempts for message in claimed.inbox), default=0) + 1
        if not final:
            await self._wait(host.backoff.wait_s(tries, host.random))
        now_ms = host.clock.now_ms()
        for message in claimed.inbox:
            given_up = final or message.attempts + 1 >= DELIVERIES_MAX
            if given_up:
                parts = burial(claimed.agent, message, error, now_ms)
            else:
                parts = {"retries": (Retry(message.message_id, now_ms, error),)}
            organization, _ = split(claimed.agent)
            await host.group.commit(Commit(organization, claimed.agent, fence, **parts))
            if given_up:
                host.answers.dead(claimed.agent, message.message_id, error)
        async with self._claims.lock:
            self._held.discard(claimed.agent)
            await self._claims.release([claimed.agent])

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            pass
