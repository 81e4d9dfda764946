"""What is asked of a run while it is under way, and runs that end as nobody has asked."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from msgspec.structs import replace

from runtime.agent import BaseAgent
from runtime.client import Client
from runtime.errors import JobCancelled
from runtime.ids import SCHEDULER, SYSTEM
from runtime.job import JobResult
from runtime.jobs.run import JobRun
from runtime.message import Message
from runtime.schedule.queue import Limits
from runtime.sessions import session_of
from runtime.store.contract import Commit, Send
from tests.troupe import LocalTroupe, asked_job, eventually, soon
from tests.unit.test_jobs import until

WHERE = "acme/worker:one"


class OddEnd(BaseException):
    """What no library should raise."""


class Outside:
    """Where the test meets the runs."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        """The first step of a run is being called."""
        self.go_on = asyncio.Event()
        self.cleans = asyncio.Event()
        """It was cancelled, and cleans up."""
        self.cleaned = asyncio.Event()
        self.runs = 0


def worker(outside: Outside) -> type[BaseAgent]:
    class Worker(BaseAgent):
        kind = "worker"

        async def receive_message(self, message: Message) -> object:
            if message.message_type == "start":
                content = message.content
                who = {
                    "agent_type": content.get("kind", "worker"),
                    "agent_id": content.get("agent", "worker:one"),
                }
                self.enqueue(asked_job(self, content["jobId"], content, **who))
            return None

        async def process_task(self, job) -> JobResult:
            outside.runs += 1
            if outside.runs == 1:
                await self._ends_oddly(job.record.payload.get("how"))
            if job.record.payload.get("swallows"):
                with suppress(asyncio.CancelledError):
                    await job.step("first", self._hold)
                return JobResult(outcome="finished", summary="")
            if job.record.payload.get("holds"):
                await job.step("first", self._hold)
                await job.step("second", self._nothing)
            return JobResult(outcome="finished", summary="")

        async def _ends_oddly(self, how: str | None) -> None:
            match how:
                case "awaits what was cancelled":
                    future = asyncio.get_running_loop().create_future()
                    future.cancel()
                    await future
                case "says it was cancelled":
                    raise JobCancelled
                case "raises what is no Exception":
                    raise OddEnd
                case "cancels its task":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await asyncio.sleep(0)

        async def _hold(self, _) -> None:
            outside.begun.set()
            try:
                await outside.go_on.wait()
            except asyncio.CancelledError:
                outside.cleans.set()
                await outside.cleaned.wait()
                raise

        async def _nothing(self, _) -> None:
            return None

    return Worker


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
async def troupe(outside, limits):
    troupe = await LocalTroupe({"worker": worker(outside)}, limits=limits).start()
    troupe._random.random = lambda: 0.0
    yield troupe
    outside.cleaned.set()
    await troupe.stop()


async def start(client: Client, job: str, **payload: object) -> None:
    await client.ask("worker:boss", {"jobId": job, **payload}, "start")


async def ask(client: Client, verb: str, job: str = "job_1") -> dict:
    return await client.ask("scheduler:main", {"jobId": job}, f"job.{verb}")


def current(troupe: LocalTroupe) -> JobRun:
    run = troupe.hosts["host-0"]._active[WHERE].jobs._current
    assert run is not None
    return run


async def told(troupe: LocalTroupe, about: str = "") -> list[str]:
    feed = await troupe.store.tail(0, 1_000, 0)
    return [one.event for one in feed.entries if one.event.startswith(about)]


async def heard(troupe: LocalTroupe, prefix: str) -> None:
    """The host has been told, and has acknowledged that."""

    async def look() -> bool:
        found = [m for m in await troupe.store.history(WHERE, 0, 99)
                 if m.message_id.startswith(prefix)]  # fmt: skip
        return bool(found) and all(one.status == "processed" for one in found)

    await eventually(look)


async def cancelled(client: Client, outside: Outside) -> None:
    """A run that was cancelled in the middle and cleans up behind itself."""
    await start(client, "job_1", holds=True)
    await soon(outside.begun.wait())
    assert (await ask(client, "cancel"))["ok"]
    await soon(outside.cleans.wait())


async def test_a_cancel_is_not_undone_by_what_its_host_hears_after_it(troupe, outside) -> None:
    """The run would end for no reason, and its job hold the slot and its agent for ever."""
    client = troupe.client()
    await cancelled(client, outside)
    assert (await ask(client, "pause"))["code"] == "cancelling"
    for verb in ("pause", "resume", "cancel"):
        current(troupe).control(f"job.{verb}")
    outside.cleaned.set()
    await until(client, "job_1", "cancelled")
    await start(client, "job_2")
    await until(client, "job_2", "completed")


async def test_a_cancel_holds_over_a_pause_though_its_host_dies(troupe, outside) -> None:
    """What was asked last would be all that the next host knows of."""
    client = troupe.client()
    await cancelled(client, outside)
    await ask(client, "pause")
    outside.cleaned.set()
    await troupe.kill_host("host-0")
    await troupe.start_host("host-0")
    await until(client, "job_1", "cancelled")


@pytest.mark.parametrize(
    "how",
    [
        "awaits what was cancelled",
        "says it was cancelled",
        "raises what is no Exception",
        "cancels its task",
    ],
)
async def test_a_run_that_ends_unasked_is_tried_again(troupe, outside, how) -> None:
    """Its message would stay with the agent, and the job hold its slot, for ever."""
    client = troupe.client()
    await start(client, "job_1", how=how)
    await start(client, "job_2")
    await until(client, "job_1", "completed")
    await until(client, "job_2", "completed")
    assert outside.runs == 3


async def test_what_is_asked_together_is_decided_in_its_order(troupe, outside) -> None:
    """A pause that is read with a cancel would be written over it: none was there before."""
    client = troupe.client()
    await start(client, "job_1", holds=True)
    await soon(outside.begun.wait())
    await troupe.kill_scheduler()
    verbs = ("pause", "resume", "cancel", "pause", "resume")
    ids = [await client.send("scheduler:main", {"jobId": "job_1"}, f"job.{verb}") for verb in verbs]
    troupe.start_scheduler()
    answers = [await soon(client.answer("scheduler:main", one)) for one in ids]
    assert [one["ok"] for one in answers] == [True, True, True, False, False]
    assert (await troupe.store.get("asked", "job_1")).body == b"cancel"
    outside.cleaned.set()
    await until(client, "job_1", "cancelled")


@pytest.mark.parametrize("limits", [Limits(agent=2)])
async def test_a_cancel_that_a_run_swallows_leaves_the_next_one_alone(troupe, outside) -> None:
    """The cancel of the agent's next job would look like the end of its host, and end nothing."""
    client = troupe.client()
    await start(client, "job_1", holds=True, swallows=True)
    await soon(outside.begun.wait())
    assert (await ask(client, "cancel"))["ok"]
    await soon(outside.cleans.wait())
    for event in (outside.begun, outside.cleans):
        event.clear()
    await start(client, "job_2", holds=True)
    await until(client, "job_2", "running")

    async def queued() -> bool:  # so that it begins in the same task
        return bool(troupe.hosts["host-0"]._active[WHERE].jobs._queued)

    await eventually(queued)
    outside.cleaned.set()
    await until(client, "job_1", "completed")
    await soon(outside.begun.wait())
    assert (await ask(client, "cancel", "job_2"))["ok"]
    await until(client, "job_2", "cancelled")


