"""Short words for commits, so that a test shows only what it is about."""

from __future__ import annotations

import asyncio
from typing import Any

from runtime.store.contract import (
    Ack,
    Activation,
    Commit,
    Committed,
    Event,
    FeedEvent,
    Fence,
    Intent,
    Put,
    Refused,
    Remind,
    Result,
    Retry,
    Send,
    Snapshot,
    Store,
    StoredMessage,
)

A = "acme/counter:a"
B = "acme/counter:b"
BETA = "beta/counter:a"
SCHEDULER = "system/scheduler:main"
LONG_S = 30.0
"""A wait that only ends early when the store wakes it."""
SOON_S = 5.0
"""A woken call is back long before this."""


def send(id: str, to: str = A, sender: str = "acme/client:test", body: bytes = b"{}") -> Send:
    return Send(id, sender, to, body)


def accept(*sends: Send, organization: str = "acme") -> Commit:
    """A client's commit: messages, nothing else."""
    return Commit(organization, sends=sends)


def put(key: str, body: bytes | None = b"x", collection: str = "job", **fields: Any) -> Put:
    return Put(collection, key, fields.pop("organization", "acme"), body, **fields)


def publish(event: str, organization: str = "acme") -> FeedEvent:
    return FeedEvent(organization, event, ("monitoring",), 1, b"{}")


async def one(store: Store, commit: Commit) -> Committed | Refused:
    [answer] = await store.commit([commit])
    return answer


async def ok(store: Store, commit: Commit) -> Committed:
    answer = await one(store, commit)
    assert isinstance(answer, Committed), answer
    return answer


async def reason(store: Store, commit: Commit) -> str:
    answer = await one(store, commit)
    assert isinstance(answer, Refused), answer
    return answer.reason


class Desk:
    """An owner at work on a store."""

    def __init__(self, store: Store, owner: str = "o1", name: str = "host-1") -> None:
        self.store = store
        self.owner = owner
        self.name = name
        self.incarnation = ""
        self.epochs: dict[str, int] = {}

    async def register(self, lease_s: float = 10.0) -> Desk:
        self.incarnation = await self.store.register(self.owner, self.name, lease_s)
        return self

    async def take(self, *agents: str) -> list[Activation]:
        """Claim by name, or what is ready."""
        found = await self.store.claim(self.owner, 100, agents or None)
        self.epochs |= {one.agent: one.epoch for one in found}
        return found

    def turn(self, agent: str = A, version: int | None = None, **parts: Any) -> Commit:
        """A commit of an agent under the fence of its latest claim."""
        fence = Fence(self.incarnation, self.epochs.get(agent, 1))
        return Commit(agent.partition("/")[0], agent, fence, version, **parts)

    async def commit(self, agent: str = A, version: int | None = None, **parts: Any) -> Committed:
        return await ok(self.store, self.turn(agent, version, **parts))

    async def refused(self, agent: str = A, version: int | None = None, **parts: Any) -> str:
        return await reason(self.store, self.turn(agent, version, **parts))

    async def give(self, *ids: str, to: str = A) -> tuple[int, ...]:
        """Messages from a client; their seqs."""
        organization = to.partition("/")[0]
        sends = [send(id, to, f"{organization}/client:test") for id in ids]
        return (await ok(self.store, accept(*sends, organization=organization))).seqs


def everything(version: int, number: int = 1) -> dict[str, Any]:
    """Parts of a turn that writes to every kind of table (needs `in-<number>` pending)."""
    return {
        "version": version,
        "acks": (Ack(f"in-{number}", b"done"),),
        "retries": (Retry(f"again-{number}", 5, "busy"),),
        "events": (Event("counted", b'{"by":1}'),),
        "snapshot": Snapshot(b'{"n":1}'),
        "sends": (send(f"out-{number}", B, A), send(f"self-{number}", A, A)),
        "reminders": (Remind("wake", 4_000_000_000_000),),
        "intents": (Intent("job_1", f"s-{number}", "external", b"ask"),),
        "results": (Result("job_1", f"s-{number}", b"told"),),
        "puts": (put("job_1", terms=("status=running",)),),
        "feed": (publish("job:started"),),
    }


async def picture(store: Store, *agents: str) -> list[object]:
    """Every read there is of these agents, for comparing before and after."""
    seen: list[object] = [(await store.health()).commits]
    for agent in agents or (A, B):
        seen.append(await store.inbox(agent, 0, 100))
        seen.append(await store.history(agent, 0, 100))
        seen.append(await store.journal(agent, 0, 100))
    seen.append(await store.steps("job_1"))
    seen.append(await store.list_documents("job"))
    seen.append(await store.count("job", "acme", ("status=running",)))
    seen.append(await store.tail(0, 100, 0))
    return seen


def ids(messages: list[StoredMessage] | tuple[StoredMessage, ...]) -> list[str]:
    return [message.message_id for message in messages]


async def started(store: Store, call: Any) -> asyncio.Task[Any]:
    """The call as a task that has reached the store."""
    task = asyncio.create_task(call)
    await store.health()
    await asyncio.sleep(0)
    return task


async def soon(task: asyncio.Task[Any]) -> Any:
    return await asyncio.wait_for(task, SOON_S)
