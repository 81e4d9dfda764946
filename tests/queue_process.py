"""A scheduler or a host in a process of its own, to be killed from outside.

python -m tests.queue_process SOCKET scheduler|host CAP
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from runtime.agent import BaseAgent
from runtime.clock import SystemClock
from runtime.hosting import suspects
from runtime.hosting.host import Host, HostSettings
from runtime.ids import Ids
from runtime.job import AgentJob, Job, JobResult
from runtime.kinds import Kinds
from runtime.message import Message
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.remote import RemoteStore
from tests.child import Child, say


class Worker(BaseAgent):
    """Its jobs take a moment."""

    kind = "worker"

    async def process_task(self, job: Job) -> JobResult:
        await asyncio.sleep(0.05)
        return JobResult(outcome="finished", summary="")


class Deadly(BaseAgent):
    """Takes its process with it, in a turn or in a run, when it is told to."""

    kind = "deadly"

    async def receive_message(self, message: Message) -> object:
        match message.message_type:
            case "exit":
                os._exit(1)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "start":
                self.enqueue(
                    AgentJob.new(
                        id=message.content["jobId"],
                        organization_id=self.context.organization,
                        agent_type="deadly",
                        agent_id=self.agent_id,
                        now_ms=self.context.now_ms(),
                        payload=message.content,
                    )
                )
        return "here"

    async def process_task(self, job: Job) -> JobResult:
        if job.record.payload["deadly"]:
            os._exit(1)
        await asyncio.sleep(job.record.payload["takes"])
        return JobResult(outcome="finished", summary="")


class Stillborn(BaseAgent):
    """Its constructor takes the process with it."""

    kind = "stillborn"

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        os._exit(1)


class QueueProcess(Child):
    """One of the two."""

    def __init__(self, socket: Path, what: str, cap: int) -> None:
        super().__init__("tests.queue_process", str(socket), what, str(cap), ready="works")


async def _work(socket: str, what: str, cap: str) -> None:
    clock, store = SystemClock(), RemoteStore(Path(socket))
    ids = Ids(clock)
    say("works")
    if what == "scheduler":
        limits = Limits(int(cap), int(cap))
        await Scheduler(store, clock, ids, random.random, limits).run()
        return
    suspects.HOLD_S = 1.0
    kinds = Kinds({"worker": Worker, "deadly": Deadly, "stillborn": Stillborn}, store)
    host = Host("host-0", store, kinds, clock, ids, random.random, HostSettings(10.0, 600.0))
    await host.start()
    await host.watch()


if __name__ == "__main__":
    uvloop.run(_work(*sys.argv[1:]))
