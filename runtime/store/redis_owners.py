"""Owners and claims on Redis: leases, and agents taken a bounded number a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from runtime.store import redis_scripts as scripts
from runtime.store.contract import BATCH_MAX, Activation, Record
from runtime.store.redis_calls import Calls
from runtime.store.redis_looks import FIRE_MAX
from runtime.store.redis_reads import encode
from runtime.store.roster import OWNERS_MAX, in_order
from runtime.store.rules import ANSWER_BYTES_MAX, page_limit

CLAIM_ROWS_MAX: Final = BATCH_MAX
"""Agents, events and messages after which one script takes no more agents."""
RELEASE_MAX: Final = 500
"""Agents one script gives up."""


class _ClaimPart(Record, frozen=True):
    """What redis_claim.lua answers."""

    again: bool
    more: bool
    seen: int
    taken: list[Activation]


_decode_claim: Final = msgspec.msgpack.Decoder(_ClaimPart).decode


class Owners:
    def __init__(self, calls: Calls, channel: str) -> None:
        """`channel` is where this client is rung."""
        self._run = calls.run
        self._channel = channel

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        lease_ms = round(lease_s * 1000)
        answer: bytes = await self._run(
            scripts.REGISTER, owner, name, lease_ms, self._channel, OWNERS_MAX
        )
        return answer.decode()

    async def renew(self, owner: str, lease_s: float) -> bool:
        answer = await self._run(scripts.RENEW, owner, round(lease_s * 1000), self._channel)
        return bool(answer)

    async def claim(self, owner: str, limit: int, agents: Sequence[str] | None) -> list[Activation]:
        """A claim that is cut off in the middle has an unknown outcome, as a whole."""
        named = None if agents is None else list(in_order(agents))
        limit = page_limit(limit)
        found: list[Activation] = []
        while True:
            part = _decode_claim(
                await self._run(
                    scripts.CLAIM, owner, limit - len(found),
                    "" if named is None else encode(named[:BATCH_MAX]),
                    FIRE_MAX, CLAIM_ROWS_MAX, ANSWER_BYTES_MAX, BATCH_MAX,
                )
            )  # fmt: skip
            if part.again:
                continue
            found += part.taken
            if named is not None:
                del named[: part.seen]
            if len(found) == limit or not (part.more or (named and part.seen)):
                return found

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        for at in range(0, len(agents), RELEASE_MAX):
            some = list(agents[at : at + RELEASE_MAX])
            await self._run(scripts.RELEASE, owner, encode(some))
