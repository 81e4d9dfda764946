"""P7: a million agents on disk, each with a state; the first answer of one that sleeps.

They are written through the store's own verbs, as hosts would, many a commit
call.  Then a host asks agents that nobody has in memory, one after the other.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from pathlib import Path

import uvloop

from runtime.clock import SystemClock
from runtime.journal import encode
from runtime.store.contract import BATCH_MAX, Commit, Event, Fence, Put
from runtime.store.sqlite import SqliteStore
from tests.benchmarks.bench_messages import Rig
from tests.benchmarks.cases import latency, result, size

N = size("N", 1_000_000)
ASKED = size("ASKED", 300)


async def register(path: Path) -> float:
    """N agents, each with its record and one event; seconds."""
    store = await SqliteStore.open(path, SystemClock())
    began = time.perf_counter()
    incarnation = await store.register("maker/1", "maker", 36_000.0)
    event = Event("changed", encode([["set", [], {"n": 1}]]))
    for at in range(0, N, BATCH_MAX):
        agents = [f"acme/counter:k{key}" for key in range(at, min(N, at + BATCH_MAX))]
        claimed = await store.claim("maker/1", BATCH_MAX, agents)
        await store.commit([
            Commit(
                "acme", one.agent, Fence(incarnation, one.epoch), 0, events=(event,),
                puts=(Put("agent", one.agent, "acme", record(one.agent), ("kind=counter",)),),
            )
            for one in claimed
        ])  # fmt: skip
        await store.release("maker/1", agents)
    await store.close()
    return time.perf_counter() - began


def record(agent: str) -> bytes:
    """As a host writes it when an agent comes to life."""
    made = {"agentId": agent.partition("/")[2], "organizationId": "acme", "kind": "counter",
            "role": "", "capabilities": [], "createdAt": "2026-01-01T00:00:00.000Z"}  # fmt: skip
    return json.dumps(made).encode()


async def run() -> None:
    root = Path(tempfile.mkdtemp(prefix="bench-cold-"))
    rig = Rig(root)
    rig.process.directory.mkdir(parents=True, exist_ok=True)
    try:
        wrote_s = await register(rig.process.database)
        size_bytes = sum(file.stat().st_size for file in rig.process.directory.iterdir())
        opened = time.perf_counter()
        await rig.start()
        start_s = time.perf_counter() - opened
        took = []
        host_s, store_s = time.process_time(), rig.process.cpu_s()
        for key in random.Random(7).sample(range(N), min(ASKED, N)):
            before = time.perf_counter()
            n = await rig.ask(key)
            took.append(time.perf_counter() - before)
            assert n == 2, f"counter {key} says {n}"
        result("P7 troupe agents on disk", {
            "n": N, "registered_s": round(N / wrote_s, 1), "disk_bytes_each": round(size_bytes / N),
            "open_s": round(start_s, 3), **latency(took, "cold_"),
            "cold_host_cpu_ms": round((time.process_time() - host_s) / len(took) * 1e3, 3),
            "cold_store_cpu_ms": round((rig.process.cpu_s() - store_s) / len(took) * 1e3, 3),
        })  # fmt: skip
        await rig.stop()
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    uvloop.run(run())
