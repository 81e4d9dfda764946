"""The contract over a connection: one table of methods, msgpack, length-prefixed frames.

    frame     4 bytes length (big endian), then msgpack
    request   [id, method, [arguments in the order of the contract]]
    answer    [id, true, result]  |  [id, false, [error class, [arguments]]]

The table is read from the contract's own signatures, so a method is declared
once.  Codec and transport are apart: `Codec.serve` answers encoded arguments
with an encoded answer, over whatever carries bytes.  Nothing is ever pickled.
"""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from runtime import errors
from runtime.store import contract
from runtime.store.contract import Store

FRAME_BYTES_MAX: Final = 64 << 20
"""A longer frame ends the connection."""
_HEADER: Final = 4


@dataclass(frozen=True)
class Method:
    """How one method of the contract is written down."""

    name: str
    parameters: tuple[str, ...]
    defaults: dict[str, Any]
    arguments: msgspec.msgpack.Decoder[Any]
    result: msgspec.msgpack.Decoder[Any]

    def positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """All arguments in the order of the contract, defaults filled in."""
        rest = self.parameters[len(args) :]
        return [*args, *(kwargs[name] if name in kwargs else self.defaults[name] for name in rest)]


def _method(name: str, function: Callable[..., Any]) -> Method:
    hints = typing.get_type_hints(function, vars(contract))
    parameters = list(inspect.signature(function).parameters.values())[1:]
    arguments: Any = tuple.__class_getitem__(tuple(hints[p.name] for p in parameters))
    return Method(
        name,
        tuple(p.name for p in parameters),
        {p.name: p.default for p in parameters if p.default is not p.empty},
        msgspec.msgpack.Decoder(arguments),
        msgspec.msgpack.Decoder(hints["return"]),
    )


METHODS: Final = {
    name: _method(name, function)
    for name, function in vars(Store).items()
    if inspect.iscoroutinefunction(function) and name != "close"
}


class Request(msgspec.Struct, array_like=True):
    id: int
    method: str
    arguments: msgspec.Raw


class Answer(msgspec.Struct, array_like=True):
    id: int
    ok: bool
    result: msgspec.Raw


class Failure(msgspec.Struct, array_like=True):
    """An error as it crosses: the name of its class and its arguments."""

    kind: str
    arguments: list[Any]

    @classmethod
    def of(cls, error: Exception) -> Failure:
        known = isinstance(error, errors.TroupeError) and hasattr(errors, type(error).__name__)
        if known:
            return cls(type(error).__name__, [_plain(argument) for argument in error.args])
        return cls("StoreError", [f"{type(error).__name__}: {error}"])

    def error(self) -> Exception:
        kind: type[Exception] = getattr(errors, self.kind, errors.StoreError)
        return kind(*self.arguments)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_failure = msgspec.msgpack.Decoder(Failure).decode


async def serve_one(
    store: Store, method: str, arguments: bytes | msgspec.Raw
) -> tuple[bool, bytes]:
    """Call the store; (whether it succeeded, the encoded result or failure)."""
    try:
        found = METHODS[method]
        result = await getattr(store, method)(*found.arguments.decode(arguments))
    except (errors.TroupeError, msgspec.DecodeError, KeyError, ValueError) as error:
        return False, encode(Failure.of(error))
    return True, encode(result)


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(_HEADER, "big") + body


class Framing(asyncio.Protocol):
    """Cuts a byte stream into frames; subclasses get each whole one."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = typing.cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEADER:
            length = int.from_bytes(self._buffer[start : start + _HEADER], "big")
            if length > FRAME_BYTES_MAX:
                self.transport.abort()
                return
            end = start + _HEADER + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[start + _HEADER : end])
            start = end
            self.frame_received(body)
        if start:
            del self._buffer[:start]

    def frame_received(self, body: bytes) -> None:
        raise NotImplementedError

    def send(self, message: Request | Answer) -> None:
        self.transport.write(frame(encode(message)))
