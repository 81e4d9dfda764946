"""redis-server is killed again and again: what it acknowledged is there, once and whole."""

from __future__ import annotations

import asyncio

import pytest

from runtime.store.contract import Commit, Send
from runtime.store.redis import RedisStore
from tests.lanes import Lane, outlive
from tests.redis_server import RedisServer

COMMITS_BETWEEN_KILLS = (50, 300)


async def killed(tmp_path, kills: int) -> None:
    server = RedisServer(tmp_path / "redis").start()
    store = await RedisStore.open(server.url)

    async def kill() -> None:
        server.kill()
        await asyncio.to_thread(server.start)

    lanes = await outlive(store, kills, COMMITS_BETWEEN_KILLS, kill)
    assert sum(lane.fenced for lane in lanes) >= kills, "a kill fenced nobody"
    await store.close()
    server.kill()


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
