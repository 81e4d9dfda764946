"""Durable messages, jobs and idle agents of one host, beside its floors in the same run.

    python -m tests.benchmarks.bench_messages [SECONDS]

The host, its agents and their callers are one process on uvloop, as in a Ray
actor; the store is a process of its own, SQLite with `synchronous=FULL`.  A
message is done when its agent's new state is durable and the caller has the
answer: two commits.  `cpuUs` is the processor's time of a message in the host
and in the store: on a busy machine it says more than the wall's.  Prints one
line of JSON, and `RESULT` lines as a harness of several projects reads them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Client, Write
from runtime.clock import SystemClock, iso
from runtime.collector import relax
from runtime.hosting.host import Host, HostSettings
from runtime.ids import Ids
from runtime.job import AgentJob, Job, JobResult
from runtime.kinds import Kinds
from runtime.message import Message
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.remote import RemoteStore
from tests.store_process import StoreProcess

KEYS = 1_000
IN_FLIGHT = (1, 64, 1_024)
SECONDS = 3.0
JOBS = 500
PICKUPS = 100
IDLE = 20_000
COLD = 2_000
PAUSE_S = 0.02
"""Between two jobs of which each is picked up alone."""

Figures = dict[str, Any]


class Counter(BaseAgent):
    kind = "counter"

    class State(AgentState):
        n: int = 0

    async def receive_message(self, message: Message) -> object:
        self.state.n += message.content["by"]
        return self.state.n


class Worker(BaseAgent):
    """Its jobs do nothing, and say when they began."""

    kind = "worker"
    began: dict[str, float] = {}  # noqa: RUF012 - of this process

    class State(AgentState):
        pass

    async def receive_message(self, message: Message) -> object:
        return None

    async def process_task(self, job: Job) -> JobResult:
        self.began[job.record.id] = time.perf_counter()
        return JobResult(outcome="finished", summary="")


class Rig:
    """One host over a store in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.process = StoreProcess(root / "store")
        self.clock = SystemClock()
        self.ids = Ids(self.clock)
        self.random = random.Random(5)

    async def start(self) -> Rig:
        relax()
        self.process.directory.mkdir(parents=True, exist_ok=True)
        await self.process.start()
        self.store = RemoteStore(self.process.socket)
        self.host = self.new_host("host-0")
        await self.host.start()
        self.client = Client(RemoteStore(self.process.socket), self.clock, self.ids, "acme", "b")
        return self

    def new_host(self, name: str) -> Host:
        kinds = Kinds({"counter": Counter, "worker": Worker}, self.store)
        settings = HostSettings(lease_s=10.0, idle_s=3_600.0)
        return Host(name, self.store, kinds, self.clock, self.ids, random.random, settings)

    async def ask(self, key: int) -> int:
        agent = f"counter:k{key}"
        message = Message(
            message_id=self.ids.ulid(), sender="client:bench", recipient=agent,
            message_type="add", content={"by": 1}, timestamp=iso(self.clock.now_ms()),
        )  # fmt: skip
        return int(await self.host.ask("acme", "client:bench", message, f"acme/{agent}"))

    async def stop(self) -> None:
        await self.host.drain()
        await self.client.store.close()
        await self.store.close()
        await self.process.kill()


