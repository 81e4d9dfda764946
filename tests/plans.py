"""A troupe whose schedules are set by message and fired on virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from runtime.agent import BaseAgent
from runtime.errors import JobFailedError, JobWaiting
from runtime.hosting.host import HostSettings
from runtime.job import AgentJob, Job, JobResult, StepContext
from runtime.plans.table import Entry
from runtime.schedule.record import (
    Occurrence,
    Schedule,
    decode_occurrence,
    decode_schedule,
    schedule_key,
)
from runtime.store.memory import MemoryStore
from runtime.verify.loop import EPOCH_MS, LoopClock, run
from tests.troupe import LocalTroupe, eventually

AGENT = "worker:one"
MINUTE_MS = 60_000


class Worker(BaseAgent):
    """Waits without a slot for `payload.rests`, works for `payload.seconds`, or fails."""

    kind = "worker"

    async def process_task(self, job: Job) -> JobResult:
        payload, loop = job.record.payload, asyncio.get_running_loop()
        if rests_s := payload.get("rests"):
            until_s = await job.step("rests", partial(_moment, loop.time() + rests_s))
            if loop.time() < until_s:
                raise JobWaiting("resting", EPOCH_MS + round(until_s * 1000))
        await asyncio.sleep(payload.get("seconds", 0))
        if payload.get("costUsd"):
            job.spend(payload["costUsd"], 1)
        if payload.get("fails"):
            raise JobFailedError("it can't be done")
        return JobResult(outcome="finished", summary="done")


async def _moment(at_s: float, _: StepContext) -> float:
    return at_s


class Plans:
    """A troupe on virtual time, and what its ledger says."""

    def __init__(self, store: type[MemoryStore] = MemoryStore) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.store = store(self.clock)
        settings = HostSettings(lease_s=20.0, idle_s=30.0)
        self.troupe = LocalTroupe({"worker": Worker}, self.store, self.clock, None, settings)
        self.client = self.troupe.client()

    async def ask(self, verb: str, **content: Any) -> dict[str, Any]:
        content = {"agentId": AGENT, "by": "ann", **content}
        return await self.client.ask("scheduler:main", content, f"schedule.{verb}")  # type: ignore[no-any-return]

    async def set(self, **schedule: Any) -> dict[str, Any]:
        answer = await self.ask("set", schedule=schedule)
        assert answer["ok"], answer
        return answer

    async def record(self, name: str = "default") -> Schedule:
        document = await self.client.get("schedule", schedule_key("acme", AGENT, name))
        assert document is not None
        return decode_schedule(document.body)

    async def ledger(self) -> list[Occurrence]:
        found = await self.client.list("occurrence", limit=1_000, descending=False)
        return [decode_occurrence(one.body) for one in found]

    async def outcomes(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for one in await self.ledger():
            counts[one.outcome] += one.count
        return counts

    async def entry(self) -> Entry:
        """The first schedule that the planner knows, which it does once its record is durable."""

        async def look() -> Entry | None:
            return next(iter(self.troupe.scheduler._planner.book.table), None)

        return await eventually(look)  # type: ignore[return-value]

    async def jobs(self) -> list[AgentJob]:
        found = await self.client.list("job", limit=1_000, descending=False)
        return [AgentJob.from_json(one.body) for one in found]


def planned(
    test: Callable[[Plans], Coroutine[Any, Any, None]], store: type[MemoryStore] = MemoryStore
) -> Callable[[], None]:
    """A test on virtual time with a running troupe."""

    async def main() -> None:
        plans = Plans(store)
        await plans.troupe.start()
        try:
            await test(plans)
        finally:
            await plans.troupe.stop()

    def sync() -> None:
        run(main())

    sync.__name__, sync.__doc__ = test.__name__, test.__doc__
    return sync
