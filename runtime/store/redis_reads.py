"""Reading from Redis: pages as long as an answer may be, a bounded part a script.

A script looks at a bounded number of rows and bytes, so that nobody else waits
long for the server; what a caller asked for beyond that is read by the next
one, from where the last has stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from runtime.store import redis_scripts as scripts
from runtime.store.contract import (
    ANSWER_BYTES_MAX,
    Document,
    JournalEvent,
    Step,
    StoredMessage,
)
from runtime.store.redis_calls import Calls
from runtime.store.rules import cut_by, message_bytes

T = TypeVar("T")
At = TypeVar("At", int, str)

PART_BYTES_MAX: Final = 4 << 20
"""What one script reads, about."""
STEPS_MAX: Final = 500
"""Steps one script reads."""
WALK_MAX: Final = 2_000
"""Keys of documents one script looks at."""

encode: Final = msgspec.msgpack.Encoder().encode
_decode_messages: Final = msgspec.msgpack.Decoder(tuple[int | None, list[StoredMessage]]).decode
_decode_message: Final = msgspec.msgpack.Decoder(StoredMessage | None).decode
_decode_journal: Final = msgspec.msgpack.Decoder(tuple[int | None, list[JournalEvent]]).decode
_decode_steps: Final = msgspec.msgpack.Decoder(tuple[int | None, list[Step]]).decode
_decode_document: Final = msgspec.msgpack.Decoder(Document | None).decode
_decode_documents: Final = msgspec.msgpack.Decoder(tuple[str | None, int, list[Document]]).decode


async def _walk(
    at: At,
    limit: int,
    size: Callable[[T], int],
    part: Callable[[At, int], Awaitable[tuple[At | None, list[T]]]],
) -> list[T]:
    """Rows of part after part, until there are enough or no more, or an answer is full."""
    found: list[T] = []
    sizes: list[int] = []
    while len(found) < limit and sum(sizes) <= ANSWER_BYTES_MAX:
        following, rows = await part(at, limit - len(found))
        found += rows
        sizes += map(size, rows)
        if following is None:
            break
        at = following
    return list(cut_by(found, sizes))


def _body_bytes(row: Document | JournalEvent) -> int:
    return len(row.body)


class Reads:
    def __init__(self, calls: Calls) -> None:
        self._run = calls.run

    async def messages(self, agent: str, which: str, after: int, limit: int) -> list[StoredMessage]:
        """`which` is `inbox`, the pending ones, or `history`."""

        async def part(at: int, left: int) -> tuple[int | None, list[StoredMessage]]:
            found = await self._run(scripts.MESSAGES, agent, which, at, left, PART_BYTES_MAX)
            return _decode_messages(found)

        return await _walk(after, limit, message_bytes, part)

    async def message(self, agent: str, message_id: str) -> StoredMessage | None:
        found: StoredMessage | None = _decode_message(
            await self._run(scripts.OUTCOME, agent, message_id)
        )
        return found

    async def journal(self, agent: str, after: int, limit: int) -> list[JournalEvent]:
        async def part(at: int, left: int) -> tuple[int | None, list[JournalEvent]]:
            found = await self._run(scripts.JOURNAL, agent, at, left, PART_BYTES_MAX)
            return _decode_journal(found)

        return await _walk(after, limit, _body_bytes, part)

    async def steps(self, job: str) -> list[Step]:
        found: list[Step] = []
        at: int | None = 0
        while at is not None:
            part = await self._run(scripts.STEPS, job, at, STEPS_MAX, PART_BYTES_MAX)
            at, steps = _decode_steps(part)
            found += steps
        return found

    async def get(self, collection: str, key: str) -> Document | None:
        found: Document | None = _decode_document(await self._run(scripts.GET, collection, key))
        return found

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        calls = (self.get(collection, key) for key in dict.fromkeys(keys))
        return [one for one in await asyncio.gather(*calls) if one is not None]

    async def documents(
        self,
        collection: str,
        organization: str | None,
        terms: Sequence[str],
        after: str | None,
        limit: int,
        descending: bool,
    ) -> list[Document]:
        where = (collection, organization or "", encode(list(dict.fromkeys(terms))))

        async def part(at: str, left: int) -> tuple[str | None, list[Document]]:
            found = await self._run(
                scripts.LIST, *where, at, int(descending), left, WALK_MAX, PART_BYTES_MAX
            )
            following, _, rows = _decode_documents(found)
            return following and f"({following}", rows

        begin = ("+" if descending else "-") if after is None else f"({after}"
        return await _walk(begin, limit, _body_bytes, part)

    async def count(self, collection: str, organization: str | None, terms: Sequence[str]) -> int:
        where = (collection, organization or "", encode(list(dict.fromkeys(terms))))
        total, at = 0, "-"
        while True:
            found = await self._run(scripts.LIST, *where, at, 0, "", WALK_MAX, PART_BYTES_MAX)
            following, count, _ = _decode_documents(found)
            total += count
            if following is None:
                return total
            at = f"({following}"
