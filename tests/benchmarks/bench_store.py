"""Durable messages a second through the store, beside bare SQLite in the same run.

    python -m tests.benchmarks.bench_store [SECONDS [ROUNDS]]

One message is two commits: the client's (into the inbox), then the turn's
(acknowledgement, event, a message sent on).  Measured at 1, 64 and 1,024 in
flight: `floor` writes the same rows with SQLite alone, everything in flight in
one transaction, nothing checked and nobody asking; `inProcess` is SqliteStore
in the caller's process; `socket` is a store in a process of its own; `redis` is
RedisStore on a redis-server of its own that syncs each write.  They take turns
and the best round of each counts, because others use the machine too; the
processor time of a message (caller and store together) is least troubled by
them.  Prints one line of JSON; on another machine only the ratios
mean something.
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

import apsw

from runtime.clock import SystemClock
from runtime.store.contract import Ack, Commit, Committed, Event, Fence, Send, Store
from runtime.store.redis import RedisStore
from runtime.store.remote import RemoteStore
from runtime.store.sqlite import SqliteStore
from tests.redis_server import RedisServer
from tests.store_process import StoreProcess

IN_FLIGHT = (1, 64, 1024)
AGENTS = 1024
SECONDS = 0.8
"""Of each measurement."""
ROUNDS = 3
BODY = json.dumps(
    {
        "messageId": "msg_01JD8QZ3V5W7X9Y1A2B3C4D5E6",
        "sender": "counter:0001",
        "recipient": "counter:0002",
        "messageType": "increment",
        "content": {"by": 1},
        "timestamp": "2026-11-21T08:00:00.000Z",
    }
).encode()

Lane = Callable[[int, int], Awaitable[None]]
"""Handle message `number` of agent `agent`."""


Figures = dict[str, float]


def figures(took: list[float], messages: int, wall_s: float, cpu_s: float) -> Figures:
    return {
        "messagesPerSecond": round(messages / wall_s),
        "p50Ms": round(sorted(took)[len(took) // 2] * 1e3, 3),
        "cpuUs": round(cpu_s / messages * 1e6, 1),
    }


async def measure(
    lane: Lane, in_flight: int, seconds: float, cpu_s: Callable[[], float]
) -> Figures:
    """Run lanes for a while."""
    took: list[float] = []
    cpu_before = cpu_s()
    begin = time.perf_counter()

    async def run(start: int) -> None:
        number = 0
        while (before := time.perf_counter()) - begin < seconds:
            for agent in range(start, AGENTS, in_flight):
                await lane(agent, number)
                took.append(time.perf_counter() - before)
                before = time.perf_counter()
                if before - begin >= seconds:
                    return
            number += 1

    await asyncio.gather(*(run(start) for start in range(in_flight)))
    return figures(took, len(took), time.perf_counter() - begin, cpu_s() - cpu_before)


async def through(
    store: Store, in_flight: int, seconds: float, cpu_s: Callable[[], float]
) -> Figures:
    """The message's two commits through a store."""
    incarnation = await store.register("bench", "bench", 3600)
    agents = [f"acme/counter:{number:04}" for number in range(AGENTS)]
    for at in range(0, AGENTS, 512):
        await store.claim("bench", 512, agents[at : at + 512])
    fence = Fence(incarnation, 1)

    async def lane(agent: int, number: int) -> None:
        me, other = agents[agent], f"acme/sink:{agent:04}"
        id = f"msg_{number:020}{agent:06}"
        await store.commit([Commit("acme", sends=(Send(id, "acme/client:bench", me, BODY),))])
        turn = Commit(
            "acme", me, fence, number, acks=(Ack(id, b"null"),),
            events=(Event("counted", b'{"op":"replace","path":"/count","value":1}'),),
            sends=(Send(id, me, other, BODY),),
        )  # fmt: skip
        [answer] = await store.commit([turn])
        assert isinstance(answer, Committed), answer

    return await measure(lane, in_flight, seconds, cpu_s)


async def in_process(directory: Path, in_flight: int, seconds: float) -> Figures:
    store = await SqliteStore.open(directory / "store.db", SystemClock())
    try:
        return await through(store, in_flight, seconds, time.process_time)
    finally:
        await store.close()


