"""Jobs that do nothing, from enqueue to done, each process apart as in production.

    python -m tests.benchmarks.bench_jobs [JOBS]

Scheduler (50 at once) and store (SQLite with `synchronous=FULL`) are one process on
uvloop, the host is another, as in production; the caller is this one.  `drain` is
what a paused scheduler has gathered, the middle one of several; `pickup` is one job on
idle processes, from before its enqueuing to the first line of its `process_task`, `busy`
the same without a pause after the one before: after a pause memory is out of every cache;
`flow` is enqueued while it is worked on.  All with an agent for each job (`own`, as the
department's are) and with 1,000 agents that are there before (`standing`), each on a
store of its own, as the peers are measured.  `fairness` is the wait of one
organization's bursts alone, and beside 10,000 queued jobs of another.  `cpuUs` is each
process's processor time for a job: on a busy machine it says more than the wall's.
Prints `RESULT` lines as the harness of several projects reads them, then one line of
JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Client, Write
from runtime.clock import SystemClock
from runtime.collector import relax
from runtime.hosting.host import Host, HostSettings
from runtime.ids import Ids
from runtime.job import AgentJob, Job, JobResult
from runtime.kinds import Kinds
from runtime.store.contract import Document
from runtime.store.remote import RemoteStore
from tests.child import ROOT
from tests.store_process import StoreProcess

JOBS = 3_000
DRAINS = 3
AT_ONCE = 50
CALLERS = 64
STANDING = 1_000
PICKUPS = 200
BURSTS = 10
BURST = 100
"""Jobs one organization hands in at once: twice what may run at once."""
FLOOD = 10_000
REST_S = 1.0
"""Between two bursts: alone it needs a third of the slots."""
TAKES_S = 0.2
"""Of a job in the measurement of fairness, so that there is a queue."""
TELL_S = 0.005
"""What has begun meanwhile is told together."""
PAUSE_S = 0.01
"""Between two jobs of which each is picked up alone."""
WITHIN_S = 120

Figures = dict[str, Any]


_begun: list[str] = []
"""Lines of what has begun and was not told."""


def tell_begun(job_id: str) -> None:
    """Say when a job began, a little later: what each is told with would be measured too."""
    if not _begun:
        asyncio.get_running_loop().call_later(TELL_S, _tell)
    _begun.append(f"{job_id} {time.perf_counter()}\n")


def _tell() -> None:
    os.write(1, "".join(_begun).encode())
    _begun.clear()


class Worker(BaseAgent):
    """Its jobs do nothing, and say when they began."""

    kind = "worker"

    class State(AgentState):
        pass

    async def process_task(self, job: Job) -> JobResult:
        tell_begun(job.record.id)
        if takes_s := job.record.payload.get("takesS"):
            await asyncio.sleep(takes_s)
        return JobResult(outcome="finished", summary="")


async def serve_host(socket: str) -> None:
    clock, store = SystemClock(), RemoteStore(Path(socket))
    settings = HostSettings(lease_s=10.0, idle_s=3_600.0)
    kinds = Kinds({"worker": Worker}, store)
    host = Host("host-0", store, kinds, clock, Ids(clock), random.random, settings)
    await host.start()
    relax()  # as the actors do
    await host.watch()


class HostProcess:
    """The host in a process of its own, which says when each job began."""

    async def start(self, socket: Path) -> HostProcess:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.bench_jobs", "host", str(socket),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return self

    def cpu_s(self) -> float:
        """Processor time it has used, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


