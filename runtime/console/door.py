"""The server's connections, as far as ASGI alone does not suffice for them.

WebSockets have a shorter way out for what many clients are told alike.  A message
passes every layer of the application in coroutines, and becomes a frame anew for
each client: 30 of the 50 us that an event cost a client.  `Sockets` is uvicorn's own
protocol; it also lets an application write a frame that was made once, as an
extension in the scope:

    write = scope["extensions"].get(FRAMES, {}).get("write")
    write(frame)      whether it is on its way; if not, send it as a message

Such a frame is never compressed, which is each sender's choice for each message,
and neither is any other: that would cost more than the rest, for each client.
Where the server does not offer the extension everything is sent as messages.

What a client says is bounded before it is there as a whole: `MESSAGE_BYTES_MAX`.

Any connection may be cut by the application, which is the only way to be rid of a
client that takes nothing in: whatever is closed in order is first sent.

    cut = scope["extensions"].get(CUT, {}).get("cut")
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request

from runtime.console.problems import ProblemError
from runtime.console.requests import CUT, Requests, last_word

FRAMES: Final = "troupe.frames"
MESSAGE_BYTES_MAX: Final = 16_384
"""Of what a client sends over a WebSocket."""
TOO_LARGE: Final = (1009, "too_large")
"""Close code and reason for one that sends more."""

GONE_S: Final = 10.0
"""How long whoever is closed has to take in what it was told."""

Write = Callable[[bytes], bool]
Cut = Callable[[], None]


class Sockets(WebSocketsSansIOProtocol):
    """One connection of a WebSocket."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_none = self.conn.handshake_exc is not None and not self.handshake_initiated
        if is_none and not self.transport.is_closing():
            detail = "This can't be made a WebSocket."
            self.transport.write(last_word(ProblemError(400, "malformed_request", detail)))
            self.transport.close()
            self._cut_later()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[FRAMES] = {"write": self.write_frame}
            extensions[CUT] = {"cut": self.transport.abort}

    def handle_ping(self) -> None:
        """Answer, if there is room: of many the last alone needs it (RFC 6455, 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # forgotten

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # refused with an answer: nothing is missing
        if self.close_sent:
            self._cut_later()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._cut_later()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._cut_later()

    def _cut_later(self) -> None:
        """Be rid of it though it does not take in what it was told; a transport waits for ever."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(GONE_S, self.transport.abort)

    def handle_parser_exception(self) -> None:
        """Refuse what is too large in words that reach who is still sending it."""
        if self.close_sent:
            return  # this is the rest of it
        if not isinstance(self.conn.parser_exc, PayloadTooBig):
            super().handle_parser_exception()
            self._cut_later()
            return
        self.conn.data_to_send()  # the same in the library's words
        self.transport.write(
            Frame(Opcode.CLOSE, Close(*TOO_LARGE).serialize()).serialize(mask=False)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # it is read, and forgotten, until the client goes: closed at once, it might hear nothing
        self._cut_later()
        self.close_sent = self.disconnected = True
        code, reason = TOO_LARGE
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    def write_frame(self, frame: bytes) -> bool:
        """Write a whole unmasked frame, once the socket is accepted; False: not now, or never."""
        if self.close_sent or not self.writable.is_set() or self.transport.is_closing():
            return False
        self.transport.write(frame)
        return True


SERVED: Final[dict[str, Any]] = {
    "http": Requests,
    "ws": Sockets,
    "ws_max_size": MESSAGE_BYTES_MAX,
    "ws_per_message_deflate": False,
}
"""What `uvicorn.Config` is to be given."""


def text_frame(text: str) -> bytes:
    """A whole message, as a server sends it."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def frame_writer(scope: MutableMapping[str, Any]) -> Write | None:
    """How to write a frame to the socket of an ASGI scope, if its server lets one."""
    found: Write | None = (scope.get("extensions") or {}).get(FRAMES, {}).get("write")
    return found


def line_cutter(scope: MutableMapping[str, Any]) -> Cut | None:
    """How to cut the connection of an ASGI scope, if its server lets one."""
    found: Cut | None = (scope.get("extensions") or {}).get(CUT, {}).get("cut")
    return found
