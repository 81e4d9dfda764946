"""A stream whose client does not read: it is told, cut, and gives its place back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from runtime.console import events
from runtime.keys import CACHE_TTL_S
from tests.sockets import WAIT_S, Here, event, running

LARGE = 20_000_000
"""Bytes of an event; no connection keeps so much by itself."""
END = b"\r\n0\r\n\r\n"


@pytest.fixture
async def here(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    monkeypatch.setattr(events, "RECHECK_S", 0.01)
    monkeypatch.setattr("runtime.keys.CACHE_TTL_S", 0.01)
    async with running() as found:
        yield found


async def stalled(here: Here, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream whose client has read no more than the beginning of a large event."""
    at = urlsplit(here.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=1_024)
    head = f"GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(WAIT_S):
        await reader.readuntil(b"retry: ")
        await here.publish(event(1, text="x" * LARGE), event(2))
        await reader.readuntil(b"event: test:event\n")
    return reader, writer


def is_told_slow(caplog: pytest.LogCaptureFixture) -> bool:
    return any(getattr(one, "action", "") == "socket.slow" for one in caplog.records)


async def test_a_stream_that_was_slow_is_told_and_goes_on_where_it_was(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that was busy for a moment would lose its stream without a word, or an event."""
    monkeypatch.setattr(events, "SLOW_S", 0.1)
    monkeypatch.setattr(events, "CLOSE_S", WAIT_S)
    caplog.set_level("INFO", logger="runtime.console.events")
    token, _ = await here.api.key()
    reader, writer = await stalled(here, token)
    told = bytearray()
    async with asyncio.timeout(WAIT_S):
        while not is_told_slow(caplog):
            await asyncio.sleep(0.01)
        while not told.endswith(END):
            told += (some := await reader.read(1 << 20))
            assert some, "it was cut without a word"
    writer.close()
    *_, last, slow, _ = bytes(told).replace(b"\r\n", b"").split(b"\n\n")
    assert b"event: slow\n" in slow
    assert b"id: " not in slow
    place = last.rpartition(b"id: ")[2].decode()
    async with here.api.stream("/api/events", token, last_event_id=place) as stream:
        assert (await stream.event()).data["data"]["n"] == 2


@pytest.mark.parametrize("why", ["slow", "revoked", "old"])
async def test_a_stream_that_is_not_read_is_cut_and_gives_its_place_back(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    """Would hold a place, memory and what a revoked key may see, for as long as a client likes."""
    caplog.set_level("INFO", logger="runtime.console.events")
    monkeypatch.setattr(events, "CLOSE_S", 0.1)
    hub, (token, key) = here.api.app.state.console.feed, await here.api.key()
    reader, writer = await stalled(here, token)
    assert hub.readers == 1
    if why == "slow":
        monkeypatch.setattr(events, "SLOW_S", 0.1)
    elif why == "revoked":
        await here.api.keys.revoke(key.id)
    else:
        monkeypatch.setattr(events, "AGE_MAX_S", 0.0)
    async with asyncio.timeout(WAIT_S), hub.reader("acme", ["job:x"]):
        while hub.readers > 1:
            await asyncio.sleep(0.01)
        assert is_told_slow(caplog) is (why == "slow")
        left = 0
        try:
            while some := await reader.read(1 << 20):
                left += len(some)
        except ConnectionError:
            pass
    writer.close()
    assert left < LARGE  # what was not on its way is thrown away
    assert not any(one.levelname == "ERROR" for one in caplog.records)


def test_a_stream_of_a_revoked_key_ends_in_time() -> None:
    """Would promise in docs/api.md what the code does not keep."""
    assert events.RECHECK_S + CACHE_TTL_S + events.CLOSE_S < 5


async def test_events_are_sent_in_pieces_that_a_slow_line_takes_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that takes in all it can would be sent away for the size of what it is sent."""
    monkeypatch.setattr(events, "PIECE_BYTES", 2_000)
    sizes: list[int] = []
    pieces = events._pieces

    def noted(told: object) -> object:
        for piece in pieces(told):  # type: ignore[arg-type]
            sizes.append(len(piece))
            yield piece

    monkeypatch.setattr(events, "_pieces", noted)
    async with running() as here:
        token, _ = await here.api.key()
        async with here.api.stream("/api/events", token) as stream:
            sent = [event(number, text="x" * 1_000) for number in range(50)]
            await here.api.door("acme").commit(events=sent)
            assert [(await stream.event()).data["data"]["n"] for _ in sent] == list(range(50))
    assert len(sizes) >= 10
    assert max(sizes) < 2_000 + 1_500
