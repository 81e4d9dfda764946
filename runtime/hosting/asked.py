"""What is asked of an agent that lives here, and that nobody has accepted yet.

Its acceptance and its turn are one commit.  It may be handled at once only while
nothing waits in the inbox, which it would overtake; else, and when its turn fails,
nothing of it has happened, and it is accepted and handled like every other message.

Whoever asks an agent that has nothing to do lends it the task that asks: a task
of its own costs as much as the turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from runtime.errors import InvalidMessageError
from runtime.message import Message
from runtime.store.contract import Send, StoredMessage

if TYPE_CHECKING:
    from runtime.hosting.activation import Activation

UNACCEPTED: Final = 0
"""The seq of a message that is asked and that the store does not know yet."""


class Asked:
    """Of one activation, in the order in which it was asked."""

    __slots__ = ("_activation", "_is_lent", "_returned", "_waiting")

    def __init__(self, activation: Activation) -> None:
        self._activation = activation
        self._waiting: list[tuple[StoredMessage, asyncio.Future[bytes | None]]] = []
        self._is_lent = False
        """Whether the activation works in the task of whoever asks."""
        self._returned: asyncio.Future[None] | None = None
        """Done when that task is theirs again, if anybody waits for it."""

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    def ask(self, send: Send) -> Awaitable[bytes | None] | None:
        """Handle a message that nobody has accepted yet, before it is accepted.

        Answers the answer's JSON when acceptance and turn are durable. None: it
        must be accepted first; nothing of it has happened, or it had been
        accepted before, and the store knows what became of it.
        """
        activation = self._activation
        if activation.stopped or activation.inbox.is_open:
            return None
        if activation.suspects is not None and activation.suspects.accept_first:
            return None
        stored = StoredMessage(
            UNACCEPTED, send.message_id, send.sender, send.recipient, send.body, 0, send.reply_to
        )
        if activation.task is None:
            return self._handle_here(stored)
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((stored, answer))
        return answer

    async def _handle_here(self, stored: StoredMessage) -> bytes | None:
        """Handle it in the task of whoever asks.

        When that is cancelled its commit may be on its way: memory is worthless then.
        """
        message = self._readable(stored)
        if message is None:
            return None
        activation = self._activation
        activation.task = task = asyncio.current_task()
        assert task is not None
        self._is_lent = activation.used = True
        try:
            return await activation._turn(stored, message)
        except asyncio.CancelledError:
            if activation.stopped and not task.uncancel():
                return None  # it was this activation that was to end
            activation.host.lost(activation)
            raise
        finally:
            activation.task = None
            self._is_lent = False
            if self._returned is not None:
                self._returned.set_result(None)
            activation.wake()

    async def handle_next(self) -> None:
        """Handle what has waited longest, in the activation's own task."""
        stored, answer = self._waiting.pop(0)
        if answer.done():  # whoever asked has gone
            return
        reply = None
        try:
            message = self._readable(stored)
            if message is not None:
                reply = await self._activation._turn(stored, message)
        finally:
            if not answer.done():
                answer.set_result(reply)

    def decline(self) -> None:
        """Have what waits accepted first: it would overtake what is in the inbox."""
        asked, self._waiting = self._waiting, []
        for _, answer in asked:
            if not answer.done():
                answer.set_result(None)

    async def ended(self, task: asyncio.Task[object]) -> None:
        """Wait until the activation's task, which was cancelled, works for it no more."""
        if self._is_lent:
            self._returned = asyncio.get_running_loop().create_future()
            await self._returned
        else:
            await asyncio.gather(task, return_exceptions=True)

    def _readable(self, stored: StoredMessage) -> Message | None:
        """What is asked, if it may be handled at once."""
        try:
            message = Message.from_json(stored.body)
        except InvalidMessageError:
            return None  # it becomes a dead letter once it is accepted
        activation = self._activation
        return None if activation.inbox.is_open or activation.jobs.takes(message) else message


def send_of(stored: StoredMessage) -> Send:
    """What accepts a message that was asked."""
    return Send(stored.message_id, stored.sender, stored.recipient, stored.body, stored.reply_to)
