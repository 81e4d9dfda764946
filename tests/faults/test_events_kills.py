"""Clients of the WebSocket while the processes that serve them are killed."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.ids import Ids
from runtime.keys import Keys, Role
from runtime.store.remote import RemoteStore
from runtime.turn import feed_event
from runtime.watching import OPENED, RESET, watch
from tests.api_process import ApiProcess, listening
from tests.store_process import StoreProcess

ISSUES = 10
"""Every second client follows one of so many issues, the others everything."""
PAUSE_S = 0.005
"""Between two events."""
BETWEEN_KILLS_S = 0.5
REST_S = 60.0
"""Until every client has the last event, once nobody is killed any more."""
LAST = "test:last"


@dataclass
class Seen:
    """What one client was told."""

    rooms: list[str]
    numbers: list[int] = field(default_factory=list)
    connections: int = 0
    resets: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, url: str, key: str) -> None:
        async with aclosing(watch(url, key, self.rooms, direct=True)) as events:
            async for event in events:
                if event.name == OPENED:
                    self.connections += 1
                    self.opened.set()
                elif event.name == RESET:
                    self.resets += 1
                elif event.name == LAST:
                    return
                else:
                    self.numbers.append(event.data["n"])


class World:
    """A store process, processes of the API on one port, and a door to publish through."""

    def __init__(self, directory: Path) -> None:
        self.store_process = StoreProcess(directory)
        self._place = listening(0)  # bound, so that nobody else is given it between two processes
        self.port = self._place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.serving: list[ApiProcess] = []
        self.published: list[tuple[int, str]] = []
        """(number, issue's room), in their order."""

    async def start(self, processes: int) -> None:
        await self.store_process.start()
        self.store = RemoteStore(self.store_process.socket)
        clock = SystemClock()
        self.client = Client(self.store, clock, Ids(clock), "acme", "test")
        self.key, _ = await Keys(self.store, clock).create("acme", Role.VIEWER, "ann")
        self.serving = await asyncio.gather(*(self._api() for _ in range(processes)))

    async def _api(self) -> ApiProcess:
        return await ApiProcess(self.store_process.socket, self.port).start()

    async def publish(self, over: asyncio.Event) -> None:
        """Events one after the other, each in its issue's room, until it is over."""
        number = 0
        while not over.is_set():
            room = f"issue:{number % ISSUES}"
            event = feed_event("acme", "test:event", {"n": number}, (room,), number)
            await self.client.commit(events=[event])
            self.published.append((number, room))
            number += 1
            await asyncio.sleep(PAUSE_S)
        rooms = tuple(f"issue:{number}" for number in range(ISSUES))
        await self.client.commit(events=[feed_event("acme", LAST, {}, rooms, number)])

    async def kill_one(self, chance: random.Random) -> None:
        """Kill a process, and start another in its place while the rest serves."""
        at = chance.randrange(len(self.serving))
        await self.serving[at].kill()
        self.serving[at] = await self._api()

    async def stop(self) -> None:
        for one in self.serving:
            await one.kill()
        await self.store.close()
        await self.store_process.kill()
        self._place.close()


@asynccontextmanager
async def world(directory: Path, processes: int) -> AsyncIterator[World]:
    directory.mkdir()
    found = World(directory)
    await found.start(processes)
    try:
        yield found
    finally:
        await found.stop()


async def watched_through_kills(directory: Path, clients: int, kills: int) -> None:
    chance = random.Random(11)
    async with world(directory, processes=2) as here, asyncio.TaskGroup() as tasks:
        seen = [
            Seen([f"issue:{number % ISSUES}"] if number % 2 else ["monitoring"])
            for number in range(clients)
        ]
        watching = [tasks.create_task(one.watch(here.url, here.key)) for one in seen]
        for one in seen:
            await one.opened.wait()
        over = asyncio.Event()
        publishing = tasks.create_task(here.publish(over))
        for _ in range(kills):
            await asyncio.sleep(BETWEEN_KILLS_S)
            await here.kill_one(chance)
        over.set()
        await publishing
        async with asyncio.timeout(REST_S):
            await asyncio.wait(watching)
    judged(seen, here.published, kills)


def judged(seen: list[Seen], published: list[tuple[int, str]], kills: int) -> None:
    """Compare what each client was told with what was published in its rooms."""
    gaps = duplicates = disorder = 0
    for one in seen:
        wanted = Counter(n for n, room in published if {room, "monitoring"} & {*one.rooms})
        told = Counter(one.numbers)
        gaps += (wanted - told).total()
        duplicates += (told - wanted).total()
        disorder += one.numbers != sorted(one.numbers)
    found = {
        "clients": len(seen),
        "kills": kills,
        "events": len(published),
        "told": sum(len(one.numbers) for one in seen),
        "reconnections": sum(one.connections - 1 for one in seen),
        "gaps": gaps,
        "duplicates": duplicates,
        "disorder": disorder,
        "resets": sum(one.resets for one in seen),
    }
    print(json.dumps(found))
    wrong = {name: found[name] for name in ("gaps", "duplicates", "disorder", "resets")}
    assert wrong == dict.fromkeys(wrong, 0), found
    assert found["reconnections"] >= kills, "the kills met nobody"


async def test_kills_of_the_serving_processes_leave_no_gap_and_no_double(tmp_path: Path) -> None:
    """Would lose what happened while a client had no connection, or tell it twice."""
    await watched_through_kills(tmp_path / "store", clients=20, kills=2)


@pytest.mark.slow
async def test_200_clients_through_20_kills_miss_nothing(tmp_path: Path) -> None:
    """The same, with as many clients as a large dashboard and kills all the time."""
    await watched_through_kills(tmp_path / "store", clients=200, kills=20)
