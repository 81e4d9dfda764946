"""A store that says what it did: every write becomes a fact at the moment it happened.

One tap stands for one process; all of them share the store and the history.
What a process believes never enters: only what it asked and what was answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.clock import Clock
from runtime.ids import split
from runtime.store.contract import Activation, Commit, Committed, Refused, Store
from runtime.store.through import Through
from runtime.verify.history import History, Lease, Written


class Tap(Through):
    """Implements the contract over a store, for one process."""

    def __init__(self, store: Store, history: History, clock: Clock, proc: str) -> None:
        """Args: clock: the store's."""
        super().__init__(store)
        self._history = history
        self._clock = clock
        self._proc = proc

    # what changes something

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        answers = await self._store.commit(commits)
        for commit, answer in zip(commits, answers, strict=True):
            epoch = commit.fence.epoch if commit.fence is not None else 0
            common = {"org": commit.organization, "agent": commit.agent or "", "epoch": epoch}
            if isinstance(answer, Committed):
                written = Written(commit, answer.seqs, answer.cursor)
                self._history.add(
                    self._proc, "ok", "commit", ver=answer.version, value=written, **common
                )
            else:
                self._history.add(
                    self._proc, "fail", "commit", key=answer.reason, value=Written(commit), **common
                )
        return answers

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        incarnation = await self._store.register(owner, name, lease_s)
        self._history.add(self._proc, "ok", "register", key=owner, value=self._lease(name, lease_s))
        return incarnation

    async def renew(self, owner: str, lease_s: float) -> bool:
        known = await self._store.renew(owner, lease_s)
        self._history.add(
            self._proc,
            "ok" if known else "fail",
            "renew",
            key=owner,
            value=self._lease("", lease_s),
        )
        return known

    def _lease(self, name: str, lease_s: float) -> Lease:
        now_ms = self._clock.now_ms()
        return Lease(name, now_ms, now_ms + round(lease_s * 1000))

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        claimed = await self._store.claim(owner, limit, agents)
        now_ms = self._clock.now_ms()
        for one in claimed:
            self._history.add(
                self._proc,
                "ok",
                "claim",
                org=split(one.agent)[0],
                agent=one.agent,
                key=owner,
                epoch=one.epoch,
                ver=one.version,
                value=now_ms,
            )
        return claimed

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        await self._store.release(owner, agents)
        for agent in agents:
            self._history.add(self._proc, "ok", "release", agent=agent, key=owner)

    async def close(self) -> None:
        """Nothing: the store outlives the processes that use it."""
