"""A store served by a process of its own, to be killed or measured from outside.

python -m tests.store_process DIRECTORY [DURABILITY]
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop

from runtime.clock import SystemClock
from runtime.collector import relax
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore
from runtime.store.sqlite_file import Durability

ROOT = Path(__file__).parent.parent


class StoreProcess:
    """Starts the process, waits until it serves, kills it."""

    def __init__(self, directory: Path, durability: Durability = "power loss") -> None:
        self.directory = directory
        self.durability = durability
        self.socket = directory / "store.sock"
        self.database = directory / "store.db"

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.store_process", str(self.directory), self.durability,
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        ready = await asyncio.wait_for(self._process.stdout.readline(), 30)
        assert ready == b"serving\n", "the store did not start"

    def cpu_s(self) -> float:
        """Processor time it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()


async def _serve(directory: Path) -> None:
    relax()
    store = await SqliteStore.open(directory / "store.db", SystemClock())
    server = StoreServer(store, directory / "store.sock")
    serving = asyncio.create_task(server.serve())
    while not (directory / "store.sock").is_socket():
        await asyncio.sleep(0.005)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await serving


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))  # as an actor of Ray does
