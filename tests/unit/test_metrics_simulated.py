"""What is counted is what is stored, to the last run, while answers are lost and calls doubled."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from runtime import scheduler
from runtime.ids import SCHEDULER
from runtime.metrics import Meter
from runtime.store.contract import Commit
from runtime.verify.loop import run
from runtime.verify.network import Faults
from runtime.verify.simulate import silenced
from runtime.verify.world import Plan, World

PLAN = Plan(duration_s=120, trouble_s=0, faults=Faults(lost_before=0.02, lost_after=0.06))
"""Nobody dies: who does takes along what it has counted."""
COUNTED = ("runs_started", "runs_ended", "job_retries", "jobs_dead")


class Stored:
    """What the accepted commits come to."""

    def __init__(self, world: World) -> None:
        self.figures: Counter[str] = Counter()
        self._ends: dict[str, dict[str, Any]] = {}
        for commit in self._accepted(world):
            for send in commit.sends:
                if send.recipient == SCHEDULER and send.message_id.startswith("job.ended:"):
                    self._ends[send.message_id] = json.loads(send.body)["content"]
            if commit.agent == SCHEDULER:
                self._scheduled(commit)

    def _accepted(self, world: World) -> Iterator[Commit]:
        for fact in world.history.facts:
            if fact.f == "commit" and fact.type == "ok":
                yield fact.value.commit

    def _scheduled(self, commit: Commit) -> None:
        figures = self.figures
        for send in commit.sends:
            if send.message_id.startswith("run:"):
                figures["runs_started"] += "look" not in json.loads(send.body)["content"]
        records = {put.key: json.loads(put.body) for put in commit.puts
                   if put.collection == "job" and put.body is not None}  # fmt: skip
        for put in commit.puts:
            dead = put.collection == "dead_letter" and put.body is not None
            figures["jobs_dead"] += dead and put.key.startswith("job/")
        for end in (self._ends[ack.message_id] for ack in commit.acks
                    if ack.message_id in self._ends):  # fmt: skip
            figures["runs_started"] += end.get("looked", False)
            figures[f"runs_ended/{end['outcome']}"] += not end.get("still", False)
            if end["outcome"] == "failed":
                now = records.get(end["jobId"], {}).get("status")
                figures["job_retries"] += now not in ("failed", "cancelled", None)


def counted(meter: Meter) -> Counter[str]:
    figures: Counter[str] = Counter()
    for sample in meter.drain():
        name = sample.metric.name.removeprefix("troupe_")
        if name in COUNTED:
            figures["/".join((name, *(value for _, value in sample.labels)))] += int(sample.value)
    return figures


@pytest.mark.parametrize("seed", range(100, 106))
def test_every_run_is_counted_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures would drift away from what has happened, and nobody could say by how much."""
    meter = Meter()
    monkeypatch.setattr(scheduler, "Meter", lambda: meter)
    with silenced():
        stored = run(_lived(seed))
    assert stored["runs_started"] > 20
    assert +counted(meter) == +stored


async def _lived(seed: int) -> Counter[str]:
    world = World(str(seed), PLAN)
    try:
        for number in range(PLAN.hosts):
            world.start_host(f"host-{number}")
        world.start_scheduler()
        tasks = world.start_clients()
        await asyncio.sleep(PLAN.duration_s)
        world.calm()
        await world.settle(tasks)
        await world.stop()
        assert world.network.counts["lost_after"] > 50
        return Stored(world).figures
    finally:
        world.end()
