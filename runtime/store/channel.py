"""A transport over the store's Unix socket: one connection, many calls in flight.

The connection is made by the first call and made anew by the next one after it
broke; a call waits a moment for that, with backoff, because nothing of it has
been sent.  Once sent, a call that loses its connection, or gets no answer long
after its own wait, has an unknown outcome.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Final

import msgspec

from runtime.errors import StoreUnavailableError
from runtime.store.frames import Frames, Request, decode_answer, socket_address

CONNECT_WAIT_S: Final = 2.0
"""How long a call waits for a connection."""
CONNECT_RETRY_S_FIRST: Final = 0.01
CONNECT_RETRY_S_MAX: Final = 0.25
ANSWER_MARGIN_S: Final = 15.0
"""No answer this long after the call's own wait: the store hangs, the connection is given up."""


class SocketTransport:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._channel: _Channel | None = None
        self._connecting: asyncio.Task[_Channel] | None = None
        self._closed = False

    async def call(self, method: str, payload: bytes, wait_s: float) -> bytes:
        channel = self._channel
        if channel is None or channel.transport.is_closing():
            channel = await self._connected()
        return await channel.call(method, payload, wait_s + ANSWER_MARGIN_S)

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._channel is not None:
            self._channel.transport.abort()

    async def _connected(self) -> _Channel:
        if self._closed:
            raise StoreUnavailableError("closed")
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        try:
            self._channel = await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            if self._closed:
                raise StoreUnavailableError("closed") from None
            raise
        return self._channel

    async def _connect(self) -> _Channel:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONNECT_WAIT_S
        retry_s = CONNECT_RETRY_S_FIRST
        while True:
            try:
                with socket_address(self._path) as where:
                    _, channel = await loop.create_unix_connection(_Channel, where)
                return channel
            except OSError as error:
                if loop.time() + retry_s > deadline:
                    raise StoreUnavailableError(str(self._path), str(error)) from error
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, CONNECT_RETRY_S_MAX)


class _Channel(Frames):
    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)
        self._calls: dict[int, asyncio.Future[msgspec.Raw]] = {}

    async def call(self, method: str, payload: bytes, timeout_s: float) -> bytes:
        if self.transport.is_closing():  # since it was made: nothing more would end this call
            raise StoreUnavailableError("the connection broke")
        number = next(self._ids)
        future: asyncio.Future[msgspec.Raw] = self._loop.create_future()
        self._calls[number] = future
        timer = self._loop.call_later(timeout_s, self._hang, method)
        try:
            self.send(Request(number, method, msgspec.Raw(payload)))
            return bytes(await future)
        finally:
            timer.cancel()
            del self._calls[number]

    def frame_received(self, body: bytes) -> None:
        answer = decode_answer(body)
        future = self._calls.get(answer.id)
        if future is not None and not future.done():
            future.set_result(answer.answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the connection broke")

    def _hang(self, method: str) -> None:
        self._end(f"no answer to {method}")
        self.transport.abort()

    def _end(self, why: str) -> None:
        for future in self._calls.values():
            if not future.done():
                future.set_exception(StoreUnavailableError(why))
