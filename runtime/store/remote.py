"""A store in another process of this machine, over its Unix socket.

A call whose connection broke raises StoreUnavailableError: whether it was done
is unknown.  The connection is made anew by the next call, so a caller that
repeats what is safe to repeat needs nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from runtime.errors import StoreUnavailableError
from runtime.store import contract
from runtime.store.contract import Commit, Committed, Refused
from runtime.store.wire import (
    METHODS,
    Framing,
    Request,
    decode_answer,
    decode_failure,
    encode,
)

CONNECT_TIMEOUT_S = 2.0
ANSWER_MARGIN_S = 15.0
"""A call that is not answered this long after its own wait has an unknown outcome."""


class RemoteStore:
    """Implements the contract; see there for every method."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._channel: _Channel | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        return await self._call("commit", commits)  # type: ignore[no-any-return]

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        return await self._call("register", owner, name, lease_s)  # type: ignore[no-any-return]

    async def renew(self, owner: str, lease_s: float) -> bool:
        return await self._call("renew", owner, lease_s)  # type: ignore[no-any-return]

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[contract.Activation]:
        return await self._call("claim", owner, limit, agents)  # type: ignore[no-any-return]

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        await self._call("release", owner, agents)

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> contract.Poll:
        return await self._call("poll", owner, after, limit, wait_s, wait_s=wait_s)  # type: ignore[no-any-return]

    async def inbox(self, agent: str, after: int, limit: int) -> list[contract.StoredMessage]:
        return await self._call("inbox", agent, after, limit)  # type: ignore[no-any-return]

    async def history(self, agent: str, after: int, limit: int) -> list[contract.StoredMessage]:
        return await self._call("history", agent, after, limit)  # type: ignore[no-any-return]

    async def outcome(
        self, agent: str, message_id: str, wait_s: float
    ) -> contract.StoredMessage | None:
        return await self._call("outcome", agent, message_id, wait_s, wait_s=wait_s)  # type: ignore[no-any-return]

    async def journal(self, agent: str, after: int, limit: int) -> list[contract.JournalEvent]:
        return await self._call("journal", agent, after, limit)  # type: ignore[no-any-return]

    async def steps(self, job: str) -> list[contract.Step]:
        return await self._call("steps", job)  # type: ignore[no-any-return]

    async def get(self, collection: str, key: str) -> contract.Document | None:
        return await self._call("get", collection, key)  # type: ignore[no-any-return]

    async def list_documents(
        self,
        collection: str,
        organization: str | None = None,
        terms: Sequence[str] = (),
        after: str | None = None,
        limit: int = 100,
        descending: bool = True,
    ) -> list[contract.Document]:
        return await self._call(  # type: ignore[no-any-return]
            "list_documents", collection, organization, terms, after, limit, descending
        )

    async def count(
        self, collection: str, organization: str | None = None, terms: Sequence[str] = ()
    ) -> int:
        return await self._call("count", collection, organization, terms)  # type: ignore[no-any-return]

    async def tail(
        self,
        after: int,
        limit: int,
        wait_s: float,
        organization: str | None = None,
        incarnation: str | None = None,
    ) -> contract.Feed:
        return await self._call(  # type: ignore[no-any-return]
            "tail", after, limit, wait_s, organization, incarnation, wait_s=wait_s
        )

    async def health(self) -> contract.Health:
        return await self._call("health")  # type: ignore[no-any-return]

    async def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            self._channel.transport.abort()

    async def _call(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        channel = await self._connected()
        try:
            async with asyncio.timeout(wait_s + ANSWER_MARGIN_S):
                return await channel.call(method, arguments)
        except TimeoutError:
            channel.transport.abort()
            raise StoreUnavailableError(method, "no answer") from None

    async def _connected(self) -> _Channel:
        async with self._connecting:
            if self._closed:
                raise StoreUnavailableError("closed")
            if self._channel is None or self._channel.transport.is_closing():
                self._channel = await self._connect()
            return self._channel

    async def _connect(self) -> _Channel:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, channel = await loop.create_unix_connection(_Channel, str(self._path))
        except (OSError, TimeoutError) as error:
            raise StoreUnavailableError(str(self._path), str(error)) from error
        return channel


class _Channel(Framing):
    """One connection with many calls in flight."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)
        self._calls: dict[int, tuple[str, asyncio.Future[Any]]] = {}

    async def call(self, method: str, arguments: Sequence[Any]) -> Any:
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = (method, future)
        try:
            self.send(Request(number, method, msgspec.Raw(encode(arguments))))
            return await future
        finally:
            self._calls.pop(number, None)

    def frame_received(self, body: bytes) -> None:
        answer = decode_answer(body)
        waiting = self._calls.get(answer.id)
        if waiting is None or waiting[1].done():
            return
        method, future = waiting
        if answer.ok:
            future.set_result(METHODS[method].result.decode(answer.result))
        else:
            future.set_exception(decode_failure(answer.result).error())

    def connection_lost(self, exc: Exception | None) -> None:
        for method, future in self._calls.values():
            if not future.done():
                future.set_exception(StoreUnavailableError(method, "the connection broke"))
