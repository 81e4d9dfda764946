"""The WebSocket of events: its words, its places, its bounds, and who may listen."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from runtime.clock import SystemClock
from runtime.console import door, feed, ws
from runtime.console.settings import ConsoleSettings
from runtime.errors import StoreUnavailableError
from runtime.keys import CACHE_TTL_S
from runtime.store.contract import Document
from runtime.store.memory import MemoryStore
from tests.http import HttpTroupe
from tests.served import serving
from tests.sockets import WAIT_S, Here, event, running


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    async with running() as found:
        yield found


async def test_an_event_arrives_in_its_documented_shape(here: Here) -> None:
    """Would break every client that follows a job."""
    async with here.line() as line:
        incarnation = (await here.api.store.health()).incarnation
        assert await line.ask(subscribe=["job:j"]) == {
            "event": "subscribed", "cursor": f"{incarnation}:0", "data": {"rooms": ["job:j"]},
        }  # fmt: skip
        await here.publish(event(1, "acme", "job:j"))
        assert await line.hear() == {
            "event": "test:event",
            "cursor": f"{incarnation}:1",
            "organizationId": "acme",
            "timestamp": "2023-11-14T22:13:20.001Z",
            "data": {"n": 1, "timestamp": "2023-11-14T22:13:20.001Z"},
        }


async def test_rooms_come_and_go_at_the_present_place(here: Here) -> None:
    """Would tell what is not wanted any more, or old things of a room that was just added."""
    async with here.line() as line:
        await line.ask(subscribe=["issue:a"])
        await here.publish(event(1, "acme", "issue:b"), event(2, "acme", "issue:a"))
        assert await line.numbers(1) == [2]
        assert (await line.ask(subscribe=["issue:b"]))["data"]["rooms"] == ["issue:a", "issue:b"]
        await here.publish(event(3, "acme", "issue:b", "issue:a"), event(4, "acme", "issue:c"))
        assert await line.numbers(1) == [3]
        assert (await line.ask(unsubscribe=["issue:a"]))["data"]["rooms"] == ["issue:b"]
        await here.publish(event(5, "acme", "issue:a"), event(6, "acme", "issue:b"))
        assert await line.numbers(1) == [6]
        await line.ask(subscribe=["monitoring"])
        await here.publish(event(7), event(8, "globex"), event(9, "system", "scheduler"))
        assert await line.numbers(2) == [7, 9]


async def test_whoever_comes_back_goes_on_where_it_was(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would lose the events between two connections, or tell them twice."""
    monkeypatch.setattr(feed, "BATCH_MAX", 3)
    await here.publish(event(0))
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"])
        await here.publish(event(1), event(2), event(3))
        await line.hear()
        place = (await line.hear())["cursor"]
    await here.publish(*(event(number) for number in range(4, 20)))
    async with here.line() as line:
        said = await line.ask(subscribe=["monitoring"], cursor=place)
        assert (said["event"], said["cursor"]) == ("subscribed", place)
        await here.publish(event(20))
        assert await line.numbers(18) == list(range(3, 21))


@pytest.mark.parametrize("place", ["other:1", "INC:99", "x", "INC:-1"])
async def test_a_void_place_is_said_and_then_it_goes_on(here: Here, place: str) -> None:
    """Would leave a client believing it saw everything after the store lost data."""
    await here.publish(event(1))
    incarnation = (await here.api.store.health()).incarnation
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"], cursor=place.replace("INC", incarnation))
        reset = await line.hear()
        assert (reset["event"], reset["cursor"]) == ("reset", f"{incarnation}:1")
        await here.publish(event(2))
        assert await line.numbers(1) == [2]


