from __future__ import annotations

import pytest

from runtime.clock import ManualClock
from runtime.store import sqlite_terms

from .kit import Desk
from .stores import FORGETTING, STORES, Opened


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A few documents are enough for some to enter SQLite's index and some to be behind it."""
    for name, few in (("BEHIND", 2), ("BEHIND_MAX", 8), ("TOGETHER", 2)):
        monkeypatch.setattr(sqlite_terms, name, few)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(params=STORES)
async def opened(request, tmp_path, clock):
    opened = Opened(request.param, tmp_path, clock)
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture
async def store(opened):
    return opened.store


@pytest.fixture
async def forgetting(opened):
    """The store, if it has the verbs of `Upkeep`."""
    if opened.name not in FORGETTING:
        pytest.skip("this store does not forget yet")
    return opened.store


@pytest.fixture
async def desk(store):
    """A registered owner, `o1` of host-1, and short words for what it does."""
    desk = Desk(store)
    await desk.register()
    return desk
