"""A small HTTP/1.1 server: reads requests whole, sends replies as badly as they ask.

For the loopback only.  Written here because the point is what a good server
refuses to do: cut a stream at an event, lie about a length, reset in the
middle.  Only what our client and curl need: content-length bodies, keep-alive,
chunked responses, `Expect: 100-continue`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from actors.models.scripted_reply import Reply, error_reply

HEAD_BYTES_MAX = 64 << 10
BODY_BYTES_MAX = 64 << 20
BACKLOG = 1_024
"""Two hundred calls at once were reset with the usual five."""
CONNECTIONS_MAX = 4_096

Outcome = Literal["sent", "gone"]
"""`gone`: the client left before the last byte was written."""
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class HttpRequest:
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


Handler = Callable[[HttpRequest], tuple[Reply, Callable[[Outcome], None]]]
"""Answers a request, and is told how sending ended."""


class BadRequestError(ValueError):
    """What was read is not an HTTP request we serve."""


class HttpServer:
    """Listens on the loopback and hands requests to `handler`."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self.accepted = 0
        """Connections so far."""
        self.held = 0
        """Replies that wait to be released."""

    async def start(self, port: int = 0) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", port, backlog=BACKLOG, limit=HEAD_BYTES_MAX
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def release(self) -> None:
        """Let every held reply go on."""
        self._released.set()
        self._released = asyncio.Event()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if len(self._tasks) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._serve_one(reader, writer):
                    pass
        except BadRequestError as error:
            with contextlib.suppress(ConnectionError):
                await self._send(error_reply(400, "bad_http", str(error)), reader, writer)
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is used up."""
        request = await _read_request(reader, writer)
        if request is None:
            return False
        reply, sent = self._handler(request)
        outcome: Outcome = "gone"
        try:
            if await self._send(reply, reader, writer):
                outcome = "sent"
        finally:
            sent(outcome)
        keep = request.headers.get("connection", "").lower() != "close"
        # After a length that lied nobody knows where the next response begins.
        return keep and outcome == "sent" and reply.declared_length is None

    async def _send(
        self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Write the reply, one write an event; False when the client left."""
        await _pause(reply.latency_s)
        writer.write(_head(reply))
        for index, data in enumerate(reply.writes):
            if reply.hold_after == index:
                await self._hold(reader)
            if index:
                await _pause(reply.pause_s)
            if reader.at_eof() or writer.is_closing():
                return False
            # asyncio sets TCP_NODELAY: each write is a packet of its own, at once.
            writer.write(b"%x\r\n%s\r\n" % (len(data), data) if reply.stream else data)
            await writer.drain()
        if reply.ending == "abrupt_cut":
            writer.transport.abort()
            return False
        if reply.stream:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _hold(self, reader: asyncio.StreamReader) -> None:
        """Wait until released, or until the client leaves."""
        released = asyncio.ensure_future(self._released.wait())
        left = asyncio.ensure_future(reader.read(1))
        self.held += 1
        try:
            await asyncio.wait((released, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.held -= 1
            released.cancel()
            left.cancel()


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> HttpRequest | None:
    """The next request; None when the client closed between two."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    except asyncio.LimitOverrunError:
        raise BadRequestError("the head is too long") from None
    lines = head.decode("latin-1").split("\r\n")
    first = lines[0].split(" ")
    if len(first) != 3:
        raise BadRequestError("no request line")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:] if line)
    }
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit():
        raise BadRequestError("a body needs a content-length")
    if int(length) > BODY_BYTES_MAX:
        raise BadRequestError("the body is too long")
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(length))
    return HttpRequest(first[0], first[1].partition("?")[0], headers, body)


def _head(reply: Reply) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Scripted')}",
        f"content-type: {reply.content_type}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    if reply.stream:
        lines.append("transfer-encoding: chunked")
    else:
        length = sum(len(write) for write in reply.writes)
        declared = length if reply.declared_length is None else reply.declared_length
        lines.append(f"content-length: {declared}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)
