"""Agents and jobs that check themselves.

Accounts pass units to each other: none may appear or vanish.  Bosses hire
workers and note how each job ended.  Workers do what their payload says, in
steps of the three kinds, and answer with the very values their steps returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any, Final, Protocol

from runtime.agent import AgentState, BaseAgent
from runtime.clock import SystemClock
from runtime.errors import JobFailedError, JobWaiting
from runtime.ids import AgentId
from runtime.job import AgentJob, Job, JobResult, StepContext
from runtime.kinds import Factory
from runtime.message import Message
from runtime.verify.process import current

OPENING: Final = 100
"""Units an account begins with."""


class Poison(Exception):
    """What a handler raises on a message that it will never take."""


class OutsideWorld(Protocol):
    """The outside that jobs call: that of the simulation, or one behind a socket."""

    def begin(self, job: str, run: str) -> None:
        """A run of process_task says its name."""

    async def call(self, context: StepContext, plan: dict[str, Any], run: str) -> str:
        """One call of a step; see `outside.Outside.call`."""


class Account(BaseAgent):
    """Holds units and passes them on."""

    kind = "account"
    role = "teller"

    class State(AgentState):
        units: int = 0
        opened: int = 0
        """Times `initialize` ran: 1."""
        woken: dict[str, int] = {}  # noqa: RUF012 - pydantic copies defaults
        notes: int = 0

    async def initialize(self) -> None:
        self.state.units += OPENING
        self.state.opened += 1

    async def receive_message(self, message: Message) -> object:
        content = message.content or {}
        match message.message_type:
            case "transfer":
                await self._pass_on(min(content["units"], self.state.units), content["route"])
            case "deposit":
                self.state.units += content["units"]
                await self._pass_on(content["units"], content["route"])
            case "remind":
                self.remind(content["key"], after_s=content["afterS"], content=content["canary"])
            case "forget":
                self.cancel_reminder(content["key"])
            case "reminder":
                self.state.woken[content["key"]] = self.state.woken.get(content["key"], 0) + 1
                self.record("woken", {"key": content["key"]})
            case "tell_all":
                await self.send_message("role:teller", content, "told")
            case "told" | "reply":
                self.state.notes += 1
            case "save":
                self.state.notes += 1
                await self.save_state()
            case "poison":
                self.state.units = -1
                await self.send_message("account:0", {"units": 1, "route": []}, "deposit")
                raise Poison
            case "read":
                return self.state.model_dump()
        return None

    async def _pass_on(self, units: int, route: list[str]) -> None:
        if units and route:
            self.state.units -= units
            onward = {"units": units, "route": route[1:]}
            await self.send_message(route[0], onward, "deposit")


class Boss(BaseAgent):
    """Hires workers and notes how their jobs end."""

    kind = "boss"

    class State(AgentState):
        heard: dict[str, list[str]] = {}  # noqa: RUF012 - pydantic copies defaults
        """Job -> what was told of it, in order."""

    async def receive_message(self, message: Message) -> object:
        content = message.content or {}
        if message.message_type == "hire":
            job = AgentJob.new(
                organization_id=self.context.organization,
                now_ms=self.context.now_ms(),
                reply_to=self.agent_id,
                **content,
            )
            self.enqueue(job)
            return job.id
        if message.message_type.startswith("job."):
            self.state.heard.setdefault(content["jobId"], []).append(message.message_type)
        return None


class Worker(BaseAgent):
    """Does the steps of its payload.

    {"steps": [{"key", "kind", "takesS", "fails", "asks", "costUsd",
                "waitsFor": name of a signal or null, "dawdlesS", "restsS"}],
     "hopeless": bool, "artifact": text or null}
    """

    kind = "worker"

    class State(AgentState):
        greeted: int = 0

    def __init__(self, agent_id: AgentId, outside: OutsideWorld, activation: str) -> None:
        super().__init__(agent_id)
        self._outside = outside
        self._runs = (f"{activation}/{number}" for number in count(1))

    async def receive_message(self, message: Message) -> object:
        self.state.greeted += 1
        return None

    async def process_task(self, job: Job) -> JobResult:
        run, payload = next(self._runs), job.record.payload
        self._outside.begin(job.record.id, run)
        results: dict[str, str] = {}
        for number, plan in enumerate(payload["steps"]):
            await self._wait(job, plan)
            await job.progress(number * 10, plan["key"], f"doing {plan['key']}")
            call = partial(self._call, job, plan, run)
            request = {"number": number}
            results[plan["key"]] = await job.step(
                plan["key"], call, kind=plan["kind"], request=request
            )
        if payload["hopeless"]:
            raise JobFailedError("hopeless")
        artifacts = []
        if payload["artifact"]:
            content = payload["artifact"].encode()
            artifacts.append(await job.artifact("analysis", "notes.txt", content))
        return JobResult(
            outcome="finished", summary="done", data=results, artifacts=tuple(artifacts)
        )

    async def _call(self, job: Job, plan: dict[str, Any], run: str, context: StepContext) -> str:
        result = await self._outside.call(context, plan, run)
        job.spend(plan["costUsd"], 1)
        return result

    async def _wait(self, job: Job, plan: dict[str, Any]) -> None:
        if plan["waitsFor"] and await job.signal(plan["waitsFor"]) is None:
            await asyncio.sleep(plan["dawdlesS"])
            raise JobWaiting("question")
        if plan["restsS"]:
            until_ms = await job.step(f"{plan['key']}-rest", partial(_moment, plan["restsS"]))
            if _now_ms() < until_ms:
                raise JobWaiting("resting", until_ms)


async def _moment(seconds: float, _: StepContext) -> int:
    return _now_ms() + round(seconds * 1000)


def _now_ms() -> int:
    process = current()
    return (process.clock if process else SystemClock()).now_ms()


def factories(outside: OutsideWorld, process: str) -> Mapping[str, Factory]:
    """The kinds of this workload, for one host."""
    made = count(1)

    def worker(agent_id: AgentId) -> Worker:
        return Worker(agent_id, outside, f"{process}/{next(made)}")

    return {"account": Account, "boss": Boss, "worker": worker}
