"""A store served by a process of its own, to be killed or measured from outside.

python -m tests.store_process DIRECTORY DURABILITY CAP
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import cast

import uvloop

from runtime.clock import SystemClock
from runtime.collector import relax
from runtime.ids import Ids
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore
from runtime.store.sqlite_file import Durability
from tests.child import Child, say


class StoreProcess(Child):
    """Serves the file of a directory on its socket."""

    def __init__(
        self, directory: Path, durability: Durability = "power loss", scheduler: int = 0
    ) -> None:
        """
        Args:
            scheduler: jobs at once of a scheduler beside the store, as in production; 0: none.
        """
        super().__init__("tests.store_process", str(directory), durability, str(scheduler))
        self.directory = directory
        self.socket = directory / "store.sock"
        self.database = directory / "store.db"


async def _serve(directory: Path, durability: Durability, cap: int) -> None:
    relax()
    clock = SystemClock()
    store = await SqliteStore.open(directory / "store.db", clock, durability=durability)
    server = StoreServer(store, directory / "store.sock")
    await server.start()
    say("serving")
    if cap:
        limits = Limits(cap, cap)
        await Scheduler(store.inside(), clock, Ids(clock), random.random, limits).run()
    await asyncio.Event().wait()


if __name__ == "__main__":
    directory, durability, cap = sys.argv[1:]  # on uvloop as an actor of Ray is
    uvloop.run(_serve(Path(directory), cast(Durability, durability), int(cap)))
