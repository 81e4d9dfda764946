"""P3: many cron schedules: start-up, loop, selection, and a thousand that fire in one second.

    python -m tests.benchmarks.bench_schedules [SCHEDULES ...]

Scheduler and store (SQLite with `synchronous=FULL`) are a process on uvloop, as in
production; there is no host, so jobs stay in the queue.  All
schedules are daily, spread over the day, but for a thousand that fire each
minute.  Measured in that process: `startup_s` from the first read to the plan
(`startup_cpu_s`: of that at work);
`select_1000_us` to find those that are near; `burst_cpu_ms` of the process from there
until the last of their jobs is durable, in each minute; `ready_ms` how long before the due time
that is; `late_*` from the due time until the job is durable and in the queue, for which the next
slot is (`minutes`: its p99 in each of them, the first
one cold); `loop_*` how late a task that wakes each 2 ms
is, in the two seconds from each due minute on (`idle_loop_*`: else).
`dropped` is counted afterwards in the ledger by this process.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from runtime.clock import SystemClock
from runtime.collector import relax
from runtime.ids import Ids
from runtime.job import AgentJob
from runtime.schedule.queue import Limits
from runtime.schedule.record import (
    OCCURRENCES,
    Spec,
    decode_occurrence,
)
from runtime.scheduler import Scheduler
from runtime.store.contract import Commit, Put, Store
from runtime.store.remote import RemoteStore
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore
from tests.benchmarks.cases import latency, result
from tests.child import ROOT, say
from tests.planned import planned

SIZES = (10_000, 100_000)
AT_ONCE = 1_000
MINUTES = 2
LEAD_S = 12.0
"""From the start of the scheduler to the first minute: the plan fits in."""
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")
BEAT_S = 0.002
AROUND_S = 2.0
PUTS = 100
"""Documents in a commit while the schedules are made."""


class Shifted(SystemClock):
    """The machine's clock, moved so that the next minute begins when it is wanted."""

    def __init__(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.offset_ms


class Measured:
    """A scheduler with watches on it."""

    def __init__(self, store: Store, offset_ms: int) -> None:
        clock = Shifted(offset_ms)
        self._offset_s = offset_ms / 1000
        self.scheduler = Scheduler(store, clock, Ids(clock), random.random, Limits(5, 5))
        self.planner = self.scheduler._planner
        self.late_s: dict[int, list[float]] = {}
        self.selected_us: list[float] = []
        self.burst_cpu_ms: list[float] = []
        self.ready_ms: list[int] = []
        self._burst_s = 0.0
        self._near: dict[str, int] = {}
        """Jobs that wait for their time -> when that is."""
        self.lags: list[tuple[float, float]] = []
        self.startup_s = self.startup_cpu_s = self.planned_s = 0.0
        self._jobs = self.scheduler._jobs
        self._load, self._prepared = self.planner.load, self.planner.book.table.prepared
        self._release = self._jobs.take_due
        self._admit = self.planner.book._queue.admit
        self.planner.load = self._loaded  # type: ignore[method-assign]
        self.planner.book.table.prepared = self._selected  # type: ignore[method-assign]
        self._jobs.take_due = self._released  # type: ignore[method-assign]
        self.planner.book._queue = replace(self.planner.book._queue, admit=self._admitted)

    async def _loaded(self) -> None:
        began, cpu_s = time.perf_counter(), time.process_time()
        await self._load()
        self.startup_s = time.perf_counter() - began
        self.startup_cpu_s = time.process_time() - cpu_s
        self.planned_s = self._now_s()
        say("planned")

    def _selected(self, until_ms: int) -> Any:
        began = time.perf_counter()
        found = self._prepared(until_ms)
        if len(found) >= AT_ONCE:
            self.selected_us.append((time.perf_counter() - began) * 1e6)
            self._burst_s = time.process_time()
        return found

    def _admitted(self, jobs: Sequence[AgentJob]) -> None:
        now_s = self._now_s()
        for job in jobs:
            assert job.occurrence_id is not None
            due_ms = int(job.occurrence_id.split("_")[1])
            if job.not_before_ms > now_s * 1000:
                self._near[job.id] = due_ms
            else:
                self._late(due_ms, now_s)
        self._admit(jobs)
        if len(self._near) == AT_ONCE:
            self.burst_cpu_ms.append(round((time.process_time() - self._burst_s) * 1e3, 1))
            self.ready_ms.append(round(due_ms - now_s * 1000))

    def _released(self, now_ms: int) -> Any:
        found, now_s = self._release(now_ms), self._now_s()
        for job in [one for one, due_ms in self._near.items() if due_ms <= now_ms]:
            self._late(self._near.pop(job), now_s)
        return found

    def _late(self, due_ms: int, now_s: float) -> None:
        self.late_s.setdefault(due_ms, []).append(now_s - due_ms / 1000)

    async def beat(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(BEAT_S)
            self.lags.append((self._now_s(), time.perf_counter() - began - BEAT_S))

    def _now_s(self) -> float:
        return time.time() + self._offset_s

    def figure(self) -> dict[str, Any]:
        # not those that were due while it started
        dues = sorted(due_ms for due_ms in self.late_s if due_ms / 1000 > self.planned_s + 2)
        late = [one for due_ms in dues for one in self.late_s[due_ms]]
        near = [lag for at, lag in self.lags if any(0 <= at - d / 1000 < AROUND_S for d in dues)]
        far = [lag for at, lag in self.lags if all(abs(at - d / 1000) > AROUND_S for d in dues)]
        return {
            "startup_s": round(self.startup_s, 3),
            "startup_cpu_s": round(self.startup_cpu_s, 3),
            "select_1000_us": round(sorted(self.selected_us)[len(self.selected_us) // 2], 1),
            "selected_us": [round(x) for x in self.selected_us],
            "burst_cpu_ms": self.burst_cpu_ms,
            "ready_ms": self.ready_ms,
            "minutes": [latency(self.late_s[due_ms])["p99_ms"] for due_ms in dues],
            **latency(late, "late_"),
            **latency(near, "loop_"),
            **latency(far, "idle_loop_"),
        }


async def serve(directory: Path) -> None:
    """Serve the store; schedule from the line on that moves the clock; at the next one, tell."""
    store = await SqliteStore.open(directory / "store.db", SystemClock())
    server = StoreServer(store, directory / "store.sock")  # which nothing else holds
    await server.start()
    say("serving")
    offset_ms = int(await asyncio.to_thread(sys.stdin.readline))
    relax()
    measured = Measured(store.inside(), offset_ms)
    work = asyncio.create_task(measured.scheduler.run())
    beat = asyncio.create_task(measured.beat())
    await asyncio.to_thread(sys.stdin.readline)
    beat.cancel()
    say(json.dumps(measured.figure()))
    work.cancel()
    await asyncio.gather(work, beat, return_exceptions=True)
    await asyncio.Event().wait()  # the ledger is read now


async def make(store: Store, count: int, now_ms: int) -> None:
    """Write the schedules; the first are due in the next minute after `now_ms`."""
    drawn = random.Random(1)
    puts: list[Put] = []
    commits: list[Commit] = []
    for number in range(count):
        often = number < AT_ONCE
        at = f"{drawn.randrange(60)} {drawn.randrange(24)}"
        # daily ones are not to fire while it is measured
        text = "* * * * *" if often else f"{at} * * *"
        spec = Spec("cron", text, drawn.choice(ZONES), overlap="allow", payload={"n": number})
        since_ms = now_ms if often else now_ms + 3_000_000
        puts.append(planned(number, spec, since_ms))
        if len(puts) == PUTS or number == count - 1:
            commits.append(Commit("acme", puts=tuple(puts)))
            puts = []
    for at_commit in range(0, len(commits), 20):
        await store.commit(commits[at_commit : at_commit + 20])


async def ledger(store: Store) -> dict[int, int]:
    """How many fired at each due time, as an independent reader finds."""
    found: dict[int, int] = {}
    seen: set[str] = set()
    after: str | None = None
    while page := await store.list_documents(OCCURRENCES, None, (), after, 1_000, False):
        for document in page:
            one = decode_occurrence(document.body)
            assert one.outcome == "fired" and document.key not in seen
            seen.add(document.key)
            found[one.due_ms] = found.get(one.due_ms, 0) + 1
        after = page[-1].key
    return found


async def measure(count: int) -> None:
    root = Path(tempfile.mkdtemp(prefix="bench-schedules-"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.bench_schedules", "serve", str(root),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    store = RemoteStore(root / "store.sock")
    try:
        await process.stdout.readline()
        # the scheduler's clock begins LEAD_S before a minute, whatever the machine's shows
        minute_ms = time.time_ns() // 60_000_000_000 * 60_000
        await make(store, count, minute_ms - 1)
        offset_ms = minute_ms - (time.time_ns() // 1_000_000 + round(LEAD_S * 1000))
        process.stdin.write(f"{offset_ms}\n".encode())
        await process.stdout.readline()
        await asyncio.sleep(LEAD_S + 60 * (MINUTES - 1) + AROUND_S)
        process.stdin.write(b"\n")
        figure = json.loads(await process.stdout.readline())
        fired = await ledger(store)
        dropped = sum(AT_ONCE - fired.get(minute_ms + 60_000 * n, 0) for n in range(MINUTES))
        result(f"P3 troupe {count} schedules", {"schedules": count, **figure, "dropped": dropped})
    finally:
        process.kill()
        await process.wait()
        await store.close()
        shutil.rmtree(root)


async def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["serve"]:
        await serve(Path(arguments[1]))
        return
    for count in [int(one) for one in arguments] or SIZES:
        await measure(count)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
