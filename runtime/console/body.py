"""Request bodies: bounded before they are read, and JSON that means one thing.

Refused here, before anything is made of it: what does not come whole, more than
`BODY_BYTES_MAX`, other media types, compressed bodies, what is no JSON or does not
mean one thing (`runtime.strictjson`), nesting deeper than `DEPTH_MAX`.  What the
fields must be is each route's business.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final, NoReturn

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.console.problems import HANG_UP, ProblemError
from runtime.strictjson import read_strictly

BODY_BYTES_MAX: Final = 1 << 20
BODY_WAIT_S: Final = 20.0
"""A body that takes longer to come is given up."""
DEPTH_MAX: Final = 64
"""Objects and arrays inside each other."""

_TYPE: Final = b"content-type"
_CODING: Final = b"content-encoding"

# possessive and also content with a string that never ends, so that it is linear in the body
_STRING = re.compile(rb'"(?:[^"\\]|\\.?+)*+(?:"|\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class BodyMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        _check_length(dict(headers).get(b"content-length", b"0"))
        try:
            async with asyncio.timeout(BODY_WAIT_S):
                body = await _read(receive)
        except TimeoutError:
            raise ProblemError(
                408, "body_too_slow", "The body did not come in time.", None, HANG_UP
            ) from None
        if body:
            _check_type(headers)
            check_json(body)
        await self._app(scope, _replay(body, receive), send)


def _check_length(declared: bytes) -> None:
    if not declared.isdigit():
        raise ProblemError(400, "malformed_request", "Content-Length is no number.")
    if len(declared) > 18 or int(declared) > BODY_BYTES_MAX:
        _too_large()


def _too_large() -> NoReturn:
    detail = f"A body has at most {BODY_BYTES_MAX} bytes."
    raise ProblemError(413, "body_too_large", detail, None, HANG_UP)


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":  # nobody hears this
            raise ProblemError(400, "malformed_request", "The request did not come whole.")
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, then what the server has to say."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _check_type(headers: list[tuple[bytes, bytes]]) -> None:
    types = [value.split(b";")[0].strip().lower() for name, value in headers if name == _TYPE]
    codings = {value.strip().lower() for name, value in headers if name == _CODING}
    if types != [b"application/json"] or codings - {b"identity"}:
        raise ProblemError(
            415, "unsupported_media_type", "A body is application/json, not compressed."
        )


def check_json(body: bytes) -> None:
    """Raise ProblemError unless `body` is JSON that every reader understands alike."""
    _check_depth(body)
    try:
        read_strictly(body.decode())
    except ValueError as error:
        raise _malformed(_reason(error)) from None


def _check_depth(body: bytes) -> None:
    """Before parsing, because a parser that recurses dies of what is too deep."""
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > DEPTH_MAX:
            raise ProblemError(400, "json_too_deep", f"JSON nests at most {DEPTH_MAX} deep.")


def _malformed(reason: str) -> ProblemError:
    return ProblemError(400, "malformed_json", f"The body is no JSON: {reason}.")


def _reason(error: ValueError) -> str:
    match error:
        case json.JSONDecodeError():
            return f"{error.msg.lower()} at line {error.lineno}, column {error.colno}"
        case UnicodeError():
            return "it is not UTF-8"
    return str(error)
