"""Frames on a Unix socket: a length, then that many bytes.

    frame     4 bytes length (big endian), then msgpack
    request   [id, method, payload]       payload and answer as in `wire`
    answer    [id, answer]

The first thing that is sent within a turn of the event loop goes out at once,
the rest of that turn in one write.  A frame that is too long, or a peer that
does not read, ends the connection: nothing here grows without a bound.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

import msgspec

FRAME_BYTES_MAX: Final = 256 << 20
"""A longer frame ends the connection. Pages and claims are far shorter (`ANSWER_BYTES_MAX`)."""
UNSENT_BYTES_MAX: Final = 512 << 20
"""What may wait for a peer that does not read."""
_HEADER: Final = 4
_ANSWER_HEAD: Final = 10
"""What a frame has before an answer, at most."""
_PATH_BYTES_MAX: Final = 107
"""Of a Unix socket's address on Linux."""


class Request(msgspec.Struct, array_like=True):
    id: int
    method: str
    payload: msgspec.Raw


class Answer(msgspec.Struct, array_like=True):
    id: int
    answer: msgspec.Raw


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


def fits(answer: bytes) -> bool:
    """Whether a frame can bring an answer."""
    return _ANSWER_HEAD + len(answer) <= FRAME_BYTES_MAX


class Frames(asyncio.Protocol):
    """One end of a connection; subclasses get each whole frame."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._unsent: list[bytes] | None = None
        """Frames of this turn of the loop after its first; None: nothing was sent yet."""

    def frame_received(self, body: bytes) -> None:
        raise NotImplementedError

    def send(self, message: Request | Answer) -> None:
        """Send now or with the rest of this turn of the loop; raises nothing."""
        body = encode(message)
        frame = len(body).to_bytes(_HEADER, "big") + body
        if self._unsent is None:
            self._unsent = []
            self._loop.call_soon(self._flush)
            self._write(frame)
        else:
            self._unsent.append(frame)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, None
        if unsent:
            self._write(b"".join(unsent))

    def _write(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if self.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        with memoryview(self._received) as view:
            start = 0
            while len(view) - start >= _HEADER:
                length = int.from_bytes(view[start : start + _HEADER], "big")
                if length > FRAME_BYTES_MAX:
                    self.transport.abort()
                    return
                end = start + _HEADER + length
                if len(view) < end:
                    break
                self.frame_received(bytes(view[start + _HEADER : end]))
                start = end
        del self._received[:start]


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """The path as a socket's address, by way of its open directory if it is too long."""
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
