"""Jobs and steps on real hosts and a real scheduler, over the memory store."""

from __future__ import annotations

import asyncio
import json

import pytest

from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Client, Write
from runtime.clock import ManualClock
from runtime.errors import JobWaiting
from runtime.ids import HOME
from runtime.job import AgentJob, JobResult
from runtime.jobs import writer as jobwriter
from runtime.message import Message
from runtime.schedule.queue import Limits
from runtime.store.contract import Document
from tests.troupe import LocalTroupe, asked_job, eventually, soon

STEPS = 5
TOLD = {"job.started", "job.completed", "job.failed", "job.waiting", "job.cancelled"}


class World:
    """The outside that jobs call: counts calls, and can hold one open."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.reached = asyncio.Event()
        self.stop_at = 0
        """Which call is held open, the first is 1."""
        self.stopped = asyncio.Event()
        """It is."""
        self.fail = 0
        self.closed = False
        """Whether jobs that look at it have to wait, and why."""
        self.reason = "closed"
        self.step = False
        """Whether a look records a step before it waits."""
        self.looks: asyncio.Queue[int] = asyncio.Queue()
        """One for each look."""
        self.look = asyncio.Event()
        """Looks go on as soon as it is set."""
        self.look.set()

    async def call(self, context) -> str:
        self.calls.append(context.idempotency_key)
        self.reached.set()
        if len(self.calls) == self.stop_at:
            self.hold.clear()
            self.stopped.set()
        await self.hold.wait()
        if self.fail:
            self.fail -= 1
            raise RuntimeError("the outside is down")
        return context.idempotency_key.rpartition(":")[2]


def worker(world: World) -> type[BaseAgent]:
    class Worker(BaseAgent):
        kind = "worker"

        class State(AgentState):
            seen: list[str] = []  # noqa: RUF012 - pydantic copies defaults

        async def receive_message(self, message: Message) -> object:
            if message.message_type == "start":
                content = message.content
                self.enqueue(asked_job(self, content["jobId"], content, reply_to=self.agent_id))
            elif message.message_type == "signal":
                await self.send_message("scheduler:main", message.content, "job.signal")
            elif message.message_type in TOLD:
                self.state.seen.append(message.message_type)
            return self.state.model_dump()

        async def process_task(self, job) -> JobResult:
            if job.record.payload.get("wait") and await job.signal("answer") is None:
                raise JobWaiting("question")
            if job.record.payload.get("look"):
                await self.look(job)
            done = []
            for number in range(STEPS):
                await job.progress(number * 20, f"step {number}", f"doing {number}")
                done.append(await job.step(f"s{number}", world.call, kind="external"))
            return JobResult(outcome="finished", summary=" ".join(done))

        async def look(self, job) -> None:
            if job.record.payload.get("fails") and world.looks.qsize():
                raise RuntimeError("the look itself")
            await job.progress(0, "looking", "is it open?")
            world.looks.put_nowait(1)
            await world.look.wait()
            if world.step:
                await job.step(f"look-{len(world.calls)}", world.call)
            if world.closed:
                raise JobWaiting(world.reason, 1)  # at once, as far as the queue goes

    return Worker


async def until(client: Client, job: str, status: str) -> AgentJob:
    """The job's record once it has this status."""

    async def there() -> AgentJob | None:
        document = await client.get("job", job)
        record = AgentJob.from_json(document.body) if document else None
        return record if record and record.status == status else None

    return await eventually(there)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def troupe(world):
    troupe = await LocalTroupe({"worker": worker(world)}).start()
    yield troupe
    await troupe.stop()


async def start(client: Client, job: str, **payload: object) -> None:
    await client.ask("worker:boss", {"jobId": job, **payload}, "start")


async def test_a_job_runs_its_steps_and_says_so(troupe, world) -> None:
    """The asking agent, the record and the feed would disagree on what happened."""
    client = troupe.client()
    await start(client, "job_1")
    record = await until(client, "job_1", "completed")
    assert record.result.summary == "s0 s1 s2 s3 s4"
    assert (record.progress, record.attempts, len(record.logs)) == (100, 1, 5)
    state = await client.ask("worker:boss", {}, "look")
    assert state["seen"] == ["job.started", "job.completed"]
    feed = await troupe.store.tail(0, 1000, 0)
    events = [entry.event for entry in feed.entries]
    assert events.count("agent:started") == events.count("agent:completed") == 1
    assert events.count("agent:progress") == 5