async def over_socket(directory: Path, in_flight: int, seconds: float) -> Figures:
    process = StoreProcess(directory)
    await process.start()
    store = RemoteStore(process.socket)
    try:
        return await through(
            store, in_flight, seconds, lambda: time.process_time() + process.cpu_s()
        )
    finally:
        await store.close()
        await process.kill()


async def on_redis(directory: Path, in_flight: int, seconds: float) -> Figures:
    server = RedisServer(directory).start()
    store = await RedisStore.open(server.url)
    try:
        return await through(
            store, in_flight, seconds, lambda: time.process_time() + server.cpu_s()
        )
    finally:
        await store.close()
        server.kill()


async def floor(directory: Path, in_flight: int, seconds: float) -> Figures:
    """The same rows by SQLite alone, `in_flight` messages a transaction."""
    connection = apsw.Connection(str(directory / "floor.db"))
    connection.execute(
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE inbox (seq INTEGER PRIMARY KEY, agent INTEGER, id TEXT, body BLOB,"
        " done INTEGER, UNIQUE (id, agent));"
        "CREATE TABLE journal (agent INTEGER, version INTEGER, body BLOB,"
        " PRIMARY KEY (agent, version)) WITHOUT ROWID;"
    ).fetchall()
    took: list[float] = []
    begin, cpu_before = time.perf_counter(), time.process_time()
    seq = version = 0
    while (before := time.perf_counter()) - begin < seconds:
        version += 1
        agents = [(version * in_flight + number) % AGENTS for number in range(in_flight)]
        ids = [f"msg_{version:020}{number:06}" for number in range(in_flight)]
        first = seq + 1
        for sink in (0, AGENTS):
            connection.execute("BEGIN IMMEDIATE")
            rows = [
                (seq + at + 1, agent + sink, id, BODY)
                for at, (agent, id) in enumerate(zip(agents, ids, strict=True))
            ]
            seq += in_flight
            connection.executemany("INSERT INTO inbox VALUES (?, ?, ?, ?, 0)", rows)
            if sink:
                acked = [(one,) for one in range(first, first + in_flight)]
                connection.executemany("UPDATE inbox SET done = 1 WHERE seq = ?", acked)
                events = [(agent, version, b"{}") for agent in agents]
                connection.executemany("INSERT INTO journal VALUES (?, ?, ?)", events)
            connection.execute("COMMIT")
        took.append(time.perf_counter() - before)
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_before
    connection.close()
    return figures(took, len(took) * in_flight, wall_s, cpu_s)


WAYS = {"floor": floor, "inProcess": in_process, "socket": over_socket, "redis": on_redis}


async def once(name: str, in_flight: int, seconds: float) -> Figures:
    directory = Path(tempfile.mkdtemp(prefix="bench-store-"))
    try:
        return await WAYS[name](directory, in_flight, seconds)
    finally:
        shutil.rmtree(directory)


async def bench(seconds: float = SECONDS, rounds: int = ROUNDS) -> dict[str, Any]:
    """All measurements, and the ratios between the ways."""
    report: dict[str, Any] = {"bench": "store", "agents": AGENTS, "inFlight": {}}
    for in_flight in IN_FLIGHT:
        found: dict[str, list[Figures]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name in WAYS:
                found[name].append(await once(name, in_flight, seconds))
        best = {
            name: max(tries, key=lambda one: one["messagesPerSecond"])
            for name, tries in found.items()
        }
        rate = {name: one["messagesPerSecond"] for name, one in best.items()}
        report["inFlight"][str(in_flight)] = best | {
            "inProcessOfFloor": round(rate["inProcess"] / rate["floor"], 2),
            "socketOfFloor": round(rate["socket"] / rate["floor"], 2),
            "redisOfFloor": round(rate["redis"] / rate["floor"], 2),
            "redisOfSocket": round(rate["redis"] / rate["socket"], 2),
            "socketOfInProcess": round(rate["socket"] / rate["inProcess"], 2),
            "cpuOfFloor": round(best["socket"]["cpuUs"] / best["floor"]["cpuUs"], 2),
        }
    return report


if __name__ == "__main__":
    given = [float(argument) for argument in sys.argv[1:]]
    report = asyncio.run(bench(*given[:1], *map(int, given[1:2])))
    sys.stdout.write(json.dumps(report) + "\n")