class Rig:
    """All three processes, and when each job began."""

    def __init__(self, root: Path) -> None:
        self.clock = SystemClock()
        self.ids = Ids(self.clock)
        self.began: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._scheduler = StoreProcess(root, scheduler=AT_ONCE)

    async def start(self) -> Rig:
        await self._scheduler.start()
        socket = self._scheduler.socket
        self.store = RemoteStore(socket)
        self.client = Client(self.store, self.clock, self.ids, "default", "bench")
        self._host = await HostProcess().start(socket)
        self._reading = asyncio.create_task(self._read())
        await self.client.ask("scheduler:main", {}, "scheduler.resume")
        return self

    async def _read(self) -> None:
        assert self._host.process.stdout is not None
        async for line in self._host.process.stdout:
            id, at = line.split()
            self.began[id.decode()] = float(at)
            self._changed.set()

    def cpu_s(self) -> dict[str, float]:
        return {
            "host": self._host.cpu_s(),
            "scheduler": self._scheduler.cpu_s(),
            "caller": time.process_time(),
        }

    async def enqueue(
        self, id: str, agent: str | None, takes_s: float = 0.0, client: Client | None = None
    ) -> None:
        client = client or self.client
        job = AgentJob.new(
            id=id, organization_id=client.organization, agent_type="worker", agent_id=agent,
            now_ms=self.clock.now_ms(), payload={"takesS": takes_s},
        )  # fmt: skip
        write = Write("job", job.id, job.to_json(), job_terms(job))
        await client.send("scheduler:main", {"jobId": job.id}, "job.queued", writes=[write])

    async def enqueue_all(self, ids: list[str], standing: bool, takes_s: float = 0.0) -> None:
        waiting = iter(enumerate(ids))

        async def caller() -> None:
            for number, id in waiting:
                agent = f"worker:{number % STANDING}" if standing else None
                await self.enqueue(id, agent, takes_s)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def all_done(self, count: int) -> None:
        """Wait until so many jobs have begun, and then until they are completed."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.began) < count:
                self._changed.clear()
                await self._changed.wait()
            while await self.store.count("job", None, ["status=completed"]) < count:
                await asyncio.sleep(0.002)

    async def done(self, id: str) -> None:
        """Wait until a job is completed; counting thousands would leave the store no idle one."""
        async with asyncio.timeout(WITHIN_S):
            while id not in self.began:
                self._changed.clear()
                await self._changed.wait()
            while AgentJob.from_json((await self._record(id)).body).status != "completed":
                await asyncio.sleep(0.002)

    async def _record(self, id: str) -> Document:
        found = await self.store.get("job", id)
        assert found is not None, id
        return found

    async def all_queued(self, count: int) -> None:
        """Wait until the scheduler has so many in its queue."""
        async with asyncio.timeout(WITHIN_S):
            while (await self.client.ask("scheduler:main", {}, "scheduler.status"))[
                "queued"
            ] < count:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._reading.cancel()
        await self._host.kill()
        await self.store.close()
        await self._scheduler.kill()


def spent(before: dict[str, float], after: dict[str, float], jobs: int) -> Figures:
    each = {name: round((after[name] - before[name]) / jobs * 1e6) for name in before}
    return {**each, "all": sum(each.values())}


async def flow(rig: Rig, name: str, jobs: int, standing: bool) -> Figures:
    """Enqueued while they are worked on."""
    ids = [f"job_{name}{number}" for number in range(jobs)]
    done, cpu, began = len(rig.began), rig.cpu_s(), time.perf_counter()
    await rig.enqueue_all(ids, standing)
    enqueued_s = time.perf_counter() - began
    await rig.all_done(done + jobs)
    wall_s = time.perf_counter() - began
    return {
        "enqueuedPerSecond": round(jobs / enqueued_s),
        "jobsPerSecond": round(jobs / wall_s),
        "cpuUs": spent(cpu, rig.cpu_s(), jobs),
    }


async def drain(rig: Rig, name: str, jobs: int, standing: bool) -> Figures:
    """All enqueued before the first may start; the rate is that of their beginnings."""
    ids = [f"job_{name}{number}" for number in range(jobs)]
    done = len(rig.began)
    await rig.client.ask("scheduler:main", {}, "scheduler.pause")
    await rig.enqueue_all(ids, standing)
    await rig.all_queued(jobs)
    cpu = rig.cpu_s()
    await rig.client.ask("scheduler:main", {}, "scheduler.resume")
    await rig.all_done(done + jobs)
    moments = [rig.began[id] for id in ids]
    return {
        "jobsPerSecond": round((jobs - 1) / (max(moments) - min(moments))),
        "cpuUs": spent(cpu, rig.cpu_s(), jobs),
    }


async def pickups(rig: Rig, name: str, standing: bool, pause_s: float = PAUSE_S) -> Figures:
    """One job at a time, each so long after the end of the one before."""
    took = []
    for number in range(PICKUPS):
        await asyncio.sleep(pause_s)
        id, before = f"job_{name}{number}", time.perf_counter()
        await rig.enqueue(id, f"worker:{number}" if standing else None)
        await rig.done(id)
        took.append(rig.began[id] - before)
    ordered = sorted(took)
    return {
        "p50Ms": round(ordered[len(ordered) // 2] * 1e3, 3),
        "p99Ms": round(ordered[int(len(ordered) * 0.99)] * 1e3, 3),
    }


async def fairness(rig: Rig) -> Figures:
    """How long a quiet organization's jobs wait alone, and beside a backlog of another."""
    quiet = Client(rig.store, rig.clock, rig.ids, "quiet", "bench")
    alone = await bursts(rig, quiet, "alone")
    await rig.client.ask("scheduler:main", {}, "scheduler.pause")
    await rig.enqueue_all([f"job_flood{number}" for number in range(FLOOD)], False, TAKES_S)
    await rig.all_queued(FLOOD)
    await rig.client.ask("scheduler:main", {}, "scheduler.resume")
    await asyncio.sleep(REST_S)  # who has just come is owed starts; that is over by then
    beside = await bursts(rig, quiet, "beside")
    left = (await rig.client.ask("scheduler:main", {}, "scheduler.status"))["queued"]
    return {
        "aloneP95Ms": alone,
        "besideP95Ms": beside,
        "ratio": round(beside / alone, 2),
        "leftOfTheBacklog": left,
    }


