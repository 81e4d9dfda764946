"""The stream of events: nothing lost, nothing twice, nothing of others, nothing without end."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import ANY

import pytest

from runtime.console import events, feed
from runtime.console.settings import ConsoleSettings
from runtime.ids import HOME
from runtime.keys import CACHE_TTL_S, Role
from runtime.store.contract import FeedEvent
from runtime.store.memory import MemoryStore
from runtime.turn import feed_event
from tests.http import HttpTroupe, Stream
from tests.troupe import LocalTroupe


def event(number: int, organization: str = "acme", *rooms: str) -> FeedEvent:
    return feed_event(organization, "test:event", {"n": number}, rooms, 1_700_000_000_000 + number)


async def publish(api: HttpTroupe, *sent: FeedEvent) -> None:
    for one in sent:
        await api.door(one.organization).commit(events=[one])


async def numbers(stream: Stream, count: int) -> list[int]:
    return [(await stream.event()).data["data"]["n"] for _ in range(count)]


@pytest.fixture
async def api() -> HttpTroupe:
    return HttpTroupe()


async def test_an_event_arrives_in_its_documented_shape(api: HttpTroupe) -> None:
    """Would break every client that follows a job."""
    token, _ = await api.key(Role.VIEWER)
    async with api.stream("/api/events", token) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        start = await stream.block()
        incarnation = (await api.store.health()).incarnation
        assert (start.event, start.id) == ("", f"{incarnation}:0")
        await publish(api, event(1, "acme", "job:j"))
        sent = await stream.event()
    assert (sent.event, sent.id) == ("test:event", f"{incarnation}:1")
    assert sent.data == {
        "event": "test:event",
        "cursor": f"{incarnation}:1",
        "organizationId": "acme",
        "timestamp": "2023-11-14T22:13:20.001Z",
        "data": {"n": 1, "timestamp": "2023-11-14T22:13:20.001Z"},
    }


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
async def test_a_name_of_several_lines_is_one_event(api: HttpTroupe, end: str) -> None:
    """Whoever writes to an agent that names events by it would tell its clients what never was."""
    token, _ = await api.key(Role.VIEWER)
    forged = end.join(["agent:x", "id: void:1", "", "event: review:approved", "data: {}", "", ""])
    async with api.stream("/api/events", token) as stream:
        await publish(api, feed_event("acme", forged, {"n": 1}, (), 1), event(2))
        sent = await stream.event()
        assert sent.event == forged.replace("\r", " ").replace("\n", " ")
        assert sent.data["event"] == forged
        assert sent.id == sent.data["cursor"]
        assert await numbers(stream, 1) == [2]


async def test_a_stream_begins_with_what_comes_and_goes_on_where_it_broke(api: HttpTroupe) -> None:
    """Would lose the events between two connections, or show them twice."""
    token, _ = await api.key()
    await publish(api, event(1))
    async with api.stream("/api/events", token) as stream:
        await publish(api, event(2), event(3))
        assert (await stream.event()).data["data"]["n"] == 2
        place = (await stream.event()).id
    await publish(api, *(event(number) for number in range(4, 9)))
    async with api.stream("/api/events", token, last_event_id=place) as stream:
        await publish(api, event(9))
        assert await numbers(stream, 6) == [4, 5, 6, 7, 8, 9]
    async with api.stream(f"/api/events?cursor={place}", token) as stream:
        assert await numbers(stream, 2) == [4, 5]
    beginning = f"{place.partition(':')[0]}:0"
    async with api.stream("/api/events", token, last_event_id=beginning) as stream:
        assert await numbers(stream, 9) == list(range(1, 10))


async def test_more_than_the_ring_holds_is_read_from_the_store(
    api: HttpTroupe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would skip what a slow or returning reader had not seen yet."""
    monkeypatch.setattr(feed, "BATCH_MAX", 3)
    hub = api.app.state.console.feed
    hub._ring = type(hub._ring)(maxlen=4)
    monkeypatch.setattr(feed, "RING_MAX", 4)
    token, _ = await api.key()
    async with api.stream("/api/events", token) as fast:
        place = (await fast.block()).id
        await publish(api, *(event(number) for number in range(20)))
        assert await numbers(fast, 20) == list(range(20))
        async with api.stream("/api/events", token, last_event_id=place) as late:
            await publish(api, event(20))
            assert await numbers(late, 21) == list(range(21))
        assert await numbers(fast, 1) == [20]
        assert len(hub._ring) == 4


