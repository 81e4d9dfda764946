"""What a chaos run deploys: accounts that pass units on, bosses that hire workers, and the API."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final

from runtime.agent import AgentState, BaseAgent
from runtime.clock import SystemClock
from runtime.cluster import http, stores
from runtime.console.app import create_app
from runtime.ids import Ids
from runtime.job import AgentJob, Job, JobResult, StepContext
from runtime.kinds import Factory
from runtime.message import Message
from runtime.verify.chaos.outside import call

AGENTS: Final = "runtime.verify.chaos.target:agents"
APPLICATION: Final = "runtime.verify.chaos.target:app"
OUTSIDE: Final = "TROUPE_CHAOS_OUTSIDE"
"""Environment variable: the outside's socket."""
OPENING: Final = 1_000
"""Units an account begins with."""


class Account(BaseAgent):
    """Holds units and passes them on, each transfer one message a hop."""

    kind = "account"

    class State(AgentState):
        units: int = 0
        opened: int = 0
        """Times `initialize` ran: 1."""

    async def initialize(self) -> None:
        self.state.units += OPENING
        self.state.opened += 1

    async def receive_message(self, message: Message) -> object:
        content = message.content or {}
        if message.message_type == "transfer":
            await self._pass_on(min(content["units"], self.state.units), content["route"])
        elif message.message_type == "deposit":
            self.state.units += content["units"]
            await self._pass_on(content["units"], content["route"])
        return self.state.units if message.message_type == "read" else None

    async def _pass_on(self, units: int, route: list[str]) -> None:
        if units and route:
            self.state.units -= units
            await self.send_message(route[0], {"units": units, "route": route[1:]}, "deposit")


class Boss(BaseAgent):
    """Hires workers and notes how their jobs end."""

    kind = "boss"

    class State(AgentState):
        heard: dict[str, list[str]] = {}  # noqa: RUF012 - pydantic copies defaults

    async def receive_message(self, message: Message) -> object:
        content = message.content or {}
        if message.message_type == "hire":
            job = AgentJob.new(
                organization_id=self.context.organization,
                now_ms=self.context.now_ms(),
                reply_to=self.agent_id,
                agent_type="worker",
                **content,
            )
            self.enqueue(job)
            return job.id
        if message.message_type.startswith("job."):
            self.state.heard.setdefault(content["jobId"], []).append(message.message_type)
        return None


class Worker(BaseAgent):
    """Makes the calls of its payload `{"steps": [seconds each takes]}`, each a step."""

    kind = "worker"

    class State(AgentState):
        pass

    async def receive_message(self, message: Message) -> object:
        return None

    async def process_task(self, job: Job) -> JobResult:
        results = {}
        for number, takes_s in enumerate(job.record.payload["steps"]):
            await job.progress(10 * number, f"step {number}")
            step = partial(self._call, takes_s)
            results[f"s{number}"] = await job.step(f"s{number}", step, kind="external")
        return JobResult(outcome="finished", summary="done", data=results)

    async def _call(self, takes_s: float, context: StepContext) -> str:
        return await call(os.environ[OUTSIDE], context.idempotency_key, takes_s)


def agents() -> dict[str, Factory]:
    """The factories of these kinds, for a host."""
    return {"account": Account, "boss": Boss, "worker": Worker}


def build() -> Any:
    """The HTTP application of one replica: the runtime's own routes."""
    clock = SystemClock()
    return create_app(stores.client(http.from_environment(AGENTS)), clock, Ids(clock))


app: Any = http.deployment(build, AGENTS).bind()
