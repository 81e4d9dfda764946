"""The store's process is killed again and again: what it acknowledged is there, once."""

from __future__ import annotations

import pytest

from runtime.store.remote import RemoteStore
from tests.lanes import outlive
from tests.store_process import StoreProcess

KILLS = 10
COMMITS_BETWEEN_KILLS = (50, 400)


@pytest.mark.parametrize(("durability", "kills"), [("power loss", KILLS), ("process kill", 3)])
async def test_no_acknowledged_commit_is_lost_when_the_store_is_killed(tmp_path, durability, kills):
    """Accepted would not mean durable, or a commit would be there in half or twice."""
    process = StoreProcess(tmp_path, durability)
    await process.start()
    store = RemoteStore(process.socket)
    assert (await store.health()).durability == durability

    async def kill() -> None:
        await process.kill()
        await process.start()

    lanes = await outlive(store, kills, COMMITS_BETWEEN_KILLS, kill)
    assert sum(lane.fenced for lane in lanes) == 0, "a kill is no new incarnation"
    await store.close()
    await process.kill()
