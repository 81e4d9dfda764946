"""A backup of a store process under load, and of one that is killed in the middle of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from runtime.clock import SystemClock
from runtime.errors import StoreUnavailableError
from runtime.store.backup import inspect, seal
from runtime.store.contract import Commit
from runtime.store.remote import RemoteStore
from runtime.store.restore import restore
from runtime.store.sqlite import SqliteStore
from tests.lanes import LANES, Lane, accepted, check, ended, reached, settled
from tests.store_process import StoreProcess

COMMITS_BEFORE = 4_000
PAUSE_S_MAX = 1.0
"""Many times what is measured on a quiet machine (tens of milliseconds)."""


class Timed(Lane):
    """A lane that knows how long its longest commit took."""

    longest_s = 0.0

    async def commit(self, made: Callable[[], Commit]) -> None:
        begun_s = time.perf_counter()
        await super().commit(made)
        self.longest_s = max(self.longest_s, time.perf_counter() - begun_s)


@pytest.fixture
async def process(tmp_path):
    (tmp_path / "live").mkdir()
    process = StoreProcess(tmp_path / "live")
    await process.start()
    yield process
    await process.kill()


async def working(store, commits):
    """Lanes at work, after so many commits."""
    lanes = [Timed(number, store) for number in range(LANES)]
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    await reached(commits, lanes, running)
    return lanes, running


async def test_a_backup_under_load_is_consistent_and_holds_nobody_up(tmp_path, process):
    """It would hold half of a turn, or lack what was accepted, or stop all work meanwhile."""
    store = RemoteStore(process.socket)
    lanes, running = await working(store, COMMITS_BEFORE)
    known = [(lane.sent, lane.handled) for lane in lanes]
    for lane in lanes:
        lane.longest_s = 0.0
    part, file = tmp_path / "part", tmp_path / "backup.db"
    while (copied := await store.backup("t", str(part), 0.05)).state == "copying":
        pass
    longest_s = max(lane.longest_s for lane in lanes)
    after = [(lane.sent, lane.handled) for lane in lanes]
    assert copied.state == "done", copied
    await asyncio.to_thread(seal, part, file, SystemClock().now_ms(), lambda: None)
    await ended(running)
    print(f"\n{copied.pages} pages copied; the longest commit took {longest_s * 1000:.0f} ms")
    assert longest_s < PAUSE_S_MAX

    restore(file, tmp_path / "restored.db", SystemClock().now_ms())
    there = await SqliteStore.open(tmp_path / "restored.db", SystemClock())
    for lane, before, behind in zip(lanes, known, after, strict=True):
        lane.store = there
        activation = await lane.begin()
        lane.handled = activation.version
        lane.sent = lane.handled + len(activation.inbox)
        assert before <= (lane.sent, lane.handled), "what was accepted before it began is in it"
        assert lane.handled <= behind[1] + 1, "what came after it ended is not"
        await settled(lane)
        await check(lane)
    await there.close()
    await store.close()


async def test_a_kill_during_a_backup_costs_only_the_backup(tmp_path, process):
    """The last good backup would be gone, or the store come back damaged."""
    store = RemoteStore(process.socket)
    lanes, running = await working(store, COMMITS_BEFORE)
    part, file = tmp_path / "part", tmp_path / "backup.db"
    while (await store.backup("first", str(part), 1.0)).state == "copying":
        pass
    made = seal(part, file, SystemClock().now_ms(), lambda: None)
    with pytest.raises(StoreUnavailableError):
        for number in range(1_000):  # until one is under way
            copied = await store.backup(f"more {number}", str(tmp_path / f"more-{number}"), 0.0)
            if copied.state == "copying":
                await process.kill()
                await store.backup(f"more {number}", str(tmp_path / f"more-{number}"), 1.0)
    await process.start()
    assert inspect(file, lambda: None) == made
    await reached(accepted(lanes) + 200, lanes, running)
    await ended(running)
    for lane in lanes:
        await settled(lane)
        await check(lane)
    await store.close()
