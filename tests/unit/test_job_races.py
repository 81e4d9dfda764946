"""Races at the edges of a run that a simulation has found: its end, signals, pauses, cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Write
from runtime.clock import ManualClock, SystemClock
from runtime.errors import JobWaiting
from runtime.ids import SCHEDULER, Ids
from runtime.job import AgentJob, JobResult, JobStatus
from runtime.jobs.orphans import orphans
from runtime.jobs.seat import LEASE_S, FencedError
from runtime.message import Message
from runtime.scheduler import Scheduler
from runtime.store.contract import Commit, Committed, Fence, Put, Refused, Send
from runtime.store.memory import MemoryStore
from runtime.verify.loop import LoopClock, run
from tests.troupe import LocalTroupe, eventually
from tests.unit.test_jobs import until

FINAL = {"completed", "failed", "cancelled"}


class SeenStore(MemoryStore):
    """Keeps what was committed."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.accepted: list[Commit] = []
        self.signalled = asyncio.Event()
        """A signal has been written."""
        self.hold = asyncio.Event()
        """The answer to that waits for this."""
        self.hold.set()

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        answers = await super().commit(commits)
        pairs = zip(commits, answers, strict=True)
        self.accepted += [one for one, answer in pairs if isinstance(answer, Committed)]
        if any(put.collection == "signal" and put.body for one in commits for put in one.puts):
            self.signalled.set()
            await self.hold.wait()
        return answers


class Gate:
    """Where the test meets the run."""

    def __init__(self) -> None:
        self.looked = asyncio.Event()
        """The run has looked for its signal and found none."""
        self.go_on = asyncio.Event()
        self.go_on.set()


class Runner(BaseAgent):
    """Takes one pure step and is done; or waits for a signal first."""

    kind = "runner"
    gate = Gate()

    class State(AgentState):
        pass

    async def receive_message(self, message: Message) -> object:
        self.enqueue(
            AgentJob.new(
                id=message.content["jobId"],
                organization_id=self.context.organization,
                agent_type="runner",
                now_ms=self.context.now_ms(),
                payload=message.content,
            )
        )
        return None

    async def process_task(self, job) -> JobResult:
        if job.record.payload.get("wait") and await job.signal("answer") is None:
            self.gate.looked.set()
            await self.gate.go_on.wait()
            raise JobWaiting("question")
        await job.progress(50, "only")
        await job.step("only", self._call)
        return JobResult(outcome="finished", summary="")

    async def _call(self, _context) -> str:
        return "done"


@pytest.fixture
async def troupe():
    Runner.gate = Gate()
    troupe = await LocalTroupe({"runner": Runner}, SeenStore(SystemClock())).start()
    yield troupe
    await troupe.stop()


async def test_a_job_ends_in_one_commit(troupe) -> None:
    """A host killed between two would leave a completed job that runs again, and ends otherwise."""
    client = troupe.client()
    await client.ask("runner:boss", {"jobId": "job_1"}, "start")
    await until(client, "job_1", "completed")
    ends = [
        commit
        for commit in troupe.store.accepted
        for put in commit.puts
        if put.collection == "job" and AgentJob.from_json(put.body).status in FINAL
    ]
    assert len(ends) == 1
    assert [ack.message_id.partition(":")[0] for ack in ends[0].acks] == ["run"]
    assert {send.recipient for send in ends[0].sends} == {SCHEDULER}
    assert "job:completed" in [event.event for event in ends[0].feed]


SIGNAL = {"jobId": "job_1", "name": "answer", "content": "yes"}


async def test_a_signal_that_meets_the_end_of_the_run_wakes_it(troupe) -> None:
    """A run that has just looked in vain would wait for ever for what is there."""
    client, store, gate = troupe.client(), troupe.store, Runner.gate
    gate.go_on.clear()
    await client.ask("runner:boss", {"jobId": "job_1", "wait": True}, "start")
    async with asyncio.timeout(5):
        await gate.looked.wait()
        store.hold.clear()
        await client.ask("scheduler:main", SIGNAL, "job.signal")
        await store.signalled.wait()
        gate.go_on.set()  # its end is committed behind the signal, whose answer is not there yet
        store.hold.set()
    await until(client, "job_1", "completed")


async def test_a_signal_wakes_its_job_though_the_host_dies_on_it(troupe) -> None:
    """The signal would be recorded as handled, and nobody would look again."""
    client, store = troupe.client(), troupe.store
    await client.ask("runner:boss", {"jobId": "job_1", "wait": True}, "start")
    await until(client, "job_1", "waiting")
    store.hold.clear()
    await client.ask("scheduler:main", SIGNAL, "job.signal")
    async with asyncio.timeout(5):
        await store.signalled.wait()
    await troupe.kill_host("host-0")
    store.hold.set()
    await troupe.start_host("host-0")
    await until(client, "job_1", "completed")


async def test_a_job_starts_no_earlier_than_its_record_says() -> None:
    """What a refused decision left in memory would shorten the wait between two tries."""
    clock = ManualClock()
    store = MemoryStore(clock)
    scheduler = Scheduler(store, clock, Ids(clock), lambda: 0.5)
    now_ms = clock.now_ms()
    job = AgentJob.new(
        id="job_1",
        organization_id="acme",
        agent_type="runner",
        now_ms=now_ms,
        not_before_ms=now_ms + 500,
    )
    terms = tuple(f"{name}={value}" for name, value in job_terms(job).items())
    await store.commit([Commit("acme", puts=(Put("job", job.id, "acme", job.to_json(), terms),))])
    scheduler._jobs.queued(job)
    assert await scheduler._dispatcher._starts() == []
    assert scheduler._jobs.next_due_ms() == now_ms + 500


