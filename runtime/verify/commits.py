"""A small commit workload on the real SQLite store, and what of it is there afterwards.

Number n is two commits: a client's (a message and a document) and the turn that
handles it (acknowledgement, event, message, step, document, public event).
`python -m runtime.verify.commits DIRECTORY DURABILITY COUNT` runs it and writes
to DIRECTORY/acks, unbuffered, which commits were answered ok; `inspect` reads a
store and says which numbers are wholly there, and which are torn.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from runtime.clock import SystemClock
from runtime.store import sqlite_file, sqlite_idle
from runtime.store.contract import (
    BATCH_MAX,
    Ack,
    Commit,
    Committed,
    Event,
    FeedEvent,
    Fence,
    Intent,
    Put,
    Result,
    Send,
    Snapshot,
    Store,
)
from runtime.store.sqlite import SqliteStore
from runtime.verify.bugs.bug import swapped

A: Final = "acme/writer:a"
B: Final = "acme/writer:b"
JOB: Final = "job_1"
BODY: Final = b'"' + b"x" * 700 + b'"'
SNAPSHOT_EVERY: Final = 16
AHEAD: Final = 3
"""Clients' commits that are under way together."""
PAGES: Final = 40
"""WAL pages after which a checkpoint is made; small, so that many fall into a short run."""
CHECKPOINT_S: Final = 0.02
DATABASE: Final = "store.db"
ACKS: Final = "acks"


def client_commit(n: int) -> Commit:
    send = Send(f"in-{n}", "acme/client:x", A, BODY)
    return Commit("acme", sends=(send,), puts=(Put("given", f"{n:06}", "acme", BODY),))


def turn_commit(n: int, fence: Fence) -> Commit:
    """Writes to every kind of table."""
    return Commit(
        "acme",
        A,
        fence,
        n - 1,
        acks=(Ack(f"in-{n}", b"1"),),
        events=(Event("done", b'{"patch":[]}'),),
        snapshot=Snapshot(b"{}") if n % SNAPSHOT_EVERY == 0 else None,
        sends=(Send(f"out-{n}", A, B, BODY),),
        intents=(Intent(JOB, f"s-{n:06}", "external", BODY),),
        results=(Result(JOB, f"s-{n:06}", BODY),),
        puts=(Put("done", f"{n:06}", "acme", BODY, (f"n={n}",)),),
        feed=(FeedEvent("acme", "job:completed", ("monitoring",), n, str(n).encode()),),
    )


async def write(directory: Path, durability: sqlite_file.Durability, count: int) -> None:
    """Commit numbers 1..count; each is noted in `acks` once it was answered."""
    acks = os.open(directory / ACKS, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    store = await SqliteStore.open(
        directory / DATABASE, SystemClock(), durability=durability, boot_id="before"
    )

    async def commit(label: str, one: Commit) -> None:
        [answer] = await store.commit([one])
        assert isinstance(answer, Committed), answer
        os.write(acks, f"{label}\n".encode())

    incarnation = await store.register("owner", "writer", 1_000.0)
    [claimed] = await store.claim("owner", 1, [A])
    fence = Fence(incarnation, claimed.epoch)
    for first in range(1, count + 1, AHEAD):
        numbers = range(first, min(first + AHEAD, count + 1))
        await asyncio.gather(*(commit(f"given {n}", client_commit(n)) for n in numbers))
        for n in numbers:
            await commit(f"done {n}", turn_commit(n, fence))
    await store.close()
    os.close(acks)


@dataclass
class Inspected:
    """What a store holds of the workload."""

    there: set[str] = field(default_factory=set)
    """`given n` and `done n` that are wholly there."""
    torn: list[str] = field(default_factory=list)
    """What is there in part, or without what must be before it."""


async def inspect(store: Store) -> Inspected:
    """Read everything of every table, and compare."""
    inbox = {one.message_id: one.status for one in await _history(store, A)}
    given = await _documents(store, "given")
    found = Inspected()
    for n in _numbers(inbox, "in-") | given:
        if f"in-{n}" in inbox and n in given:
            found.there.add(f"given {n}")
        else:
            found.torn.append(f"given {n}")
    parts = {
        "acknowledged": {n for n in _numbers(inbox, "in-") if inbox[f"in-{n}"] == "processed"},
        "journal": {event.version for event in await _journal(store)},
        "sent": _numbers([one.message_id for one in await _history(store, B)], "out-"),
        "step": {int(one.key[2:]) for one in await store.steps(JOB) if one.result == BODY},
        "document": await _documents(store, "done"),
        "feed": await _feed(store),
    }
    for n in set().union(*parts.values()):
        missing = [name for name, numbers in parts.items() if n not in numbers]
        if missing:
            found.torn.append(f"done {n}: {missing}")
        else:
            found.there.add(f"done {n}")
    done = {int(one.split()[1]) for one in found.there if one.startswith("done")}
    found.torn += [f"done {n} without its past" for n in done if n > 1 and n - 1 not in done]
    found.torn += [f"done {n} without its cause" for n in done if f"given {n}" not in found.there]
    return found


def _numbers(ids: Iterable[str], prefix: str) -> set[int]:
    return {int(one.removeprefix(prefix)) for one in ids}


async def _history(store: Store, agent: str) -> Sequence[Any]:
    found: list[Any] = []
    while page := await store.history(agent, found[-1].seq if found else 0, BATCH_MAX):
        found += page
    return found


async def _journal(store: Store) -> Sequence[Any]:
    found: list[Any] = []
    while page := await store.journal(A, len(found), BATCH_MAX):
        found += page
    return found


async def _documents(store: Store, collection: str) -> set[int]:
    found: list[Any] = []
    while page := await store.list_documents(
        collection, after=found[-1].key if found else None, limit=BATCH_MAX, descending=False
    ):
        found += page
    return {int(one.key) for one in found}


async def _feed(store: Store) -> set[int]:
    found: list[Any] = []
    while page := (await store.tail(found[-1].cursor if found else 0, BATCH_MAX, 0)).entries:
        found += page
    return {int(one.body) for one in found}


def main(arguments: list[str]) -> None:
    directory, named, count = arguments
    [survived] = [one for one in get_args(sqlite_file.Durability) if one == named]
    pragmas = {**sqlite_file._PRAGMAS, "wal_autocheckpoint": str(PAGES)}
    with (
        swapped(sqlite_file, "_PRAGMAS", pragmas),
        swapped(sqlite_idle, "CHECKPOINT_EVERY_S", CHECKPOINT_S),
    ):
        asyncio.run(write(Path(directory), survived, int(count)))


if __name__ == "__main__":
    main(sys.argv[1:])