async def test_a_stream_carries_its_organizations_events_only(api: HttpTroupe) -> None:
    """Would show one organization what another is doing."""
    token, _ = await api.key()
    async with api.stream("/api/events", token) as stream:
        place = (await stream.block()).id
        await publish(api, event(1, "globex"), event(2), event(3, "system"), event(4))
        assert await numbers(stream, 2) == [2, 4]
    async with api.stream("/api/events", token, last_event_id=place) as stream:
        assert await numbers(stream, 2) == [2, 4]


async def test_what_is_everybodys_reaches_every_organization_once(
    api: HttpTroupe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would leave an organization waiting for a scheduler that another one has stopped."""
    monkeypatch.setattr(feed, "BATCH_MAX", 2)
    sent = [
        event(number, "system" if number % 3 == 0 else "acme", "scheduler") for number in range(9)
    ]
    for organization, rooms, wanted in (
        ("acme", "", list(range(9))),
        ("globex", "", [0, 3, 6]),
        ("globex", "?rooms=monitoring", [0, 3, 6]),
        ("globex", "?rooms=scheduler", [0, 3, 6]),
    ):
        api = HttpTroupe()
        token, _ = await api.key(Role.VIEWER, organization)
        async with api.stream(f"/api/events{rooms}", token) as stream:
            place = (await stream.block()).id
            await publish(api, *sent)
            last = event(99, organization, "scheduler")
            await publish(api, last)
            assert await numbers(stream, len(wanted) + 1) == [*wanted, 99]
        async with api.stream(f"/api/events{rooms}", token, last_event_id=place) as late:
            assert await numbers(late, len(wanted) + 1) == [*wanted, 99]


async def test_a_stop_of_the_scheduler_is_told_to_all_and_names_nobody() -> None:
    """Would tell one organization who works in another, or tell it nothing at all."""
    troupe = LocalTroupe({})
    api = HttpTroupe(troupe.store, troupe.clock)
    troupe.start_scheduler()
    token, _ = await api.key(Role.VIEWER, "globex")
    async with api.stream("/api/events", token) as stream:
        await stream.block()
        for verb, state in (("pause", "PAUSED"), ("resume", "IDLE")):
            content = {"by": "swordfish"}
            await troupe.client(HOME).ask("scheduler:main", content, f"scheduler.{verb}")
            told = await stream.event()
            assert (told.event, told.data["organizationId"]) == ("scheduler:status", "system")
            assert told.data["data"]["stats"] == {
                "state": state, "draining": False, "running": 0, "queued": 0, "waiting": 0,
                "paused": 0, "maxConcurrent": 5, "changedAt": ANY,
            }  # fmt: skip
            assert "swordfish" not in str(told.data)
    await troupe.kill_scheduler()


async def test_a_stream_carries_the_rooms_that_were_asked_for(api: HttpTroupe) -> None:
    """Would bury the events of one issue under everybody's."""
    token, _ = await api.key()
    sent = [event(1, "acme", "issue:a"), event(2, "acme", "job:b", "issue:c"), event(3)]
    for rooms, wanted in (
        ("issue:a", [1]), ("issue:a,job:b", [1, 2]), ("issue:c", [2]),
        ("monitoring", [1, 2, 3]), ("issue:a,monitoring", [1, 2, 3]), ("", [1, 2, 3]),
        ("organization:acme", [1, 2, 3]),
    ):  # fmt: skip
        async with api.stream(f"/api/events?rooms={rooms}", token) as stream:
            last = event(99, "acme", *rooms.split(","))
            await publish(api, *sent, last)
            assert (rooms, await numbers(stream, len(wanted) + 1)) == (rooms, [*wanted, 99])


async def test_a_void_place_is_said_and_then_it_goes_on(api: HttpTroupe) -> None:
    """Would leave a client believing it saw everything after the store lost data."""
    token, _ = await api.key()
    await publish(api, event(1))
    incarnation = (await api.store.health()).incarnation
    for place in ("other:1", f"{incarnation}:99", "x", "1:2:3", f"{incarnation}:-1"):
        async with api.stream("/api/events", token, last_event_id=place) as stream:
            sent = await stream.event()
            assert (place, sent.event, sent.id) == (place, "reset", f"{incarnation}:1")
            await publish(api, event(2))
            assert await numbers(stream, 1) == [2]
        api = HttpTroupe()
        token, _ = await api.key()
        await publish(api, event(1))
        incarnation = (await api.store.health()).incarnation


async def test_a_store_that_lost_data_resets_open_streams(
    api: HttpTroupe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would let a stream wait for ever for cursors that will not come."""
    monkeypatch.setattr(feed, "POLL_S", 0.02)
    token, _ = await api.key()
    assert isinstance(api.store, MemoryStore)
    async with api.stream("/api/events", token) as stream:
        await publish(api, event(1))
        assert await numbers(stream, 1) == [1]
        api.store.incarnation = "restored"
        assert (await stream.event()).event == "reset"
        await publish(api, event(2))
        sent = await stream.event()
        assert (sent.data["data"]["n"], sent.id) == (2, "restored:2")


async def test_a_quiet_stream_is_kept_alive_with_its_place(
    api: HttpTroupe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would be cut by a proxy, and come back to a place that is long gone."""
    monkeypatch.setattr(events, "RECHECK_S", 0.02)
    token, _ = await api.key()
    async with api.stream("/api/events?rooms=job:x", token) as stream:
        assert (await stream.block()).id.endswith(":0")
        await publish(api, event(1, "acme", "job:y"))
        while not (sent := await stream.block()).id.endswith(":1"):
            assert sent.comment == "keep-alive"
        assert (sent.event, sent.data, sent.comment) == ("", None, "keep-alive")


async def test_a_stream_of_a_revoked_key_ends(
    api: HttpTroupe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would go on showing everything to whoever stole a key that was revoked."""
    assert events.RECHECK_S + CACHE_TTL_S < 5
    monkeypatch.setattr(events, "RECHECK_S", 0.01)
    monkeypatch.setattr("runtime.keys.CACHE_TTL_S", 0.01)
    token, key = await api.key()
    async with api.stream("/api/events", token) as stream:
        await stream.block()
        await api.keys.revoke(key.id)
        async with asyncio.timeout(5):
            await stream.ended.wait()


async def test_a_stream_ends_by_itself(api: HttpTroupe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would stay open until the process does."""
    monkeypatch.setattr(events, "AGE_MAX_S", 0.0)
    token, _ = await api.key()
    async with api.stream("/api/events", token) as stream:
        async with asyncio.timeout(5):
            await stream.ended.wait()


async def test_streams_are_counted_and_bounded() -> None:
    """Would let one client open connections until nobody else has one."""
    api = HttpTroupe(settings=ConsoleSettings(streams_max=2))
    token, _ = await api.key()
    hub = api.app.state.console.feed
    async with api.stream("/api/events", token), api.stream("/api/events", token):
        assert hub.readers == 2
        async with api.with_token(token) as ann:
            answer = await ann.get("/api/events")
        assert (answer.status_code, answer.json()["code"]) == (503, "too_many_streams")
    assert hub.readers == 0
    async with api.stream("/api/events", token) as stream:
        assert stream.status == 200


async def test_nobody_reads_the_store_while_nobody_listens(api: HttpTroupe) -> None:
    """Would poll for ever, in every process, for nobody."""
    token, _ = await api.key()
    hub = api.app.state.console.feed
    assert hub._task is None
    async with api.stream("/api/events", token):
        assert hub._task is not None
    assert hub._task is None


async def test_one_poll_feeds_every_stream(
    api: HttpTroupe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would put one long poll on the store for each browser tab."""
    polls = 0
    really = api.store.tail

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal polls
        polls += 1
        return await really(*args, **kwargs)

    monkeypatch.setattr(api.store, "tail", counted)
    token, _ = await api.key()
    async with (
        api.stream("/api/events", token) as one,
        api.stream("/api/events", token) as two,
        api.stream("/api/events", token) as three,
    ):
        await publish(api, *(event(number) for number in range(5)))
        for stream in (one, two, three):
            assert await numbers(stream, 5) == [0, 1, 2, 3, 4]
    assert polls <= 1 + 1 + 5


async def test_a_reader_that_does_not_read_holds_nothing(api: HttpTroupe) -> None:
    """Would keep every event for a client that stopped listening."""
    hub = api.app.state.console.feed
    async with hub.reader("acme", ["monitoring"]) as reader:
        await publish(api, *(event(number) for number in range(feed.RING_MAX + 50)))
        async with asyncio.timeout(10):
            while hub.head < feed.RING_MAX + 50:
                await asyncio.sleep(0)
        assert len(hub._ring) == feed.RING_MAX
        first = await reader.read(0)
        assert [told.cursor for told in first.told] == list(range(1, feed.BATCH_MAX + 1))


async def test_a_reader_is_woken_by_its_own_rooms_only(api: HttpTroupe) -> None:
    """Would wake every open stream for each event of anybody."""
    hub = api.app.state.console.feed
    async with hub.reader("acme", ["job:a"]) as one, hub.reader("globex", ["monitoring"]) as two:
        waiting = [asyncio.create_task(reader.read(5)) for reader in (one, two)]
        await publish(api, *(event(number, "acme", "job:b") for number in range(20)))
        async with asyncio.timeout(5):
            while hub.head < 20:
                await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        await publish(api, event(20, "acme", "job:a"), event(21, "globex"))
        found = [await task for task in waiting]
    assert [[told.cursor for told in read.told] for read in found] == [[21], [22]]


def _never(told: feed.Told) -> bool:
    """What it was told elsewhere it would be told again."""
    raise AssertionError(told.cursor)


async def test_whoever_was_ahead_of_this_process_misses_nothing_and_is_not_reset(
    api: HttpTroupe,
) -> None:
    """Would tell a client of a killed process `reset`, when it only was better informed."""
    hub = api.app.state.console.feed
    await publish(api, event(1))
    async with hub.reader("acme", ["monitoring"]):
        await publish(api, event(2), event(3))
        async with asyncio.timeout(5):
            while hub.head < 3:
                await asyncio.sleep(0)
        hub.head, late = 1, hub.head  # as if the two had not come here yet
        async with hub.reader("acme", ["monitoring"], (hub.incarnation, 2)) as ahead:
            reading = asyncio.create_task(ahead.read(5))
            async with asyncio.timeout(5):
                while ahead._news is None:
                    await asyncio.sleep(0)
            hub.head = late
            ahead.tell = _never
            for waiter in hub._readers:
                waiter.wake(1)
                waiter.hear(feed.News(list(hub._ring)[-2:], 1, late))
            assert [told.cursor for told in (await reading).told] == [3]


async def test_too_many_rooms_and_no_store_are_refused_before_the_stream(api: HttpTroupe) -> None:
    """Would answer 200 and then say nothing."""
    async with await api.client() as ann:
        rooms = ",".join(f"job:{number}" for number in range(51))
        answer = await ann.get("/api/events", params={"rooms": rooms})
        assert (answer.status_code, answer.json()["code"]) == (422, "too_many_rooms")
        for room in ("organization:globex", "nowhere", "job:", "job:a b", "team:x"):
            answer = await ann.get("/api/events", params={"rooms": f"job:a,{room}"})
            assert (answer.status_code, answer.json()["code"]) == (422, "unknown_room")
