"""Group commit: what gathered while calls to the store were out goes in the next one.

Answers are handed out in the order in which the store gave them.  A call whose
outcome is unknown is repeated with the same content until the store answers, so a
commit can be refused because it had landed: callers treat a refusal as "read again
what is there", never as "not written".
A commit that can't be written at all fails alone: its batch is repeated one by one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from runtime.errors import (
    CommitRefusedError,
    InboxFullError,
    StoreError,
    StoreUnavailableError,
    TroupeError,
)
from runtime.store.contract import BATCH_MAX, Commit, Committed, Refused, Store

logger = logging.getLogger(__name__)

TOLD_TOGETHER = 16
"""Answers told at once. If a host heard all of a batch before it sent the next, it and the store
would wait for each other in turns."""
RETRY_FIRST_S = 0.05
RETRY_CAP_S = 1.0

Answer = Committed | Refused
_Waiting = tuple[Commit, "asyncio.Future[Answer]"]


class GroupCommitter:
    """Commits for everybody in one process."""

    def __init__(self, store: Store, abreast: int = 1, together: int = BATCH_MAX) -> None:
        """
        Args:
            abreast: calls in flight, >= 1; with more, commits must not depend on their order.
            together: commits in one call, 1..BATCH_MAX.
        """
        self._store = store
        self._abreast = abreast
        self._together = together
        self._waiting: deque[_Waiting] = deque()
        self._pumps: list[asyncio.Task[None]] = []
        self._untold: deque[tuple[asyncio.Future[Answer], Answer]] = deque()
        self._held_by = ""
        """Why commits are held, told once; empty: they are not."""
        self.refused = 0
        """Commits refused so far."""

    def commit(self, commit: Commit) -> asyncio.Future[Answer]:
        """Write one commit; done when the store has answered, however long that takes.

        Raises:
            StoreError, ValueError: the store can't write this; nothing of it is there.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((commit, future))
        if len(self.pumps) < self._abreast:
            self._pumps.append(asyncio.create_task(self._run()))
        return future

    @property
    def pumps(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        self._pumps = [pump for pump in self._pumps if not pump.done()]
        return self._pumps

    async def _run(self) -> None:
        while self._waiting:
            await self._settle(
                [self._waiting.popleft() for _ in range(min(len(self._waiting), self._together))]
            )

    async def _settle(self, batch: list[_Waiting]) -> None:
        """Write a batch and answer everybody in it."""
        try:
            answers = await self._write([commit for commit, _ in batch])
        except Exception as error:  # whatever it was, nobody may wait for ever: whose fault was it?
            if len(batch) == 1:
                _tell(batch[0][1], error)
            for one in batch if len(batch) > 1 else ():
                await self._settle([one])
            return
        self.refused += sum(isinstance(answer, Refused) for answer in answers)
        waits = bool(self._untold)
        self._untold.extend(zip((future for _, future in batch), answers, strict=True))
        if not waits:
            self._answer_some()

    def _answer_some(self) -> None:
        """Those that have waited longest; what they make of it may be on its way with the next."""
        for _ in range(min(TOLD_TOGETHER, len(self._untold))):
            future, answer = self._untold.popleft()
            if not future.done():
                future.set_result(answer)
        if self._untold:
            asyncio.get_running_loop().call_soon(self._answer_some)

    async def _write(self, commits: list[Commit]) -> list[Answer]:
        wait_s = RETRY_FIRST_S
        while True:
            try:
                answers = await self._store.commit(commits)
                self._held_by = ""
                return answers
            except StoreUnavailableError as error:
                self._tell_held(len(commits), str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(RETRY_CAP_S, wait_s * 2)

    def _tell_held(self, count: int, why: str) -> None:
        if why != self._held_by:
            logger.warning(
                "%d commits are held until the store takes them: %s",
                count,
                why,
                extra={"action": "store.unavailable"},
            )
        self._held_by = why

    async def close(self) -> None:
        """Stop; commits not answered yet are left with an unknown outcome."""
        pumps = self.pumps
        for pump in pumps:
            pump.cancel()
        if pumps:
            await asyncio.gather(*pumps, return_exceptions=True)


def why_refused(refused: Refused) -> TroupeError:
    """A refusal as whoever sends a message hears it."""
    if refused.reason == "inbox_full":
        return InboxFullError(refused.detail)
    return CommitRefusedError(refused.reason, refused.detail)


def _tell(future: asyncio.Future[Answer], error: Exception) -> None:
    if not isinstance(error, StoreError | ValueError):
        error = StoreError(f"{type(error).__name__}: {error}")
    if not future.done():
        future.set_exception(error)
