"""The one poll behind all streams: whatever the store does to it, it goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime.clock import SystemClock
from runtime.console import ws
from runtime.errors import StoreError
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
