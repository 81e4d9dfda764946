"""The store for clusters: the whole contract on one redis-server.

    server    redis_server   what it must be, and what it promises
    link      redis_link     one connection, greeted, calls in flight
    calls     redis_calls    scripts, and what an error means
    commits   redis_commits  group commit
    bell      redis_bell     rings of other clients
    scripts   redis_*.lua    the rules and the tables, each file with its keys
    here      the contract's methods, and the calls that wait

Hosts and Serve replicas each open it themselves: there is no process between
them and Redis, so every rule is a script's.

Invariant: nothing is answered, and nobody is rung, before the server's
append-only file has it (as durably as `appendfsync` says), because Redis writes
that file before it answers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, TypeVar

from redis.exceptions import ResponseError

from runtime.clock import Clock, SystemClock, iso
from runtime.store import redis_scripts as scripts
from runtime.store.contract import (
    Activation,
    Commit,
    Committed,
    Document,
    Feed,
    Health,
    JournalEvent,
    Poll,
    Refused,
    Step,
    StoredMessage,
    Swept,
)
from runtime.store.parking import Alarm, Parking
from runtime.store.redis_bell import Bell, Key
from runtime.store.redis_calls import Calls
from runtime.store.redis_commits import Commits
from runtime.store.redis_looks import Tail, look_for
from runtime.store.redis_owners import Owners
from runtime.store.redis_reads import Reads
from runtime.store.redis_upkeep import RedisUpkeep
from runtime.store.roster import INBOX_MAX, PENDING_MAX
from runtime.store.rules import check_call, check_limit, check_many, check_purge, page_limit

T = TypeVar("T")

LOOK_EVERY_S: Final = 2.0
"""A call that waits looks at least so often: the price of a lost ring."""
AWAITED_MARGIN_S: Final = 5.0
"""How much longer than its call an outcome stays marked as awaited."""
FEED_MAX: Final = 100_000
"""Events the feed keeps, about; older cursors are void."""


class RedisStore:
    """Connects when it is first used; `RedisStore.open` does so at once and tells why not."""

    def __init__(
        self,
        url: str,
        clock: Clock | None = None,
        *,
        prefix: str = "troupe",
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """The store on the redis-server at `url`.

        Args:
            url: `redis://`, `rediss://` or `unix://`, with user, password and database.
            clock: the store's clock in tests; the server's own by default.
            prefix: of all keys; stores with different ones share nothing.

        Raises:
            SettingsError: the URL or the prefix can't be used.
        """
        self._calls = calls = Calls(url, prefix, clock, random_bytes)
        self._name = name = random_bytes(8).hex()
        """Tells this client from others, and where it is rung."""
        self._clock = clock or SystemClock()
        self._parking = Parking()
        self._alarm = Alarm(self._clock, lambda: self._parking.ring(("poll",)))
        self._reads = Reads(calls)
        self._owners = Owners(calls, name)
        self._commits = Commits(self._write)
        self._upkeep = RedisUpkeep(calls)
        channels = [f"{prefix}{{system}}:ring", f"{prefix}{{system}}:ring:{name}"]
        self._bell = Bell(calls.server, calls.greet, channels, self._rung, self._parking.ring_all)
        self._accepted = 0
        self._refused: Counter[str] = Counter()

    @classmethod
    async def open(
        cls,
        url: str,
        clock: Clock | None = None,
        *,
        prefix: str = "troupe",
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> RedisStore:
        """The store, connected.

        Raises:
            SettingsError: the URL or the prefix can't be used.
            StoreError: the server can't keep what a store promises; it says why.
            StoreUnavailableError: it does not answer.
        """
        store = cls(url, clock, prefix=prefix, random_bytes=random_bytes)
        try:
            await store._calls.open()
        except BaseException:
            await store.close()
            raise
        return store

    # writing

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        self._parking.check_open()
        check_call(commits)
        answers = await self._commits.commit(commits)
        for answer in answers:
            if isinstance(answer, Refused):
                self._refused[answer.reason] += 1
            else:
                self._accepted += 1
        return answers

    async def _write(self, commits: bytes) -> bytes:
        bounds = (PENDING_MAX, FEED_MAX, INBOX_MAX)
        found: bytes = await self._calls.run(scripts.COMMIT, commits, *bounds)
        return found

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        self._parking.check_open()
        return await self._owners.register(owner, name, lease_s)

    async def renew(self, owner: str, lease_s: float) -> bool:
        self._parking.check_open()
        return await self._owners.renew(owner, lease_s)

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        self._parking.check_open()
        return await self._owners.claim(owner, limit, agents)

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        self._parking.check_open()
        await self._owners.release(owner, agents)

    # waiting

    def _rung(self, key: Key) -> None:
        match key:
            case ("due", int(in_ms)):
                self._alarm.set(self._clock.now_ms() + in_ms)
            case ("everything",):
                self._parking.ring_all()
            case _:
                self._parking.ring(key)

    async def _until(
        self,
        keys: tuple[Hashable, ...],
        wait_s: float,
        look: Callable[[], Awaitable[tuple[T, bool]]],
    ) -> T:
        """As `Parking.until`, and looks now and then although nobody rings."""
        enough = False
        if wait_s > 0:
            self._bell.start()

        async def once() -> tuple[T, bool]:
            nonlocal enough
            answer, enough = await look()
            return answer, enough

        while True:
            nap_s = min(wait_s, LOOK_EVERY_S)
            answer = await self._parking.until(keys, nap_s, once)
            wait_s -= nap_s
            if enough or wait_s <= 0:
                return answer

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> Poll:
        async def look() -> tuple[Poll, bool]:
            poll, news, event_ms = await look_for(self._calls, owner, after, page_limit(limit))
            if event_ms is not None and not self._parking.closed:
                self._alarm.set(self._clock.now_ms() + event_ms)
            return poll, news

        return await self._until((("poll",), ("poll", owner)), wait_s, look)

    async def outcome(self, agent: str, message_id: str, wait_s: float) -> StoredMessage | None:
        async def look() -> tuple[StoredMessage | None, bool]:
            message = await self._reads.message(agent, message_id)
            return message, message is None or message.status != "pending"

        self._parking.check_open()
        if wait_s > 0:
            await self._await_outcome(agent, message_id, wait_s)
        return await self._until((("outcome", agent, message_id),), wait_s, look)

    async def _await_outcome(self, agent: str, message_id: str, wait_s: float) -> None:
        """Ask to be rung; without room for that the slow look must do."""
        organization, _, name = agent.partition("/")
        key = f"{self._calls.prefix}{{{organization}}}:awaited:{name}\0{message_id}"
        try:
            await self._calls.command("SADD", key, self._name)
            await self._calls.command("PEXPIRE", key, round((wait_s + AWAITED_MARGIN_S) * 1000))
        except ResponseError:
            return

    async def tail(
        self,
        after: int,
        limit: int,
        wait_s: float,
        organization: str | None = None,
        incarnation: str | None = None,
    ) -> Feed:
        tail = Tail(self._calls, after, page_limit(limit), organization, incarnation)
        return await self._until((("feed",),), wait_s, tail.look)

    # reading

    async def inbox(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        self._parking.check_open()
        return await self._reads.messages(agent, "inbox", after, page_limit(limit))

    async def history(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        self._parking.check_open()
        return await self._reads.messages(agent, "history", after, page_limit(limit))

    async def journal(self, agent: str, after: int, limit: int) -> list[JournalEvent]:
        self._parking.check_open()
        return await self._reads.journal(agent, after, page_limit(limit))

    async def steps(self, job: str) -> list[Step]:
        self._parking.check_open()
        return await self._reads.steps(job)

    async def get(self, collection: str, key: str) -> Document | None:
        self._parking.check_open()
        return await self._reads.get(collection, key)

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        self._parking.check_open()
        check_many(keys)
        return await self._reads.get_many(collection, keys)

    async def list_documents(
        self,
        collection: str,
        organization: str | None = None,
        terms: Sequence[str] = (),
        after: str | None = None,
        limit: int = 100,
        descending: bool = True,
    ) -> list[Document]:
        self._parking.check_open()
        return await self._reads.documents(
            collection, organization, terms, after, page_limit(limit), descending
        )

    async def count(
        self, collection: str, organization: str | None = None, terms: Sequence[str] = ()
    ) -> int:
        self._parking.check_open()
        return await self._reads.count(collection, organization, terms)

    # upkeep

    async def prune(self, before_ms: int, limit: int, ended: Sequence[str] = ()) -> Swept:
        self._parking.check_open()
        check_limit(limit, ended)
        return await self._upkeep.prune(before_ms, limit, ended)

    async def purge(self, organization: str, limit: int) -> Swept:
        self._parking.check_open()
        check_purge(organization, limit)
        return await self._upkeep.purge(organization, limit)

    async def health(self) -> Health:
        self._parking.check_open()
        facts, greeting = await self._calls.facts()
        details = facts.details() | {
            "server": self._calls.server.where,
            "rings": "heard" if self._bell.listens else f"none; a look every {LOOK_EVERY_S} s",
            "messages": str(greeting.messages),
            "pending": str(greeting.pending),
            "events": str(greeting.events),
            "forgotten_rows": str(greeting.forgotten_rows),
            "kept_since": iso(greeting.kept_since_ms) if greeting.kept_since_ms else "",
        }
        if not greeting.whole:
            details["append_only_file"] = "not rewritten after a restart: BGREWRITEAOF is forbidden"
        return Health(
            "redis",
            facts.durability,
            greeting.incarnation,
            self._accepted,
            dict(self._refused),
            details,
            tuple(sorted(greeting.owners)),
        )

    async def close(self) -> None:
        if self._parking.closed:
            return
        self._alarm.cancel()
        self._parking.close()
        await self._bell.close()
        await self._calls.close()
        await self._commits.close()
