"""A store served on a Unix socket to the processes of one machine.

The socket is the owner's alone (mode 0600): who can open it may do everything.
Each call is a task of its own, so a parked poll holds up nobody, and it ends
with its connection.  So does the lease of a host: a process that was killed is known
to be gone at once, and one that lives renews when it is back.  Commits of all
connections meet in the store's own group commit.  The store is not the server's
to close.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from runtime.errors import StoreError
from runtime.store.contract import Store
from runtime.store.frames import Answer, Frames, Request, decode_request, fits, socket_address
from runtime.store.wire import REGISTER, RENEW, answer, refusal

logger = logging.getLogger(__name__)

CALLS_MAX: Final = 10_000
"""Calls in flight on one connection; with more it is not read from."""
BACKLOG: Final = 128
LEASES: Final = {one.name: one for one in (REGISTER, RENEW)}
"""Calls by which a connection is known to be an owner's, their first argument."""


class StoreServer:
    """Serves one store; create, then `await start()`."""

    def __init__(self, store: Store, path: Path, leases: Store | None = None) -> None:
        """
        Args:
            leases: the store as whoever watches it sees it; leases are given up there.
        """
        self._store = store
        self._leases = leases or store
        self._path = path
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        """Listen; a socket that a former server left behind is replaced."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._path.is_socket():
            self._path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_address(self._path) as where:
                listening.bind(where)
            self._path.chmod(0o600)  # nobody can connect before it listens
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Connection(self._store, self._leases, self._connections),
                sock=listening,
                backlog=BACKLOG,
            )
        except BaseException:
            listening.close()
            raise
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


class _Connection(Frames):
    def __init__(self, store: Store, leases: Store, connections: set[_Connection]) -> None:
        super().__init__()
        self._store = store
        self._leases = leases
        self._connections = connections
        self._calls: set[asyncio.Task[None]] = set()
        self._owner: str | None = None
        """Whose lease goes with this connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        for call in self._calls:
            call.cancel()
        self._leaving = self._loop.create_task(self._leave())

    async def _leave(self) -> None:
        """Give the lease up: whoever is asked for the owner's agents need not wait for it."""
        if self._owner is not None:
            with suppress(StoreError):  # a store that is closing has no more use for leases
                await self._leases.renew(self._owner, 0.0)
        self._connections.discard(self)

    def frame_received(self, body: bytes) -> None:
        try:
            request = decode_request(body)
        except msgspec.MsgspecError:
            logger.warning(
                "a frame on the store's socket is no request", extra={"action": "store.no_request"}
            )
            self.transport.abort()
            return
        if method := LEASES.get(request.method):
            with suppress(msgspec.MsgspecError):  # told to the caller with its answer
                self._owner = method.arguments.decode(request.payload)[0]
        call = self._loop.create_task(self._answer(request))
        self._calls.add(call)
        call.add_done_callback(self._ended)
        if len(self._calls) >= CALLS_MAX:
            self.transport.pause_reading()

    async def _answer(self, request: Request) -> None:
        body = await answer(self._store, request.method, request.payload)
        if not fits(body):  # it would end every call of the connection, and a host's lease
            why = f"the answer of {request.method} has {len(body)} bytes, which is too long"
            logger.error(why, extra={"action": "store.too_long"})
            body = refusal(StoreError(why))
        self.send(Answer(request.id, msgspec.Raw(body)))

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if len(self._calls) < CALLS_MAX and not self.transport.is_closing():
            self.transport.resume_reading()
