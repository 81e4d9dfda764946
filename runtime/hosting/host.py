"""A host: the process in which many agents live.

It registers with the store under a fresh owner id, renews one lease for all it
holds, claims agents that have something to do, brings them to life, and lets
the idle ones leave memory.  Agents are pulled, never assigned: any host may
claim any agent nobody holds, so a host that dies needs nobody's help for its
agents to go on elsewhere.

Everything here is a hint about where work is done; that no two hosts can write
for one agent is the store's check of the epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from runtime.agent import DeactivationReason
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.errors import StoreUnavailableError
from runtime.group import GroupCommitter, why_refused
from runtime.hosting.activation import Activation
from runtime.hosting.answers import Answers, stored_answer
from runtime.hosting.births import Births
from runtime.hosting.claims import Claims
from runtime.hosting.idle import LOOKS, Idle
from runtime.hosting.order import Order
from runtime.hosting.unfit import Unfit
from runtime.ids import Ids, kind_of
from runtime.kinds import Kinds
from runtime.message import Message
from runtime.patience import patiently
from runtime.store import contract
from runtime.store.contract import BATCH_MAX, Commit, Refused, Send, Store, StoredMessage

logger = logging.getLogger(__name__)

POLL_WAIT_S = 10.0
"""Longest a poll parks; nothing depends on it but how soon a lost answer is noticed."""

SWEEP_S = 10.0
"""How often the host looks after callers and handlers that take long."""
CLAIM_TOGETHER = 16
"""Agents in one claim: those that are here work while the store gives the next."""
POLL_EVERY_S = 0.005
"""A busy host polls no more often: most that a poll could bring has been handed over by then."""
POLL_SOON_S = 0.001
"""It does after a poll that has brought messages, since they come from elsewhere; but what these
begin goes first."""
RETRY_S = 0.2
ABREAST = 2
"""Calls with commits in flight: the store has the next as it ends the last. With one it would wait
for the host, which waits for its answer."""


@dataclass(frozen=True)
class HostSettings:
    lease_s: float = 10.0
    """Seconds after which the agents of a silent host may be claimed by others."""
    idle_s: float = 60.0
    """Seconds without work after which an agent leaves memory."""
    claim_max: int = 256
    """Agents claimed at once."""


class Host:
    """Agents live here. Create, `await start()`, `await drain()`."""

    def __init__(
        self,
        name: str,
        store: Store,
        kinds: Kinds,
        clock: Clock,
        ids: Ids,
        random: Callable[[], float],
        settings: HostSettings = HostSettings(),
    ) -> None:
        self.name = name
        self.owner = f"{name}/{ids.ulid()}"
        self.store = store
        self.clock = clock
        self.ids = ids
        self.random = random
        self.backoff = Backoff()
        self.group = GroupCommitter(store, ABREAST)
        self._settings = settings
        self._incarnation = ""
        self._active: dict[str, Activation] = {}
        self.answers = Answers()
        self.alone = asyncio.Lock()
        self.quarantined = 0
        self.finished: dict[Activation, None] = {}
        self._parked: asyncio.Timeout | None = None
        """Ends the poll that waits at the store."""
        self._doubtful = asyncio.Event()
        """An agent was lost: is this host still who it was?"""
        self._claims = Claims(self, self._active)
        self._order = Order()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._unfit = Unfit(self, self._claims, self._draining)
        self._births = Births(
            self, kinds, self._active, self._order, self._claims, self._unfit, self._end
        )
        self.moved = 0
        """Activations lost to somebody else's epoch so far."""

    # Life

    async def start(self) -> None:
        """Register and begin to work; waits for the store as long as it takes."""
        self._incarnation = await patiently(
            self.store.register, self.owner, self.name, self._settings.lease_s
        )
        for loop in (self._renew, self._poll, self._claim, self._retire, self._sweep):
            self._tasks.append(asyncio.create_task(loop(), name=f"{self.name}:{loop.__name__}"))
        logger.info("host %s is up", self.owner, extra={"action": "host.started"})

    async def watch(self) -> None:
        """Wait until the host has drained.

        Raises:
            Exception: what ended one of its loops; the host is of no use any more.
        """
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled():
                task.result()

    async def drain(self) -> None:
        """Stop claiming, let go of every agent; running jobs go on elsewhere. Idempotent."""
        self._draining.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for activation in list(self._active.values()):
            await self._deactivate(activation, DeactivationReason.DRAIN)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self.group.close()
        logger.info("host %s has drained", self.owner, extra={"action": "host.drained"})

    def status(self) -> dict[str, object]:
        """What this host is doing, for people and health checks."""
        jobs = [where for where, activation in self._active.items() if activation.jobs.busy]
        return {
            "name": self.name,
            "owner": self.owner,
            "agents": len(self._active),
            "jobs": jobs,
            "commitsRefused": self.group.refused,
            "moved": self.moved,
            "quarantined": self.quarantined,
            "draining": self._draining.is_set(),
        }

    # From outside

    def lives(self, where: str) -> bool:
        """Whether an agent is in the memory of this host."""
        return where in self._active

    async def ask(self, organization: str, sender: str, message: Message, where: str) -> bytes:
        """Have a message accepted and handled; the answer as JSON bytes.

        Returns the reply, `null` when there was none.

        Raises:
            UnknownAgentKindError: no class for the recipient.
            InboxFullError: too many messages wait for it already.
            DeadLetterError: the agent gave the message up.
        """
        send = Send(message.message_id, f"{organization}/{sender}", where, message.to_json())
        activation = self._active.get(where)
        asked = activation.asked.ask(send) if activation is not None else None
        if asked is not None and (told := await asked) is not None:
            return told
        with self.answers.awaited(where, message.message_id) as answer:
            commit = Commit(organization, sends=(send,))
            written = await self.group.commit(commit)
            asked_before = isinstance(written, Refused)
            if isinstance(written, Refused):
                if written.reason != "duplicate":
                    raise why_refused(written)
            else:
                self.delivered(None, commit.sends, written.seqs)
            if where in self._active and not asked_before:
                told = await answer
                if told is not None:
                    return told
            return await stored_answer(self.store, where, message.message_id, POLL_WAIT_S)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            self.answers.sweep()
            now_s = loop.time()
            for activation in list(self._active.values()):
                activation.check(now_s)

    # HostServices

    def handled(self, seq: int) -> None:
        self._order.handled(seq)

    def delivered(self, sender: str | None, sends: Sequence[Send], seqs: tuple[int, ...]) -> None:
        if not sends:
            return
        if sender not in self._active:
            sender = None
        may_hand_over = self._order.sent(sender, seqs, self._all_live_here(sends))
        for send, seq in zip(sends, seqs, strict=True):
            activation = self._active.get(send.recipient)
            if activation is None:
                if kind_of(send.recipient) != "scheduler":
                    self._claims.want(send.recipient)
            elif may_hand_over and seq > self._order.cursor:  # else a poll or claim brings it
                activation.offer(
                    StoredMessage(
                        seq, send.message_id, send.sender, send.recipient, send.body,
                        self.clock.now_ms(), send.reply_to,
                    )
                )  # fmt: skip

    def _all_live_here(self, sends: Sequence[Send]) -> bool:
        """Whether no poll is needed to bring these messages to agents of this host.

        One that does not live here yet may be on its way with a claim.
        """
        return all(
            send.recipient in self._active or kind_of(send.recipient) == "scheduler"
            for send in sends
        )

    def lost(self, activation: Activation) -> None:
        if self._active.get(activation.address) is not activation:
            return
        del self._active[activation.address]
        self._order.forget(activation.address)
        self.moved += 1
        self._doubtful.set()
        self._end(self._forget(activation))

    async def _forget(self, activation: Activation) -> None:
        await activation.stop(DeactivationReason.FENCED)
        async with self._claims.lock:
            if activation.address not in self._active:  # it may have come back meanwhile
                await self._claims.release([activation.address])

    # Loops

    async def _renew(self) -> None:
        """Keep the lease, and look at once who this host is when an agent of it was fenced."""
        while True:
            try:
                async with asyncio.timeout(self._settings.lease_s / 3):
                    await self._doubtful.wait()
            except TimeoutError:
                pass
            self._doubtful.clear()
            renewed = await patiently(self.store.renew, self.owner, self._settings.lease_s)
            incarnation = (await patiently(self.store.health)).incarnation
            if not renewed or incarnation != self._incarnation:
                await self._begin_anew()

    async def _begin_anew(self) -> None:
        """Another process has taken this host's name, or the store lost data: start over."""
        logger.warning("host %s was superseded", self.owner, extra={"action": "host.superseded"})
        for activation in list(self._active.values()):
            self.lost(activation)
        self.owner = f"{self.name}/{self.ids.ulid()}"
        self._incarnation = await patiently(
            self.store.register, self.owner, self.name, self._settings.lease_s
        )
        self._order.begin_anew()
        if self._parked is not None:
            self._parked.reschedule(asyncio.get_running_loop().time())

    async def _poll(self) -> None:
        clock = asyncio.get_running_loop().time
        next_s = clock()
        while True:
            await asyncio.sleep(next_s - clock())
            next_s = clock() + POLL_EVERY_S
            after, owner = self._order.next_poll, self.owner
            try:
                poll = await self._next_poll(owner, after)
            except StoreUnavailableError:
                self._doubtful.set()  # the lease may have gone with the connection
                await asyncio.sleep(RETRY_S * (0.5 + self.random()))
                await self._claim_and_activate(None)  # a lost answer may have told of work
                continue
            if poll is None:
                await self._claim_and_activate(None)  # what was cut off may have told of work
                continue
            if owner != self.owner:
                continue  # this host has begun anew: what it held before is none of its business
            if poll.messages:
                next_s = clock() + POLL_SOON_S
            self._hand_over(poll.messages)
            self._order.polled(poll.cursor)
            self._forget_finished(poll.cursor)
            if poll.ready:
                await self._claim_and_activate(None)
            await self._claims.release_orphans()

    async def _next_poll(self, owner: str, after: int) -> contract.Poll | None:
        """None when this host began anew meanwhile: nobody rings for its old name."""
        try:
            async with asyncio.timeout(None) as self._parked:
                return await self.store.poll(owner, after, BATCH_MAX, POLL_WAIT_S)
        except TimeoutError:
            return None
        finally:
            self._parked = None

    def _forget_finished(self, cursor: int) -> None:
        finished, self.finished = self.finished, {}
        for activation in finished:
            if activation.inbox.forget_done(cursor):
                self.finished[activation] = None

    def _hand_over(self, messages: tuple[StoredMessage, ...]) -> None:
        for message in messages:
            activation = self._active.get(message.recipient)
            if activation is not None:
                activation.offer(message)
            elif message.recipient not in self._unfit:
                self._claims.early.setdefault(message.recipient, []).append(message)

    async def _claim(self) -> None:
        """Claim what this host has just written to, without waiting for the next poll."""
        while True:
            await self._claim_and_activate(await self._claims.wanted(self._settings.claim_max))

    async def _claim_and_activate(self, agents: list[str] | None) -> None:
        limit = len(agents) if agents else self._settings.claim_max
        async with self._claims.lock:
            owner = self.owner
            for first in range(0, limit, CLAIM_TOGETHER):
                names = agents[first : first + CLAIM_TOGETHER] if agents else None
                many = len(names) if names else min(CLAIM_TOGETHER, limit - first)
                claimed = await self._claims.take(many, names)
                if owner != self.owner:
                    return
                await self._activate(claimed)
                if names is None and len(claimed) < many:
                    return

    async def _retire(self) -> None:
        """Deactivate agents that have been idle; their state stays in the store."""
        idle = Idle()
        while True:
            await asyncio.sleep(self._settings.idle_s / LOOKS)
            for activation in idle.look(list(self._active.values())):
                if activation.idle:
                    await self._deactivate(activation, DeactivationReason.IDLE)

    # Agents

    async def _activate(self, claimed: Sequence[contract.Activation]) -> None:
        for one in claimed:
            if (before := self._active.get(one.agent)) is not None:
                self.lost(before)  # somebody else had it meanwhile, and nothing has told so yet
        await self._births.begin(claimed, self._incarnation)

    async def _deactivate(self, activation: Activation, reason: DeactivationReason) -> None:
        if self._active.get(activation.address) is not activation:
            return
        await activation.stop(reason)
        await activation.save()
        async with self._claims.lock:
            self._active.pop(activation.address, None)
            self._order.forget(activation.address)
            await self._claims.release([activation.address])

    def _end(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
