"""What a replica measures: each request once, when its answer begins.

An answer that goes on, as a stream of events does, counts with its first byte;
how many streams are open is a gauge.  An upgrade to a WebSocket that is accepted
counts as `1xx`.  Metrics and their labels are `runtime.metrics`'.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.metrics import Meter

ACCEPTED: Final = 101
CLOSED: Final = 403
"""What a server makes of a WebSocket that is closed before it was accepted."""
_BEGINS: Final = frozenset({
    "http.response.start", "websocket.http.response.start", "websocket.accept", "websocket.close",
})  # fmt: skip


class MeterMiddleware:
    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began_s, begun = perf_counter(), False

        async def begin(message: Message) -> None:
            nonlocal begun
            if not begun and message["type"] in _BEGINS:
                begun = True
                status = status_class(message)
                self._meter.count("troupe_http_requests", label=status)
                self._meter.observe("troupe_http_seconds", perf_counter() - began_s, status)
            await send(message)

        await self._app(scope, receive, begin)


def status_class(message: Message) -> str:
    """`2xx`, `4xx`, ... of the message by which an answer begins."""
    closed = CLOSED if message["type"] == "websocket.close" else ACCEPTED
    return f"{message.get('status', closed) // 100}xx"
