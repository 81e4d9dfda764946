"""P1: durable messages between agents of a host, closed loop and one-way.

As the peers' cases: keys uniform out of 1,000; a call ends when the new state is
durable; `oneway_done_s` is from the first of N sends to all being in the state;
`exact`: the counters' sum is the number of messages.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

import uvloop

from tests.benchmarks.bench_messages import IN_FLIGHT, KEYS, Rig, closed_loop
from tests.benchmarks.cases import latency, result, size

SECONDS = size("SECONDS", 4)
ONEWAY = size("N", 20_000)


async def run() -> None:
    root = Path(tempfile.mkdtemp(prefix="bench-messages-"))
    rig = Rig(root)
    try:
        await rig.start()
        await asyncio.gather(*(rig.ask(key) for key in range(KEYS)))
        sent = KEYS
        metrics: dict[str, object] = {}
        for in_flight in IN_FLIGHT:
            cpu_s, store_s = time.process_time(), rig.process.cpu_s()
            took, wall_s = await closed_loop(
                in_flight, SECONDS, lambda: rig.ask(rig.random.randrange(KEYS))
            )
            sent += len(took)
            host_us = (time.process_time() - cpu_s) / len(took) * 1e6
            store_us = (rig.process.cpu_s() - store_s) / len(took) * 1e6
            metrics |= {
                f"c{in_flight}_msgs_s": round(len(took) / wall_s, 1),
                **latency(took, f"c{in_flight}_"),
                f"c{in_flight}_host_cpu_us": round(host_us, 1),
                f"c{in_flight}_store_cpu_us": round(store_us, 1),
            }
        metrics |= await oneway(rig)
        total = sum(await asyncio.gather(*(rig.ask(key) for key in range(KEYS))))
        metrics["exact"] = total == sent + ONEWAY + 2 * KEYS
        result("P1 troupe, one host, SQLite FULL", metrics)
    finally:
        await rig.stop()
        shutil.rmtree(root)


async def oneway(rig: Rig) -> dict[str, object]:
    """Sends from a client, 64 in flight; a question to each key comes after its last send."""
    left = iter(range(ONEWAY))

    async def sender() -> None:
        for _ in left:
            key = rig.random.randrange(KEYS)
            await rig.client.send(f"counter:k{key}", {"by": 1}, "add")

    began = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(64)))
    accepted_s = time.perf_counter() - began
    await asyncio.gather(
        *(rig.client.ask(f"counter:k{key}", {"by": 1}, "add") for key in range(KEYS))
    )
    return {
        "oneway_accept_s": round(ONEWAY / accepted_s, 1),
        "oneway_done_s": round((ONEWAY + KEYS) / (time.perf_counter() - began), 1),
    }


if __name__ == "__main__":
    uvloop.run(run())