async def test_a_store_that_lost_data_resets_open_sockets(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would let a client wait for ever for cursors that will not come."""
    monkeypatch.setattr(feed, "POLL_S", 0.02)
    assert isinstance(here.api.store, MemoryStore)
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"])
        await here.publish(event(1))
        await line.hear()
        here.api.store.incarnation = "restored"
        assert (await line.hear())["event"] == "reset"
        await here.publish(event(2))
        assert (await line.hear())["cursor"] == "restored:2"


class Flaky(MemoryStore):
    """From some moment on every other key that is asked for can't be had."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.looks = itertools.repeat(0)
        self.failed = 0

    async def get(self, collection: str, key: str) -> Document | None:
        if collection == "key" and next(self.looks) % 2:
            self.failed += 1
            raise StoreUnavailableError("busy")
        return await super().get(collection, key)


async def test_a_store_that_is_out_for_a_moment_costs_no_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Would drop what was read when the question whether the key holds is not answered."""
    monkeypatch.setattr(ws, "RECHECK_S", 0.01)
    monkeypatch.setattr("runtime.keys.CACHE_TTL_S", 0.0)
    store = Flaky()
    async with running(store=store) as here, here.line() as line:
        await line.ask(subscribe=["monitoring"])
        store.looks = itertools.count()
        number = 0
        async with asyncio.timeout(WAIT_S):
            while number < 50 or store.failed < 3:
                await here.publish(event(number))
                number += 1
                await asyncio.sleep(0.002)
        assert await line.numbers(number) == list(range(number))


async def test_a_strangers_rooms_say_nothing_and_its_organization_is_none(here: Here) -> None:
    """Would show one organization what another is doing, or which ids it has."""
    async with here.line(organization="globex") as eve:
        refused = await eve.ask(subscribe=["organization:acme"])
        unknown = await eve.ask(subscribe=["organization:nobody"])
        assert refused == unknown
        assert (refused["event"], refused["data"]["code"]) == ("refused", "unknown_room")
        known = ["job:a", "issue:a", "agent:code:a", "organization:globex", "scheduler"]
        assert (await eve.ask(subscribe=known))["event"] == "subscribed"
        await here.publish(
            event(1, "acme", "job:a", "issue:a", "agent:code:a", "scheduler"), event(2, "globex")
        )
        assert await eve.numbers(1) == [2]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"subscribe": ["nowhere"]}, "unknown_room"),
        ({"subscribe": ["job:a", "job:"]}, "unknown_room"),
        ({"subscribe": ["review:a"]}, "unknown_room"),
        ({"subscribe": [f"job:{n}" for n in range(50)]}, "too_many_rooms"),
        ({"subscribe": [f"job:{n}" for n in range(51)]}, "too_many_rooms"),
        ({"subscribe": ["job:b"], "cursor": "i:1"}, "cursor_too_late"),
        ({"rooms": ["job:b"]}, "invalid_request"),
        ({"subscribe": "job:b"}, "invalid_request"),
        ({"ack": 3}, "invalid_request"),
        (["subscribe"], "invalid_request"),
    ],
)
async def test_what_is_asked_wrongly_changes_nothing_and_is_said(
    here: Here, words: Any, code: str
) -> None:
    """Would leave a client waiting in a room that it is not in."""
    async with here.line() as line:
        await line.ask(subscribe=["issue:a"])
        await line.socket.send(json.dumps(words))
        refused = await line.hear()
        assert (refused["event"], refused["data"]["code"]) == ("refused", code)
        await here.publish(event(1, "acme", "job:b", "job:a", "job:1"), event(2, "acme", "issue:a"))
        assert await line.numbers(1) == [2]
        await line.socket.send(b"\x00")
        assert (await line.hear())["data"]["code"] == "invalid_request"


async def test_nobody_is_connected_without_a_good_key(here: Here) -> None:
    """Would let anybody listen, or say to a stranger what a socket says."""
    token, key = await here.api.key()
    await here.api.keys.revoke(key.id)
    for bad in (token, "troupe_" + "0" * 64, "x"):
        with pytest.raises(InvalidStatus) as refused:
            async with here.line(bad):
                pass
        _is_problem(refused.value, 401, "unauthorized")


async def test_an_upgrade_while_the_store_is_away_is_answered_so(here: Here) -> None:
    """A client could not tell an outage from a key that is wrong, and would give up."""
    token, _ = await here.api.key()
    await here.api.store.close()
    with pytest.raises(InvalidStatus) as refused:
        async with here.line(token):
            pass
    _is_problem(refused.value, 503, "store_unavailable")
    assert int(refused.value.response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("path", ["/api/wss", "/api/jobs", "/api/health"])
async def test_an_upgrade_of_what_is_no_socket_is_answered_so(here: Here, path: str) -> None:
    """Whoever has the wrong address would look for what is wrong with the key."""
    here.url = here.url.replace("/api/ws", path)
    with pytest.raises(InvalidStatus) as refused:
        async with here.line():
            pass
    _is_problem(refused.value, 404, "not_found", path)


def _is_problem(refused: InvalidStatus, status: int, code: str, instance: str = "/api/ws") -> None:
    response = refused.response
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.body is not None
    problem = json.loads(response.body)
    assert (problem["status"], problem["code"], problem["instance"]) == (status, code, instance)


@pytest.mark.parametrize(
    ("offers", "sent"),
    [
        ({}, {"type": "websocket.close", "code": 1008}),
        ({"websocket.http.response": {}}, {"type": "websocket.http.response.start", "status": 401}),
    ],
)
async def test_a_server_that_offers_no_answer_to_upgrades_is_asked_to_close(
    offers: dict[str, object], sent: dict[str, object]
) -> None:
    """A server would be sent words that it does not know, and leave the client without any."""
    told: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        told.append(message)

    scope = {
        "type": "websocket", "path": "/api/ws", "headers": [], "query_string": b"",
        "extensions": offers,
    }  # fmt: skip
    await HttpTroupe().app(scope, None, send)
    assert {name: told[0][name] for name in sent} == sent


async def test_a_revoked_key_closes_its_sockets_and_subscribes_to_nothing_more(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would go on showing everything to whoever stole a key that was revoked."""
    assert ws.RECHECK_S + CACHE_TTL_S < 5
    monkeypatch.setattr("runtime.keys.CACHE_TTL_S", 0.0)
    for asks in (True, False):
        if not asks:
            monkeypatch.setattr(ws, "RECHECK_S", 0.01)
        token, key = await here.api.key()
        async with here.line(token) as line:
            await line.ask(subscribe=["monitoring"])
            await here.api.keys.revoke(key.id)
            if asks:
                await line.say(subscribe=["job:a"])
            assert await line.closed() == (1008, "key_revoked")


async def test_a_client_that_takes_nothing_in_is_told_and_closed(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would gather events without bound for a client that stopped listening."""
    monkeypatch.setattr(ws, "UNACKED_MAX", 20)
    with monkeypatch.context() as impatient:
        impatient.setattr(ws, "SLOW_S", 0.3)
        async with here.line() as line:
            await line.ask(subscribe=["monitoring"])
            await here.publish(*(event(number) for number in range(50)))
            assert await line.numbers(20) == list(range(20))
            slow = await line.hear()
            assert slow["event"] == "slow"
            assert await line.closed() == (4408, "too_slow")
    async with here.line() as line:  # and it goes on where it was
        await line.ask(subscribe=["monitoring"], cursor=slow["cursor"])
        for number in range(20, 50):
            told = await line.hear()
            assert told["data"]["n"] == number
            await line.say(ack=told["cursor"])


async def test_a_client_that_does_not_even_read_is_sent_away_and_counts_until_it_is_gone(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Would hold a task and a connection for ever, and as many as a client likes."""
    monkeypatch.setattr(ws, "SLOW_S", 0.2)
    monkeypatch.setattr(ws, "CLOSE_S", 0.1)
    caplog.set_level("INFO", logger="runtime.console.ws")
    gave_up, awaited = asyncio.Event(), asyncio.Event()
    close, receive = ws.WebSocket.close, ws.WebSocket.receive

    async def closing(socket: ws.WebSocket, *words: Any) -> None:
        try:
            await close(socket, *words)
        finally:
            gave_up.set()

    async def receiving(socket: ws.WebSocket) -> Any:
        if gave_up.is_set():
            awaited.set()
        return await receive(socket)

    monkeypatch.setattr(ws.WebSocket, "close", closing)
    monkeypatch.setattr(ws.WebSocket, "receive", receiving)
    hub, (token, _) = here.api.app.state.console.feed, await here.api.key()
    at = urlsplit(here.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=1_024)
    words = json.dumps({"subscribe": ["monitoring"]}).encode()
    writer.write(
        b"GET /api/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        + f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")  # the last that is ever read
    writer.write(bytes([0x81, 0x80 | len(words), 0, 0, 0, 0]) + words)
    async with asyncio.timeout(WAIT_S):
        while not hub._listening:
            await asyncio.sleep(0.01)
        await here.publish(event(1, text="x" * 20_000_000), event(2))
        while not any(getattr(one, "waited", "") == "bytes" for one in caplog.records):
            await asyncio.sleep(0.01)
        await awaited.wait()
        assert hub.readers == 1
        writer.transport.abort()
        while hub.readers:
            await asyncio.sleep(0.01)


async def test_what_was_not_acknowledged_is_bounded_in_bytes_and_one_event_always_passes(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would hold megabytes for each client, or never tell an event that is large."""
    monkeypatch.setattr(ws, "UNACKED_BYTES_MAX", 1_000)
    waits = asyncio.Event()
    filled: list[bool] = []
    wait, fill = ws.Conversation._wait_for_acks, ws.Conversation._has_its_fill

    async def waiting(conversation: ws.Conversation, size: int) -> bool:
        waits.set()
        return await wait(conversation, size)

    def looked(conversation: ws.Conversation, size: int) -> bool:
        filled.append(fill(conversation, size))
        return filled[-1]

    monkeypatch.setattr(ws.Conversation, "_wait_for_acks", waiting)
    monkeypatch.setattr(ws.Conversation, "_has_its_fill", looked)
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"])
        large = [event(number, text="x" * 2_000) for number in range(2)]
        await here.publish(*large, event(2))
        told = await line.hear()
        async with asyncio.timeout(WAIT_S):
            await waits.wait()
            looks = len(filled)
            await line.say(ack="other:nonsense")
            while len(filled) == looks:
                await asyncio.sleep(0)
        assert all(filled[looks:])
        await line.say(ack=told["cursor"])
        told = await line.hear()
        assert told["data"]["n"] == 1
        await line.say(ack=told["cursor"])
        assert await line.numbers(1) == [2]


async def test_a_quiet_socket_says_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would come back, after a long silence, to a place that is long forgotten."""
    monkeypatch.setattr(ws, "RECHECK_S", 0.02)
    async with running(ConsoleSettings(keep_alive_s=0.05)) as here, here.line() as line:
        await line.ask(subscribe=["job:x"])
        await here.publish(event(1, "acme", "job:y"))
        while not (said := await line.hear())["cursor"].endswith(":1"):
            assert said["event"] == "alive"
        assert (said["event"], said["data"]) == ("alive", {})


async def test_sockets_are_counted_bounded_and_let_go() -> None:
    """Would let one client open connections until nobody else has one."""
    async with running(ConsoleSettings(streams_max=2)) as here, AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(here.line()) for _ in range(2)]
        for line in lines:
            await line.ask(subscribe=["monitoring"])
        async with here.line() as third:
            assert await third.closed() == (1013, "too_many_streams")
        await lines[0].socket.close()
        hub = here.api.app.state.console.feed
        async with asyncio.timeout(WAIT_S):
            while hub.readers == 2:
                await asyncio.sleep(0)
        async with here.line() as third:
            assert (await third.ask(subscribe=["monitoring"]))["event"] == "subscribed"


async def test_each_event_is_encoded_once_for_all(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would encode an event for each of hundreds of sockets."""
    encoded = 0
    really = feed.Told.text.fget

    def counted(told: Any) -> str:
        nonlocal encoded
        encoded += told._text is None
        return str(really(told))  # type: ignore[misc]

    monkeypatch.setattr(feed.Told, "text", property(counted))
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(here.line()) for _ in range(5)]
        for line in lines:
            await line.ask(subscribe=["monitoring"])
        await here.publish(*(event(number) for number in range(10)))
        for line in lines:
            assert await line.numbers(10) == list(range(10))
    assert encoded == 10


async def test_what_all_are_told_is_one_frame_and_nobodys_task_is_woken(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event would pass all layers of the application once for each client."""
    framed, woken = 0, 0
    hub = here.api.app.state.console.feed
    write, rouse = door.Sockets.write_frame, feed.Reader.rouse

    def counted(socket: door.Sockets, frame: bytes) -> bool:
        nonlocal framed
        framed += 1
        return write(socket, frame)

    def roused(reader: feed.Reader) -> None:
        nonlocal woken
        woken += 1
        rouse(reader)

    monkeypatch.setattr(door.Sockets, "write_frame", counted)
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(here.line()) for _ in range(3)]
        for line in lines:
            assert line.socket.protocol.extensions == []
            await line.ask(subscribe=["monitoring"])
        while any(reader._news is None for reader in hub._readers):
            await asyncio.sleep(0)
        monkeypatch.setattr(feed.Reader, "rouse", roused)
        for number in range(4):
            await here.publish(event(number, "globex"))
            while hub.head < 2 * number + 1:  # it is nobody's here, and alone
                await asyncio.sleep(0)
            await here.publish(event(number, text="ü" * 100 * number))
            for line in lines:
                assert await line.numbers(1) == [number]
        assert (framed, woken) == (12, 0)


async def test_what_can_not_be_written_at_once_is_told_in_its_order_once(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose line is full for a moment would miss an event, or be told it twice."""
    monkeypatch.setattr(ws, "UNACKED_BYTES_MAX", 1 << 30)
    written: list[bool] = []
    write = door.Sockets.write_frame

    def noted(socket: door.Sockets, frame: bytes) -> bool:
        written.append(write(socket, frame))
        return written[-1]

    monkeypatch.setattr(door.Sockets, "write_frame", noted)
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"])
        number = 0
        async with asyncio.timeout(WAIT_S):
            while all(written):  # nobody hears them: at last they are not taken off the line
                some = [event(one, text="x" * 200_000) for one in range(number, number + 4)]
                await here.api.door("acme").commit(events=some)
                number += 4
                await asyncio.sleep(0)
        await here.publish(event(number))
        assert any(written)
        assert await line.numbers(number + 1) == list(range(number + 1))


async def test_a_server_without_frames_is_told_by_messages() -> None:
    """Under another server than ours clients would be told nothing."""
    api = HttpTroupe(settings=ConsoleSettings())

    async def other(scope: Any, receive: Any, send: Any) -> None:
        scope.get("extensions", {}).pop(door.FRAMES, None)
        await api.app(scope, receive, send)

    async with serving(other) as url:
        here = Here(api, url)
        async with here.line() as line:
            await line.ask(subscribe=["monitoring"])
            await here.publish(*(event(number) for number in range(3)))
            assert await line.numbers(3) == [0, 1, 2]


async def test_nothing_is_written_to_a_socket_that_is_closed_or_gone() -> None:
    """Would send bytes after the word that nothing more comes, or keep them for nobody."""
    wrote: list[bool] = []
    gone = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        write = door.frame_writer(scope)
        assert write is not None
        await receive()
        await send({"type": "websocket.accept"})
        wrote.append(write(door.text_frame("once")))
        if scope["path"] == "/closed":
            await send({"type": "websocket.close"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        wrote.append(write(door.text_frame("never")))
        gone.set()

    async with serving(app) as url:
        for path in ("/closed", "/gone"):
            wrote.clear()
            gone.clear()
            async with open_socket(url.replace("http", "ws") + path, proxy=None) as socket:
                assert await socket.recv() == "once"
                if path == "/closed":
                    with pytest.raises(ConnectionClosed):
                        await socket.recv()
            async with asyncio.timeout(WAIT_S):
                await gone.wait()
            assert wrote == [True, False]


async def test_what_is_not_taken_off_a_line_is_not_written_any_more() -> None:
    """Would gather in memory what a client does not read."""
    most = 100
    wrote = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal wrote
        write = door.frame_writer(scope)
        assert write is not None
        await receive()
        await send({"type": "websocket.accept"})
        while wrote < most and write(door.text_frame("x" * 1_000_000)):
            wrote += 1

    async with serving(app) as url:
        async with open_socket(url.replace("http", "ws"), proxy=None, max_size=None) as socket:
            await socket.recv()
        assert 0 < wrote < most


async def test_what_a_client_asks_is_answered_after_the_next_event_at_the_latest(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that are told without the socket's own task would keep its client waiting."""
    monkeypatch.setattr(ws, "RECHECK_S", 4 * WAIT_S)
    async with here.line() as line:
        await line.ask(subscribe=["monitoring"])
        [reader] = here.api.app.state.console.feed._readers
        while reader._news is None:
            await asyncio.sleep(0)
        monkeypatch.setattr(feed.Reader, "nudge", lambda reader: None)  # as if it came too early
        await line.say(subscribe=["job:x"])
        while reader.tell.__self__._asked.empty():
            await asyncio.sleep(0)
        await here.publish(event(2))
        assert await line.numbers(1) == [2]
        assert (await line.hear())["event"] == "subscribed"


async def test_a_store_that_is_out_means_come_back_later(here: Here, monkeypatch) -> None:
    """Would leave a client with a socket that stays silent for ever."""
    monkeypatch.setattr("runtime.keys.CACHE_TTL_S", 10 * WAIT_S)
    token, _ = await here.api.key()
    async with here.line(token):  # its key is known from here on
        pass
    async with asyncio.timeout(WAIT_S):
        while here.api.app.state.console.feed.readers:
            await asyncio.sleep(0)
    await here.api.store.close()
    async with here.line(token) as line:
        assert await line.closed() == (1013, "store_unavailable")
