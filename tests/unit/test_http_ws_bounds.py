"""What a client of the WebSocket may say: acks in any form, and no more than there is room for."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from runtime.console import door, ws
from runtime.keys import CACHE_TTL_S
from tests.http import HttpTroupe
from tests.served import served
from tests.sockets import WAIT_S, Here, Line, event, running

TOO_LARGE = (1009, "too_large")


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    async with running() as found:
        yield found


async def next_event(line: Line) -> Any:
    """The next that is no answer."""
    while (told := await line.hear())["event"] == "subscribed":
        pass
    return told


async def upgraded(here: Here, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A socket whose bytes are the test's own to read, or not."""
    at = urlsplit(here.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=1_024)
    writer.write(
        b"GET /api/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        + f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    async with asyncio.timeout(WAIT_S):
        await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def frame(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=True)


@pytest.mark.parametrize(
    "form",
    [
        '{"ack":"PLACE"}',
        ' { "ack" : "PLACE" } ',
        '{"cursor": null, "ack": "PLACE"}',
        '{"ack": "PLACE", "subscribe": ["job:x"]}',
        '{"unsubscribe": ["job:x"], "ack": "PLACE"}',
    ],
)
async def test_an_ack_is_heard_in_whatever_form_it_comes(
    here: Here, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Would close a client that says all it should, only because of a space in its JSON."""
    monkeypatch.setattr(ws, "UNACKED_MAX", 20)
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"])
        await here.publish(*(event(number) for number in range(100)))
        for number in range(100):
            told = await next_event(line)
            assert told["data"].get("n") == number
            if number % 20 == 19:  # the last that comes before it
                await line.socket.send(form.replace("PLACE", told["cursor"]))


async def test_an_ack_is_heard_behind_more_than_waits_for_an_answer(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ack that a full socket waits for would never be read, or what is asked lose events."""
    monkeypatch.setattr(ws, "UNACKED_MAX", 20)
    monkeypatch.setattr(ws, "RECHECK_S", 4 * WAIT_S)  # it is woken by what is asked
    rooms = [f"job:{number}" for number in range(2 * ws.ASKED_MAX)]
    async with here.line() as line:
        await line.ask(subscribe=["issue:a"])
        told = [event(number, "acme", "issue:a") for number in range(50)]
        await here.api.door("acme").commit(events=told)
        assert await line.numbers(20) == list(range(20))  # and now it has its fill
        for room in rooms:
            await line.say(subscribe=[room])
        answers = [await line.hear() for _ in rooms]
        assert [len(answer["data"]["rooms"]) for answer in answers] == [*range(2, len(rooms) + 2)]
        assert {answer["cursor"].partition(":")[2] for answer in answers} == {"20"}
        for number in range(20, 50):
            await line.say(ack=answers[-1]["cursor"])
            answers.append(await line.hear())
            assert answers[-1]["data"]["n"] == number


async def test_whoever_asks_but_acknowledges_nothing_is_told_and_closed(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that takes nothing in would stay for as long as it asks for something."""
    monkeypatch.setattr(ws, "UNACKED_MAX", 5)
    monkeypatch.setattr(ws, "SLOW_S", 0.3)
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"])
        await here.publish(*(event(number) for number in range(10)))
        assert await line.numbers(5) == list(range(5))
        async with asyncio.timeout(WAIT_S):
            while (await line.ask(subscribe=["job:x"]))["event"] == "subscribed":
                pass
        assert await line.closed() == (4408, "too_slow")


async def test_whoever_has_its_fill_again_has_all_the_time_again(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that always acknowledges would be closed for how often it had its fill."""
    monkeypatch.setattr(ws, "UNACKED_MAX", 5)
    monkeypatch.setattr(ws, "SLOW_S", 1.0)
    now_s = asyncio.get_running_loop().time
    end_s = now_s() + 2 * ws.SLOW_S
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"])
        while now_s() < end_s:
            sent = [event(number) for number in range(6)]
            await here.api.door("acme").commit(events=sent)
            assert await line.numbers(5) == [0, 1, 2, 3, 4]
            said = await line.ask(subscribe=["job:x"])
            assert said["event"] == "subscribed"
            await line.say(ack=said["cursor"])
            last = await line.hear()
            assert last["data"]["n"] == 5
            await line.say(ack=last["cursor"])


async def test_an_ack_alone_is_not_answered_and_begins_nothing(here: Here) -> None:
    """Would answer what no answer is due to, and refuse the place that a client comes back with."""
    await here.publish(event(0), event(1))
    incarnation = (await here.api.store.health()).incarnation
    async with here.line() as line:
        await line.say(ack="")
        said = await line.ask(subscribe=["monitoring"], cursor=f"{incarnation}:1")
        assert said["event"] == "subscribed"
        assert await line.numbers(1) == [1]


async def test_an_empty_subscription_is_answered(here: Here) -> None:
    """Would leave a client waiting for the answer to a list that happens to be empty."""
    async with here.line() as line:
        assert (await line.ask(subscribe=[], ack="i:1"))["data"] == {"rooms": []}


@pytest.mark.parametrize("size", [0, 15_000_000])
@pytest.mark.parametrize("opcode", [0x81, 0x82, 0x01])
async def test_what_is_too_large_is_refused_before_it_is_there(
    here: Here, opcode: int, size: int
) -> None:
    """A viewer could have 16 MiB kept a socket, or would not hear why it is closed as it sends."""
    token, _ = await here.api.key()
    reader, writer = await upgraded(here, token)
    async with asyncio.timeout(WAIT_S):
        begins = bytes([opcode, 0x80 | 127]) + struct.pack("!QI", 1 << 24, 0)
        writer.write(begins + b"x" * size)
        await writer.drain()  # some listen only when they have said it all
        assert await reader.read() == b"\x88" + bytes([11]) + struct.pack("!H", 1009) + b"too_large"
        writer.close()


async def test_a_message_is_bounded_in_bytes_not_in_characters(here: Here) -> None:
    """Would let in twice as much as docs/api.md says, or refuse what it allows."""
    most = '{"unsubscribe": ["' + "x" * (door.MESSAGE_BYTES_MAX - 21) + '"]}'
    assert len(most) == door.MESSAGE_BYTES_MAX
    for more in (most + " ", b"\x00" * 1_000_000, most.replace("x", "ü"), [most, " "]):
        async with here.line() as line:
            await line.socket.send(most)
            assert (await line.hear())["event"] == "subscribed"
            await line.socket.send(more)
            assert await line.closed() == TOO_LARGE


async def test_a_message_is_bounded_behind_another_server_too() -> None:
    """Under a proxy that takes in more, a client could have as much as that kept."""
    api = HttpTroupe()
    token, _ = await api.key()
    headers = {"Authorization": f"Bearer {token}"}
    with served(api.app) as url:
        for more in ("ü" * (door.MESSAGE_BYTES_MAX // 2 + 1), b"x" * (door.MESSAGE_BYTES_MAX + 1)):
            address = url.replace("http", "ws") + "/api/ws"
            async with open_socket(address, additional_headers=headers, proxy=None) as socket:
                await socket.send(more)
                async with asyncio.timeout(WAIT_S):
                    assert await Line(socket).closed() == TOO_LARGE


async def test_an_upgrade_that_is_refused_is_no_error_of_the_server(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has no key could fill the log with errors."""
    for _ in range(3):
        with pytest.raises(InvalidStatus) as refused:
            async with here.line("x"):
                pass
        body = refused.value.response.body
        assert body is not None
        assert json.loads(body)["code"] == "unauthorized"
    assert [one.getMessage() for one in caplog.records if one.name.startswith("uvicorn")] == []


LARGE = 20_000_000
"""Bytes of an event; no connection keeps so much by itself."""


async def stalled(here: Here, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A socket whose client has read no more than the beginning of a large event."""
    reader, writer = await upgraded(here, token)
    writer.write(frame(Opcode.TEXT, b'{"subscribe": ["monitoring"]}'))
    async with asyncio.timeout(WAIT_S):
        await reader.readuntil(b'"subscribed"')
        await here.publish(event(1, text="x" * LARGE))
        await reader.readuntil(b'"test:event"')
    return reader, writer


async def rest(reader: asyncio.StreamReader) -> int:
    """How many bytes come until the end."""
    read = 0
    with suppress(ConnectionError):
        async with asyncio.timeout(WAIT_S):
            while some := await reader.read(1 << 20):
                read += len(some)
    return read


@pytest.mark.parametrize("why", ["slow", "revoked"])
async def test_a_socket_that_takes_nothing_is_cut_and_gives_its_place_back(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    """Would hold a place, memory and what a revoked key may see, for as long as a client likes."""
    caplog.set_level("INFO", logger="runtime.console.ws")
    monkeypatch.setattr(ws, "CLOSE_S", 0.1)
    monkeypatch.setattr(ws, "RECHECK_S", 0.01)
    monkeypatch.setattr("runtime.keys.CACHE_TTL_S", 0.01)
    hub, (token, key) = here.api.app.state.console.feed, await here.api.key()
    reader, writer = await stalled(here, token)
    writer.write(frame(Opcode.TEXT, b'{"subscribe": ["job:x"]}'))  # its answer has no room
    assert hub.readers == 1
    if why == "slow":
        monkeypatch.setattr(ws, "SLOW_S", 0.1)
    else:
        await here.api.keys.revoke(key.id)
    async with asyncio.timeout(WAIT_S), hub.reader("acme", ["job:y"]):
        while hub.readers > 1:
            await asyncio.sleep(0.01)
    assert await rest(reader) < LARGE  # what was not on its way is thrown away
    writer.close()
    slow = [one for one in caplog.records if getattr(one, "action", "") == "socket.slow"]
    assert bool(slow) is (why == "slow")


@pytest.mark.parametrize(
    "last",
    [
        Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True),
        Frame(Opcode.TEXT, b"{}").serialize(mask=False),  # against the protocol
        Frame(Opcode.TEXT, b"x" * (door.MESSAGE_BYTES_MAX + 1)).serialize(mask=True),
        b"",  # and answers no ping
    ],
    ids=["close", "unmasked", "too large", "silent"],
)
async def test_a_connection_that_is_closed_does_not_stay_for_what_nobody_reads(
    monkeypatch: pytest.MonkeyPatch, last: bytes
) -> None:
    """A viewer could have any number of large events held, each by a socket that counts no more."""
    lost = asyncio.Event()

    class Noted(door.Sockets):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    monkeypatch.setattr(door, "GONE_S", 0.1)
    monkeypatch.setitem(door.SERVED, "ws", Noted)
    if not last:
        monkeypatch.setitem(door.SERVED, "ws_ping_interval", 0.5)
        monkeypatch.setitem(door.SERVED, "ws_ping_timeout", 0.1)
    async with running() as here:
        token, _ = await here.api.key()
        reader, writer = await stalled(here, token)
        writer.write(last)
        async with asyncio.timeout(WAIT_S):
            await lost.wait()
        assert await rest(reader) < LARGE
        writer.close()


def test_a_socket_of_a_revoked_key_ends_in_time() -> None:
    """Would promise in docs/api.md what the code does not keep."""
    assert ws.RECHECK_S + CACHE_TTL_S + ws.CLOSE_S <= 5


async def test_pings_of_a_client_that_reads_nothing_are_not_kept(here: Here) -> None:
    """A viewer could have any amount of pongs held for it."""
    token, _ = await here.api.key()
    reader, writer = await stalled(here, token)
    pings = frame(Opcode.PING, b"x" * 125) * 80_000
    async with asyncio.timeout(WAIT_S):
        writer.write(pings)
        writer.write(frame(Opcode.CLOSE, b"\x03\xe8"))
        await writer.drain()
    assert await rest(reader) < LARGE + len(pings) // 4
    writer.close()
