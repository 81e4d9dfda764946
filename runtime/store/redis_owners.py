"""Owners and claims on Redis: leases, and agents taken a bounded number a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from runtime.store import redis_scripts as scripts
from runtime.store.contract import ANSWER_BYTES_MAX, BATCH_MAX, Activation, Record
from runtime.store.redis_calls import Calls
from runtime.store.redis_looks import FIRE_MAX
from runtime.store.redis_reads import PART_BYTES_MAX, Reads, encode
from runtime.store.roster import OWNERS_MAX, in_order
from runtime.store.rules import activation_bytes, cut, page_limit

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
    cut: list[str]


_decode_claim: Final = msgspec.msgpack.Decoder(_ClaimPart).decode


class Owners:
    def __init__(self, calls: Calls, channel: str) -> None:
        """`channel` is where this client is rung."""
        self._run = calls.run
        self._reads = Reads(calls)
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
        room = ANSWER_BYTES_MAX
        while True:
            part = _decode_claim(
                await self._run(
                    scripts.CLAIM, owner, limit - len(found),
                    "" if named is None else encode(named[:BATCH_MAX]),
                    FIRE_MAX, CLAIM_ROWS_MAX, PART_BYTES_MAX, BATCH_MAX, min(room, PART_BYTES_MAX),
                )
            )  # fmt: skip
            if part.again:
                continue
            taken = [await self._filled(one) if one.agent in part.cut else one
                     for one in part.taken]  # fmt: skip
            found += taken
            room -= sum(map(activation_bytes, taken))
            if named is not None:
                del named[: part.seen]
            more = part.more or (named and part.seen)
            if len(found) == limit or room < 0 or not more:
                return found

    async def _filled(self, one: Activation) -> Activation:
        """The activation of an agent whose journal or inbox was too long for the script."""
        events = list(one.events)
        while missing := one.version - one.snapshot_version - len(events):
            found = await self._reads.journal(one.agent, one.version - missing, missing)
            if not found:  # purged meanwhile, and the claim with it
                break
            events += found
        after = one.inbox[-1].seq if one.inbox else 0
        left = BATCH_MAX - len(one.inbox)
        rest = await self._reads.messages(one.agent, "inbox", after, left)
        return replace(one, events=tuple(events), inbox=cut((*one.inbox, *rest)))

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        for at in range(0, len(agents), RELEASE_MAX):
            some = list(agents[at : at + RELEASE_MAX])
            await self._run(scripts.RELEASE, owner, encode(some))
