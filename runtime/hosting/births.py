"""Births: how claimed agents come to life, and what becomes of those that can't.

One that its class or its state does not let live is refused (`unfit`).  One whose coming
to life ends its process is given up: its constructor, the loading of its state
and its `activate` run before any of its messages is begun, so none of those can
be blamed for it.  Where an agent was left behind by its last holder, a mark of
the agent itself says that the next one is bringing it to life; it goes when that
is done, well or not.

    document  (`suspect`, agent's address) -> Mark

Found again it says that this holder, too, died while it was at it.  The second
time the agent is held back, as messages are (`suspects`), and brought to life
alone; the third death ends it: all that waits for it becomes dead letters.  What
comes later is tried anew, for the cause may be mended by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

import msgspec
from msgspec.structs import replace

from runtime.errors import UnknownAgentKindError, told
from runtime.hosting import suspects
from runtime.hosting.activation import Activation
from runtime.hosting.claims import Claims
from runtime.hosting.inbox import whole
from runtime.hosting.order import Order
from runtime.hosting.services import HostServices
from runtime.hosting.suspects import COLLECTION, Mark, judged
from runtime.hosting.unfit import Unfit
from runtime.ids import split
from runtime.kinds import Kinds
from runtime.patience import patiently
from runtime.store import contract
from runtime.store.contract import BATCH_MAX, Commit, Committed, Fence, Put, Refused

logger = logging.getLogger(__name__)


class _Birth:
    """One that is to be."""

    def __init__(self, claimed: contract.Activation, incarnation: str, mark: Mark) -> None:
        self.claimed = claimed
        self.fence = Fence(incarnation, claimed.epoch)
        self.mark = mark

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.mark)


class Births:
    """Of one host."""

    def __init__(
        self,
        host: HostServices,
        kinds: Kinds,
        living: dict[str, Activation],
        order: Order,
        claims: Claims,
        unfit: Unfit,
        end: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        """
        Args:
            living: the agents that live in the host, by address.
            end: has something done that a drain waits for.
        """
        self._host = host
        self._kinds = kinds
        self._living = living
        self._order = order
        self._claims = claims
        self._unfit = unfit
        self._end = end

    async def begin(self, claimed: Sequence[contract.Activation], incarnation: str) -> None:
        """Bring agents to life, now or when their time has come, or give them up.

        Under the lock of claims; as many as are claimed together.
        """
        if left := [one for one in claimed if one.abandoned]:
            await self._begin_left(left, incarnation)
        for one in claimed:
            if not one.abandoned:
                await self._bear(one, incarnation)

    async def _bear(self, claimed: contract.Activation, incarnation: str) -> None:
        try:
            agent = await self._kinds.create(split(claimed.agent)[1])
        except Exception as error:  # there is no class for it, or its author's constructor failed
            self._refuse(claimed, incarnation, error)
            return
        activation = Activation(claimed, agent, incarnation, self._host)
        self._living[claimed.agent] = activation
        self._order.forget(claimed.agent)
        activation.offer(*self._claims.early.pop(claimed.agent, ()))
        try:
            await activation.start(claimed)
        except Exception as error:  # a state that can't be loaded, or the author's `activate`
            del self._living[claimed.agent]
            self._refuse(claimed, incarnation, error)

    def _refuse(self, claimed: contract.Activation, incarnation: str, error: Exception) -> None:
        """The agent can't live here: tell its messages so, and let it go."""
        final = isinstance(error, UnknownAgentKindError)
        trace = None if final else error
        where = {"action": "activation.failed", "agent": claimed.agent}
        logger.error("an agent can't live here: %s", error, exc_info=trace, extra=where)
        self._end(self._unfit.refuse(claimed, incarnation, told(error), final))

    async def _begin_left(self, claimed: Sequence[contract.Activation], incarnation: str) -> None:
        """Of the agents that their last holder has left behind."""
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
            await self._bear(birth.claimed, birth.fence.incarnation)
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
