"""The HTTP application in a process of its own, over a store served by another one.

python -m tests.api_process SOCKET PORT

Several may share a port: the kernel spreads connections over those that live,
as a load balancer does.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import uvicorn

from runtime.clock import SystemClock
from runtime.collector import REQUESTS, relax
from runtime.console.app import create_app
from runtime.console.door import SERVED
from runtime.ids import Ids
from runtime.store.remote import RemoteStore
from tests.child import Child, say


def listening(port: int) -> socket.socket:
    """A socket on a port of this machine that others may listen on too; 0: a free one."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    return found


class ApiProcess(Child):
    """Serves `store`, a socket, on a port."""

    def __init__(self, store: Path, port: int) -> None:
        super().__init__("tests.api_process", str(store), str(port))


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say("serving")


def _serve(store: Path, port: int) -> None:
    clock = SystemClock()
    app = create_app(RemoteStore(store), clock, Ids(clock))
    relax(REQUESTS)  # as a replica does
    _Server(uvicorn.Config(app, log_level="error", **SERVED)).run([listening(port)])


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
