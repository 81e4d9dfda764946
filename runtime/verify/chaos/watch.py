"""The watch of a chaos run: every process of the deployment notes its writes to the store.

It stands before the store (`ClusterSettings.watch`).  Each commit is noted
before it is handed over, and carries a mark into the feed: its id.  The store
writes the mark in the transaction of the commit, so whether a commit landed,
and where among all others, is read from the feed and from nothing that anybody
believed; a process that died before it heard the answer changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final, cast

from msgspec.structs import replace

from runtime.cluster import ClusterSettings
from runtime.ids import SYSTEM
from runtime.retention import UpkeepStore
from runtime.store.contract import (
    Activation,
    Commit,
    Committed,
    FeedEvent,
    Refused,
    Store,
    Swept,
)
from runtime.store.through import Through
from runtime.verify.chaos.notes import Answered, Asked, Notes

WATCH: Final = "runtime.verify.chaos.watch:watch"
MARK: Final = "chaos:commit"


def folder(settings: ClusterSettings) -> Path:
    """Where the processes of a deployment note."""
    return settings.directory.root.parent / "notes"


@cache
def notes(where: Path) -> Notes:
    """Those of this process."""
    return Notes(where)


def watch(settings: ClusterSettings, store: Store) -> Store:
    """Put the watch before a store."""
    return Watch(store, notes(folder(settings)))


class Watch(Through):
    """The contract over a store, noted."""

    def __init__(self, store: Store, notes: Notes) -> None:
        super().__init__(store)
        self._notes = notes

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        asked = [self._asked(commit) for commit in commits]
        for one in asked:
            self._notes.write(one)
        answers = await self._store.commit([one.commit for one in asked])
        at_ns = self._notes.now_ns()
        for one, answer in zip(asked, answers, strict=True):
            self._notes.write(Answered(one.id, at_ns, answer))
        return answers

    def _asked(self, commit: Commit) -> Asked:
        id = f"{self._notes.proc}/{next(_numbers)}"
        at_ns = self._notes.now_ns()
        mark = FeedEvent(SYSTEM, MARK, (), at_ns // 1_000_000, id.encode())
        return Asked(id, at_ns, replace(commit, feed=(*commit.feed, mark)))

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        began_ns = self._notes.now_ns()
        incarnation = await self._store.register(owner, name, lease_s)
        value = [name, lease_s, incarnation]
        self._notes.did("register", "ok", began_ns, key=owner, value=value)
        return incarnation

    async def renew(self, owner: str, lease_s: float) -> bool:
        began_ns = self._notes.now_ns()
        known = await self._store.renew(owner, lease_s)
        self._notes.did(
            "renew", "ok" if known else "fail", began_ns, key=owner, value=["", lease_s]
        )
        return known

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        began_ns = self._notes.now_ns()
        self._notes.did("claim", "invoke", began_ns, key=owner)
        claimed = await self._store.claim(owner, limit, agents)
        for one in claimed:
            self._notes.did(
                "claim", "ok", began_ns,
                agent=one.agent, key=owner, epoch=one.epoch, ver=one.version,
            )  # fmt: skip
        if not claimed:
            self._notes.did("claim", "fail", began_ns, key=owner)
        return claimed

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        for agent in agents:  # before it is asked: nobody may live to hear the answer
            self._notes.did("release", "ok", self._notes.now_ns(), agent=agent, key=owner)
        await self._store.release(owner, agents)

    async def prune(self, before_ms: int, limit: int, ended: Sequence[str] = ()) -> Swept:
        return await cast(UpkeepStore, self._store).prune(before_ms, limit, ended)

    async def purge(self, organization: str, limit: int) -> Swept:
        return await cast(UpkeepStore, self._store).purge(organization, limit)


_numbers = count(1)
