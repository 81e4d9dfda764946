"""One request to an ASGI application, without a socket, up to the first byte of a stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import ASGIApp

WITHIN_S: Final = 20.0
STREAM: Final = "text/event-stream"


@dataclass
class Answer:
    status: int = 0
    """Of a WebSocket: 101 accepted, 403 closed before."""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


async def call(
    app: ASGIApp, method: str, path: str, key: str | None = None, body: bytes | None = None
) -> Answer:
    """Ask; `method` WEBSOCKET opens one.

    Args:
        path: with its query, if any.
        key: sent as Bearer; None: no header.
    """
    answer, told = Answer(), asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            if method == "WEBSOCKET":
                return {"type": "websocket.connect"}
            return {"type": "http.request", "body": body or b"", "more_body": False}
        await told.wait()
        closed = {"type": "websocket.disconnect", "code": 1001}
        return closed if method == "WEBSOCKET" else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        _take(answer, told, message)

    serving = asyncio.ensure_future(app(_scope(method, path, key, body), receive, send))
    telling = asyncio.ensure_future(told.wait())
    async with asyncio.timeout(WITHIN_S):
        await asyncio.wait((serving, telling), return_when=asyncio.FIRST_COMPLETED)
        told.set()
        await asyncio.gather(serving, telling, return_exceptions=True)
    return answer


def _take(answer: Answer, told: asyncio.Event, message: Any) -> None:
    match message["type"]:
        case "http.response.start":
            answer.status, answer.headers = message["status"], message["headers"]
            kinds = [value for name, value in answer.headers if name.lower() == b"content-type"]
            if any(kind.startswith(STREAM.encode()) for kind in kinds):
                told.set()
        case "http.response.body":
            answer.body += message.get("body", b"")
            if not message.get("more_body"):
                told.set()
        case "websocket.accept":
            answer.status = 101
            told.set()
        case "websocket.close":
            answer.status = answer.status or 403
            told.set()


def _scope(method: str, path: str, key: str | None, body: bytes | None) -> dict[str, Any]:
    where, _, query = path.partition("?")
    headers = [(b"host", b"troupe")]
    if key is not None:
        headers.append((b"authorization", f"Bearer {key}".encode()))
    if body is not None:
        headers += [(b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode())]  # fmt: skip
    socket = method == "WEBSOCKET"
    return {
        "type": "websocket" if socket else "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "scheme": "ws" if socket else "http", "path": where, "raw_path": where.encode(),
        "query_string": query.encode(), "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("troupe", 80),
        **({"subprotocols": []} if socket else {"method": method}),
    }  # fmt: skip
