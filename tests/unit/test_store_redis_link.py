"""The connection to a redis-server: how long an answer may take."""

from __future__ import annotations

import asyncio

import pytest

from runtime.errors import StoreUnavailableError
from runtime.store import redis_link
from runtime.store.redis_link import Link, Server

PIECES = 8
BODY = b"x" * 10 * PIECES


async def _answer(reader, writer, pieces):
    """Accept whatever is said on a new connection; a GET is answered in pieces."""
    while line := await reader.readline():
        words = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        if words[0] != b"GET":
            writer.write(b"+OK\r\n")
            continue
        writer.write(b"$%d\r\n" % len(BODY))
        for at in range(pieces):
            await asyncio.sleep(redis_link.ANSWER_S / 3)
            writer.write(BODY[at * 10 : at * 10 + 10])
        if pieces == PIECES:
            writer.write(b"\r\n")


@pytest.fixture
async def linked(monkeypatch):
    """Connects to a server that sends so many pieces of an answer."""
    monkeypatch.setattr(redis_link, "ANSWER_S", 0.15)
    ends = []

    async def connect(pieces):
        async def serve(reader, writer):
            ends.append(writer.close)
            await _answer(reader, writer, pieces)

        server = await asyncio.start_server(serve, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        link = Link(Server(f"redis://127.0.0.1:{port}/0"), lambda connection: asyncio.sleep(0))
        ends.append(server.close)
        return link

    yield connect
    for end in ends:
        end()


async def test_an_answer_may_take_as_long_as_it_comes(linked):
    """A claim of large messages would be given up, and asked for again, for ever."""
    link = await linked(PIECES)
    first, second = await asyncio.gather(link.call("GET", "a"), link.call("GET", "b"))
    assert (first, second) == (BODY, BODY)
    await link.close()


async def test_an_answer_that_stops_coming_is_given_up(linked):
    """A server that hangs in the middle of an answer would hold its callers for ever."""
    link = await linked(PIECES - 1)
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailableError, match="in time"):
            await link.call("GET", "a")
    await link.close()
