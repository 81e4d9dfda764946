"""One connection of requests, as far as the server leaves its bounds to us.

A client may send slowly or without end, and may not read.  Each connection is a
place among those that a replica has, and what was answered on it is memory until
it is taken; so neither is held for a client that does its part not at all:

    what comes    a request is there after `COMING_S`; its head, and whatever else
                  is neither head nor body, has `HEAD_BYTES_MAX` bytes, give or
                  take one read
    what goes     of what waits to be taken in, `TAKEN_BYTES_MIN` are, every `TAKEN_S`

What breaks the first bound is told so if it still reads; otherwise the
connection is cut, which is the only way to be rid of a client that takes nothing
in: whatever is closed in order is first sent.  The application may cut it too:

    cut = scope["extensions"].get(CUT, {}).get("cut")

A head ends with its blank line: fields that come behind a chunked body are no
part of it, so nobody who has looked at the head can be told otherwise later.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from typing import Any, Final, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from runtime.console.headers import SECURITY
from runtime.console.problems import HANG_UP, ProblemError, response, unavailable

CUT: Final = "troupe.cut"
COMING_S: Final = 30.0
"""From the connection, or from its first byte, until a request is there as a whole."""
HEAD_BYTES_MAX: Final = 1 << 16
TAKEN_S: Final = 20.0
TAKEN_BYTES_MIN: Final = 1 << 14
"""Of an answer, by the client's machine; or all that is left."""

Timer = asyncio.TimerHandle | None


class Requests(HttpToolsProtocol):
    """Times what comes and what is taken, and says in problems what the server refuses itself."""

    _answered: RequestResponseCycle | None = None
    """The request that is being answered; others may have come behind it already."""
    _coming: Timer = None
    _taking: Timer = None
    _in_head = False
    _fruitless = 0
    """Bytes by which the parser came neither to the end of a head nor to any of a body."""
    _left = 0
    """Bytes that were not taken at the last look."""

    # what comes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self._answered is not None:  # the server tells the one that came last
            self._answered.disconnected = not self._answered.response_complete
            self._answered.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._fruitless += len(data)
        super().data_received(data)
        if self._fruitless > HEAD_BYTES_MAX and not self.transport.is_closing():
            detail = f"A head has at most {HEAD_BYTES_MAX} bytes."
            self._refuse(ProblemError(431, "head_too_large", detail))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._expect()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._fruitless = False, 0
        super().on_headers_complete()
        scope = cast(dict[str, Any], self.scope)
        scope["extensions"] = {CUT: {"cut": self.transport.abort}}

    def on_body(self, body: bytes) -> None:
        self._fruitless = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._fruitless = 0
        self._arrived()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._forget()
        super().handle_websocket_upgrade()

    def _expect(self) -> None:
        self._arrived()
        self._coming = self.loop.call_later(COMING_S, self._late)

    def _arrived(self) -> None:
        if self._coming is not None:
            self._coming.cancel()

    def _late(self) -> None:
        if self.flow.read_paused:  # it is we who do not read
            self._expect()
        else:
            self.transport.abort()

    # what goes

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch()

    def _watch(self) -> None:
        """Look in a while, if there is something that was not taken."""
        if self._taking is not None:
            self._taking.cancel()
        if self.transport.get_write_buffer_size():
            self._left = self._untaken()
            self._taking = self.loop.call_later(TAKEN_S, self._look)

    def _look(self) -> None:
        if self._untaken() > max(0, self._left - TAKEN_BYTES_MIN):
            self.transport.abort()
        else:
            self._watch()

    def _untaken(self) -> int:
        """Bytes on their way, those in the kernel too: it asks for more in large steps only."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        sent = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4)
        return int(self.transport.get_write_buffer_size() + struct.unpack("i", sent)[0])

    def _forget(self) -> None:
        """The connection has ended, or is another protocol's now."""
        for timer in (self._coming, self._taking):
            if timer is not None:
                timer.cancel()

    # what the server refuses itself

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin to answer; of what the server would refuse in its own words, in ours."""
        self._answered = cycle
        chosen: Any = _busy if app is service_unavailable else app
        super()._start_asgi_task(cycle, chosen)

    def send_400_response(self, msg: str) -> None:
        self._refuse(ProblemError(400, "malformed_request", msg))

    def _refuse(self, problem: ProblemError) -> None:
        """Answer what never became a request, and hang up."""
        if self._is_answering():
            self.transport.abort()  # it would be taken for the answer to what came before
            return
        self.transport.write(last_word(problem))
        self.transport.close()
        self._watch()

    def _is_answering(self) -> bool:
        """Whether something is asked as a whole, or being answered, and not answered yet."""
        asked = self._answered
        if asked is None or asked.response_complete:
            return False
        return asked.response_started or not asked.more_body


def last_word(problem: ProblemError) -> bytes:
    """A whole answer as it is written, before its connection is closed."""
    told = _last(problem, {})
    head = b"".join(b"%b: %b\r\n" % field for field in told.raw_headers)
    return STATUS_LINE[problem.status] + head + b"\r\n" + bytes(told.body)


def _last(problem: ProblemError, scope: Scope) -> Response:
    """An answer outside of the application, after which the connection is closed."""
    told = response(problem, scope)
    told.headers.update({**SECURITY, **HANG_UP})
    return told


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    problem = unavailable("too_many_connections", "Too many connections are open here.")
    await _last(problem, scope)(scope, receive, send)