@pytest.mark.parametrize("lives", [True, False])
async def test_a_resume_takes_back_a_pause_that_was_not_met_yet(troupe, outside, lives) -> None:
    """The run would pause at its next step, and nobody would resume it again."""
    client = troupe.client()
    await start(client, "job_1", holds=True)
    await soon(outside.begun.wait())
    if not lives:
        outside.cleaned.set()
        await troupe.kill_host("host-0")
    assert (await ask(client, "pause"))["ok"]
    if lives:
        await heard(troupe, "pause:")
    assert (await ask(client, "resume")) == {"ok": True, "status": "running"}
    if not lives:
        await troupe.start_host("host-0")
    await heard(troupe, "resume:")
    outside.go_on.set()
    record = await until(client, "job_1", "completed")
    assert record.attempts == 1
    events = await told(troupe)
    assert ("job:resumed" in events) == ("job:paused" in events)


async def test_the_pause_of_a_run_is_told_once(troupe, outside) -> None:
    """Host and scheduler would both say it."""
    client = troupe.client()
    await start(client, "job_1", holds=True)
    await soon(outside.begun.wait())
    await ask(client, "pause")
    await heard(troupe, "pause:")
    outside.go_on.set()
    await until(client, "job_1", "paused")

    async def read() -> bool:
        return not await troupe.store.inbox(SCHEDULER, 0, 9)

    await eventually(read)
    assert [await told(troupe, f"{who}:paused") for who in ("job", "agent")] == [
        ["job:paused"],
        ["agent:paused"],
    ]


async def test_a_job_has_one_dead_letter(troupe) -> None:
    """Each would have to be settled, and redelivering the second would run what is over."""
    client = troupe.client()
    await start(client, "job_1", kind="unknown", agent="unknown:one")
    await until(client, "job_1", "failed")
    letters = await troupe.store.list_documents("dead_letter")
    assert [one.key for one in letters] == ["job/job_1"]


@pytest.mark.parametrize("message_id", ["01JD4W9GZ3N5", "run:job_1:99"])
async def test_a_run_of_a_job_that_is_over_is_only_acknowledged(
    troupe, outside, message_id
) -> None:
    """It would run outside the queue, and those who asked be told of a second end."""
    client, store = troupe.client(), troupe.store
    await start(client, "job_1")
    await until(client, "job_1", "completed")
    [run] = [one for one in await store.history(WHERE, 0, 9) if session_of(one)]
    body = Message.from_json(run.body)
    if message_id.startswith("run:"):  # a later one has no record with it
        body = replace(body, content={"jobId": "job_1"})
    before = (await client.get("job", "job_1")).revision, await told(troupe)
    send = Send(message_id, run.sender, run.recipient, body.to_json())
    await store.commit([Commit(SYSTEM, sends=(send,))])
    done = await store.outcome(WHERE, message_id, 5.0)
    assert done is not None
    assert (done.status, done.reply) == ("processed", None)
    assert ((await client.get("job", "job_1")).revision, await told(troupe)) == before
    assert outside.runs == 1
    await start(client, "job_2")
    await until(client, "job_2", "completed")


async def test_a_run_delivered_by_hand_leaves_the_one_under_way_alone(troupe, outside) -> None:
    """It would wait its turn and then run the job once more, with what it was started with."""
    client, store = troupe.client(), troupe.store
    await start(client, "job_1", holds=True)
    await soon(outside.begun.wait())
    [run] = [one for one in await store.history(WHERE, 0, 9) if session_of(one)]
    send = Send("01JD4W9GZ3N5", run.sender, run.recipient, run.body)
    await store.commit([Commit(SYSTEM, sends=(send,))])
    done = await store.outcome(WHERE, "01JD4W9GZ3N5", 5.0)
    assert done is not None and done.status == "processed"
    outside.go_on.set()
    await until(client, "job_1", "completed")
    assert outside.runs == 1
