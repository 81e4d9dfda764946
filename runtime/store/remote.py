"""A store somewhere else: the contract over a transport.

`CodedStore` is the contract over any `Transport`; `RemoteStore` is that over
the Unix socket of this machine's store.  A commit whose outcome is unknown, or
a claim, raises StoreUnavailableError; what may be done twice is repeated here,
a few times.  A commit goes out at once when no other is on its way; those that
are made in one turn of the event loop meanwhile travel as one call, and each
still has its own answer.  What a call means is judged where it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from runtime.errors import StoreUnavailableError
from runtime.store import wire
from runtime.store.channel import SocketTransport
from runtime.store.contract import (
    BATCH_MAX,
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
from runtime.store.copies import Copied
from runtime.store.wire import Method, Transport, encode, read_answer

T = TypeVar("T")

ATTEMPTS_MAX: Final = 3
"""Of a call that may be repeated."""
COMMIT_BYTES_MAX: Final = 128 << 20
"""One call of `commit`, encoded."""
MERGED_BYTES_MAX: Final = 4 << 20
"""Commits of several callers that travel together."""

_Answers = list[Committed | Refused]


class CodedStore:
    """Implements the contract; see there for every method."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._gathered: list[_Call] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._on_their_way = 0
        """Calls of `commit` that the transport has."""
        self._closed = False

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        self._check_open()
        if not self._on_their_way:
            payload = _encoded((commits,))
            _check_size(len(payload))
            return await self._write(payload)
        call = _Call([msgspec.Raw(_encoded(commit)) for commit in commits])
        _check_size(call.size_bytes)
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._send_gathered)
        self._gathered.append(call)
        return await call.future

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        return await self._call(wire.REGISTER, owner, name, lease_s)

    async def renew(self, owner: str, lease_s: float) -> bool:
        return await self._call(wire.RENEW, owner, lease_s)

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        return await self._call(wire.CLAIM, owner, limit, agents)

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        await self._call(wire.RELEASE, owner, agents)

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> Poll:
        return await self._call(wire.POLL, owner, after, limit, wait_s)

    async def inbox(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        return await self._call(wire.INBOX, agent, after, limit)

    async def history(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        return await self._call(wire.HISTORY, agent, after, limit)

    async def outcome(self, agent: str, message_id: str, wait_s: float) -> StoredMessage | None:
        return await self._call(wire.OUTCOME, agent, message_id, wait_s)

    async def journal(self, agent: str, after: int, limit: int) -> list[JournalEvent]:
        return await self._call(wire.JOURNAL, agent, after, limit)

    async def steps(self, job: str) -> list[Step]:
        return await self._call(wire.STEPS, job)

    async def get(self, collection: str, key: str) -> Document | None:
        return await self._call(wire.GET, collection, key)

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        return await self._call(wire.GET_MANY, collection, keys)

    async def list_documents(
        self,
        collection: str,
        organization: str | None = None,
        terms: Sequence[str] = (),
        after: str | None = None,
        limit: int = 100,
        descending: bool = True,
    ) -> list[Document]:
        return await self._call(
            wire.LIST, collection, organization, terms, after, limit, descending
        )

    async def count(
        self, collection: str, organization: str | None = None, terms: Sequence[str] = ()
    ) -> int:
        return await self._call(wire.COUNT, collection, organization, terms)

    async def tail(
        self,
        after: int,
        limit: int,
        wait_s: float,
        organization: str | None = None,
        incarnation: str | None = None,
    ) -> Feed:
        return await self._call(wire.TAIL, after, limit, wait_s, organization, incarnation)

    async def prune(self, before_ms: int, limit: int, ended: Sequence[str] = ()) -> Swept:
        return await self._call(wire.PRUNE, before_ms, limit, ended)

    async def purge(self, organization: str, limit: int) -> Swept:
        return await self._call(wire.PURGE, organization, limit)

    async def backup(self, token: str, path: str, wait_s: float) -> Copied:
        return await self._call(wire.BACKUP, token, path, wait_s)

    async def health(self) -> Health:
        return await self._call(wire.HEALTH)

    async def close(self) -> None:
        self._closed = True
        await self._transport.close()

    async def _call(self, method: Method[T], *arguments: Any) -> T:
        wait_s = 0.0 if method.wait_at is None else float(arguments[method.wait_at])
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_s
        attempts = ATTEMPTS_MAX if method.repeatable else 1
        while True:
            self._check_open()
            attempts -= 1
            try:
                body = await self._transport.call(method.name, encode(arguments), wait_s)
            except StoreUnavailableError:
                if not attempts:
                    raise
            else:
                return read_answer(method, body)
            if method.wait_at is not None:
                wait_s = max(0.0, deadline - clock())
                arguments = (*arguments[: method.wait_at], wait_s, *arguments[method.wait_at + 1 :])

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("closed")

    # commits that travel together

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        for calls in _batches(gathered):
            task = asyncio.create_task(self._send(calls))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, calls: list[_Call]) -> None:
        try:
            answers = await self._write(
                encode(([commit for call in calls for commit in call.commits],))
            )
        except StoreUnavailableError as error:
            for call in calls:
                call.fail(StoreUnavailableError(*error.args))
        except Exception as error:  # whatever it was, nobody may wait for ever: whose fault was it?
            if len(calls) == 1:
                calls[0].fail(error)
            for call in calls if len(calls) > 1 else ():
                await self._send([call])
        else:
            for call in calls:
                call.succeed(answers[: len(call.commits)])
                del answers[: len(call.commits)]

    async def _write(self, payload: bytes) -> _Answers:
        self._check_open()
        self._on_their_way += 1
        try:
            body = await self._transport.call(wire.COMMIT.name, payload, 0.0)
        finally:
            self._on_their_way -= 1
        return read_answer(wire.COMMIT, body)


def _encoded(commits: object) -> bytes:
    """Commits as bytes.

    Raises:
        ValueError: a part of them has no form as bytes.
    """
    try:
        return encode(commits)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a commit can't be written down: {error}") from error


def _check_size(size_bytes: int) -> None:
    if size_bytes > COMMIT_BYTES_MAX:
        raise ValueError(f"{size_bytes} bytes in one call, at most {COMMIT_BYTES_MAX}")


class _Call:
    """One caller's commits, encoded, and where its answer goes."""

    def __init__(self, commits: list[msgspec.Raw]) -> None:
        self.commits = commits
        self.size_bytes = sum(map(len, commits))
        self.future: asyncio.Future[_Answers] = asyncio.get_running_loop().create_future()

    def succeed(self, answers: _Answers) -> None:
        if not self.future.done():
            self.future.set_result(answers)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _batches(calls: list[_Call]) -> list[list[_Call]]:
    """Calls in order, cut so that each batch keeps the bounds of one call."""
    batches: list[list[_Call]] = []
    count = size = 0
    for call in calls:
        count += len(call.commits)
        size += call.size_bytes
        if not batches or count > BATCH_MAX or size > MERGED_BYTES_MAX:
            batches.append([])
            count, size = len(call.commits), call.size_bytes
        batches[-1].append(call)
    return batches


class RemoteStore(CodedStore):
    """The store that is served at `path` on this machine."""

    def __init__(self, path: Path) -> None:
        super().__init__(SocketTransport(path))
