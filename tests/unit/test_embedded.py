"""The scheduler in the store's process: neither ends the other, and neither is in its way."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from runtime.clock import SystemClock
from runtime.cluster.embedded import Embedded
from runtime.cluster.settings import ClusterSettings
from runtime.ids import Ids
from runtime.jobs.seat import FencedError
from runtime.patience import patiently
from runtime.scheduler import Scheduler
from runtime.store.contract import Commit, Put, Store
from runtime.store.remote import RemoteStore
from runtime.store.sqlite import SqliteStore


def scheduler(store: Store) -> Scheduler:
    clock = SystemClock()
    return Scheduler(store, clock, Ids(clock), random.random)


async def epoch(store: Store) -> int:
    """Of the scheduler's seat; 0 before anybody had it."""
    found = await store.get("scheduler", "present")
    return 0 if found is None else found.revision


async def test_another_scheduler_follows_and_the_store_goes_on(tmp_path: Path) -> None:
    """A defect in the queue would take everybody's store away, again and again."""
    ended: list[BaseException] = []

    async def schedule(store: Store) -> None:
        try:
            await scheduler(store).run()
        except FencedError as error:
            ended.append(error)
            raise

    settings = ClusterSettings(str(tmp_path))
    running = asyncio.create_task(Embedded(settings, SystemClock()).run(schedule))
    store = RemoteStore(settings.directory.socket)
    async with asyncio.timeout(30):
        while await patiently(epoch, store) < 1:
            await asyncio.sleep(0.01)
        parked = asyncio.create_task(store.tail(0, 1, 60.0, "nobody"))
        usurper = asyncio.create_task(scheduler(store).run())
        while not ended:
            await asyncio.sleep(0.01)
        [fenced] = await asyncio.gather(usurper, return_exceptions=True)
    assert isinstance(fenced, FencedError)  # by the one that has followed
    assert not parked.done()  # nobody's connection was lost
    assert not running.done()
    for task in (parked, running):
        task.cancel()
    await asyncio.gather(parked, running, return_exceptions=True)
    await store.close()


async def test_whoever_reads_on_and_on_lets_the_others_have_a_turn(tmp_path: Path) -> None:
    """A scheduler that loads its schedules would leave every host unheard until it is through."""
    store = await SqliteStore.open(tmp_path / "store.db", SystemClock())
    await store.commit([Commit("acme", puts=(Put("c", "k", "acme", b"{}"),))])
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(turn())
    inside = store.inside()
    for read in (inside.get("c", "k"), inside.list_documents("c")):
        before = turns
        assert await read
        assert turns > before
    other.cancel()
    await store.close()
