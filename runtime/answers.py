"""Answers: callers in this process who wait until a message is handled here.

What a turn answers goes to them when its commit is durable, without asking the
store.  A message that is handled elsewhere, or was before, is nobody's news
here: who waits must look at the store in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import DeadLetterError

Answer = asyncio.Future[bytes]
"""The reply as JSON, `null` when there was none; or DeadLetterError."""


class Answers:
    """Of one host."""

    def __init__(self) -> None:
        self._awaited: dict[tuple[str, str], list[Answer]] = {}

    @contextmanager
    def awaited(self, recipient: str, message_id: str) -> Iterator[Answer]:
        """The answer to a message, if it is handled here during the block."""
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

    def processed(self, recipient: str, message_id: str, reply: bytes | None) -> None:
        """The message has been handled, durably."""
        for answer in self._awaited.get((recipient, message_id), ()):
            if not answer.done():
                answer.set_result(reply or b"null")

    def dead(self, recipient: str, message_id: str, error: str) -> None:
        """The message has been given up, durably."""
        for answer in self._awaited.get((recipient, message_id), ()):
            if not answer.done():
                answer.set_exception(DeadLetterError(error))
