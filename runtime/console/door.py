"""The server's WebSockets, with a shorter way out for what many clients are told alike.

An ASGI message passes every layer of the application in coroutines, and becomes a
frame anew for each client: 30 of the 50 us that an event cost a client.  `Sockets`
is uvicorn's own protocol; it also lets an application write a frame that was made
once, as an extension in the scope:

    write = scope["extensions"].get(FRAMES, {}).get("write")
    write(frame)      whether it is on its way; if not, send it as a message

Such a frame is never compressed, which is each sender's choice for each message,
and neither is any other: that would cost more than the rest, for each client.
Where the server does not offer the extension everything is sent as messages.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

FRAMES: Final = "troupe.frames"

Write = Callable[[bytes], bool]


class Sockets(WebSocketsSansIOProtocol):
    """One connection."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[FRAMES] = {"write": self.write_frame}

    def write_frame(self, frame: bytes) -> bool:
        """Write a whole unmasked frame, once the socket is accepted; False: not now, or never."""
        if self.close_sent or not self.writable.is_set() or self.transport.is_closing():
            return False
        self.transport.write(frame)
        return True


SERVED: Final[dict[str, Any]] = {"ws": Sockets, "ws_per_message_deflate": False}
"""What `uvicorn.Config` is to be given."""


def text_frame(text: str) -> bytes:
    """A whole message, as a server sends it."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def frame_writer(scope: MutableMapping[str, Any]) -> Write | None:
    """How to write a frame to the socket of an ASGI scope, if its server lets one."""
    found: Write | None = (scope.get("extensions") or {}).get(FRAMES, {}).get("write")
    return found
