"""Agents that were claimed and can't live here: no class for them, or none that takes their state.

Their messages hear of it as if a turn of each had failed: they are tried again
after a while, and given up at last, or at once when no later try can do better.
So are those of an agent whose coming to life hosts have died of (`births`).
Until then the agent is held, so that it is not claimed over and over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence

from runtime.deadletters import FAILED, burial
from runtime.hosting.activation import DELIVERIES_MAX
from runtime.hosting.claims import Claims
from runtime.hosting.services import HostServices
from runtime.hosting.suspects import REASON, Mark, job_of, quarantined
from runtime.ids import split
from runtime.store.contract import (
    Activation,
    Commit,
    Committed,
    Fence,
    Put,
    Retry,
    StoredMessage,
)

logger = logging.getLogger(__name__)


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

    @property
    def ending(self) -> bool:
        """Whether the host is to end."""
        return self._ending.is_set()

    def hold(self, agent: str) -> None:
        """Keep an agent from the others without bringing it to life; its inbox has to be read then.

        What polls bring for it is passed over.
        """
        self._claims.early.pop(agent, None)
        self._held.add(agent)

    def let_go(self, agent: str) -> None:
        """It will be brought to life, or given up; under the lock of claims."""
        self._held.discard(agent)

    def refuse(
        self, claimed: Activation, incarnation: str, error: str, final: bool
    ) -> Coroutine[None, None, None]:
        """Hold the agent from now on; what is left to do with it.

        Args:
            final: no later try can do better.
        """
        self.hold(claimed.agent)
        return self._give_back(claimed, Fence(incarnation, claimed.epoch), error, final)

    async def quarantine(
        self, agent: str, waiting: Sequence[StoredMessage], fence: Fence, mark: Mark, gone: Put
    ) -> None:
        """Give up all that waits for an agent that is held, as hosts have died of it.

        Args:
            gone: ends the mark.
        """
        host, now_ms = self._host, self._host.clock.now_ms()
        organization, _ = split(agent)
        for message in waiting:
            parts = burial(agent, message, mark.error, now_ms, REASON)
            told = quarantined(agent, message.message_id, mark, now_ms, job_of(message))
            parts["feed"] = (told,)
            answer = await host.group.commit(Commit(organization, agent, fence, **parts))
            host.quarantined += isinstance(answer, Committed)
            host.answers.dead(agent, message.message_id, mark.error)
        _tell_dead(agent, mark.error, REASON)
        await host.group.commit(Commit(organization, agent, fence, puts=(gone,)))
        await self._release(agent)

    async def _give_back(self, claimed: Activation, fence: Fence, error: str, final: bool) -> None:
        host = self._host
        tries = max((message.attempts for message in claimed.inbox), default=0) + 1
        if not final:
            await self.wait(host.backoff.wait_s(tries, host.random))
        now_ms = host.clock.now_ms()
        for message in claimed.inbox:
            given_up = final or message.attempts + 1 >= DELIVERIES_MAX
            if given_up:
                parts = burial(claimed.agent, message, error, now_ms)
            else:
                parts = {"retries": (Retry(message.message_id, now_ms, error),)}
            organization, _ = split(claimed.agent)
            answer = await host.group.commit(Commit(organization, claimed.agent, fence, **parts))
            if given_up:
                host.answers.dead(claimed.agent, message.message_id, error)
                if isinstance(answer, Committed):
                    _tell_dead(claimed.agent, error, FAILED)
        await self._release(claimed.agent)

    async def _release(self, agent: str) -> None:
        async with self._claims.lock:
            self.let_go(agent)
            await self._claims.release([agent])

    async def wait(self, seconds: float) -> None:
        """Sleep; no longer than the host is to live."""
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            pass


def _tell_dead(agent: str, error: str, reason: str) -> None:
    where = {"action": "message.dead", "agent": agent, "reason": reason}
    logger.error("%s can't be brought to life: %s", agent, error, extra=where)