async def bursts(rig: Rig, client: Client, name: str) -> float:
    """p95 of the milliseconds from before a job's enqueuing until it begins."""
    took: list[float] = []
    for number in range(BURSTS):
        ids = [f"job_{name}{number}x{one}" for one in range(BURST)]
        before = time.perf_counter()
        await asyncio.gather(*(rig.enqueue(id, None, TAKES_S, client) for id in ids))
        async with asyncio.timeout(WITHIN_S):
            while not all(id in rig.began for id in ids):
                await asyncio.sleep(0.01)
        took += [rig.began[id] - before for id in ids]
        await asyncio.sleep(REST_S)
    return round(sorted(took)[int(0.95 * len(took))] * 1e3, 1)


@asynccontextmanager
async def fresh() -> AsyncIterator[Rig]:
    """Three processes and a store that is empty."""
    root = Path(tempfile.mkdtemp(prefix="bench-jobs-"))
    rig = Rig(root)
    try:
        yield await rig.start()
    finally:
        await rig.stop()
        shutil.rmtree(root)


async def measured(jobs: int, standing: bool) -> Figures:
    async with fresh() as rig:
        await flow(rig, "warm", STANDING, standing)
        drains = [await drain(rig, f"drain{at}_", jobs, standing) for at in range(DRAINS)]
        drains.sort(key=lambda one: one["jobsPerSecond"])
        return {
            "drain": drains[DRAINS // 2],
            "drains": [one["jobsPerSecond"] for one in drains],
            "pickup": await pickups(rig, "one", standing),
            "busy": await pickups(rig, "busy", standing, pause_s=0),
            "flow": await flow(rig, "flow", jobs, standing),
        }


async def bench(jobs: int = JOBS) -> Figures:
    found: Figures = {"bench": "jobs", "jobs": jobs, "atOnce": AT_ONCE}
    found["own"] = await measured(jobs, standing=False)
    found["standing"] = await measured(jobs, standing=True)
    async with fresh() as rig:
        await flow(rig, "warm", STANDING, False)
        found["fairness"] = await fairness(rig)
    return found


def results(found: Figures) -> list[Figures]:
    """The same for the harness that runs several projects side by side."""
    return [
        {
            "case": f"P2 troupe {kind} agents c={AT_ONCE}",
            "metrics": {
                "enqueue_s": found[kind]["flow"]["enqueuedPerSecond"],
                "flow_s": found[kind]["flow"]["jobsPerSecond"],
                "jobs_s": found[kind]["drain"]["jobsPerSecond"],
                "pickup_p50_ms": found[kind]["pickup"]["p50Ms"],
                "pickup_p99_ms": found[kind]["pickup"]["p99Ms"],
                "busy_p50_ms": found[kind]["busy"]["p50Ms"],
            },
            "versions": {},
        }
        for kind in ("own", "standing")
    ] + [
        {
            "case": "P2 troupe fairness",
            "metrics": {
                "alone_p95_ms": found["fairness"]["aloneP95Ms"],
                "beside_p95_ms": found["fairness"]["besideP95Ms"],
                "ratio": found["fairness"]["ratio"],
            },
            "versions": {},
        }
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["host"]:
        uvloop.run(serve_host(sys.argv[2]))
    else:
        figures = uvloop.run(bench(int(sys.argv[1]) if len(sys.argv) > 1 else JOBS))
        for result in results(figures):
            sys.stdout.write(f"RESULT {json.dumps(result)}\n")
        sys.stdout.write(json.dumps(figures) + "\n")
