"""An inbox as its agent's activation has it in memory: what waits, what is open, what is done.

    offered --> waiting (in order of seq) --> taken --> done

The store's inbox is the truth; messages come from it by a claim, by polls, or
straight from a sender on the same host, and may come twice.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from runtime.patience import patiently
from runtime.store.contract import ANSWER_BYTES_MAX, BATCH_MAX, Store, StoredMessage


class Inbox:
    """Of one activation."""

    __slots__ = ("_done", "_had_before", "_open", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[int, StoredMessage]] = []
        self._open: set[int] = set()
        """Seqs offered and not done with."""
        self._done: set[int] = set()
        """Seqs done with that a poll may still bring."""
        self._had_before = 0
        """Seq up to which an earlier activation may have had a message."""

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    @property
    def is_open(self) -> bool:
        """Whether any message waits or is being handled."""
        return bool(self._open)

    def claimed(self, messages: Iterable[StoredMessage], epoch: int) -> None:
        """What a claim brought, all of it; another activation may have begun with some."""
        for message in messages:
            self.offer(message)
            if epoch > 1:
                self._had_before = max(self._had_before, message.seq)

    def offer(self, message: StoredMessage) -> None:
        """A pending message; one that is known already is passed over."""
        if message.seq not in self._open and message.seq not in self._done:
            self._open.add(message.seq)
            self.put_back(message)

    def put_back(self, message: StoredMessage) -> None:
        """It waits again, at its own place."""
        heapq.heappush(self._waiting, (message.seq, message))

    def take(self) -> StoredMessage:
        """The first that waits; it stays open until it is done."""
        return heapq.heappop(self._waiting)[1]

    def done(self, seq: int) -> None:
        """The message has left the inbox."""
        self._open.discard(seq)
        self._done.add(seq)

    def forget_done(self, cursor: int) -> bool:
        """What is done with up to `cursor` can't be offered again; whether something else can."""
        self._done = {seq for seq in self._done if seq > cursor}
        return bool(self._done)

    def has_behind(self, seq: int, sender: str) -> bool:
        """Whether more from a sender waits behind a message."""
        return any(at > seq and message.sender == sender for at, message in self._waiting)

    def is_first_to_have(self, seq: int) -> bool:
        """Whether nobody can have had the message before this activation."""
        return seq > self._had_before


async def whole(
    agent: str, claimed: tuple[StoredMessage, ...], store: Store
) -> tuple[StoredMessage, ...]:
    """The claimed messages with what the claim's answer had no room for; no poll brings it."""
    found = list(claimed)
    last = claimed[-1] if _is_long(claimed) else None
    while last is not None:
        after = last.seq
        page = await patiently(store.inbox, agent, after, BATCH_MAX)
        found.extend(page)
        last = page[-1] if page else None
    return tuple(found)


def _is_long(claimed: tuple[StoredMessage, ...]) -> bool:
    """Whether a claim may have been cut; a store counts more than this by half at most."""
    size = sum([len(message.body) + len(message.error or "") for message in claimed])
    return len(claimed) >= BATCH_MAX or size > ANSWER_BYTES_MAX // 2