def latency(took: list[float]) -> Figures:
    ordered = sorted(took)
    return {
        "p50Ms": round(ordered[len(ordered) // 2] * 1e3, 3),
        "p99Ms": round(ordered[int(len(ordered) * 0.99)] * 1e3, 3),
    }


async def closed_loop(
    callers: int, seconds: float, call: Callable[[], Awaitable[object]]
) -> tuple[list[float], float]:
    """(seconds of each call, seconds of all) with so many callers, each waiting for its answer."""
    took: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        while (before := time.perf_counter()) - began < seconds:
            await call()
            took.append(time.perf_counter() - before)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return took, time.perf_counter() - began


async def messages(rig: Rig, seconds: float) -> Figures:
    """Messages to 1,000 agents, each answered when it is durable."""
    await asyncio.gather(*(rig.ask(key) for key in range(KEYS)))
    figures: Figures = {}
    sent = KEYS
    for in_flight in IN_FLIGHT:
        cpu_s, store_s = time.process_time(), rig.process.cpu_s()
        took, wall_s = await closed_loop(
            in_flight, seconds, lambda: rig.ask(rig.random.randrange(KEYS))
        )
        sent += len(took)
        figures[str(in_flight)] = {
            "messagesPerSecond": round(len(took) / wall_s),
            **latency(took),
            "cpuUs": {
                "host": round((time.process_time() - cpu_s) / len(took) * 1e6),
                "store": round((rig.process.cpu_s() - store_s) / len(took) * 1e6),
            },
        }
    total = sum(await asyncio.gather(*(rig.ask(key) for key in range(KEYS))))
    return {**figures, "exact": total == sent + KEYS}


async def jobs(rig: Rig) -> Figures:
    """Jobs that do nothing: all at once, and one by one on an idle host."""
    limits = Limits(50, 50)
    scheduler = Scheduler(
        RemoteStore(rig.process.socket), rig.clock, rig.ids, random.random, limits
    )
    running = asyncio.create_task(scheduler.run())
    began = time.perf_counter()
    await asyncio.gather(*(enqueue(rig, f"job_all{number}") for number in range(JOBS)))
    enqueued_s = time.perf_counter() - began
    await until_begun(JOBS)
    all_s = time.perf_counter() - began
    took = []
    for number in range(PICKUPS):
        await asyncio.sleep(PAUSE_S)
        id, before = f"job_one{number}", time.perf_counter()
        await enqueue(rig, id)
        await until_begun(JOBS + number + 1)
        took.append(Worker.began[id] - before)
    running.cancel()
    return {
        "enqueuedPerSecond": round(JOBS / enqueued_s),
        "startedPerSecond": round(JOBS / all_s),
        "pickup": latency(took),
    }


async def enqueue(rig: Rig, id: str) -> None:
    job = AgentJob.new(
        id=id, organization_id="acme", agent_type="worker", now_ms=rig.clock.now_ms(), payload={}
    )
    write = Write("job", job.id, job.to_json(), job_terms(job))
    await rig.client.send("scheduler:main", {"jobId": job.id}, "job.queued", writes=[write])


async def until_begun(count: int) -> None:
    async with asyncio.timeout(120):
        while len(Worker.began) < count:
            await asyncio.sleep(0.0005)


async def idle(rig: Rig) -> Figures:
    """Bytes of memory for an agent that lives and does nothing; cold ones brought to life."""
    gc.collect()
    before = resident()
    began = time.perf_counter()
    for first in range(KEYS, KEYS + IDLE, KEYS):
        await asyncio.gather(*(rig.ask(key) for key in range(first, first + KEYS)))
    born_s = time.perf_counter() - began
    gc.collect()
    bytes_each = (resident() - before) / IDLE
    await rig.host.drain()
    rig.host = rig.new_host("host-1")
    await rig.host.start()
    began = time.perf_counter()
    await asyncio.gather(*(rig.ask(key) for key in range(KEYS, KEYS + COLD)))
    return {
        "agents": IDLE,
        "bytesEach": round(bytes_each),
        "bornPerSecond": round(IDLE / born_s),
        "coldPerSecond": round(COLD / (time.perf_counter() - began)),
    }


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def bench(seconds: float = SECONDS) -> Figures:
    root = Path(tempfile.mkdtemp(prefix="bench-messages-"))
    rig = Rig(root)
    try:
        await rig.start()
        return {
            "bench": "messages",
            "messages": await messages(rig, seconds),
            "jobs": await jobs(rig),
            "idle": await idle(rig),
        }
    finally:
        await rig.stop()
        shutil.rmtree(root)


def results(figures: Figures) -> list[Figures]:
    """The same for the harness that runs several projects side by side."""
    counted = figures["messages"]
    metrics: Figures = {"exact": counted["exact"]}
    for in_flight in map(str, IN_FLIGHT):
        one = counted[in_flight]
        metrics |= {
            f"c{in_flight}_msgs_s": one["messagesPerSecond"],
            f"c{in_flight}_p50_ms": one["p50Ms"],
            f"c{in_flight}_p99_ms": one["p99Ms"],
        }
    jobs = figures["jobs"]
    drained = {
        "enqueue_s": jobs["enqueuedPerSecond"],
        "jobs_s": jobs["startedPerSecond"],
        "pickup_p50_ms": jobs["pickup"]["p50Ms"],
        "pickup_p99_ms": jobs["pickup"]["p99Ms"],
    }
    return [
        {"case": "P1 troupe, one host, SQLite FULL", "metrics": metrics, "versions": {}},
        {"case": "P2 troupe c=50", "metrics": drained, "versions": {}},
    ]


if __name__ == "__main__":
    found = uvloop.run(bench(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
    for result in results(found):
        sys.stdout.write(f"RESULT {json.dumps(result)}\n")
    sys.stdout.write(json.dumps(found) + "\n")
