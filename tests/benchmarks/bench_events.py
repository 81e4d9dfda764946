"""From a durable commit to WebSocket clients: a store process, a uvicorn process, real sockets.

    python -m tests.benchmarks.bench_events [EVENTS]

A publisher beside the clients commits one event after the other, some a second;
the clock (one, this machine's monotonic one) starts when the store has
answered and stops when a client has the event parsed.  Two things are measured
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
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.asyncio.server import ServerConnection, broadcast, serve

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.ids import Ids
from runtime.keys import Keys, Role
from runtime.store.remote import RemoteStore
from runtime.turn import feed_event
from tests.api_process import ApiProcess, listening
from tests.benchmarks.bench_messages import latency
from tests.store_process import StoreProcess

CLIENTS = (1, 100)
EVENTS = 300
WARM_UP = 20
BETWEEN_S = 0.03
"""Between two events: a busy department's rate, which the server must not batch away."""

Figures = dict[str, Any]


class Bench:
    """Clients that note when they have got what."""

    def __init__(self, clients: int, events: int) -> None:
        self.clients = clients
        self.events = events
        self.got: dict[int, list[float]] = {}

    async def listen(self, socket: ClientConnection) -> None:
        for _ in range(self.events + WARM_UP):
            said = json.loads(await socket.recv(decode=False))
            self.got.setdefault(said["data"]["n"], []).append(time.perf_counter())

    async def measure(
        self, sockets: list[ClientConnection], publish: Any, cpu_s: Callable[[], float]
    ) -> Figures:
        began_s, own_s = cpu_s(), time.process_time()
        listening_ = [asyncio.create_task(self.listen(socket)) for socket in sockets]
        done: dict[int, float] = {}
        for number in range(self.events + WARM_UP):
            await publish(number)
            done[number] = time.perf_counter()
            await asyncio.sleep(BETWEEN_S)
        async with asyncio.timeout(60):
            await asyncio.gather(*listening_)
        # a client may have it before the publisher's own answer has been read
        took = {
            number: [max(0.0, at - done[number]) for at in self.got[number]]
            for number in range(WARM_UP, self.events + WARM_UP)
        }
        deliveries = (self.events + WARM_UP) * self.clients
        return {
            "clients": self.clients,
            "events": self.events,
            "cpuUs": {
                "server": round((cpu_s() - began_s) / deliveries * 1e6, 1),
                "clients": round((time.process_time() - own_s) / deliveries * 1e6, 1),
            },
            **latency([one for each in took.values() for one in each]),
            "last": latency([max(each) for each in took.values()]),
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

    async def publish(number: int) -> None:
        data = {
            "agentId": "code:job_01JD4W9GZ3N5", "jobId": "job_01JD4W9GZ3N5", "progress": 40,
            "message": "Running the tests", "n": number,
        }  # fmt: skip
        rooms = ("job:job_01JD4W9GZ3N5", "agent:code:job_01JD4W9GZ3N5")
        await client.commit(events=[feed_event("acme", "agent:progress", data, rooms, number)])

    try:
        async with AsyncExitStack() as stack:
            sockets = []
            for _ in range(clients):
                socket = await stack.enter_async_context(
                    open_socket(
                        f"ws://127.0.0.1:{port}/api/ws",
                        additional_headers=headers,
                        compression=None,
                        proxy=None,
                    )
                )
                await socket.send(json.dumps({"subscribe": ["monitoring"]}))
                assert json.loads(await socket.recv())["event"] == "subscribed"
                sockets.append(socket)
            return await Bench(clients, events).measure(sockets, publish, api.cpu_s)
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

    async def publish(number: int) -> None:
        data = {"message": "Running the tests " * 10, "n": number}
        broadcast(connected, json.dumps({"event": "agent:progress", "data": data}))

    async with serve(hold, "127.0.0.1", 0, compression=None) as server, AsyncExitStack() as stack:
        port = next(iter(server.sockets)).getsockname()[1]
        sockets = [
            await stack.enter_async_context(
                open_socket(f"ws://127.0.0.1:{port}", compression=None, proxy=None)
            )
            for _ in range(clients)
        ]
        await everybody.wait()
        return await Bench(clients, events).measure(sockets, publish, lambda: 0.0)


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
