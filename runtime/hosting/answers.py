"""Answers: callers in this process who wait until a message is handled here.

What a turn answers goes to them when its commit is durable, without asking the
store.  A message that is handled elsewhere, or was before, is nobody's news
here: whoever has waited through two sweeps is told to look at the store.  (One
clock for all costs nothing; a timer for each took a tenth of a message's time.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import DeadLetterError
from runtime.patience import patiently
from runtime.store.contract import Store

Answer = asyncio.Future[bytes | None]
"""The reply as JSON, `null` when there was none; None: look at the store; or DeadLetterError."""


class Answers:
    """Of one host."""

    def __init__(self) -> None:
        self._awaited: dict[tuple[str, str], list[Answer]] = {}
        self._old: list[Answer] = []
        """Those that the last sweep found waiting."""

    @contextmanager
    def awaited(self, recipient: str, message_id: str) -> Iterator[Answer]:
        """The answer to a message, told while it is handled here during the block."""
        answer: Answer = asyncio.get_running_loop().create_future()
        waiting = self._awaited.setdefault((recipient, message_id), [])
        waiting.append(answer)
        try:
            yield answer
        finally:
            waiting.remove(answer)
            if not waiting:
                del self._awaited[recipient, message_id]
            answer.cancel()

    def sweep(self) -> None:
        """Have those look who have waited since the sweep before."""
        for answer in self._old:
            if not answer.done():
                answer.set_result(None)
        self._old = [answer for waiting in self._awaited.values() for answer in waiting]

    def processed(self, recipient: str, message_id: str, reply: bytes | None) -> None:
        """The message has been handled, durably."""
        if not self._awaited:
            return
        for answer in self._awaited.get((recipient, message_id), ()):
            if not answer.done():
                answer.set_result(reply or b"null")

    def dead(self, recipient: str, message_id: str, error: str) -> None:
        """The message has been given up, durably."""
        for answer in self._awaited.get((recipient, message_id), ()):
            if not answer.done():
                answer.set_exception(DeadLetterError(error))


async def stored_answer(store: Store, recipient: str, message_id: str, look_s: float) -> bytes:
    """What the store says of a message, as soon as it is handled anywhere.

    Args:
        look_s: how long one look at the store may wait.

    Raises:
        DeadLetterError: it was given up.
    """
    while True:
        found = await patiently(store.outcome, recipient, message_id, look_s)
        if found is not None and found.status == "dead":
            raise DeadLetterError(found.error or "")
        if found is not None and found.status == "processed":
            return found.reply or b"null"