@pytest.mark.parametrize("at", range(1, STEPS + 1))
async def test_a_killed_host_costs_at_most_the_step_it_was_in(troupe, world, at) -> None:
    """A recorded step would be called again, or the job would be lost."""
    client = troupe.client()
    world.stop_at = at
    await start(client, "job_1")
    await soon(world.stopped.wait())
    await troupe.kill_host("host-0")
    world.hold.set()
    await troupe.start_host("host-0")
    record = await until(client, "job_1", "completed")
    assert record.result.summary == "s0 s1 s2 s3 s4"
    keys = [key.rpartition(":")[2] for key in world.calls]
    assert sorted(set(keys)) == ["s0", "s1", "s2", "s3", "s4"]
    assert len(keys) <= STEPS + 1


async def test_a_killed_scheduler_loses_no_job_and_starts_none_twice(troupe, world) -> None:
    """A job between queue and host would vanish, or run under two schedulers."""
    client = troupe.client()
    for number in range(10):
        await start(client, f"job_{number}")
        await troupe.kill_scheduler()
        troupe.start_scheduler()
    for number in range(10):
        record = await until(client, f"job_{number}", "completed")
        assert record.attempts == 1
    assert len(world.calls) == 10 * STEPS
    assert len(set(world.calls)) == 10 * STEPS


async def test_a_failed_attempt_is_tried_again_from_its_last_step(troupe, world) -> None:
    """Retries would repeat what is recorded, or give up at once."""
    troupe._random.random = lambda: 0.0
    world.fail = 2
    client = troupe.client()
    await start(client, "job_1")
    record = await until(client, "job_1", "completed")
    assert record.attempts == 3
    assert len(world.calls) == STEPS + 2


async def test_a_job_between_two_attempts_is_queued_and_holds_no_slot(world) -> None:
    """The status would count it as waiting for something, where its record says pending."""
    troupe = await LocalTroupe({"worker": worker(world)}, clock=ManualClock()).start()
    troupe._random.random = lambda: 1.0
    world.fail = 1
    client = troupe.client()
    await start(client, "job_1")

    async def failed_once() -> bool:
        return (await until(client, "job_1", "pending")).error is not None

    await eventually(failed_once)
    status = await client.ask("scheduler:main", {}, "scheduler.status")
    assert (status["queued"], status["waiting"], status["running"]) == (1, 0, 0)
    await troupe.kill_scheduler()
    troupe.start_scheduler()  # it reads the same from the record
    status = await client.ask("scheduler:main", {}, "scheduler.status")
    assert (status["queued"], status["waiting"], status["running"]) == (1, 0, 0)
    await start(client, "job_2")
    await until(client, "job_2", "completed")
    assert (await until(client, "job_1", "pending")).attempts == 1, "its time has not come"
    await troupe.stop()


async def test_a_job_that_keeps_failing_ends_as_a_dead_letter(troupe, world) -> None:
    """A hopeless job would be retried for ever, or end without word."""
    troupe._random.random = lambda: 0.0
    world.fail = 100
    client = troupe.client()
    await start(client, "job_1")
    record = await until(client, "job_1", "failed")
    assert record.attempts == record.max_attempts
    assert "the outside is down" in record.error
    assert len(await client.list("dead_letter")) == 1

    async def told() -> bool:
        return (await client.ask("worker:boss", {}, "look"))["seen"][-1] == "job.failed"

    await eventually(told)
    world.fail = 0
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.retry"))["ok"]
    await until(client, "job_1", "completed")


async def failed(client: Client, job: str, revision: int = 0) -> Document:
    """The job's dead letter, as soon as there is one beyond this revision."""

    async def there() -> Document | None:
        letter = await client.get("dead_letter", f"job/{job}")
        return letter if letter and letter.revision > revision else None

    return await eventually(there)


async def test_a_retry_settles_the_dead_letter_and_says_who(troupe, world) -> None:
    """What was tried again would go on looking given up, and nobody would know who did it."""
    troupe._random.random = lambda: 0.0
    world.fail = 100
    client = troupe.client()
    await start(client, "job_1")
    await failed(client, "job_1")
    world.fail = 0
    world.hold.clear()
    asked = {"jobId": "job_1", "by": "ann"}
    assert (await client.ask("scheduler:main", asked, "job.retry"))["ok"]
    assert await client.list("dead_letter") == []
    world.hold.set()
    record = await until(client, "job_1", "completed")
    assert "Tried again by ann" in [line.message for line in record.logs]
    feed = await troupe.store.tail(0, 1000, 0)
    [told] = [json.loads(entry.body) for entry in feed.entries if entry.event == "job:retried"]
    assert (told["jobId"], told["by"]) == ("job_1", "ann")


