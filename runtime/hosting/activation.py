"""An agent live in memory: one message at a time, each turn one commit.

    inbox (in order of seq) -> handler -> commit -> acknowledge, deliver, reply

A handler that raises is rolled back to the committed state (`folded`) and its
message stays first in line.  A refused commit means that somebody else has the
agent or that an earlier commit landed after all; either way memory is
worthless, so the activation ends and the store is read again.

What is asked here, and was not accepted before, is handled by way of `asked`.
While there is nothing to do there is no task.  Which agents are live, and where,
is `host`'s business; jobs run beside the turns in `jobs.run`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Unpack

from runtime.agent import BaseAgent, DeactivationReason, enter
from runtime.deadletters import FAILED, burial
from runtime.errors import InvalidMessageError, told
from runtime.hosting.asked import UNACCEPTED, Asked, send_of
from runtime.hosting.calling import Calling
from runtime.hosting.directory import described, expand
from runtime.hosting.folded import Folded
from runtime.hosting.inbox import Inbox, whole
from runtime.hosting.services import HostServices
from runtime.hosting.suspects import REASON, Mark, Suspects, first_in_line
from runtime.ids import split
from runtime.jobs.lane import JobLane
from runtime.jobs.writer import LostError
from runtime.journal import State
from runtime.message import Message
from runtime.patience import patiently
from runtime.store import contract
from runtime.store.contract import (
    Ack,
    Commit,
    Committed,
    FeedEvent,
    Fence,
    Parts,
    Put,
    Retry,
    Send,
    Snapshot,
    StoredMessage,
)
from runtime.turn import Place, Turn, is_answered, to_json

logger = logging.getLogger(__name__)

DELIVERIES_MAX = 5
"""Tries of one message before it becomes a dead letter."""
HANDLERS_FAULT = frozenset(
    {"revision_conflict", "duplicate", "expired", "foreign_organization", "overtaking"}
)
"""Refusals that come from the message or what its handler wrote, not from another activation."""


class Activation:
    """One agent, one epoch."""

    __slots__ = (
        "_calling", "address", "agent", "agent_id", "asked", "fence", "folded", "host", "inbox",
        "jobs", "organization", "place", "stopped", "suspects", "task", "used",
    )  # fmt: skip

    def __init__(
        self, claimed: contract.Activation, agent: BaseAgent, incarnation: str, host: HostServices
    ) -> None:
        self.address = claimed.agent
        self.organization, self.agent_id = split(claimed.agent)
        self.agent = agent
        self.fence = Fence(incarnation, claimed.epoch)
        self.host = host
        self.used = True
        """Whether it has worked since the host looked last."""
        self.jobs = JobLane(self)
        self.folded: Folded
        self.place: Place
        self.suspects: Suspects | None = None
        """What the last holder may have died of, if it did."""
        self.inbox = Inbox()
        self.asked = Asked(self)
        self.task: asyncio.Task[Any] | None = None
        """What does the work: a task of its own, or that of whoever asks."""
        self._calling = Calling()
        self.stopped = True
        """Whether it has not begun, or is to end."""

    # Life

    async def start(self, claimed: contract.Activation) -> None:
        """Load the state, call `activate`, begin to handle the inbox."""
        self.folded = Folded(claimed, self.agent)
        host = self.host
        self.place = Place(self.address, self.folded, host.clock, host.ids, host.store)
        lived = claimed.epoch > 1 and self.version == 0  # perhaps it had jobs, and no turn
        if lived and (await patiently(host.store.get, "agent", self.address)) is not None:
            self.jobs.introduce()
        enter(Turn(self.place))
        await self.agent.activate()
        waiting = await whole(self.address, claimed.inbox, host.store)
        self.inbox.claimed(waiting, claimed.epoch)
        if claimed.abandoned:
            self.suspects = Suspects(self, first_in_line(waiting))
        self.stopped = False
        self.wake()

    async def stop(self, reason: DeactivationReason) -> None:
        """Leave memory; a running job is left where it is, to be resumed elsewhere."""
        self.stopped = True
        await self.jobs.stop()
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()
            await self.asked.ended(self.task)
        self.asked.decline()
        try:
            await self.agent.deactivate(reason)
        except Exception:  # the author's code: it must not keep the agent in memory
            logger.exception("deactivate failed", extra={"agent": self.address})

    @property
    def idle(self) -> bool:
        """Nothing to do and nothing being done."""
        return not (self.inbox or self.asked or self.task or self.jobs.busy)

    @property
    def version(self) -> int:
        return self.folded.version

    def offer(self, *messages: StoredMessage) -> None:
        """Add pending messages; one that is known already is passed over."""
        for message in messages:
            self.inbox.offer(message)
        self.wake()

    def done(self, seq: int) -> None:
        """The message has left the inbox."""
        self.inbox.done(seq)
        self.host.finished[self] = None

    # The loop

    def wake(self) -> None:
        if self.task is None and not self.stopped and (self.inbox or self.asked):
            self.task = asyncio.create_task(self._run(), name=f"turns:{self.address}")

    async def _run(self) -> None:
        while self.inbox or self.asked:
            if not self.inbox:
                await self.asked.handle_next()
                continue
            self.asked.decline()
            message = self.inbox.take()
            if message.not_before_ms:
                await self._not_before(message.not_before_ms)
            try:
                await self._handle(message)
            except Exception as error:  # what the author's code raises is caught where it runs
                logger.exception(
                    "a message of %s can't be handled",
                    self.address,
                    extra={"action": "message.broken", "agent": self.address},
                )
                self.folded.restore()
                await self._bury(message, told(error))
        self.used = True
        self.task = None

    async def _not_before(self, at_ms: int) -> None:
        wait_s = (at_ms - self.host.clock.now_ms()) / 1000
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _handle(self, stored: StoredMessage) -> None:
        try:
            message = Message.from_json(stored.body)
        except InvalidMessageError as error:
            await self._bury(stored, str(error))
            return
        if self.jobs.takes(message):
            await self.jobs.handle(stored, message)
        elif self.suspects is not None and stored in self.suspects:
            await self._suspected(stored, message, self.suspects)
        else:
            await self._turn(stored, message)

    async def _suspected(self, stored: StoredMessage, message: Message, among: Suspects) -> None:
        try:
            async with among.begun(stored) as mark:
                if mark is not None and mark.is_enough:
                    await self._quarantine(stored, mark, among)
                else:
                    await self._turn(stored, message)
        except LostError:
            self.host.lost(self)
            await asyncio.Event().wait()  # the host ends this task; nothing of it may go on

    async def _turn(self, stored: StoredMessage, message: Message) -> bytes | None:
        """One turn, one commit; the answer's JSON once that is durable, None when it failed."""
        turn = Turn(self.place)
        enter(turn)
        try:
            ack = await self._received(turn, stored, message)
            after, commit = self._commit_of(turn, stored, ack)
            answer = await self.host.group.commit(commit)
        except Exception as error:  # the author's code may raise anything: the message's fault
            logger.warning(
                "a turn of %s failed: %s",
                self.address,
                told(error),
                exc_info=True,
                extra={"action": "turn.failed", "agent": self.address},
            )
            await self._failed(stored, told(error))
            return None
        if not isinstance(answer, Committed):
            await self._refused(stored, answer)
            return None
        self.folded.advance(after, answer.version, commit.snapshot is not None)
        self._sent(stored, commit.sends, answer.seqs)
        self.host.answers.processed(self.address, stored.message_id, ack.reply)
        return ack.reply or b"null"

    async def _received(self, turn: Turn, stored: StoredMessage, message: Message) -> Ack:
        """Have the author's code handle a message; the turn then has all that it wrote.

        Raises:
            Exception: whatever that code raises, or that it took too long.
        """
        self._calling.begin()
        try:
            if self.folded.version == 0:
                await self.agent.initialize()
            reply = await self.agent.receive_message(message)
        except asyncio.CancelledError as cancelled:
            raise self._calling.why(cancelled) from None
        finally:
            self._calling.end()
        ack = Ack(stored.message_id, to_json(reply) if reply is not None else None)
        if reply is not None and is_answered(message):
            turn.send(message.sender, reply, "reply", reply_to=message.message_id)
        if turn.broadcasts:
            await expand(turn, self.host.store)
        return ack

    def _commit_of(self, turn: Turn, stored: StoredMessage, ack: Ack) -> tuple[State, Commit]:
        """The state after a turn, and all that is to be durable together."""
        folded = self.folded
        first = folded.version == 0
        if first or self.suspects is not None:
            turn.puts.extend(self._added(stored, first))
        after, patch = folded.change()
        events = turn.events(patch, self.agent.schema_version, first)
        snapshot = self._snapshot(after, len(events), turn.wants_snapshot)
        if stored.seq == UNACCEPTED:
            turn.sends.insert(0, send_of(stored))
        return after, turn.commit(self.fence, folded.version, events, snapshot, ack)

    def _sent(self, stored: StoredMessage, sends: Sequence[Send], seqs: tuple[int, ...]) -> None:
        """A message is handled, and what was sent meanwhile is accepted."""
        if stored.seq == UNACCEPTED:  # it is the first of them
            self.host.handled(seqs[0])
            sends, seqs = sends[1:], seqs[1:]
        else:
            self.done(stored.seq)
        if sends:
            self.host.delivered(self.address, sends, seqs)

    def _added(self, stored: StoredMessage, first: bool) -> list[Put]:
        """What the runtime itself writes with a turn."""
        puts = [self.description()] if first and not self.jobs.introduced else []
        if self.suspects is not None:
            puts += self.suspects.settled(stored)
        return puts

    def check(self, now_s: float) -> None:
        """End a handler that takes too long; the host looks now and then."""
        if self.task is not None:
            self._calling.check(now_s, self.task)

    async def _refused(self, stored: StoredMessage, refused: contract.Refused) -> None:
        if refused.reason in HANDLERS_FAULT:
            await self._failed(stored, f"{refused.reason}: {refused.detail}")
            return
        logger.warning(
            "a commit of %s was refused (%s)",
            self.address,
            refused.reason,
            extra={"action": "commit.refused", "agent": self.address, "reason": refused.reason},
        )
        self.host.lost(self)
        await asyncio.Event().wait()  # the host ends this task; nothing of it may go on

    # Failure

    async def _failed(self, stored: StoredMessage, error: str) -> None:
        """Roll back; the message stays first in line, or becomes a dead letter.

        One that is not accepted yet was never there.
        """
        self.folded.restore()
        if stored.seq == UNACCEPTED:
            return
        attempts = stored.attempts + 1
        if attempts >= DELIVERIES_MAX:
            await self._bury(stored, error)
            return
        wait_s = self.host.backoff.wait_s(attempts, self.host.random)
        not_before_ms = self.host.clock.now_ms() + round(wait_s * 1000)
        answer = await self.write(retries=(Retry(stored.message_id, not_before_ms, error),))
        if not isinstance(answer, Committed):
            await self._refused(stored, answer)
            return
        again = StoredMessage(
            stored.seq, stored.message_id, stored.sender, stored.recipient, stored.body,
            stored.accepted_ms, stored.reply_to, "pending", attempts, not_before_ms,
        )  # fmt: skip
        self.inbox.put_back(again)

    async def _quarantine(self, stored: StoredMessage, mark: Mark, among: Suspects) -> None:
        """Give a message up that hosts have died of; it is handled no more."""
        event = among.told(stored, mark)
        await self._bury(stored, mark.error, reason=REASON, feed=(event,))
        self.host.quarantined += 1

    async def _bury(
        self,
        stored: StoredMessage,
        error: str,
        reason: str = FAILED,
        feed: tuple[FeedEvent, ...] = (),
    ) -> None:
        now_ms = self.host.clock.now_ms()
        parts = burial(self.address, stored, error, now_ms, reason)
        if self.suspects is not None:
            parts["puts"] += self.suspects.settled(stored)
        parts["feed"] = feed
        answer = await self.write(**parts)
        logger.error(
            "a message of %s became a dead letter: %s",
            self.address,
            error,
            extra={"action": "message.dead", "agent": self.address, "reason": reason},
        )
        if not isinstance(answer, Committed):
            await self._refused(stored, answer)
            return
        self.done(stored.seq)
        self.host.answers.dead(self.address, stored.message_id, error)

    # Writing beside turns

    async def write(self, **parts: Unpack[Parts]) -> Committed | contract.Refused:
        """Commit something of this agent that is no turn (its journal does not grow)."""
        commit = Commit(self.organization, self.address, self.fence, **parts)
        answer = await self.host.group.commit(commit)
        if isinstance(answer, Committed):
            self.host.delivered(self.address, commit.sends, answer.seqs)
        return answer

    async def save(self) -> None:
        """Write a snapshot if events have come since the last one."""
        folded = self.folded
        if folded.version == folded.saved:
            return
        snapshot = folded.snapshot(folded.committed)
        answer = await self.host.group.commit(
            Commit(self.organization, self.address, self.fence, folded.version, snapshot=snapshot)
        )
        if isinstance(answer, Committed):
            folded.saved = folded.version

    # What a turn is made with

    @property
    def state_is_committed(self) -> bool:
        """Whether memory holds just what is durable; never during a turn."""
        return self.task is not None or self.folded.is_clean

    def _snapshot(self, after: State, new_events: int, wanted: bool) -> Snapshot | None:
        if not new_events or not (wanted or self.folded.is_due(new_events)):
            return None
        return self.folded.snapshot(after)

    def description(self) -> Put:
        """The agent's public record, written with the first thing it does."""
        return described(self.agent, self.organization, self.host.clock.now_ms())
