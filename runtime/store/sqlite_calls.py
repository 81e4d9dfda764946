"""What a transaction is made of, who hears of it before it is over, and what has become of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, Protocol

from runtime.store.contract import Commit, Committed, Refused
from runtime.store.sqlite_book import Book

TURNS_MAX: Final = 16
"""Turns of the loop for which the insider is waited for; to hear of a job and commit takes one."""
WAIT_S: Final = 0.005
"""The same in time: at a start it reads for seconds."""


class Call:
    """A part of a transaction: commits, or a function of the book."""

    __slots__ = ("commits", "future", "inside", "result", "run")

    def __init__(
        self,
        future: asyncio.Future[Any],
        run: Callable[[Book], Any] | None,
        commits: Sequence[Commit] = (),
        inside: bool = False,
    ) -> None:
        self.future = future
        self.run = run
        self.commits = commits
        self.inside = inside
        """The insider's."""
        self.result: Any = None

    def succeed(self) -> None:
        if not self.future.done():
            self.future.set_result(self.result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def fail(calls: Iterable[Call], error: Exception) -> None:
    """Each of them gets this answer."""
    for call in calls:
        call.fail(error)


class Tally:
    """What became of commits."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        """By reason."""

    def count(self, answers: Iterable[Committed | Refused]) -> None:
        for answer in answers:
            if isinstance(answer, Refused):
                self.refused[answer.reason] += 1
            else:
                self.accepted += 1


class Insider(Protocol):
    """Who hears of a transaction while it is open; see `sqlite_inside`."""

    @property
    def idle(self) -> bool:
        """It has seen to all it has heard, and waits for more."""

    def is_awaited(self, key: Hashable) -> bool:
        """Whether ringing would reach it."""

    def hear(self, rings: Iterable[Hashable]) -> bool:
        """What an open transaction has changed; whether there is anything to be made of it."""

    def ring(self, rings: Iterable[Hashable]) -> None:
        """What a transaction has changed that is durable."""

    def undo(self) -> None:
        """What it has heard is not so, or another hears from now on."""

    def end(self) -> None:
        """The store is closed."""


class Patience:
    """How long the insider is waited for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turns = 0
        self._until_s = 0.0

    def begin(self) -> None:
        self._turns, self._until_s = TURNS_MAX, self._loop.time() + WAIT_S

    @property
    def left(self) -> bool:
        """Whether there is time left."""
        return self._loop.time() < self._until_s

    def turn(self) -> bool:
        """One turn of the loop more; False once it was long enough."""
        self._turns -= 1
        return self._turns >= 0 and self.left

    def end(self) -> None:
        self._turns = 0
