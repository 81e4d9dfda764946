"""What a waiting call looks at: an owner's messages, and the feed.

One look may take several scripts, each bounded; what arrives while it is under
way belongs to the next look.
"""

from __future__ import annotations

from typing import Final

import msgspec

from runtime.store import redis_scripts as scripts
from runtime.store.contract import (
    ANSWER_BYTES_MAX,
    BATCH_MAX,
    Feed,
    FeedEntry,
    Poll,
    Record,
    StoredMessage,
)
from runtime.store.redis_calls import Calls
from runtime.store.redis_reads import PART_BYTES_MAX
from runtime.store.rules import cut, cut_by, page_limit

POLL_AGENTS_MAX: Final = BATCH_MAX
"""Agents one script looks through for messages."""
POLL_SEQS_MAX: Final = 4 * BATCH_MAX
"""Seqs one script looks at: so many messages it finds, at most, to give back the first."""
FIRE_MAX: Final = 250
"""Reminders one script fires."""
EVENTS_MAX: Final = 2_000
"""Events of the feed one script looks at."""


class _PollPart(Record, frozen=True):
    """What redis_poll.lua answers."""

    again: bool
    head: int
    following: int | None
    cut: bool
    ready: int
    news: bool
    event_ms: int | None
    messages: list[StoredMessage]


class _TailPart(Record, frozen=True):
    """What redis_tail.lua answers."""

    reset: bool
    cursor: int
    more: bool
    incarnation: str
    entries: list[FeedEntry]


_decode_poll: Final = msgspec.msgpack.Decoder(_PollPart).decode
_decode_tail: Final = msgspec.msgpack.Decoder(_TailPart).decode


async def look_for(
    calls: Calls, owner: str, after: int, limit: int
) -> tuple[Poll, bool, int | None]:
    """A poll's answer, whether it is news, and in how many ms something happens by itself."""
    head: int | None = None
    beyond, ends, found = after, [], list[StoredMessage]()
    while True:
        part = _decode_poll(
            await calls.run(
                scripts.POLL, owner, after, limit, PART_BYTES_MAX, beyond, int(bool(found)),
                POLL_AGENTS_MAX, FIRE_MAX, POLL_SEQS_MAX,
            )
        )  # fmt: skip
        if part.again:
            continue
        head = part.head if head is None else head
        found += part.messages
        if part.cut:
            ends.append(part.messages[-1].seq if part.messages else after)
        if part.following is None:
            break
        beyond = part.following
    end = min([head, *ends])
    unique = {message.seq: message for message in found if message.seq <= end}
    messages = [unique[seq] for seq in sorted(unique)][:limit]
    kept = cut(messages)
    if len(messages) == limit or len(kept) < len(messages):
        end = kept[-1].seq if kept else after
    return Poll(kept, end, page_limit(part.ready)), part.news, part.event_ms


class Tail:
    """One call of `tail`: it may look several times."""

    def __init__(
        self,
        calls: Calls,
        after: int,
        limit: int,
        organization: str | None,
        incarnation: str | None,
    ) -> None:
        self._calls = calls
        self._after = after
        self._limit = limit
        self._organization = organization or ""
        self._incarnation = incarnation or ""

    async def look(self) -> tuple[Feed, bool]:
        """What there is, and whether that is an answer."""
        part = await self._part(self._after, self._limit, self._incarnation)
        reset, entries = part.reset, part.entries
        sizes = [len(one.body) for one in entries]
        if self._after < 0:  # the head is where it was first looked for
            self._after, self._incarnation = part.cursor, part.incarnation
        while part.more and len(entries) < self._limit and sum(sizes) <= ANSWER_BYTES_MAX:
            left = self._limit - len(entries)
            part = await self._part(part.cursor, left, part.incarnation)
            if part.reset:  # forgotten while it was read
                return Feed(tuple(part.entries), part.cursor, True), True
            entries += part.entries
            sizes += [len(one.body) for one in part.entries]
        kept = cut_by(entries, sizes)
        cursor = kept[-1].cursor if len(kept) < len(entries) else part.cursor
        return Feed(kept, cursor, reset), bool(kept) or reset

    async def _part(self, after: int, limit: int, incarnation: str) -> _TailPart:
        found = await self._calls.run(
            scripts.TAIL, after, limit, self._organization, incarnation, EVENTS_MAX, PART_BYTES_MAX
        )
        return _decode_tail(found)
