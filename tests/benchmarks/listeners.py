"""Clients that cost next to nothing: 100 of them in one process, and none is late for another.

A library's client takes 45-60 us of a core for a message, so the 50th of a
hundred in one process has its event milliseconds after it has arrived, and what
is measured is the clients.  Here the clock is read as soon as the socket has
given a whole frame; what is in it is read when all is over.  Every server in a
round is listened to by these, ours and the peers'.  Only the standard library:
the peers' environment has no more.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast
from urllib.parse import urlsplit

TEXT: Final = 0x81
PING: Final = 0x89
PONG: Final = 0x8A
CLOSE: Final = 0x88
MASKED: Final = 0x80
LENGTH_16: Final = 126
LENGTH_64: Final = 127


class Listener(asyncio.Protocol):
    """One WebSocket."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._chunks: list[tuple[float, bytes]] = []
        """As they came; what is in them is looked at by `heard`."""
        self._buffer = bytearray()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """The server has agreed: nothing may be said before."""
        self._heard: asyncio.Future[None] | None = None
        self._count = 0
        self._lost = ""
        """Why there will be no more."""
        self._got: list[tuple[float, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._chunks.append((time.perf_counter(), data))
        if self._heard is not None or data[0] == PING or not self.opened.done():
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection ended")

    def say(self, words: object) -> None:
        self._transport.write(_frame(TEXT, json.dumps(words).encode()))

    async def heard(self, count: int) -> list[tuple[float, Any]]:
        """(seconds of `time.perf_counter`, the JSON) of so many messages; as `heard_text`."""
        return [(at, json.loads(text)) for at, text in await self.heard_text(count)]

    async def heard_text(self, count: int) -> list[tuple[float, bytes]]:
        """(seconds of `time.perf_counter`, the text) of so many messages, in order.

        Waits until there are, and answers those that have not been given yet; one wait at a time.

        Raises:
            ConnectionError: it ended before, or is no WebSocket.
        """
        self._heard, self._count = asyncio.get_running_loop().create_future(), count
        self._look()
        if self._lost and not self._heard.done():
            raise ConnectionError(self._lost)
        await self._heard
        self._heard = None
        given, self._got = self._got[:count], self._got[count:]
        return given

    def close(self) -> None:
        self._transport.abort()

    def _look(self) -> None:
        for at, data in self._chunks:
            self._buffer += data
            if not self.opened.done():
                self._open()
            while (frame := self._frame()) is not None:
                head, body = frame
                if head == TEXT:
                    self._got.append((at, body))
                elif head == PING:
                    self._transport.write(_frame(PONG, body))
                else:
                    self._fail(f"a frame {head:#x}: {body!r}")
        self._chunks = []
        waits = self._heard
        if waits is not None and not waits.done() and len(self._got) >= self._count:
            waits.set_result(None)

    def _open(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end >= 0:
            head = bytes(self._buffer[: end + 4])
            del self._buffer[: end + 4]
            if head.startswith(b"HTTP/1.1 101 "):
                self.opened.set_result(None)
            else:
                self._fail(head.decode())

    def _frame(self) -> tuple[int, bytes] | None:
        """The first byte and the body of a whole frame, which is then taken."""
        buffer = self._buffer
        if not self.opened.done() or len(buffer) < 2:
            return None
        start, size = 2, buffer[1]
        if size >= LENGTH_16:
            start = 4 if size == LENGTH_16 else 10
            size = int.from_bytes(buffer[2:start])
        if len(buffer) < start + size:
            return None
        head, body = buffer[0], bytes(buffer[start : start + size])
        del buffer[: start + size]
        return head, body

    def _fail(self, why: str) -> None:
        self._lost = why
        for waits in (self.opened, self._heard):
            if waits is not None and not waits.done():
                waits.set_exception(ConnectionError(why))


async def listen(url: str, headers: Mapping[str, str] | None = None) -> Listener:
    """Connect to `ws://host:port/path`; open when this returns.

    Raises:
        ConnectionError: the server does not let it.
    """
    at = urlsplit(url)
    lines = [
        f"GET {at.path or '/'} HTTP/1.1", f"Host: {at.netloc}", "Connection: Upgrade",
        "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]  # fmt: skip
    request = "\r\n".join([*lines, "", ""]).encode()
    loop = asyncio.get_running_loop()
    _, listener = await loop.create_connection(lambda: Listener(request), at.hostname, at.port)
    await listener.opened
    return listener


@contextmanager
def uncollected() -> Iterator[None]:
    """Measure without this process's garbage collector.

    A walk along all that was imported takes 27 ms, and once in some 60 events to a
    hundred sockets it came in the midst of one, for every socket that had not had it.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _frame(head: int, body: bytes) -> bytes:
    """A short frame of a client's; a mask of zeros changes nothing."""
    assert len(body) < LENGTH_16
    return bytes([head, MASKED | len(body), 0, 0, 0, 0]) + body
