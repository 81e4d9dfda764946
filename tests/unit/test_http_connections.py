"""A connection of requests is held only for a client that does its part."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.responses import Response

from runtime.cluster.port import CONNECTIONS_MAX
from runtime.console import requests
from runtime.console.body import BODY_WAIT_S
from runtime.console.door import SERVED
from runtime.console.headers import SECURITY
from runtime.console.letters import letter_id
from runtime.console.requests import CUT, HEAD_BYTES_MAX, TAKEN_BYTES_MIN
from runtime.keys import Role
from tests.http import HttpTroupe, populate
from tests.served import serving
from tests.troupe import soon

LARGE = 8 << 20
"""More than the kernel keeps of an answer that nobody takes."""
GET = b"GET /api/health HTTP/1.1\r\nHost: troupe\r\n"


class Line:
    """A client's end of one connection, as raw as it gets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await soon(self.writer.drain())

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and the body, read as JSON."""
        head = await soon(self.reader.readuntil(b"\r\n\r\n"))
        first, *lines = head.decode().split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        body = await soon(self.reader.readexactly(int(headers["content-length"])))
        return int(first.split()[1]), headers, json.loads(body)

    async def ended(self) -> bytes:
        """What came until the server closed or cut it."""
        found = b""
        try:
            while more := await soon(self.reader.read(1 << 16)):
                found += more
        except ConnectionError:
            pass
        return found


@asynccontextmanager
async def line(url: str, buffer_bytes: int = 0) -> AsyncIterator[Line]:
    """A connection; with `buffer_bytes` its kernel takes in no more than about that by itself."""
    plain = socket.socket()
    if buffer_bytes:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port(url)))
    reader, writer = await asyncio.open_connection(sock=plain, limit=1 << 12)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


def noted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The server's ends of the connections, as they are made."""
    made: list[Any] = []
    begin = requests.Requests.connection_made

    def connection_made(self: Any, transport: Any) -> None:
        made.append(self)
        begin(self, transport)

    monkeypatch.setattr(requests.Requests, "connection_made", connection_made)
    return made


