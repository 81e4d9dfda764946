"""The one poll behind all streams: whatever the store does to it, it goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.console import feed, ws
from runtime.console.feed import FeedHub
from runtime.console.told import Told
from runtime.errors import StoreError
from runtime.ids import Ids
from runtime.store.memory import MemoryStore
from tests.sockets import event, running


class FailingOnce(MemoryStore):
    """One poll of the feed ends with an error."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.error: Exception | None = None

    async def tail(self, *args: Any, **kwargs: Any) -> Any:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return await super().tail(*args, **kwargs)


@pytest.mark.parametrize("error", [StoreError("locked"), RuntimeError("a defect")])
async def test_an_error_of_one_poll_makes_no_stream_deaf(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Every stream of the process would say `alive` and tell nothing more, new ones too."""
    monkeypatch.setattr(ws, "RECHECK_S", 0.05)
    store = FailingOnce()
    async with running(store=store) as here, here.line() as line:
        await line.ask(subscribe=["monitoring"])
        store.error = error
        await here.publish(event(1))
        assert await line.numbers(1) == [1]
        async with asyncio.timeout(5):
            while store.error is not None:  # the poll after that one
                await asyncio.sleep(0)
        await here.publish(event(2), event(3))
        assert await line.numbers(2) == [2, 3]
        async with here.line() as other:
            await other.ask(subscribe=["monitoring"])
            await here.publish(event(4))
            assert await other.numbers(1) == [4]
        assert await line.numbers(1) == [4]
    is_told = any(getattr(one, "action", "") == "feed.lost" for one in caplog.records)
    assert is_told is isinstance(error, StoreError)


async def test_nothing_is_polled_again_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends would go on asking a store that is closed."""
    async with running() as here:
        hub = here.api.app.state.console.feed
        async with hub.reader("acme", ["monitoring"]) as reader:
            await hub.close()
            await reader.read(0)
            assert hub._task is None


class Held(MemoryStore):
    """Polls wait for `polls`, and the question whether a place is beyond the feed for `answers`."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.polls, self.answers = asyncio.Event(), asyncio.Event()
        self.polls.set()
        self.answers.set()
        self.held, self.asked = asyncio.Event(), asyncio.Event()

    async def tail(self, after: int, limit: int, wait_s: float, *more: Any) -> Any:
        if wait_s and not self.polls.is_set():
            self.held.set()
            await self.polls.wait()
        found = await super().tail(after, limit, wait_s, *more)
        if limit == 1 and after >= 0:
            self.asked.set()
            await self.answers.wait()
        return found


async def test_a_store_that_loses_data_while_a_place_is_looked_for_resets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client from another process would be told events of a feed that is not its own any more."""
    monkeypatch.setattr(feed, "POLL_S", 0.01)
    store, told = Held(), list[Told]()
    door = Client(store, SystemClock(), Ids(SystemClock()), "acme", "test")
    hub = FeedHub(store)
    async with asyncio.timeout(10), hub.reader("acme", ["monitoring"]) as reader:
        reader.tell = lambda one: told.append(one) is None
        store.polls.clear()
        await store.held.wait()
        for number in (1, 2):
            await door.commit(events=[event(number)])
        reader.begin((hub.incarnation, 2))
        store.answers.clear()
        reading = asyncio.create_task(reader.read(1.0))
        await store.asked.wait()
        store.incarnation = "restored"
        store.polls.set()
        while hub.incarnation != "restored":
            await asyncio.sleep(0)
        store.answers.set()
        await asyncio.sleep(0)
        await door.commit(events=[event(3)])
        found = await reading
        while not found.reset:
            assert not found.told
            found = await reader.read(1.0)
    assert told == []
