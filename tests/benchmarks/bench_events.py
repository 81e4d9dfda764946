"""From a durable commit to WebSocket clients: a store process, a uvicorn process, real sockets.

    python -m tests.benchmarks.bench_events [EVENTS]

A publisher beside the clients commits one event after the other, some a second;
the clock (one, this machine's monotonic one) starts when the store has
answered and stops when a client has the event whole (`listeners`).  Two things are measured
for 1 and for 100 clients: every delivery, and for each event its last one.
`cpuUs` is the processor's time of one delivery in the server, and in all of the
clients with the publisher: on a busy machine it says more than the wall's.  The
floor, in the same run, is as much JSON over the same number of sockets with
nothing behind them: what the libraries of server and client cost alone.  Prints
one line of JSON, and `RESULT` lines as a harness of several projects reads them.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.ids import Ids
from runtime.keys import Keys, Role
from runtime.store.remote import RemoteStore
from runtime.turn import feed_event
from tests.api_process import ApiProcess, listening
from tests.benchmarks.bench_messages import latency
from tests.benchmarks.listeners import Listener, listen, uncollected
from tests.store_process import StoreProcess

CLIENTS = (1, 100)
EVENTS = 300
WARM_UP = 20
BETWEEN_S = 0.03
"""Between two events: a busy department's rate, which the server must not batch away."""

Figures = dict[str, Any]


async def measure(
    clients: int,
    events: int,
    sockets: list[Listener],
    publish: Callable[[int], Awaitable[float]],
    cpu_s: Callable[[], float],
) -> Figures:
    """The figures of events that are published one after the other to clients that are there.

    Args:
        publish: the event of this number; answers when its clock has started.
    """
    began_s, own_s = cpu_s(), time.process_time()
    done: dict[int, float] = {}
    with uncollected():
        for number in range(events + WARM_UP):
            done[number] = await publish(number)
            await asyncio.sleep(BETWEEN_S)
    server_s, clients_s = cpu_s() - began_s, time.process_time() - own_s
    took: dict[int, list[float]] = {}
    async with asyncio.timeout(60):
        for socket in sockets:
            for at, told in await socket.heard(len(done)):
                # a client may have it before the publisher's own answer has been read
                number = told["data"]["n"]
                took.setdefault(number, []).append(max(0.0, at - done[number]))
            socket.close()
    counted = [took[number] for number in range(WARM_UP, events + WARM_UP)]
    assert all(len(each) == clients for each in counted), "an event was not told to all"
    deliveries = len(done) * clients
    return {
        "clients": clients,
        "events": events,
        "cpuUs": {
            "server": round(server_s / deliveries * 1e6, 1),
            "clients": round(clients_s / deliveries * 1e6, 1),
        },
        **latency([one for each in counted for one in each]),
        "last": latency([max(each) for each in counted]),
    }


async def of_troupe(root: Path, clients: int, events: int) -> Figures:
    root.mkdir()
    store_process = StoreProcess(root)
    await store_process.start()
    with listening(0) as found:
        port = found.getsockname()[1]
    api = await ApiProcess(store_process.socket, port).start()
    store, clock = RemoteStore(store_process.socket), SystemClock()
    client = Client(store, clock, Ids(clock), "acme", "bench")
    token, _ = await Keys(store, clock).create("acme", Role.VIEWER, "bench")
    headers = {"Authorization": f"Bearer {token}"}

    async def publish(number: int) -> float:
        data = {
            "agentId": "code:job_01JD4W9GZ3N5", "jobId": "job_01JD4W9GZ3N5", "progress": 40,
            "message": "Running the tests", "n": number,
        }  # fmt: skip
        rooms = ("job:job_01JD4W9GZ3N5", "agent:code:job_01JD4W9GZ3N5")
        await client.commit(events=[feed_event("acme", "agent:progress", data, rooms, number)])
        return time.perf_counter()

    try:
        url = f"ws://127.0.0.1:{port}/api/ws"
        sockets = [await listen(url, headers) for _ in range(clients)]
        for socket in sockets:
            socket.say({"subscribe": ["monitoring"]})
            [(_, first)] = await socket.heard(1)
            assert first["event"] == "subscribed", first
        return await measure(clients, events, sockets, publish, api.cpu_s)
    finally:
        await api.kill()
        await store.close()
        await store_process.kill()


async def of_the_floor(clients: int, events: int) -> Figures:
    """The same text broadcast by the library itself, in this very process: no app, no store."""
    connected: set[ServerConnection] = set()
    everybody = asyncio.Event()

    async def hold(socket: ServerConnection) -> None:
        connected.add(socket)
        if len(connected) == clients:
            everybody.set()
        await socket.wait_closed()

    async def publish(number: int) -> float:
        data = {"message": "Running the tests " * 10, "n": number}
        began = time.perf_counter()  # nobody hears anything before it has been written to all
        broadcast(connected, json.dumps({"event": "agent:progress", "data": data}))
        return began

    async with serve(hold, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        sockets = [await listen(f"ws://127.0.0.1:{port}") for _ in range(clients)]
        await everybody.wait()
        return await measure(clients, events, sockets, publish, lambda: 0.0)


async def bench(events: int) -> Figures:
    root = Path(tempfile.mkdtemp(prefix="troupe-bench-"))
    try:
        return {
            "troupe": [await of_troupe(root / str(n), n, events) for n in CLIENTS],
            "floor": [await of_the_floor(n, events) for n in CLIENTS],
        }
    finally:
        shutil.rmtree(root)


def results(figures: Figures) -> list[Figures]:
    """The same for the harness that runs several projects side by side."""
    return [
        {
            "case": f"P5 {who}, one API process, clients={one['clients']}",
            "metrics": {
                "p50_ms": one["p50Ms"],
                "p99_ms": one["p99Ms"],
                "last_p50_ms": one["last"]["p50Ms"],
                "last_p99_ms": one["last"]["p99Ms"],
            },
            "versions": {},
        }
        for who, all_of in figures.items()
        for one in all_of
    ]


if __name__ == "__main__":
    figures = uvloop.run(bench(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
    for result in results(figures):
        sys.stdout.write(f"RESULT {json.dumps(result)}\n")
    sys.stdout.write(json.dumps(figures) + "\n")
