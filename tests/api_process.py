"""The HTTP application in a process of its own, over a store served by another one.

python -m tests.api_process SOCKET PORT

Several may share a port: the kernel spreads connections over those that live,
as a load balancer does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from runtime.clock import SystemClock
from runtime.console.app import create_app
from runtime.ids import Ids
from runtime.store.remote import RemoteStore

ROOT = Path(__file__).parent.parent
START_S = 60.0


def listening(port: int) -> socket.socket:
    """A socket on a port of this machine that others may listen on too; 0: a free one."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    return found


class ApiProcess:
    """Starts the process, waits until it serves, kills it."""

    def __init__(self, store: Path, port: int) -> None:
        self._store = store
        self._port = port

    async def start(self) -> ApiProcess:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.api_process", str(self._store), str(self._port),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        ready = await asyncio.wait_for(self._process.stdout.readline(), START_S)
        assert ready == b"serving\n", "the API did not start"
        return self

    def cpu_s(self) -> float:
        """Processor time it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nobody is told."""
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("serving\n")
        sys.stdout.flush()


def _serve(store: Path, port: int) -> None:
    clock = SystemClock()
    app = create_app(RemoteStore(store), clock, Ids(clock))
    _Server(uvicorn.Config(app, log_level="error")).run([listening(port)])


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
