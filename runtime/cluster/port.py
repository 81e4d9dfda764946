"""The public port: one listening socket that the supervisor opens and every replica accepts on.

    supervisor   Port(8000, path): binds and listens, hands the socket to whoever asks at `path`
    replica      async with answered(app, path): takes it and serves the application on it

A proxy before the replicas costs each request another process and a Ray call
there and back, several times what the request itself does.  Without it Serve
still starts, checks and replaces the replicas; what comes in is taken by
whichever of them is free.  One that is killed or hangs takes along only what it
has accepted, and while there is none, connections wait until there is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import uvicorn

from runtime.cluster.settings import RAYS_PORTS, ClusterError
from runtime.console.door import SERVED

logger = logging.getLogger(__name__)

ADDRESS: Final = "127.0.0.1"
BACKLOG: Final = 1_024
"""Connections that wait to be accepted."""
CONNECTIONS_MAX: Final = 2_000
"""Open connections of one replica; a request on one more is answered 503."""
ASK_EVERY_S: Final = 0.2
"""A replica that starts while the supervisor is starting over asks again."""
ANSWER_S: Final = 5.0
END_S: Final = 5
"""How long requests may go on in a replica that is to end."""
UNCLAIMED: Final = range(RAYS_PORTS.stop, 32_768)
"""Above Ray's ports and below Linux's own: the kernel gives none of them to who asks for any."""
TRIES_MAX: Final = 100


def free_port(preferred: int | None = None) -> int:
    """A TCP port that is free on loopback now, `preferred` if it is.

    It can be bound some seconds later: whoever connects or asks for any port
    meanwhile, as a Ray that starts does a hundred times, is given another one.

    Raises:
        ClusterError: none was found.
    """
    drawn = (secrets.choice(UNCLAIMED) for _ in range(TRIES_MAX))
    for port in drawn if preferred is None else (preferred, *drawn):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ADDRESS, port))
            return port
    raise ClusterError("no free TCP port")


class PortTakenError(ClusterError):
    """Another program listens on the port; choose another one with PORT or `--port`."""


class Port:
    """The supervisor's end."""

    def __init__(self, number: int, path: Path) -> None:
        self._number = number
        self._path = path
        self._public: socket.socket | None = None
        self._desk: socket.socket | None = None

    def open(self) -> None:
        """Listen, and hand the socket out until closed.

        Raises:
            PortTakenError: somebody else has the port; nothing was opened.
        """
        public = socket.socket()
        public.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            public.bind((ADDRESS, self._number))
            public.listen(BACKLOG)
        except OSError as error:
            public.close()
            raise PortTakenError(self._number) from error
        desk = socket.socket(socket.AF_UNIX)
        self._path.unlink(missing_ok=True)
        desk.bind(str(self._path))  # in a folder that is ours alone
        desk.listen(BACKLOG)
        self._public, self._desk = public, desk
        threading.Thread(target=_hand_out, args=(desk, public), name="port", daemon=True).start()

    def close(self) -> None:
        """Close this end; replicas that have the socket still answer. Idempotent."""
        for one in (self._desk, self._public):
            if one is not None:
                one.close()
        self._path.unlink(missing_ok=True)


def _hand_out(desk: socket.socket, public: socket.socket) -> None:
    with suppress(OSError):  # the desk was closed
        while True:
            peer, _ = desk.accept()
            with peer, suppress(OSError):  # whoever asked has gone
                socket.send_fds(peer, [b"."], [public.fileno()])


def handed(path: Path) -> socket.socket:
    """The listening socket.

    Raises:
        OSError: nobody hands it out now.
    """
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(ANSWER_S)
        peer.connect(str(path))
        _, descriptors, _, _ = socket.recv_fds(peer, 1, 1)
    if not descriptors:
        raise ConnectionError(str(path))
    return socket.socket(fileno=descriptors[0])


@asynccontextmanager
async def answered(app: Any, path: Path) -> AsyncIterator[None]:
    """Serve an ASGI application, whose lifespan is somebody else's, on the public port."""
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, backlog=BACKLOG, limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=END_S, **SERVED,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(_serve(server, path), name="port")
    try:
        yield
    finally:
        server.should_exit = True
        if not server.started:
            serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _serve(server: uvicorn.Server, path: Path) -> None:
    """Serve until told to end; a replica that can't is of no use, and Serve starts another."""
    while True:
        try:
            public = await asyncio.to_thread(handed, path)
            break
        except OSError:
            await asyncio.sleep(ASK_EVERY_S)
    try:
        await server.serve([public])
    except Exception:  # whatever it was, the process is of no use
        logger.critical(
            "the public port is not served any more", exc_info=True, extra={"action": "port.ended"}
        )
    if not server.should_exit:
        os._exit(1)
