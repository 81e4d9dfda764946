"""Messages and runs that end their host's process: store and hosts are processes of their own."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.errors import DeadLetterError
from runtime.ids import Ids
from runtime.scheduler import Scheduler
from runtime.store.contract import DEAD_LETTERS
from runtime.store.remote import RemoteStore
from tests.queue_process import QueueProcess
from tests.store_process import StoreProcess
from tests.unit.test_jobs import until

DEATHS = 3


@dataclass
class Deployment:
    client: Client
    store: RemoteStore
    host: QueueProcess

    async def dies(self, times: int = DEATHS) -> list[int]:
        """The host dies so often by itself, and is started again, as Ray does."""
        ends = []
        for _ in range(times):
            ends.append(await asyncio.wait_for(self.host.died(), 60))
            await self.host.start()
        return ends


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    process = StoreProcess(tmp_path)
    await process.start()
    store, clock = RemoteStore(process.socket), SystemClock()
    host = QueueProcess(process.socket, "host", 4)
    await host.start()
    scheduler = asyncio.create_task(Scheduler(store, clock, Ids(clock), random.random).run())
    yield Deployment(Client(store, clock, Ids(clock), "acme", "test"), store, host)
    scheduler.cancel()
    await asyncio.gather(scheduler, return_exceptions=True)
    await store.close()
    await host.kill()
    await process.kill()


async def test_a_message_that_ends_its_process_is_given_up_after_three(
    deployment: Deployment,
) -> None:
    """The host would be started again for ever, and nobody on it would get any further."""
    client = deployment.client
    await client.ask("deadly:there", {"jobId": "job_long", "deadly": False, "takes": 3}, "start")
    for number in range(50):
        await client.ask(f"deadly:idle{number}", {}, "hello")
    await client.send("deadly:a", {}, "segfault", message_id="deadly")
    assert await deployment.dies() == [-11] * DEATHS
    with pytest.raises(DeadLetterError, match="killed_its_host"):
        await client.ask("deadly:a", {}, "segfault", message_id="deadly", wait_s=30.0)
    assert await client.ask("deadly:a", {}, "hello", wait_s=30.0) == "here"
    assert await client.ask("deadly:idle7", {}, "hello", wait_s=30.0) == "here"
    async with asyncio.timeout(30):
        done = await until(deployment.store, "job_long", "completed")
    assert done.attempts == 1
    assert deployment.host.alive
    [letter] = await deployment.store.list_documents(DEAD_LETTERS)
    assert (letter.key, json.loads(letter.body)["reason"]) == (
        "acme/deadly:a/deadly", "killed_its_host",
    )  # fmt: skip


async def test_a_run_that_ends_its_process_fails_after_three_without_retries(
    deployment: Deployment,
) -> None:
    """Each of its tries would cost three hosts."""
    client = deployment.client
    await client.ask("deadly:a", {"jobId": "job_1", "deadly": True}, "start")
    assert await deployment.dies() == [1] * DEATHS
    async with asyncio.timeout(30):
        failed = await until(deployment.store, "job_1", "failed")
    assert (failed.reason, failed.attempts) == ("killed_its_host", 1)
    assert await client.ask("deadly:a", {}, "hello", wait_s=30.0) == "here"
    assert deployment.host.alive


async def test_a_class_whose_constructor_ends_its_process_is_given_up_after_three(
    deployment: Deployment,
) -> None:
    """No message of it would ever be begun, so none would be blamed, and hosts died for ever."""
    client = deployment.client
    assert await client.ask("deadly:idle", {}, "hello", wait_s=30.0) == "here"
    await client.send("stillborn:a", {}, "hello", message_id="first")
    assert await deployment.dies() == [1] * DEATHS
    with pytest.raises(DeadLetterError, match="killed_its_host"):
        await client.ask("stillborn:a", {}, "hello", message_id="first", wait_s=30.0)
    assert await client.ask("deadly:idle", {}, "hello", wait_s=30.0) == "here"
    assert deployment.host.alive