@pytest.mark.parametrize("how", ["its lease is gone", "the store lost data"])
def test_a_scheduler_that_has_lost_its_hold_says_so(how) -> None:
    """It would wait for messages that nobody brings, and look well: nothing would start."""
    run(_loses_its_hold(how))


async def _loses_its_hold(how: str) -> None:
    clock = LoopClock(asyncio.get_running_loop())
    store = MemoryStore(clock)
    scheduler = Scheduler(store, clock, Ids(clock), lambda: 0.5)
    running = asyncio.create_task(scheduler.run())
    async with asyncio.timeout(LEASE_S):
        while not scheduler.status()["epoch"]:
            await asyncio.sleep(0)
        if how == "its lease is gone":
            await store.register("another", scheduler.name, 10.0)
        else:
            store.incarnation = "another"
        with pytest.raises(FencedError):
            await running


async def test_a_job_that_nobody_runs_is_queued_again_at_a_start(troupe) -> None:
    """A record that was restored or mended by hand would hold its slot for ever."""
    client = troupe.client()
    await troupe.kill_scheduler()
    job = AgentJob.new(
        id="job_1", organization_id="acme", agent_type="runner", now_ms=client.clock.now_ms(),
        status=JobStatus.RUNNING, attempts=1,
    )  # fmt: skip
    await client.commit(writes=[Write("job", job.id, job.to_json(), job_terms(job))])
    troupe.start_scheduler()
    await until(client, "job_1", "completed")


async def test_a_job_whose_end_the_scheduler_has_not_read_is_no_orphan(troupe) -> None:
    """It would be run again though it has ended, or is about to be tried again."""
    client = troupe.client()
    await client.ask("runner:boss", {"jobId": "job_1", "wait": True}, "start")
    await until(client, "job_1", "waiting")
    running = AgentJob.from_json((await client.get("job", "job_1")).body)

    async def read() -> bool:
        return not await troupe.store.inbox(SCHEDULER, 0, 9)

    await eventually(read)
    await troupe.kill_scheduler()
    assert await orphans(troupe.store, [running]) == {"job_1"}
    content = {"jobId": "job_1", "outcome": "failed"}
    ended = client.message("scheduler:main", content, "job.ended", message_id="job.ended:job_1:9")
    send = Send(ended.message_id, "acme/runner:job_1", SCHEDULER, ended.to_json())
    await troupe.store.commit([Commit("acme", sends=(send,))])
    assert await orphans(troupe.store, [running]) == set()


class Meddling(SeenStore):
    """Somebody writes one of the records just before several jobs are started in one commit."""

    meddled = ""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        for commit in commits:
            runs = [send for send in commit.sends if send.message_id.startswith("run:")]
            if commit.agent == SCHEDULER and len(runs) > 1 and not self.meddled:
                self.meddled = runs[0].message_id.split(":")[1]
                document = await self.get("job", self.meddled)
                put = Put("job", self.meddled, document.organization, document.body, document.terms)
                await super().commit([Commit(document.organization, puts=(put,))])
        return await super().commit(commits)


async def test_what_can_not_be_written_together_is_decided_on_one_by_one() -> None:
    """One record that has changed would keep all jobs of a round from starting, or its messages."""
    troupe = await LocalTroupe({"runner": Runner}, Meddling(SystemClock())).start()
    try:
        client = troupe.client("default")
        await client.ask("scheduler:main", {}, "scheduler.pause")
        for number in range(4):
            await client.ask(f"runner:boss{number}", {"jobId": f"job_{number}"}, "start")
        await client.ask("scheduler:main", {}, "scheduler.resume")
        for number in range(4):
            record = await until(client, f"job_{number}", "completed")
            assert record.attempts == 1
        assert troupe.store.meddled
        runs = [send for one in troupe.store.accepted for send in one.sends
                if send.message_id.startswith("run:")]  # fmt: skip
        assert len(runs) == 4
    finally:
        await troupe.stop()


class TwinStore(SeenStore):
    """Somebody else takes the agent of the first intent and writes just the same before."""

    twin = "twin/1"

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        for one in commits:
            if one.intents and self.twin not in (await self.health()).owners:
                for owner in (await self.health()).owners:
                    await self.release(owner, [one.agent])
                incarnation = await self.register(self.twin, "twin", 600)
                [claimed] = await self.claim(self.twin, 1, [one.agent])
                fence = Fence(incarnation, claimed.epoch)
                [answer] = await super().commit([replace(one, fence=fence)])
                assert isinstance(answer, Committed), answer
        return await super().commit(commits)


class Caller(Runner):
    """Its step reaches the outside."""

    kind = "runner"
    calls = 0

    async def process_task(self, job) -> JobResult:
        await job.progress(50, "only")
        await job.step("only", self._call, kind="external")
        return JobResult(outcome="finished", summary="")

    async def _call(self, _context) -> str:
        Caller.calls += 1
        return "done"


async def test_a_run_that_is_fenced_calls_nothing_though_its_twin_wrote_the_same() -> None:
    """Two hosts would call the outside under one intent: what is there is not always one's own."""
    Caller.calls = 0
    store = TwinStore(SystemClock())
    troupe = await LocalTroupe({"runner": Caller}, store).start()
    try:
        await troupe.client().ask("runner:boss", {"jobId": "job_1"}, "start")

        async def given_up() -> bool:
            fenced = "twin/1" in (await store.health()).owners
            return fenced and "acme/runner:job_1" not in troupe.hosts["host-0"]._active

        await eventually(given_up)
        assert Caller.calls == 0
    finally:
        await troupe.stop()