async def test_a_dead_letter_of_a_job_leads_to_one_more_run(troupe, world) -> None:
    """Two people who redeliver the same letter would have the job run twice, and pay twice."""
    troupe._random.random = lambda: 0.0
    world.fail = 100
    client = troupe.client()
    await start(client, "job_1")
    letter = await failed(client, "job_1")
    asked = {"jobId": "job_1", "letter": letter.revision}
    assert (await client.ask("scheduler:main", asked, "job.retry"))["ok"]
    again = await failed(client, "job_1", letter.revision)
    calls = len(world.calls)
    assert (await client.ask("scheduler:main", asked, "job.retry"))["code"] == "not_found"
    assert (await client.get("dead_letter", "job/job_1")).revision == again.revision
    assert len(world.calls) == calls


async def test_a_retry_with_another_payload_is_another_job(troupe, world) -> None:
    """What was recorded for the old payload would be taken for the new one's."""
    troupe._random.random = lambda: 0.0
    world.fail = 100
    client = troupe.client()
    await start(client, "job_1")
    letter = await failed(client, "job_1")
    world.fail = 0
    asked = {"jobId": "job_1", "letter": letter.revision, "payload": {"n": 2}, "newId": "job_2"}
    answer = await client.ask("scheduler:main", asked, "job.retry")
    assert (answer["ok"], answer["jobId"]) == (True, "job_2")
    again = await until(client, "job_2", "completed")
    assert (again.payload, again.reply_to, again.attempts) == ({"n": 2}, "worker:boss", 1)
    assert (await until(client, "job_1", "failed")).payload == {"jobId": "job_1"}
    assert await client.list("dead_letter") == []
    assert (await client.ask("scheduler:main", asked, "job.retry"))["code"] == "not_found"


@pytest.mark.parametrize("shared", ["worker:one", None])
async def test_a_held_agent_stays_held_over_a_restart_until_a_person_lets_it_go(
    troupe, world, shared
) -> None:
    """An agent paused after two failures would go on failing when the scheduler is started anew."""
    client = troupe.client()
    asked = {"agentId": shared or "worker:job_1", "by": "ann"}
    assert (await client.ask("scheduler:main", asked, "agent.pause"))["status"] == "paused"
    job = AgentJob.new(
        id="job_1", organization_id="acme", agent_type="worker", agent_id=shared,
        now_ms=client.clock.now_ms(),
    )  # fmt: skip
    write = Write("job", job.id, job.to_json(), job_terms(job))
    await client.send("scheduler:main", {"jobId": job.id}, "job.queued", writes=[write])
    await troupe.kill_scheduler()
    troupe.start_scheduler()
    await start(client, "job_2")
    await until(client, "job_2", "completed")
    assert (await until(client, "job_1", "pending")).attempts == 0
    other = troupe.client("rival")
    await other.ask("scheduler:main", asked, "agent.resume")  # its own agent of that name
    assert (await until(client, "job_1", "pending")).attempts == 0
    for wrong in ({}, {"agentId": 7}, {"agentId": "no id"}):
        answer = await client.ask("scheduler:main", wrong, "agent.resume")
        assert answer["code"] == "invalid_message"
    assert (await client.ask("scheduler:main", asked, "agent.resume"))["status"] == "resumed"
    await until(client, "job_1", "completed")


@pytest.mark.parametrize("ends_by", ["job.cancel", "agent.resume"])
async def test_a_job_whose_own_agent_is_held_has_no_slot(world, ends_by) -> None:
    """It would start all the same, or take the turn of the one behind it."""
    troupe = await LocalTroupe({"worker": worker(world)}, limits=Limits(1, 1)).start()
    client, home = troupe.client(), troupe.client(HOME)
    await home.ask("scheduler:main", {}, "scheduler.pause")
    await start(client, "job_1")
    await start(client, "job_2")
    asked = {"agentId": "worker:job_1", "jobId": "job_1", "by": "ann"}
    await client.ask("scheduler:main", asked, "agent.pause")
    await home.ask("scheduler:main", {}, "scheduler.resume")
    await until(client, "job_2", "completed")
    stands = await home.ask("scheduler:main", {}, "scheduler.status")
    assert (stands["running"], stands["queued"]) == (0, 1)
    assert (await client.ask("scheduler:main", asked, ends_by))["ok"]
    await until(client, "job_1", "cancelled" if ends_by == "job.cancel" else "completed")
    if ends_by == "job.cancel":
        await client.ask("scheduler:main", asked, "agent.resume")
    stands = await home.ask("scheduler:main", {}, "scheduler.status")
    assert (stands["queued"], stands["waiting"]) == (0, 0)
    await troupe.stop()


