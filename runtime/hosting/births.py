"""Births: an agent whose coming to life ends its process is given up, too.

Its constructor, the loading of its state and its `activate` run before any of
its messages is begun, so none of those can be blamed for it.  Where an agent
was left behind by its last holder, a mark of the agent itself says that the
next one is bringing it to life; it goes when that is done, well or not.

    document  (`suspect`, agent's address) -> Mark

Found again it says that this holder, too, died while it was at it.  The second
time the agent is held back, as messages are (`suspects`), and brought to life
alone; the third death ends it: all that waits for it becomes dead letters.  What
comes later is tried anew, for the cause may be mended by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import msgspec
from msgspec.structs import replace

from runtime.hosting import suspects
from runtime.hosting.claims import Claims
from runtime.hosting.inbox import whole
from runtime.hosting.services import HostServices
from runtime.hosting.suspects import COLLECTION, Mark, judged
from runtime.hosting.unfit import Unfit
from runtime.ids import split
from runtime.patience import patiently
from runtime.store.contract import BATCH_MAX, Activation, Commit, Committed, Fence, Put, Refused


class _Birth:
    """One that is to be."""

    def __init__(self, claimed: Activation, incarnation: str, mark: Mark) -> None:
        self.claimed = claimed
        self.fence = Fence(incarnation, claimed.epoch)
        self.mark = mark

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.mark)


class Births:
    """Of the agents that a host takes over from dead ones."""

    def __init__(
        self,
        host: HostServices,
        claims: Claims,
        unfit: Unfit,
        bear: Callable[[Activation], Awaitable[None]],
        end: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        """
        Args:
            bear: brings an agent to life, or refuses it.
            end: has something done that a drain waits for.
        """
        self._host = host
        self._claims = claims
        self._unfit = unfit
        self._bear = bear
        self._end = end

    async def begin(self, claimed: Sequence[Activation], incarnation: str) -> None:
        """Bring agents to life, now or when their time has come, or give them up.

        Under the lock of claims; as many as are claimed together.
        """
        known = await self._known([one.agent for one in claimed])
        now = []
        for one in claimed:
            mark = judged(known.get(one.agent), one.epoch, 0, incarnation)
            birth = _Birth(one, incarnation, mark)
            if birth.mark.is_enough:
                self._unfit.hold(one.agent)
                self._end(self._give_up(birth))
            elif birth.mark.deaths > 1:
                self._unfit.hold(one.agent)
                self._end(self._later(birth))
            else:
                now.append(birth)
        await self._now(now)

    async def _now(self, births: Sequence[_Birth]) -> None:
        """What is written together costs one commit of the store: a dead host leaves many."""
        answers = await asyncio.gather(*(self._commit(one, one.body) for one in births))
        for birth, answer in zip(births, answers, strict=True):
            if isinstance(answer, Refused):
                continue  # somebody else has the agent
            await self._bear(birth.claimed)
            # well or not, nobody has died of it; what the agent commits comes after this
            over = asyncio.ensure_future(self._commit(birth, None))
            over.add_done_callback(lambda one: one.cancelled() or one.exception())

    async def _later(self, birth: _Birth) -> None:
        agent = birth.claimed.agent
        await self._unfit.wait(suspects.HOLD_S)
        async with suspects.alone(self._host.alone), self._claims.lock:
            self._unfit.let_go(agent)
            if self._unfit.ending:
                await self._claims.release([agent])
                return
            came = await patiently(self._host.store.inbox, agent, 0, BATCH_MAX)
            birth.claimed = replace(birth.claimed, inbox=tuple(came))
            await self._now([birth])

    async def _give_up(self, birth: _Birth) -> None:
        claimed = birth.claimed
        waiting = await whole(claimed.agent, claimed.inbox, self._host.store)
        gone = _put(claimed.agent, None)
        await self._unfit.quarantine(claimed.agent, waiting, birth.fence, birth.mark, gone)

    async def _known(self, agents: list[str]) -> dict[str, Mark]:
        found = await patiently(self._host.store.get_many, COLLECTION, agents)
        return {one.key: msgspec.json.decode(one.body, type=Mark) for one in found}

    def _commit(self, birth: _Birth, body: bytes | None) -> asyncio.Future[Committed | Refused]:
        put = _put(birth.claimed.agent, body)
        commit = Commit(put.organization, birth.claimed.agent, birth.fence, puts=(put,))
        return self._host.group.commit(commit)


def _put(agent: str, body: bytes | None) -> Put:
    organization, agent_id = split(agent)
    terms = (f"agent={agent_id}",) if body is not None else ()
    return Put(COLLECTION, agent, organization, body, terms)
