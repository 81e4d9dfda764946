"""The store's process is killed again and again: what it acknowledged is there, once."""

from __future__ import annotations

import asyncio
import random

import pytest

from runtime.errors import StoreUnavailableError
from runtime.store.contract import (
    Ack,
    Commit,
    Committed,
    Event,
    FeedEvent,
    Fence,
    Put,
    Refused,
    Send,
)
from runtime.store.remote import RemoteStore
from tests.store_process import StoreProcess

KILLS = 10
LANES = 8
COMMITS_BETWEEN_KILLS = (50, 400)


class Lane:
    """One agent: sends itself a message, then handles it; counts what was acknowledged."""

    def __init__(self, number: int, store: RemoteStore, incarnation: str) -> None:
        self.agent = f"acme/counter:{number}"
        self.store = store
        self.fence = Fence(incarnation, 1)
        self.sent = 0
        self.handled = 0
        self.unknown = 0

    async def run(self) -> None:
        while True:
            sends = (Send(f"m{self.sent}", self.agent, self.agent, b"{}"),)
            await self.commit(Commit("acme", self.agent, self.fence, sends=sends))
            self.sent += 1
            await self.commit(self.turn(self.handled))
            self.handled += 1

    def turn(self, number: int) -> Commit:
        return Commit(
            "acme",
            self.agent,
            self.fence,
            number,
            acks=(Ack(f"m{number}"),),
            events=(Event(f"handled {number}", b"{}"),),
            puts=(Put("count", self.agent, "acme", str(number).encode(), (f"n={number}",)),),
            feed=(FeedEvent("acme", f"{self.agent} {number}", (), 0, b""),),
        )

    async def commit(self, commit: Commit) -> None:
        """As a host does: repeated until there is an answer; a refusal then means it landed."""
        repeated = False
        while True:
            try:
                [answer] = await self.store.commit([commit])
            except StoreUnavailableError:
                self.unknown += 1
                repeated = True
                continue
            if isinstance(answer, Refused):
                assert repeated and answer.reason in ("duplicate", "version_conflict"), answer
            return


@pytest.mark.parametrize(("durability", "kills"), [("power loss", KILLS), ("process kill", 3)])
async def test_no_acknowledged_commit_is_lost_when_the_store_is_killed(tmp_path, durability, kills):
    """Accepted would not mean durable, or a commit would be there in half or twice."""
    chance = random.Random(7)
    process = StoreProcess(tmp_path, durability)
    await process.start()
    store = RemoteStore(process.socket)
    incarnation = await store.register("o1", "host-1", 600)
    lanes = [Lane(number, store, incarnation) for number in range(LANES)]
    assert len(await store.claim("o1", LANES, [lane.agent for lane in lanes])) == LANES
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    for _ in range(kills):
        goal = sum(lane.sent + lane.handled for lane in lanes)
        goal += chance.randint(*COMMITS_BETWEEN_KILLS)
        await reached(goal, lanes, running)
        await process.kill()
        await process.start()
    for task in running:
        task.cancel()
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * LANES, ended
    for lane in lanes:
        await settled(lane)
        await check(lane)
    assert sum(lane.unknown for lane in lanes) >= kills, "no kill hit a call: nothing was shown"
    await store.close()
    await process.kill()


async def reached(goal: int, lanes: list[Lane], running: list[asyncio.Task[None]]) -> None:
    """Wait until so many commits were accepted; a lane that has ended says why."""
    async with asyncio.timeout(30):
        while sum(lane.sent + lane.handled for lane in lanes) < goal:
            for ended in (task for task in running if task.done()):
                ended.result()
            await asyncio.sleep(0.001)


async def settled(lane: Lane) -> None:
    """Finish the turn that the end of the run cut short, whether or not it had landed."""
    if lane.sent == lane.handled:
        sends = (Send(f"m{lane.sent}", lane.agent, lane.agent, b"{}"),)
        await lane.store.commit([Commit("acme", lane.agent, lane.fence, sends=sends)])
        lane.sent += 1
    [answer] = await lane.store.commit([lane.turn(lane.handled)])
    assert isinstance(answer, Committed) or answer.reason == "version_conflict"
    lane.handled += 1


async def check(lane: Lane) -> None:
    """Every turn is there once and whole: message, event, document, feed."""
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
    document = await lane.store.get("count", lane.agent)
    assert (document.revision, document.body) == (lane.handled, str(lane.handled - 1).encode())
    assert await lane.store.count("count", "acme", [f"n={lane.handled - 1}"]) >= 1
    told, cursor = [], 0
    while (feed := await lane.store.tail(cursor, 1000, 0)).entries:
        told += [one.event for one in feed.entries if one.event.startswith(f"{lane.agent} ")]
        cursor = feed.cursor
    assert told == [f"{lane.agent} {number}" for number in range(lane.handled)]