async def test_cancel_reaches_a_step_in_the_middle(troupe, world) -> None:
    """A cancelled job would go on until its call returned."""
    client = troupe.client()
    world.hold.clear()
    await start(client, "job_1")
    await soon(world.reached.wait())
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.cancel"))["ok"]
    record = await until(client, "job_1", "cancelled")
    assert record.reason == "cancelled"
    assert len(world.calls) == 1


async def test_cancel_survives_the_death_of_the_host(troupe, world) -> None:
    """A cancel that only a dead process had heard would be forgotten."""
    client = troupe.client()
    world.hold.clear()
    await start(client, "job_1")
    await soon(world.reached.wait())
    await troupe.kill_host("host-0")
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.cancel"))["ok"]
    await troupe.start_host("host-0")
    await until(client, "job_1", "cancelled")
    assert len(world.calls) == 1


async def test_another_organization_cannot_cancel(troupe, world) -> None:
    """A tenant could end another's work by guessing an id."""
    client = troupe.client()
    world.hold.clear()
    await start(client, "job_1")
    await soon(world.reached.wait())
    answer = await troupe.client("other").ask("scheduler:main", {"jobId": "job_1"}, "job.cancel")
    assert answer["code"] == "not_found"
    world.hold.set()
    await until(client, "job_1", "completed")


async def test_pause_stops_between_steps_and_resume_goes_on(troupe, world) -> None:
    """Pausing would lose the step under way or run it twice."""
    client = troupe.client()
    world.hold.clear()
    await start(client, "job_1")
    await soon(world.reached.wait())
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.pause"))["ok"]

    async def heard() -> bool:
        return (await troupe.store.history("acme/worker:job_1", 0, 9))[-1].status != "pending"

    await eventually(heard)
    world.hold.set()
    await until(client, "job_1", "paused")
    assert len(world.calls) == 1
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.resume"))["ok"]
    await until(client, "job_1", "completed")
    assert len(world.calls) == STEPS


async def test_a_waiting_job_holds_no_slot_and_goes_on_when_signalled(troupe, world) -> None:
    """Waiting for a person would block the queue, or the answer would be lost."""
    client = troupe.client()
    await start(client, "job_1", wait=True)
    await until(client, "job_1", "waiting")
    status = await client.ask("scheduler:main", {}, "scheduler.status")
    assert (status["running"], status["waiting"]) == (0, 1)
    signal = {"jobId": "job_1", "name": "answer", "content": {"text": "yes"}}
    await client.ask("worker:boss", signal, "signal")
    record = await until(client, "job_1", "completed")
    assert record.attempts == 1


async def told(troupe: LocalTroupe) -> list[str]:
    """The names of all public events so far."""
    return [entry.event for entry in (await troupe.store.tail(0, 1000, 0)).entries]


async def looked(world: World, count: int) -> None:
    """Wait until the job has looked so many times, and is in the middle of the last one."""
    async with asyncio.timeout(10):
        for _ in range(count):
            await world.looks.get()


async def test_looks_that_change_nothing_are_told_to_nobody(troupe, world) -> None:
    """A job that waits for days would fill the feed and its asker's journal, look by look."""
    client = troupe.client()
    world.closed = True
    await start(client, "job_1", look=True)
    await looked(world, 2)  # the first one is the start
    events = await told(troupe)
    journal = await troupe.store.journal("acme/worker:boss", 0, 100)
    record = await until(client, "job_1", "running")
    assert events.count("job:started") == events.count("job:waiting") == 1
    await looked(world, 20)
    world.look.clear()
    await looked(world, 1)
    assert await told(troupe) == events
    assert await troupe.store.journal("acme/worker:boss", 0, 100) == journal
    later = await until(client, "job_1", "running")
    assert (later.reason, later.logs) == ("closed", record.logs), "it shows what it waits for"

    world.closed = False
    world.look.set()
    assert (await until(client, "job_1", "completed")).attempts == 1
    more = (await told(troupe))[len(events) :]
    assert more[:3] == ["job:started", "agent:started", "agent:progress"]
    assert more.count("job:started") == 1

    async def seen() -> list[str]:
        told = (await client.ask("worker:boss", {}, "look"))["seen"]
        return told if "job.completed" in told else []

    assert await eventually(seen) == ["job.started", "job.waiting", "job.started", "job.completed"]


