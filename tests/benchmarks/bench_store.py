"""Durable messages a second through the store, beside bare SQLite in the same run.

    python -m tests.benchmarks.bench_store [SECONDS]

One message is two commits: the client's (into the inbox), then the turn's
(acknowledgement, event, a message sent on).  Measured at 1, 64 and 1,024 in
flight: `floor` writes the same rows with SQLite alone, everything in flight in
one transaction, nothing checked and nobody asking; `inProcess` is SqliteStore
in the caller's process; `socket` is a store in a process of its own.  Prints
one line of JSON; only the ratios mean something on another machine.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from runtime.clock import SystemClock
from runtime.store.contract import Ack, Commit, Committed, Event, Fence, Send, Store
from runtime.store.remote import RemoteStore
from runtime.store.sqlite import SqliteStore
from tests.store_process import StoreProcess

IN_FLIGHT = (1, 64, 1024)
AGENTS = 1024
SECONDS = 2.0
"""Of each of the nine measurements."""
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


async def measure(lane: Lane, in_flight: int, seconds: float) -> dict[str, float]:
    """Run lanes for a while; messages a second and the median time of one."""
    took: list[float] = []
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
    rate = len(took) / (time.perf_counter() - begin)
    return {"messagesPerSecond": round(rate), "p50Ms": round(sorted(took)[len(took) // 2] * 1e3, 3)}


async def through(store: Store, in_flight: int, seconds: float) -> dict[str, float]:
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

    return await measure(lane, in_flight, seconds)


async def in_process(directory: Path, in_flight: int, seconds: float) -> dict[str, float]:
    store = await SqliteStore.open(directory / "store.db", SystemClock())
    try:
        return await through(store, in_flight, seconds)
    finally:
        await store.close()


async def over_socket(directory: Path, in_flight: int, seconds: float) -> dict[str, float]:
    process = StoreProcess(directory)
    await process.start()
    store = RemoteStore(process.socket)
    try:
        return await through(store, in_flight, seconds)
    finally:
        await store.close()
        await process.kill()


async def floor(directory: Path, in_flight: int, seconds: float) -> dict[str, float]:
    """The same rows by SQLite alone, `in_flight` messages a transaction."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    connection.executescript(
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE inbox (seq INTEGER PRIMARY KEY, agent INTEGER, id TEXT, body BLOB,"
        " done INTEGER, UNIQUE (id, agent));"
        "CREATE TABLE journal (agent INTEGER, version INTEGER, body BLOB,"
        " PRIMARY KEY (agent, version)) WITHOUT ROWID;"
    )
    took: list[float] = []
    begin = time.perf_counter()
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
    connection.close()
    rate = len(took) * in_flight / (time.perf_counter() - begin)
    return {"messagesPerSecond": round(rate), "p50Ms": round(sorted(took)[len(took) // 2] * 1e3, 3)}


async def bench(seconds: float = SECONDS) -> dict[str, Any]:
    """All measurements; each way of storing is run once at each number in flight."""
    report: dict[str, Any] = {"bench": "store", "agents": AGENTS, "inFlight": {}}
    for in_flight in IN_FLIGHT:
        found: dict[str, Any] = {}
        for name, way in (("floor", floor), ("inProcess", in_process), ("socket", over_socket)):
            directory = Path(tempfile.mkdtemp(prefix="bench-store-"))
            found[name] = await way(directory, in_flight, seconds)
            shutil.rmtree(directory)
        rate = {name: figures["messagesPerSecond"] for name, figures in found.items()}
        found["inProcessOfFloor"] = round(rate["inProcess"] / rate["floor"], 2)
        found["socketOfFloor"] = round(rate["socket"] / rate["floor"], 2)
        found["socketOfInProcess"] = round(rate["socket"] / rate["inProcess"], 2)
        report["inFlight"][str(in_flight)] = found
    return report


if __name__ == "__main__":
    given = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    sys.stdout.write(json.dumps(asyncio.run(bench(given))) + "\n")
