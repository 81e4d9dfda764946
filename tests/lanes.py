"""Agents that commit without a pause while their store is killed, and what must be there then."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence

from runtime.errors import StoreUnavailableError
from runtime.patience import patiently
from runtime.store.contract import (
    Ack,
    Activation,
    Commit,
    Committed,
    Event,
    FeedEvent,
    Fence,
    Put,
    Send,
    Store,
)

LANES = 8


class Lane:
    """One agent: sends itself a message, then handles it; counts what was acknowledged."""

    def __init__(self, number: int, store: Store) -> None:
        self.agent = f"acme/counter:{number}"
        self.owner = f"o{number}"
        self.store = store
        self.sent = 0
        self.handled = 0
        self.unknown = 0
        self.fenced = 0

    async def begin(self) -> Activation:
        """As a host does when it starts, and when it finds another incarnation."""
        incarnation = await patiently(self.store.register, self.owner, self.owner, 600)
        while True:
            await patiently(self.store.release, self.owner, [self.agent])
            with contextlib.suppress(StoreUnavailableError):
                if claimed := await self.store.claim(self.owner, 1, [self.agent]):
                    break
        self.fence = Fence(incarnation, claimed[0].epoch)
        return claimed[0]

    async def run(self) -> None:
        await self.begin()
        while True:
            await self.commit(self.send)
            self.sent += 1
            await self.commit(self.turn)
            self.handled += 1

    def send(self) -> Commit:
        sends = (Send(f"m{self.sent}", self.agent, self.agent, b"{}"),)
        return Commit("acme", self.agent, self.fence, sends=sends)

    def turn(self) -> Commit:
        number = self.handled
        return Commit(
            "acme", self.agent, self.fence, number,
            acks=(Ack(f"m{number}"),),
            events=(Event(f"handled {number}", b"{}"),),
            puts=(Put("count", self.agent, "acme", str(number).encode(), (f"n={number}",)),),
            feed=(FeedEvent("acme", f"{self.agent} {number}", (), 0, b""),),
        )  # fmt: skip

    async def commit(self, made: Callable[[], Commit]) -> None:
        """Repeated until there is an answer; after an unknown outcome a refusal means it landed."""
        doubted = False
        while True:
            try:
                [answer] = await self.store.commit([made()])
            except StoreUnavailableError:
                self.unknown += 1
                doubted = True
                await asyncio.sleep(0.002)
                continue
            if isinstance(answer, Committed):
                return
            if answer.reason != "stale_incarnation":
                assert doubted and answer.reason in ("duplicate", "version_conflict"), answer
                return
            self.fenced += 1
            await self.begin()


async def outlive(
    store: Store, kills: int, between: tuple[int, int], kill: Callable[[], Awaitable[None]]
) -> list[Lane]:
    """Commit from all lanes while the store is killed, then check each; the lanes.

    Args:
        between: commits from one kill to the next, at least and at most.
        kill: kills the store and starts it again.
    """
    chance = random.Random(7)
    lanes = [Lane(number, store) for number in range(LANES)]
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    for _ in range(kills):
        await reached(accepted(lanes) + chance.randint(*between), lanes, running)
        await kill()
    await ended(running)
    for lane in lanes:
        await settled(lane)
        await check(lane)
    assert sum(lane.unknown for lane in lanes) >= kills, "no kill hit a call: nothing was shown"
    return lanes


def accepted(lanes: Sequence[Lane]) -> int:
    """Commits."""
    return sum(lane.sent + lane.handled for lane in lanes)


async def reached(goal: int, lanes: Sequence[Lane], running: list[asyncio.Task[None]]) -> None:
    """Wait until so many commits were accepted; a lane that has ended says why."""
    async with asyncio.timeout(60):
        while accepted(lanes) < goal:
            for one in (task for task in running if task.done()):
                one.result()
            await asyncio.sleep(0.001)


async def ended(running: list[asyncio.Task[None]]) -> None:
    """End the lanes; one that has ended by itself is a failure."""
    for task in running:
        task.cancel()
    found = await asyncio.gather(*running, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError] * len(running), found


async def settled(lane: Lane) -> None:
    """Finish the turn that the end of the run cut short, whether or not it had landed."""
    await lane.begin()
    if lane.sent == lane.handled:
        [answer] = await lane.store.commit([lane.send()])
        assert isinstance(answer, Committed) or answer.reason == "duplicate"
        lane.sent += 1
    [answer] = await lane.store.commit([lane.turn()])
    assert isinstance(answer, Committed) or answer.reason == "version_conflict"
    lane.handled += 1


async def check(lane: Lane) -> None:
    """Every turn is there once and whole: message, event, document, index, feed."""
    names, version = [], 0
    while page := await lane.store.journal(lane.agent, version, 1000):
        names += [event.name for event in page]
        version = page[-1].version
    assert names == [f"handled {number}" for number in range(lane.handled)]
    messages, seq = [], 0
    while page := await lane.store.history(lane.agent, seq, 1000):
        messages += [(one.message_id, one.status) for one in page]
        seq = page[-1].seq
    assert messages == [(f"m{number}", "processed") for number in range(lane.sent)]
    assert await lane.store.inbox(lane.agent, 0, 10) == []
    document = await lane.store.get("count", lane.agent)
    assert (document.revision, document.body) == (lane.handled, str(lane.handled - 1).encode())
    assert await lane.store.count("count", "acme", [f"n={lane.handled - 1}"]) >= 1
    told, cursor = [], 0
    while (feed := await lane.store.tail(cursor, 1000, 0)).entries:
        told += [one.event for one in feed.entries if one.event.startswith(f"{lane.agent} ")]
        cursor = feed.cursor
    assert told == [f"{lane.agent} {number}" for number in range(lane.handled)]