async def test_a_look_that_works_for_a_while_says_so(troupe, world, monkeypatch) -> None:
    """Work after a wait would not be seen until its first step is done."""
    monkeypatch.setattr(jobwriter, "PROGRESS_FLUSH_S", 0.01)
    client = troupe.client()
    world.closed = True
    await start(client, "job_1", look=True)
    world.look.clear()
    await looked(world, 1)
    world.look.set()
    await looked(world, 1)
    world.look.clear()
    await looked(world, 1)

    async def goes_on() -> bool:
        return (await until(client, "job_1", "running")).reason is None

    await eventually(goes_on)
    assert (await told(troupe))[-3:] == ["job:started", "agent:started", "agent:progress"]


async def test_a_look_that_did_something_or_found_something_else_is_told(troupe, world) -> None:
    """A job would seem to wait for one thing while it waits for another."""
    client = troupe.client()
    world.closed = True
    await start(client, "job_1", look=True)
    await looked(world, 2)
    world.look.clear()
    await looked(world, 1)
    before = await told(troupe)
    world.reason = "locked"
    world.look.set()
    await looked(world, 2)
    more = (await told(troupe))[len(before) :]
    assert more == ["job:started", "agent:started", "agent:progress", "job:waiting"]
    world.look.clear()
    await looked(world, 1)
    world.step = True
    world.look.set()
    await looked(world, 2)
    assert len(await troupe.store.steps("job_1")) >= 1
    more = (await told(troupe))[len(before) + len(more) :]
    assert more[:4] == ["job:started", "agent:started", "agent:progress", "job:waiting"]


async def test_a_look_that_fails_is_an_attempt_that_fails(troupe, world) -> None:
    """The job would fail with what it once waited for as its reason."""
    troupe._random.random = lambda: 0.0
    client = troupe.client()
    world.closed = True
    await start(client, "job_1", look=True, fails=True)
    record = await until(client, "job_1", "failed")
    assert (record.attempts, record.reason) == (record.max_attempts, "error")
    assert "the look itself" in record.error


async def test_a_look_is_cancelled_and_paused_like_any_run(troupe, world) -> None:
    """A job that waits would be out of reach while it looks, or seem to have started."""
    client = troupe.client()
    world.closed = True
    for verb, status in (("cancel", "cancelled"), ("pause", "paused")):
        await start(client, verb, look=True)
        await looked(world, 2)
        world.look.clear()
        await looked(world, 1)
        before = await told(troupe)
        asked = await client.ask("scheduler:main", {"jobId": verb}, f"job.{verb}")
        assert asked["ok"]
        if verb == "pause":  # which is between steps, while a cancel ends what goes on
            world.look.set()
        await until(client, verb, status)
        world.look.set()
        assert "job:started" not in (await told(troupe))[len(before) :]


async def test_a_paused_scheduler_starts_nothing_and_remembers_it(troupe, world) -> None:
    """A pause would end with the process that heard it."""
    client = troupe.client()
    home = troupe.client(HOME)
    await home.ask("scheduler:main", {"by": "ann"}, "scheduler.pause")
    await troupe.kill_scheduler()
    troupe.start_scheduler()
    await start(client, "job_1")
    status = await client.ask("scheduler:main", {}, "scheduler.status")
    assert (status["state"], status["queued"], status["changedBy"]) == ("PAUSED", 1, "ann")
    assert world.calls == []
    await home.ask("scheduler:main", {"by": "ann"}, "scheduler.resume")
    await until(client, "job_1", "completed")


async def test_a_job_for_nobody_fails_and_says_so(troupe, world) -> None:
    """A job whose agent can't exist would stay running and hold its slot for ever."""
    client = troupe.client()
    job = AgentJob.new(
        id="job_1", organization_id="acme", agent_type="ghost", now_ms=0, reply_to="worker:boss"
    )
    write = Write("job", "job_1", job.to_json(), job_terms(job), 0)
    await client.send("scheduler:main", {"jobId": "job_1"}, "job.queued", writes=[write])
    record = await until(client, "job_1", "failed")
    assert "No agent class" in record.error
    assert (await client.ask("scheduler:main", {}, "scheduler.status"))["running"] == 0
