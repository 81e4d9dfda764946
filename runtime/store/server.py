"""A store served on a Unix socket to the processes of one machine.

The socket is the owner's alone (mode 0600): who can open it may do everything.
Each call is a task of its own, so a parked poll holds up nobody, and it ends
with its connection.  Commits of all connections meet in the store's own group
commit.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from runtime.store.contract import Store
from runtime.store.wire import Answer, Framing, Request, decode_request, serve_one

logger = logging.getLogger(__name__)

CALLS_MAX = 10_000
"""Calls in flight on one connection; more end it."""


class StoreServer:
    """Serves one store; create, then `await start()`."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
        self._path = path
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        """Listen; an old socket file at the path is replaced."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Connection(self._store, self._connections), self._path
            )
        finally:
            os.umask(before)
        logger.info("the store is served at %s", self._path, extra={"action": "store.serving"})

    async def serve(self) -> None:
        """Start and serve until cancelled."""
        await self.start()
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop listening and end every connection. Idempotent."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()


class _Connection(Framing):
    def __init__(self, store: Store, connections: set[_Connection]) -> None:
        super().__init__()
        self._store = store
        self._connections = connections
        self._calls: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        for call in self._calls:
            call.cancel()

    def frame_received(self, body: bytes) -> None:
        try:
            request = decode_request(body)
        except msgspec.DecodeError:
            logger.warning("a frame of the store's socket is no request")
            self.transport.abort()
            return
        if len(self._calls) >= CALLS_MAX:
            self.transport.abort()
            return
        call = asyncio.ensure_future(self._answer(request))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _answer(self, request: Request) -> None:
        ok, result = await serve_one(self._store, request.method, request.arguments)
        if not self.transport.is_closing():
            self.send(Answer(request.id, ok, msgspec.Raw(result)))
