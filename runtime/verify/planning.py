"""Schedules of the simulation: set, changed, paused, run and deleted while there is trouble.

Their agents are held and let go on, too (rule I10).  What the schedules were due at is
computed anew at the end (`chaos.scheduled`): rule I8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from runtime.ids import SCHEDULER_AGENT
from runtime.schedule.record import SCHEDULES, decode_schedule
from runtime.verify.caller import Caller

AGENTS: Final = 2
"""An organization's that have a schedule."""
ASKED: Final = {
    "schedule.set": 6, "schedule.pause": 3, "schedule.resume": 5, "schedule.trigger": 3,
    "schedule.event": 3, "schedule.delete": 1, "agent.pause": 2, "agent.resume": 3,
}  # fmt: skip
"""What is asked, and how often."""
WHEN: Final[Sequence[dict[str, str]]] = (
    {"interval": "every 5 seconds"},
    {"interval": "every 20 seconds"},
    {"cron": "* * * * *"},
    {"event": "push"},
)
OVERLAPS: Final = ("skip", "queue_one", "queue_all", "cancel_running", "allow")
POLICIES: Final = ("latest", "none", "all")


class Planning(Caller):
    """Whoever plans for one organization; `await run()` until told to stop."""

    stopping = False

    async def run(self, pause_s: float) -> None:
        """Ask, with pauses of this mean between."""
        kinds, weights = list(ASKED), list(ASKED.values())
        while not self.stopping:
            await asyncio.sleep(self.random.expovariate(1 / pause_s))
            [kind] = self.random.choices(kinds, weights)
            await self.send(SCHEDULER_AGENT, self._content(kind), kind)

    def _content(self, kind: str) -> dict[str, Any]:
        if kind == "schedule.event":
            return {"event": "push"}
        about = {"agentId": f"worker:planned{self.random.randrange(AGENTS)}"}
        if kind == "schedule.set":
            return {**about, "schedule": self._drawn()}
        if kind.startswith("agent."):
            return about
        return {**about, "drain": self.random.random() < 1 / 2}

    def _drawn(self) -> dict[str, Any]:
        drawn = self.random
        step = {
            "key": "s0", "kind": "pure", "takesS": drawn.choice((0.0, 1.0, 8.0)), "fails": 0,
            "asks": True, "costUsd": 0.25, "waitsFor": None, "dawdlesS": 0.0,
            "restsS": drawn.choice((0.0, 0.0, 0.0, 4.0)),
        }  # fmt: skip
        return {
            **drawn.choice(WHEN),
            "overlap": drawn.choice(OVERLAPS),
            "catchUp": {"policy": drawn.choice(POLICIES), "cap": drawn.choice((1, 5))},
            "jitterS": drawn.choice((0, 0, 2)),
            "payload": {"steps": [step], "hopeless": drawn.random() < 1 / 12, "artifact": None},
        }

    async def settle(self) -> int:
        """Delete what is there, so that its jobs come to their end; how much it was."""
        found = await self.repeat("plans", lambda: self.client.list(SCHEDULES))
        for record in (decode_schedule(document.body) for document in found):
            about = {"agentId": record.agent_id, "name": record.name}
            await self.send(SCHEDULER_AGENT, about, "schedule.delete")
        return len(found)