async def large(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with a lot at once."""
    assert scope["type"] == "http"
    await Response(b"x" * LARGE)(scope, receive, send)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /api/hea", id="half a line"),
        pytest.param(GET, id="half a head"),
        pytest.param(GET + b"Content-Length: 9\r\n\r\n{", id="half a body"),
    ],
)
async def test_a_request_that_does_not_come_gives_its_place_back(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some thousand connections that say nothing would be all that a replica has."""
    monkeypatch.setattr(requests, "COMING_S", 0.05)
    async with serving(HttpTroupe().app) as url, line(url) as one:
        await one.send(sent)
        assert await one.ended() == b""


async def test_what_is_not_read_for_another_answers_sake_is_not_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client would lose a long answer because it has asked for more meanwhile."""
    begun, go_on, late = asyncio.Event(), asyncio.Event(), asyncio.Event()
    is_late = requests.Requests._late

    def seen(self: Any) -> None:
        monkeypatch.setattr(requests, "COMING_S", 30.0)
        is_late(self)
        late.set()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        begun.set()
        await go_on.wait()
        await Response(b"1")(scope, receive, send)

    monkeypatch.setattr(requests.Requests, "_late", seen)
    async with serving(slow) as url, line(url) as one:
        await one.send(GET + b"\r\n")
        await soon(begun.wait())
        monkeypatch.setattr(requests, "COMING_S", 0.01)
        await one.send(GET + b"Content-Length: 2\r\n\r\n{")
        await soon(late.wait())
        go_on.set()
        assert (await one.answer())[0] == 200
        await one.send(b"}")
        assert (await one.answer())[0] == 200


async def test_what_does_not_come_whole_is_not_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A redelivery with another payload would be one with the old payload, for instance."""
    api = HttpTroupe()
    token, _ = await api.key(Role.OPERATOR)
    made = noted(monkeypatch)
    world = await populate(api)
    head = b"POST /api/dead-letters/%b/redeliver HTTP/1.1\r\nHost: troupe\r\n"
    head = head % letter_id(world.letter).encode() + b"Content-Type: application/json\r\n"
    head += b"Authorization: Bearer %b\r\nContent-Length: 40\r\n\r\n" % token.encode()
    before = (await api.store.health()).commits
    async with serving(api.app) as url:
        async with line(url) as one:
            await one.send(head + b'{"payload":')
            await soon(_until(lambda: bool(made and made[0].tasks)))
        await soon(_until(lambda: not made[0].tasks))
    assert (await api.store.health()).commits == before
    assert await api.store.get("dead_letter", world.letter) is not None


@pytest.mark.parametrize(
    ("before", "endless"),
    [
        pytest.param(b"GET /", b"a" * 1024, id="path"),
        pytest.param(GET + b"X: ", b"a" * 1024, id="value"),
        pytest.param(GET, b"a: b\r\n" * 200, id="fields"),
    ],
)
async def test_a_head_without_end_is_refused(before: bytes, endless: bytes) -> None:
    """Whoever has no key could fill the memory of a replica."""
    async with serving(HttpTroupe().app) as url, line(url) as one:
        await one.send(before)
        sent = 0
        try:
            while not one.reader.at_eof() and not one.reader._buffer:  # type: ignore[attr-defined]
                await one.send(endless)
                sent += len(endless)
                assert sent < 10 * HEAD_BYTES_MAX
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert sent > HEAD_BYTES_MAX // 2


async def test_a_head_that_is_too_large_is_told_so() -> None:
    """Its sender would look for the reason elsewhere."""
    async with serving(HttpTroupe().app) as url, line(url) as one:
        await one.send(GET + b"X: " + b"a" * HEAD_BYTES_MAX)
        status, headers, problem = await one.answer()
    assert (status, problem["code"]) == (431, "head_too_large")
    assert headers["connection"] == "close"


async def test_what_comes_behind_a_body_is_no_part_of_the_head() -> None:
    """What a proxy has looked at, or this door, could be told otherwise behind the body."""
    api = HttpTroupe()
    token, _ = await api.key(Role.OPERATOR)
    post = b"POST /api/agents/counter:a/messages HTTP/1.1\r\nHost: troupe\r\n"
    post += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    body = b'\r\ne\r\n{"content": 1}\r\n0\r\n'
    key = b"Authorization: Bearer " + token.encode() + b"\r\n"
    async with serving(api.app) as url:
        async with line(url) as one:
            await one.send(post + body + key + b"\r\n")
            assert (await one.answer())[0] == 401
        async with line(url) as one:
            await one.send(post + key + body + b"Authorization: Bearer x\r\n\r\n")
            assert (await one.answer())[0] == 202


async def test_what_is_no_request_is_a_problem_too() -> None:
    """A program that reads problems would fail over the server's own words."""
    async with serving(HttpTroupe().app) as url, line(url) as one:
        await one.send(b"GET /api/jobs/\xc3\xa9 HTTP/1.1\r\n\r\n")
        status, headers, problem = await one.answer()
        assert (status, problem["code"]) == (400, "malformed_request")
        assert headers["content-type"] == "application/problem+json"
        assert headers.items() >= {name.lower(): value for name, value in SECURITY.items()}.items()
        assert await one.ended() == b""


@pytest.mark.parametrize(
    "more", [b"Content-Length: 1\r\n", b"X: %b\r\n" % (b"a" * 9_000), b"X: a\r\n" * 200]
)
async def test_what_can_not_be_a_websocket_is_told_so(more: bytes) -> None:
    """A connection without a key, and without an answer, would be held for good."""
    upgrade = (
        b"GET /api/ws HTTP/1.1\r\nHost: troupe\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    )
    upgrade += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    async with serving(HttpTroupe().app) as url, line(url) as one:
        await one.send(upgrade + more + b"\r\n")
        status, _, problem = await one.answer()
        assert (status, problem["code"]) == (400, "malformed_request")
        assert await one.ended() == b""


async def test_what_is_no_request_is_not_answered_in_the_place_of_one() -> None:
    """A client would take what it has asked before for refused, though it is being done."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        begun.set()
        await go_on.wait()
        await Response(b"1")(scope, receive, send)

    async with serving(slow) as url, line(url) as one:
        await one.send(GET + b"\r\n")
        await soon(begun.wait())
        await one.send(b"no request\r\n\r\n")
        assert await one.ended() == b""
        go_on.set()
    async with serving(slow) as url, line(url) as one:
        await one.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
        assert (await one.answer())[0] == 400
        assert await one.ended() == b""


async def test_one_connection_too_many_is_told_when_to_come_back() -> None:
    """It would be refused in words that no client of ours understands."""

    class Small(requests.Requests):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.limit_concurrency = 2

    served: dict[str, Any] = {**SERVED, "http": Small}
    server = uvicorn.Server(uvicorn.Config(HttpTroupe().app, port=0, log_level="error", **served))
    async with _running(server) as url, line(url) as first:
        await first.send(GET + b"\r\n")
        assert (await first.answer())[0] == 200
        async with line(url) as second:
            await second.send(GET + b"\r\n")
            status, headers, problem = await second.answer()
            assert (status, problem["code"]) == (503, "too_many_connections")
            assert (headers["retry-after"], headers["connection"]) == ("1", "close")


@asynccontextmanager
async def _running(server: uvicorn.Server) -> AsyncIterator[str]:
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.servers[0].close()
        for one in list(server.server_state.connections):
            one.transport.abort()


async def test_an_answer_that_nobody_takes_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client that does not read would hold its answer's memory and a place for good."""
    monkeypatch.setattr(requests, "TAKEN_S", 0.05)
    made = noted(monkeypatch)
    async with serving(large) as url, line(url, 1 << 12) as one:
        await one.send(GET + b"\r\n")
        await soon(_until(lambda: bool(made and made[0].transport.is_closing())))
        assert len(await one.ended()) < LARGE


async def test_what_is_left_of_an_answer_when_it_is_closed_is_not_kept_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transport that is closed in order waits for ever."""
    monkeypatch.setattr(requests, "TAKEN_S", 0.05)
    made = noted(monkeypatch)
    lost = asyncio.Event()
    end = requests.Requests.connection_lost

    def connection_lost(self: Any, error: Exception | None) -> None:
        end(self, error)
        lost.set()

    monkeypatch.setattr(requests.Requests, "connection_lost", connection_lost)
    async with serving(large) as url, line(url, 1 << 12) as one:
        await one.send(b"GET / HTTP/1.0\r\n\r\n")
        await soon(lost.wait())
        assert made


async def test_an_answer_that_is_taken_slowly_is_taken_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slow line would be cut in the middle of an answer."""
    made = noted(monkeypatch)
    async with serving(large) as url, line(url, 1 << 12) as one:
        await one.send(GET + b"\r\n")
        await soon(one.reader.readuntil(b"\r\n\r\n"))
        [server] = made
        taken = looks = 0
        while taken < LARGE:
            server._watch()
            goal = server._untaken() - TAKEN_BYTES_MIN
            while taken < LARGE and server._untaken() > goal:
                taken += len(await soon(one.reader.read(1 << 12)))
            if server.transport.get_write_buffer_size():
                server._look()  # as its timer does
                looks += 1
            assert not server.transport.is_closing()
        assert looks > 10


async def test_a_client_that_leaves_is_missed_though_it_has_asked_for_more() -> None:
    """A stream that nobody reads would keep its place as long as streams last."""
    api = HttpTroupe()
    token, _ = await api.key(Role.VIEWER)
    key = b"Authorization: Bearer " + token.encode() + b"\r\n\r\n"
    feed = api.app.state.console.feed
    async with serving(api.app) as url:
        async with line(url) as one:
            await one.send(b"GET /api/events HTTP/1.1\r\n" + key + GET + key)
            await soon(_until(lambda: feed.readers == 1))
        await soon(_until(lambda: feed.readers == 0))


async def test_the_application_may_cut_a_connection() -> None:
    """A stream could not be rid of a client that takes nothing in."""

    async def cutting(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        scope["extensions"][CUT]["cut"]()

    async with serving(cutting) as url, line(url) as one:
        await one.send(GET + b"\r\n")
        assert await one.ended() == b""


def test_the_bounds_are_those_of_the_manual() -> None:
    """Would promise in docs/api.md what the code does not keep."""
    manual = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    bounds = manual.partition("## Connections")[2].partition("\n\n`HEAD`")[0]
    assert re.findall(r"^\| ([\d,]+)", bounds, re.MULTILINE) == [
        f"{HEAD_BYTES_MAX >> 10}",
        f"{BODY_WAIT_S:g}",
        f"{requests.COMING_S:g}",
        f"{requests.TAKEN_S:g}",
        f"{CONNECTIONS_MAX:,}",
    ]
    assert f"{TAKEN_BYTES_MIN >> 10} KiB of an answer" in bounds


async def _until(look: Callable[[], bool]) -> None:
    while not look():
        await asyncio.sleep(0)
