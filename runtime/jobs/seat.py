"""The scheduler's seat: its inbox at the store, which one at a time holds.

Whoever takes it over has an epoch higher than all before; what an older one
still commits is refused.  So two may sit there, and only one can write.
"""

from __future__ import annotations

import asyncio
import logging

from runtime.errors import StoreUnavailableError
from runtime.group import Answer, GroupCommitter
from runtime.ids import SCHEDULER
from runtime.jobs.decisions import Decision
from runtime.patience import patiently
from runtime.store.contract import (
    ANY,
    BATCH_MAX,
    Ack,
    Activation,
    Fence,
    Refused,
    Store,
    StoredMessage,
)

logger = logging.getLogger(__name__)

LEASE_S = 10.0
ABREAST = 2
"""Calls with changes of schedules in flight: the store has the next as it ends the last."""
TOGETHER = 4
"""Commits in one of these calls: what came of the first is seen to while the last are written."""
RETRY_S = 0.2


class FencedError(Exception):
    """Another scheduler has taken over."""


class Seat:
    def __init__(self, store: Store, name: str, owner: str) -> None:
        self.name = name
        self.owner = owner
        self._store = store
        self._plans = GroupCommitter(store, ABREAST, TOGETHER)
        self._incarnation = ""
        self._fence = Fence("", 0)
        self._cursor = 0

    @property
    def epoch(self) -> int:
        """0 until the seat is taken."""
        return self._fence.epoch

    async def register(self) -> None:
        self._incarnation = await patiently(self._store.register, self.owner, self.name, LEASE_S)

    async def take(self) -> tuple[StoredMessage, ...]:
        """Wait until nobody else holds it, and take it; what waits in the inbox."""
        while True:
            claimed = await self._claim()
            if claimed:
                self._fence = Fence(self._incarnation, claimed[0].epoch)
                logger.info(
                    "the scheduler is up, epoch %d",
                    self.epoch,
                    extra={"action": "scheduler.started", "epoch": self.epoch},
                )
                return claimed[0].inbox
            await asyncio.sleep(RETRY_S)

    async def _claim(self) -> list[Activation]:
        """Empty while another holds it."""
        try:
            return await self._store.claim(self.owner, 1, [SCHEDULER])
        except StoreUnavailableError:  # it may be held now: let go, so that it can be claimed
            await patiently(self._store.release, self.owner, [SCHEDULER])
            return []

    async def keep(self) -> None:
        """Keep the lease; who has lost it hears of no message any more, and must say so.

        Raises:
            FencedError: it is another's, or the store has lost what was accepted.
        """
        while True:
            await asyncio.sleep(LEASE_S / 3)
            if not await patiently(self._store.renew, self.owner, LEASE_S):
                raise FencedError("its lease is another's")
            if (await patiently(self._store.health)).incarnation != self._incarnation:
                raise FencedError("the store has another incarnation")

    async def next(self, wait_s: float) -> tuple[StoredMessage, ...]:
        """The messages that have come since the last call; waits for some, but not longer."""
        poll = await patiently(self._store.poll, self.owner, self._cursor, BATCH_MAX, wait_s)
        self._cursor = poll.cursor
        return poll.messages

    async def write(self, decision: Decision, acks: tuple[Ack, ...] = ()) -> str | None:
        """Commit a decision; the reason if it was refused (or had landed already).

        Raises:
            FencedError: the seat is another's.
            StoreError, ValueError: the store can't write this; nothing of it is there.
        """
        [answer] = await patiently(self._store.commit, [decision.commit(self._fence, acks)])
        return _reason(answer)

    async def write_plans(self, decision: Decision, acks: tuple[Ack, ...] = ()) -> str | None:
        """The same for decisions about schedules; those under way at once have no order.

        One that had landed already, as the answer was lost, was written.
        """
        refused = _reason(await self._plans.commit(decision.commit(self._fence, acks)))
        if refused is not None and await self.landed(decision, acks):
            return None
        return refused

    async def is_acknowledged(self, message_id: str) -> bool:
        """Whether a message that this life has heard is done, which only its own commits do."""
        found = await patiently(self._store.outcome, SCHEDULER, message_id, 0)
        return found is not None and found.status != "pending"

    async def landed(self, decision: Decision, acks: tuple[Ack, ...] = ()) -> bool:
        """Whether the store has just what a refused commit writes, which nobody else does."""
        if acks:
            return await self.is_acknowledged(acks[0].message_id)
        for put in decision.puts:
            if put.expect != ANY and put.body is not None:
                document = await patiently(self._store.get, put.collection, put.key)
                return document is not None and document.body == put.body
        return False

    async def leave(self) -> None:
        """Write nothing more."""
        await self._plans.close()


def _reason(answer: Answer) -> str | None:
    """Why a decision was refused, if it was; FencedError if somebody else has the seat."""
    if not isinstance(answer, Refused):
        return None
    if answer.reason in ("stale_epoch", "stale_incarnation"):
        raise FencedError(answer.reason)
    logger.warning(
        "a decision of the scheduler was refused: %s %s",
        answer.reason,
        answer.detail,
        extra={"action": "commit.refused", "reason": answer.reason},
    )
    return answer.reason
