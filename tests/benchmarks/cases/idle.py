"""P7: agents that live in a host and do nothing: bytes of memory each, births and returns a second.

`born_s` is of agents that never existed; `cold_s` of agents on disk, many at a
time; both until their answer is durable.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
import time
from pathlib import Path

import uvloop

from tests.benchmarks.bench_messages import KEYS, Rig, resident
from tests.benchmarks.cases import result, size

N = size("N", 100_000)
COLD = size("COLD", 10_000)


async def run() -> None:
    root = Path(tempfile.mkdtemp(prefix="bench-idle-"))
    rig = Rig(root)
    try:
        await rig.start()
        await ask_all(rig, 0, KEYS)
        gc.collect()
        before = resident()
        born_s = await ask_all(rig, KEYS, N)
        gc.collect()
        bytes_each = (resident() - before) / N
        await rig.host.drain()
        rig.host = rig.new_host("host-1")
        await rig.host.start()
        cold = min(COLD, N)
        cold_s = await ask_all(rig, KEYS, cold)
        result("P7 troupe idle agents, one host", {
            "n": N, "bytes_each": round(bytes_each), "born_s": round(N / born_s, 1),
            "cold_s": round(cold / cold_s, 1),
        })  # fmt: skip
    finally:
        await rig.stop()
        shutil.rmtree(root)


async def ask_all(rig: Rig, first: int, count: int) -> float:
    """Ask so many agents, 1,000 at a time; seconds."""
    began = time.perf_counter()
    for at in range(first, first + count, KEYS):
        upto = min(at + KEYS, first + count)
        await asyncio.gather(*(rig.ask(key) for key in range(at, upto)))
    return time.perf_counter() - began


if __name__ == "__main__":
    uvloop.run(run())
