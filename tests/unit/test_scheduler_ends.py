"""A scheduler that has lost its seat."""

from __future__ import annotations

import asyncio
import random

import pytest

from runtime.ids import Ids
from runtime.jobs.seat import FencedError
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.memory import MemoryStore
from runtime.verify.loop import LoopClock, run


class Forgetful(MemoryStore):
    """Knows no owner when it is asked to renew."""

    async def renew(self, owner: str, lease_s: float) -> bool:
        return False


def test_nothing_of_a_scheduler_runs_on_when_it_has_ended() -> None:
    """It would decide on what its successor has, or be found half done by the next test."""
    run(_loses_its_seat())


async def _loses_its_seat() -> None:
    clock = LoopClock(asyncio.get_running_loop())
    ids, store = Ids(clock, random.Random(1).randbytes), Forgetful(clock)
    scheduler = Scheduler(store, clock, ids, random.Random(1).random, Limits(5, 5))
    with pytest.raises(FencedError):
        await scheduler.run()
    assert asyncio.all_tasks() == {asyncio.current_task()}
