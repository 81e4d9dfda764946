"""The operator's verbs on Redis: forgetting what is over, and removing an organization.

`prune` is a script a piece; what it passes over in a round (dead messages that
somebody may redeliver) is remembered here, so that it does not keep the rest.
`purge` finds an organization's agents by the hash tag of their keys, which no
index has to know; an agent vanishes with one script, then goes what else is
the organization's.  Places are in memory only: in another process a round
begins anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from runtime.ids import SYSTEM
from runtime.store import redis_scripts as scripts
from runtime.store.contract import Swept
from runtime.store.redis_calls import Calls
from runtime.store.redis_reads import PART_BYTES_MAX, encode

SCAN_MAX: Final = 1_000
"""Keys the server looks at in one go."""
LOOKS_MAX: Final = 1_000
"""Rows one script looks at."""
PIECES_MAX: Final = 50
"""Scripts and scans in one call; beyond it the caller is told that there is more."""

_NAMES: Final = ("agent", "journal", "snapshot", "inbox", "known", "pending", "reminders")
"""Of an agent's keys."""

_decode_pruned: Final = msgspec.msgpack.Decoder(tuple[int, bool, int]).decode
_decode_purged: Final = msgspec.msgpack.Decoder(tuple[int, int | None]).decode


@dataclass
class _Round:
    """How far the purge of an organization has come."""

    stage: int = 0
    scan: bytes = b"0"
    """Of the present stage's walk along the keys; 0 again: it is over."""
    is_scanned: bool = False
    waiting: list[str] = field(default_factory=list)
    """What the stage has found and still has to do."""
    place: int = 0
    """Within the first of these."""


class RedisUpkeep:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._passed = 0
        self._rounds: dict[str, _Round] = {}
        self._stages: tuple[Callable[[str, _Round, int], Awaitable[int]], ...] = (
            self._agents, self._sent, self._jobs, self._documents, self._deleted, self._feed,
        )  # fmt: skip

    async def prune(self, before_ms: int, limit: int, ended: Sequence[str]) -> Swept:
        jobs = encode(list(dict.fromkeys(ended)))
        answer = await self._calls.run(
            scripts.PRUNE, before_ms, limit, jobs, self._passed, PART_BYTES_MAX
        )
        rows, more, self._passed = _decode_pruned(answer)
        return Swept(rows, more)

    async def purge(self, organization: str, limit: int) -> Swept:
        """Pieces until there are `limit` rows, or all stages are through."""
        at = self._rounds.setdefault(organization, _Round())
        rows = 0
        for _ in range(PIECES_MAX):
            if at.stage == len(self._stages):
                del self._rounds[organization]
                return Swept(rows, False)
            rows += await self._stages[at.stage](organization, at, limit)
            if rows >= limit:
                break
        return Swept(rows, True)

    # Each does one piece, moves `at` on, and answers how many rows it removed.

    async def _agents(self, organization: str, at: _Round, limit: int) -> int:
        if not at.waiting and not at.is_scanned:
            await self._scan(at, organization, "*")
            return 0
        if at.waiting:
            some, at.waiting = at.waiting[:limit], at.waiting[limit:]
            return (await self._piece("agents", organization, 0, limit, encode(some)))[0]
        return self._next_stage(at)

    async def _sent(self, organization: str, at: _Round, _limit: int) -> int:
        if not at.waiting and not at.is_scanned:
            await self._scan(at, SYSTEM, "inbox:*")
            return 0
        return await self._walk("sent", organization, at, LOOKS_MAX)

    async def _jobs(self, organization: str, at: _Round, limit: int) -> int:
        at.waiting = [""]
        return await self._walk("jobs", organization, at, limit)

    async def _documents(self, organization: str, at: _Round, limit: int) -> int:
        if not at.is_scanned:
            name = f"{self._calls.prefix}{{{SYSTEM}}}:collections"
            found = await self._calls.command("SMEMBERS", name)
            at.waiting, at.is_scanned = sorted(one.decode() for one in found), True
        return await self._walk("documents", organization, at, limit)

    async def _deleted(self, organization: str, at: _Round, _limit: int) -> int:
        at.waiting = [""]
        return await self._walk("deleted", organization, at, LOOKS_MAX)

    async def _feed(self, organization: str, at: _Round, _limit: int) -> int:
        at.waiting = [""]
        return await self._walk("feed", organization, at, LOOKS_MAX)

    async def _walk(self, what: str, organization: str, at: _Round, limit: int) -> int:
        """A piece of the first that waits; the stage is over when nothing does."""
        if not at.waiting:
            return self._next_stage(at)
        rows, following = await self._piece(what, organization, at.place, limit, at.waiting[0])
        at.place = following or 0
        if following is None:
            del at.waiting[0]
            if not at.waiting and (at.is_scanned or what not in ("sent", "documents")):
                self._next_stage(at)
        return rows

    def _next_stage(self, at: _Round) -> int:
        at.stage, at.scan, at.is_scanned, at.waiting, at.place = at.stage + 1, b"0", False, [], 0
        return 0

    async def _piece(
        self, what: str, organization: str, place: int, limit: int, of: str | bytes
    ) -> tuple[int, int | None]:
        answer = await self._calls.run(scripts.PURGE, what, organization, place, limit, of)
        return _decode_purged(answer)

    async def _scan(self, at: _Round, organization: str, pattern: str) -> None:
        """Find agents of an organization by their keys, a part of all keys at a time."""
        tag = f"{self._calls.prefix}{{{organization}}}:"
        at.scan, keys = await self._calls.command(
            "SCAN", at.scan, "MATCH", tag + pattern, "COUNT", SCAN_MAX
        )
        at.is_scanned = at.scan == b"0"
        found = (key.decode().removeprefix(tag).split(":", 1) for key in keys)
        at.waiting = sorted({f"{organization}/{one[1]}" for one in found if one[0] in _NAMES})
