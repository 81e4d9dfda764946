"""Schedules that are due in the same moment: in which parts they go to the store, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runtime.jobs.decisions import Decision
from runtime.jobs.seat import Seat
from runtime.plans.book import CHUNK, Queue
from runtime.plans.planner import FIRST, Planner
from runtime.plans.writer import Change
from runtime.schedule.record import Spec
from runtime.store.contract import Ack, Commit, Store
from runtime.store.memory import MemoryStore
from runtime.store.remote import CodedStore
from runtime.store.wire import answer
from runtime.verify.loop import LoopClock, run
from tests.planned import planned

ANSWER_S = 0.005


class Line:
    """A transport whose store takes its time; notes how much had been decided with each commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.decided = 0
        self.sent: list[int] = []

    async def call(self, method: str, payload: bytes, wait_s: float) -> bytes:
        if method == "commit":
            self.sent.append(self.decided)
            await asyncio.sleep(ANSWER_S)
        return await answer(self._store, method, payload)

    async def close(self) -> None:
        """There is nothing to give up."""


async def schedules(store: Store, count: int, now_ms: int) -> None:
    """Make schedules that are all due with the next minute."""
    spec = Spec("cron", "* * * * *", overlap="allow")
    puts = tuple(planned(number, spec, now_ms) for number in range(count))
    await store.commit([Commit("acme", puts=puts)])


def test_what_is_due_together_is_on_its_way_before_all_of_it_is_decided() -> None:
    """The store would have nothing to do until the last of a thousand was decided."""
    count = FIRST + 5 * CHUNK
    line = run(_burst(count))
    assert line.sent[:2] == [FIRST, FIRST + CHUNK]
    assert line.decided == count


async def _burst(count: int) -> Line:
    clock = LoopClock(asyncio.get_running_loop())
    store = MemoryStore(clock)
    await schedules(store, count, clock.now_ms())
    line = Line(store)
    seat = Seat(CodedStore(line), "scheduler", "scheduler/one")
    await seat.register()
    await seat.take()

    async def commit(decision: Decision, acks: tuple[Ack, ...]) -> str | None:
        return await seat.write_plans(decision, acks)

    planner = Planner(store, clock, Queue(commit, lambda _: None, lambda _: True, lambda: False))
    write = planner.book.write

    async def noted(changes: Sequence[Change]) -> str | None:
        line.decided += len(changes)
        return await write(changes)

    planner.book.write = noted  # type: ignore[method-assign,assignment]
    await planner.load()
    due_ms = planner.book.table.next_wake_ms()
    assert due_ms is not None
    await asyncio.sleep((due_ms - clock.now_ms()) / 1000)
    await planner.settle_due(planner.book.table.take_due(due_ms))
    await seat.leave()
    return line
