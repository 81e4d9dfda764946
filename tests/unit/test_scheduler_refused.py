"""What the scheduler decides and can't write: it is refused or has failed, and stops nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest

from runtime.agent import BaseAgent
from runtime.client import Client
from runtime.clock import SystemClock
from runtime.errors import JobFailedError, JobWaiting, StoreError, UndoneError
from runtime.ids import SCHEDULER
from runtime.job import JobResult
from runtime.jobs import dispatcher
from runtime.message import Message
from runtime.store.contract import Commit, Committed, Refused
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe, asked_job, soon
from tests.unit.test_jobs import until


class Choosy(MemoryStore):
    """Can't write some of what the scheduler commits."""

    unwritable: Callable[[Commit], bool] = staticmethod(lambda commit: False)
    error: type[StoreError] = StoreError

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        for one in commits:
            if one.agent == SCHEDULER and self.unwritable(one):
                raise self.error("there is no writing this")
        return await super().commit(commits)


class Worker(BaseAgent):
    kind = "worker"

    async def receive_message(self, message: Message) -> object:
        if message.message_type == "start":
            for job_id in message.content["jobs"]:
                self.enqueue(asked_job(self, job_id, message.content, reply_to=self.agent_id))
        return None

    async def process_task(self, job) -> JobResult:
        if job.record.payload.get("fails"):
            raise JobFailedError("no")
        if job.record.payload.get("waits") and await job.signal("answer") is None:
            raise JobWaiting("question")
        return JobResult(outcome="finished", summary="")


@pytest.fixture
async def troupe():
    troupe = await LocalTroupe({"worker": Worker}, Choosy(SystemClock())).start()
    yield troupe
    await troupe.stop()


@pytest.fixture
def critical(caplog) -> Callable[[], list[str]]:
    """What was logged as critical is about these."""
    caplog.set_level(logging.CRITICAL, dispatcher.__name__)
    return lambda: [one.__dict__["about"] for one in caplog.records]


async def start(client: Client, *jobs: str, **more: object) -> None:
    await client.ask("worker:boss", {"jobs": jobs, **more}, "start")


async def goes_on(troupe: LocalTroupe) -> None:
    """Somebody else's job is done, in this same life of the scheduler."""
    other = troupe.client("beta")
    await start(other, "job_other")
    await until(other, "job_other", "completed")
    assert troupe._scheduler is not None
    assert not troupe._scheduler.done()


def sends(prefix: str) -> Callable[[Commit], bool]:
    return lambda commit: any(one.message_id.startswith(prefix) for one in commit.sends)


def puts(key: str, text: bytes = b"") -> Callable[[Commit], bool]:
    def found(commit: Commit) -> bool:
        return any(one.key == key and one.body and text in one.body for one in commit.puts)

    return found


async def test_a_message_in_conflict_for_ever_is_answered(troupe) -> None:
    """It would stay in the inbox, undecided and unanswered, whoever waits for it."""
    client = troupe.client()
    await start(client, "job_1", fails=True)
    await start(client, "job_2")
    await until(client, "job_1", "failed")
    done = await until(client, "job_2", "completed")
    asked = {"jobId": "job_1", "payload": {}, "newId": "job_2"}
    answer = await soon(client.ask("scheduler:main", asked, "job.retry"))
    assert (answer["ok"], answer["code"]) == (False, "conflict")
    assert await troupe.store.inbox(SCHEDULER, 0, 9) == []
    assert troupe.scheduler._dispatcher._records.get("job_2") is None
    assert not troupe.scheduler._jobs.is_open("job_2")
    assert await until(client, "job_2", "completed") == done
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.retry"))["ok"]


async def test_a_message_that_leads_to_what_cannot_be_written_is_refused(troupe, critical) -> None:
    """The scheduler would end, meet it first at each start, and every organization stand still."""
    client = troupe.client()
    await start(client, "job_1", waits=True)
    await until(client, "job_1", "waiting")
    troupe.store.unwritable = sends("signal:bad")
    signal = {"jobId": "job_1", "name": "answer", "content": 1}
    bad = client.ask("scheduler:main", signal, "job.signal", message_id="bad")
    others = [client.ask("scheduler:main", {}, "scheduler.status") for _ in range(3)]
    answer, *stands = await soon(asyncio.gather(bad, *others))
    assert (answer["ok"], answer["code"]) == (False, "unwritable")
    assert all(one["ok"] for one in stands)
    assert critical() == ["bad"]
    await goes_on(troupe)
    await client.ask("scheduler:main", signal, "job.signal")
    await until(client, "job_1", "completed")


async def test_a_job_whose_start_cannot_be_written_fails_alone(troupe, critical) -> None:
    """It would be started again at once for ever, and what is started with it not at all."""
    client = troupe.client()
    troupe.store.unwritable = sends("run:job_1:")
    await start(client, "job_0", "job_1", "job_2")
    record = await until(client, "job_1", "failed")
    assert record.reason == "unwritable"
    for job_id in ("job_0", "job_2"):
        assert (await until(client, job_id, "completed")).attempts == 1
    assert await troupe.store.get("dead_letter", "job/job_1") is not None
    assert critical() == ["job_1"]
    await goes_on(troupe)
    troupe.store.unwritable = lambda commit: False
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.retry"))["ok"]
    await until(client, "job_1", "completed")


async def test_a_job_whose_start_the_store_refuses_fails_alone(troupe) -> None:
    """It would be tried again at once, for ever: a message has the name of its run."""
    client = troupe.client()
    await client.send("worker:job_1", {}, "hello", message_id="run:job_1:1")
    await start(client, "job_0", "job_1", "job_2")
    record = await until(client, "job_1", "failed")
    assert (record.reason, record.error) == ("conflict", "the store has refused it: duplicate")
    for job_id in ("job_0", "job_2"):
        assert (await until(client, job_id, "completed")).attempts == 1
    await goes_on(troupe)
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.retry"))["ok"]
    await until(client, "job_1", "completed")


async def test_a_job_of_which_nothing_can_be_written_waits(troupe, monkeypatch) -> None:
    """The scheduler would end over it at each start."""
    monkeypatch.setattr(dispatcher, "LATER_MS", 20)
    client = troupe.client()
    troupe.store.unwritable = puts("job_1")
    await start(client, "job_1", "job_2")
    await until(client, "job_2", "completed")
    await goes_on(troupe)
    assert (await until(client, "job_1", "pending")).attempts == 0
    troupe.store.unwritable = lambda commit: False
    assert (await until(client, "job_1", "completed")).attempts == 1


async def test_a_run_whose_end_cannot_be_decided_on_has_failed(troupe, critical) -> None:
    """Its record would say for ever that it waits, and nobody look after it."""
    client = troupe.client()
    troupe.store.unwritable = puts("job_1", b'"waiting"')
    await start(client, "job_1", waits=True)
    record = await until(client, "job_1", "failed")
    assert record.reason == "unwritable"
    assert [one.startswith("job.ended:job_1:") for one in critical()] == [True]
    await goes_on(troupe)


async def test_a_store_that_has_undone_something_ends_the_scheduler(troupe) -> None:
    """It would go on with what it has heard and what is not so."""
    troupe.store.error, troupe.store.unwritable = UndoneError, sends("run:")
    await start(troupe.client(), "job_1")
    assert troupe._scheduler is not None
    with pytest.raises(UndoneError):
        await soon(troupe._scheduler)
