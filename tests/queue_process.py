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

import uvloop

from runtime import suspects
from runtime.agent import BaseAgent
from runtime.clock import SystemClock
from runtime.host import Host, HostSettings
from runtime.ids import Ids
from runtime.job import AgentJob, Job, JobResult
from runtime.kinds import Kinds
from runtime.message import Message
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.remote import RemoteStore
from tests.store_process import ROOT


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


class QueueProcess:
    """Starts one of the two, and kills it."""

    def __init__(self, socket: Path, what: str, cap: int) -> None:
        self._arguments = (str(socket), what, str(cap))

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.queue_process", *self._arguments, cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        ready = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert ready == b"works\n", "it did not start"

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def died(self) -> int:
        """Wait until it is gone by itself; how it went."""
        return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is let go of."""
        if self.alive:
            os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()


async def _work(socket: str, what: str, cap: str) -> None:
    clock, store = SystemClock(), RemoteStore(Path(socket))
    ids = Ids(clock)
    sys.stdout.write("works\n")
    sys.stdout.flush()
    if what == "scheduler":
        limits = Limits(int(cap), int(cap))
        await Scheduler(store, clock, ids, random.random, limits).run()
        return
    suspects.HOLD_S = 1.0
    kinds = Kinds({"worker": Worker, "deadly": Deadly}, store)
    host = Host("host-0", store, kinds, clock, ids, random.random, HostSettings(10.0, 600.0))
    await host.start()
    await host.watch()


if __name__ == "__main__":
    uvloop.run(_work(*sys.argv[1:]))
