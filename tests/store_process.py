"""A store served by a process of its own, to be killed or measured from outside.

python -m tests.store_process DIRECTORY DURABILITY
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import uvloop

from runtime.clock import SystemClock
from runtime.collector import relax
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore
from runtime.store.sqlite_file import Durability
from tests.child import Child, say


class StoreProcess(Child):
    """Serves the file of a directory on its socket."""

    def __init__(self, directory: Path, durability: Durability = "power loss") -> None:
        super().__init__("tests.store_process", str(directory), durability)
        self.directory = directory
        self.socket = directory / "store.sock"
        self.database = directory / "store.db"


async def _serve(directory: Path, durability: Durability) -> None:
    relax()
    store = await SqliteStore.open(directory / "store.db", SystemClock(), durability=durability)
    server = StoreServer(store, directory / "store.sock")
    serving = asyncio.create_task(server.serve())
    while not (directory / "store.sock").is_socket():
        await asyncio.sleep(0.005)
    say("serving")
    await serving


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1]), cast(Durability, sys.argv[2])))  # as an actor of Ray does
