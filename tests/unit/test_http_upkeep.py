"""What is kept for a time only is deleted after it, and not before."""

from __future__ import annotations

from runtime.clock import ManualClock
from runtime.console import once
from runtime.console.app import _upkeep
from runtime.console.settings import ConsoleSettings
from tests.http import HttpTroupe

DAY_S = 86_400


async def test_an_idempotency_record_is_kept_for_its_days_and_no_longer() -> None:
    """Would forget a key while its owner may still repeat, or keep every key for ever."""
    clock = ManualClock()
    api = HttpTroupe(clock=clock)
    headers = {"Idempotency-Key": "k"}
    async with await api.client() as ann:
        first = await ann.post(
            "/api/issues", json={"source": "manual", "title": "t"}, headers=headers
        )
        clock.advance(once.KEPT_DAYS * DAY_S)
        assert await once.sweep(api.store, clock) == 0
        again = await ann.post(
            "/api/issues", json={"source": "manual", "title": "t"}, headers=headers
        )
        assert again.content == first.content
        clock.advance(DAY_S)
        assert await once.sweep(api.store, clock) == 1
        assert await api.store.count("idempotency") == 0
        new = await ann.post(
            "/api/issues", json={"source": "manual", "title": "t"}, headers=headers
        )
        assert new.json()["id"] != first.json()["id"]


async def test_upkeep_survives_a_store_that_is_out(monkeypatch: object) -> None:
    """Would stop for good the first time the store does not answer."""
    import asyncio

    api = HttpTroupe(settings=ConsoleSettings(upkeep_s=0.0))
    failed = asyncio.Event()
    really, calls = once.sweep, 0

    async def watched(*args: object) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            failed.set()
        return await really(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(once, "sweep", watched)  # type: ignore[attr-defined]
    await api.store.close()
    task = asyncio.create_task(_upkeep(api.app.state.console))
    async with asyncio.timeout(5):
        await failed.wait()
    assert not task.done()
    task.cancel()
