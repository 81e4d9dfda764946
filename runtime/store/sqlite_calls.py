"""Calls for the store's thread, and those of them that wait there.

A call that waits looks for something in the book.  It is parked in the thread
itself: right after COMMIT those look again whose keys the transaction has rung, and
what they find goes out together with the answers to its callers.  On the loop
it would be the way to the thread and back once more, behind the next transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from runtime.store.contract import Commit
from runtime.store.sqlite_book import Book


class Call:
    """Work for the thread: commits, or a function of the book."""

    __slots__ = ("commits", "ends", "error", "future", "keys", "last", "reads", "result", "run")

    def __init__(
        self,
        future: asyncio.Future[Any],
        run: Callable[[Book], Any] | None,
        commits: Sequence[Commit] = (),
        reads: bool = False,
        keys: tuple[Hashable, ...] = (),
        last: bool = False,
        ends: Call | None = None,
    ) -> None:
        """
        Args:
            keys: what it waits for, if it does; `run` is a look then: what there is,
                and whether that is worth answering at once.
            last: whatever the look finds is the answer.
            ends: a call that has waited long enough: its next look is its last.
        """
        self.future = future
        self.run = run
        self.commits = commits
        self.reads = reads
        self.keys = keys
        self.last = last
        self.ends = ends
        self.result: Any = None
        self.error: Exception | None = None


def taken(waiting: deque[Call], most: int) -> list[Call]:
    """Take calls in their order: those of one transaction, of at most so many commits, or one."""
    calls: list[Call] = []
    commits = 0
    while waiting and commits < most:
        call = waiting.popleft()
        commits += len(call.commits)
        calls.append(call)
    return calls


class Parked:
    """Calls that wait, by what they wait for; the thread's, but for how many there are."""

    def __init__(self) -> None:
        self._calls: dict[Call, None] = {}
        self._by_key: dict[Hashable, dict[Call, None]] = {}
        """In the order they came: who waits longest looks first."""

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call: Call) -> bool:
        return call in self._calls

    def is_awaited(self, key: Hashable) -> bool:
        """Whether anybody waits for this."""
        return key in self._by_key

    def add(self, call: Call) -> None:
        """Keep a call that has found nothing; one that is here already keeps its place."""
        self._calls[call] = None
        for key in call.keys:
            self._by_key.setdefault(key, {})[call] = None

    def remove(self, call: Call) -> None:
        """Let go of a call, if it is here."""
        if call not in self._calls:
            return
        del self._calls[call]
        for key in call.keys:
            waiting = self._by_key[key]
            del waiting[call]
            if not waiting:
                del self._by_key[key]

    def rung(self, keys: Iterable[Hashable]) -> list[Call]:
        """Those that wait for any of these."""
        return list(dict.fromkeys(call for key in keys for call in self._by_key.get(key, ())))

    def clear(self) -> list[Call]:
        """Let go of all; they are."""
        calls = list(self._calls)
        self._calls.clear()
        self._by_key.clear()
        return calls
