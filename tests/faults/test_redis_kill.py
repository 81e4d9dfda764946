"""redis-server is killed again and again: what it acknowledged is there, once and whole."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from runtime.errors import StoreUnavailableError
from runtime.patience import patiently
from runtime.store.contract import (
    Ack,
    Commit,
    Committed,
    Event,
    FeedEvent,
    Fence,
    Put,
    Send,
)
from runtime.store.redis import RedisStore
from tests.redis_server import RedisServer

LANES = 8
COMMITS_BETWEEN_KILLS = (50, 300)


class Lane:
    """One agent: sends itself a message, then handles it; counts what was acknowledged."""

    def __init__(self, number: int, store: RedisStore) -> None:
        self.agent = f"acme/counter:{number}"
        self.owner = f"o{number}"
        self.store = store
        self.sent = 0
        self.handled = 0
        self.unknown = 0
        self.fenced = 0

    async def begin(self) -> None:
        """As a host does when it starts, and when it finds another incarnation."""
        incarnation = await patiently(lambda: self.store.register(self.owner, self.owner, 600))
        while True:
            await patiently(lambda: self.store.release(self.owner, [self.agent]))
            with contextlib.suppress(StoreUnavailableError):
                if claimed := await self.store.claim(self.owner, 1, [self.agent]):
                    break
        self.fence = Fence(incarnation, claimed[0].epoch)

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

    async def commit(self, made) -> None:
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


async def killed(tmp_path, kills: int) -> None:
    chance = random.Random(7)
    server = RedisServer(tmp_path / "redis").start()
    store = await RedisStore.open(server.url)
    lanes = [Lane(number, store) for number in range(LANES)]
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    for _ in range(kills):
        goal = done(lanes) + chance.randint(*COMMITS_BETWEEN_KILLS)
        async with asyncio.timeout(60):
            while done(lanes) < goal:
                await asyncio.sleep(0.001)
                assert not any(task.done() for task in running), [
                    task for task in running if task.done()
                ]
        server.kill()
        await asyncio.to_thread(server.start)
    for task in running:
        task.cancel()
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * LANES, ended
    for lane in lanes:
        await settled(lane)
        await check(lane)
    assert sum(lane.unknown for lane in lanes) >= kills, "no kill hit a call: nothing was shown"
    assert sum(lane.fenced for lane in lanes) >= kills, "a kill fenced nobody"
    await store.close()
    server.kill()


def done(lanes) -> int:
    return sum(lane.sent + lane.handled for lane in lanes)


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


async def test_no_acknowledged_commit_is_lost_when_redis_is_killed(tmp_path):
    """Accepted would not mean durable, or a commit would be there in half or twice."""
    await killed(tmp_path, 6)


@pytest.mark.slow
async def test_fifty_kills_of_redis_lose_nothing(tmp_path):
    """The same at length."""
    await killed(tmp_path, 50)


async def test_what_a_torn_file_has_of_a_commit_never_comes_back(tmp_path):
    """A commit that was never answered would come back in part, two restarts later."""
    server = RedisServer(tmp_path / "redis").start()
    store = await RedisStore.open(server.url)
    lane = Lane(0, store)
    await lane.begin()
    for made in (lane.send, lane.turn):
        await lane.commit(made)
    server.kill()
    torn_inside_the_last_transaction(server)
    for number in (1, 2):
        server.start()
        await lane.begin()
        assert [event.name for event in await store.journal(lane.agent, 0, 10)] == []
        other = Send(f"other-{number}", lane.agent, lane.agent, b"")
        await lane.commit(
            lambda other=other: Commit("acme", lane.agent, lane.fence, sends=(other,))
        )
        server.kill()
    server.start()
    await lane.begin()
    await lane.commit(lane.turn)
    lane.sent, lane.handled = 1, 1
    assert [event.name for event in await store.journal(lane.agent, 0, 10)] == ["handled 0"]
    assert (await store.get("count", lane.agent)).revision == 1
    await store.close()
    server.kill()


def torn_inside_the_last_transaction(server: RedisServer) -> None:
    """The file as a kill in the middle of a write leaves it: cut within a command."""
    [file] = (server.directory / "appendonlydir").glob("*.incr.aof")
    content = file.read_bytes()
    begin = content.rindex(b"$5\r\nMULTI")
    event = content.index(b"handled 0", begin)
    file.write_bytes(content[: content.index(b"$4\r\nZREM", event) + 12])
