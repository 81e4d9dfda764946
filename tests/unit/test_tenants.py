"""What a handler writes stays its organization's and its own, and stops nobody else's work."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

import runtime
from runtime.agent import ABSENT, BaseAgent
from runtime.client import Client
from runtime.errors import DeadLetterError, JobWaiting, NotYoursError
from runtime.ids import SCHEDULER, SCHEDULER_AGENT
from runtime.job import AgentJob, Job, JobResult
from runtime.message import Message
from runtime.store.contract import BATCH_MAX, Commit, Committed, Put
from runtime.turn import OF_RUNS, RUNTIMES
from runtime.wire import WireModel
from tests.troupe import LocalTroupe, eventually

TYPES = (
    "job.queued", "job.ready", "job.signal", "job.cancel", "job.pause", "job.resume", "job.retry",
    "job.ended", "job.run", "schedule.set", "schedule.delete", "schedule.pause", "schedule.resume",
    "schedule.trigger", "schedule.event", "scheduler.pause", "scheduler.status", "agent.pause",
    "agent.resume", "scheduler.", "schedule.", "reply", "no.such",
)  # fmt: skip
ENDS = {"jobId": "job_1", "outcome": "completed", "agentType": "writer"}
STRANGE = (
    None, [], "x", 5, {}, {"jobId": None}, {"jobId": []}, {"jobId": {}}, {"jobId": "job_1"},
    {"jobId": "a\0b"}, {"jobId": "x" * 5_000}, {"jobId": "nobody's"},
    {**ENDS, "outcome": ["x"]}, {**ENDS, "outcome": {}}, {**ENDS, "outcome": "strange"},
    {**ENDS, "agentType": None, "tookMs": 10**400}, {**ENDS, "jobId": [1]},
    {**ENDS, "outcome": "waiting", "resumeAtMs": "x"}, {**ENDS, "outcome": "failed", "error": {}},
    {"jobId": "job_1", "letter": 5, "payload": 5, "newId": 5}, {"agentId": 5}, {"agentId": "no"},
    {"agentId": "writer:z", "schedule": 5}, {"agentId": "writer:z", "schedule": {"cron": 5}},
    {"agentId": "writer:z", "name": []}, {"agentId": "writer:z", "reason": 5, "by": []},
    {"event": []}, {"event": "push", "repository": [], "branch": {}, "commit": []},
    {"event": "push", "repository": {"a": 1}, "commit": "c"}, {"by": 5, "reason": []},
)  # fmt: skip
"""What an author's mistake, or worse, may say to the scheduler."""


class Kept(WireModel):
    text: str


class Writer(BaseAgent):
    """Does what it is told."""

    kind = "writer"

    async def receive_message(self, message: Message) -> object:
        told = message.content
        match message.message_type:
            case "put":
                expect = told.get("expect", -1)
                self.put(told["collection"], told["key"], Kept(text=told["text"]), expect=expect)
            case "enqueue":
                self.enqueue(job(told["id"], told["organization"], told.get("for", "writer:a")))
            case "run":
                told = {"goes_on": True, **told}
                return await self.execute(told, told["id"])
            case "end":
                await self.send_message(SCHEDULER_AGENT, told, "job.ended")
            case "say":
                for message_type in TYPES:
                    for content in STRANGE:
                        try:
                            self.context.send(SCHEDULER_AGENT, content, message_type)
                        except NotYoursError:
                            assert message_type in OF_RUNS
        return None

    async def process_task(self, job: Job) -> JobResult:
        if (wait := job.record.payload.get("wait")) is not None:
            raise JobWaiting(*wait)
        if not job.record.payload["goes_on"]:
            await asyncio.Event().wait()
        return JobResult(outcome="finished", summary="done")


def job(id: str, organization: str, agent: str = "writer:a") -> AgentJob:
    return AgentJob.new(
        id=id, organization_id=organization, agent_type="writer", agent_id=agent, now_ms=0
    )


@pytest.fixture
async def troupe() -> AsyncIterator[LocalTroupe]:
    troupe = await LocalTroupe({"writer": Writer}).start()
    troupe.hosts["host-0"].random = lambda: 0.0
    yield troupe
    await troupe.stop()


async def completed(client: Client, job_id: str) -> None:
    async def look() -> bool:
        document = await client.get("job", job_id)
        return document is not None and AgentJob.from_json(document.body).status == "completed"

    await eventually(look)


async def test_a_handler_can_not_write_another_organizations_document(troupe) -> None:
    """Whoever knows a key would overwrite another tenant's record, and it would be theirs."""
    acme, beta = troupe.client("acme"), troupe.client("beta")
    note = {"collection": "note", "key": "n1", "text": "own"}
    await acme.ask("writer:a", note, "put")
    before = await troupe.store.get("note", "n1")
    with pytest.raises(DeadLetterError, match="foreign_organization: note/n1"):
        await beta.ask("writer:a", {**note, "text": "taken"}, "put")
    assert await troupe.store.get("note", "n1") == before
    await beta.ask("writer:a", {**note, "key": "n2"}, "put")


@pytest.mark.parametrize("collection", [*sorted(RUNTIMES), "job"])
async def test_a_handler_can_not_write_what_is_the_runtimes(troupe, collection: str) -> None:
    """It could make itself a key, stop the scheduler, or keep another's agents from beginning."""
    with pytest.raises(DeadLetterError, match="runtime's"):
        what = {"collection": collection, "key": "acme/writer:a", "text": "x"}
        await troupe.client("beta").ask("writer:b", what, "put")
    assert await troupe.store.count(collection, "beta") == (collection == "dead_letter")


def test_all_that_the_runtime_writes_is_known_as_its_own() -> None:
    """A collection that comes new would be open to every handler."""
    found = set()
    for module in pkgutil.walk_packages(runtime.__path__, "runtime."):
        if module.name.startswith(("runtime.verify", "runtime.cluster")):
            continue
        names = vars(importlib.import_module(module.name))
        found |= {
            names[name]
            for name in ("COLLECTION", "DEAD_LETTERS", "HEADS", "HOLDS", "LEDGER", "OCCURRENCES",
                         "REVISIONS", "SCHEDULES")
            if name in names
        }  # fmt: skip
    assert len(found) > 10 and found <= RUNTIMES


async def test_a_handler_can_not_enqueue_another_organizations_job(troupe) -> None:
    """A tenant could have its work done by another's agents, with another's limits and money."""
    with pytest.raises(DeadLetterError, match="job_1 is acme's"):
        content = {"id": "job_1", "organization": "acme"}
        await troupe.client("beta").ask("writer:a", content, "enqueue")
    assert await troupe.store.get("job", "job_1") is None


@pytest.mark.parametrize(
    "wait", [("r", "x"), ("r", 1.5), (5, None), ("r", 10**400), ("r", [1]), ("r", True)]
)
async def test_a_wait_that_can_not_be_is_the_jobs_own_failure(troupe, wait) -> None:
    """It would end the scheduler, and each that follows, or leave a record that nobody can read."""
    troupe._random.random = lambda: 0.0
    acme, beta = troupe.client("acme"), troupe.client("beta")
    await beta.ask("writer:a", {"id": "job_1", "wait": wait}, "run")

    async def told() -> bool:
        document = await beta.get("job", "job_1")
        return document is not None and "a job waits" in str(
            AgentJob.from_json(document.body).error
        )

    await eventually(told)
    await acme.ask("writer:a", {"id": "job_2"}, "run")
    await completed(acme, "job_2")


async def test_nobody_can_have_the_scheduler_do_a_job(troupe) -> None:
    """Nothing would ever end it, and an organization each would take all slots from everybody."""
    beta = troupe.client("beta")
    with pytest.raises(DeadLetterError, match="does no jobs"):
        content = {"id": "job_1", "organization": "beta", "for": SCHEDULER_AGENT}
        await beta.ask("writer:a", content, "enqueue")
    what = {"agentId": SCHEDULER_AGENT, "schedule": {"cron": "* * * * *"}}
    answer = await beta.ask(SCHEDULER_AGENT, what, "schedule.set")
    assert (answer["ok"], answer["code"]) == (False, "invalid_schedule")


async def test_a_record_that_is_no_job_of_its_organization_stops_nobody(troupe) -> None:
    """One document that a handler wrote would end the scheduler, or keep it busy, for everybody."""
    acme, beta = troupe.client("acme"), troupe.client("beta")
    await beta.ask(
        "writer:a", {"collection": "job", "key": "job_1", "text": "x", "expect": ABSENT}, "put"
    )
    bodies = {
        "job_2": job("job_2", "acme").to_json(),
        "job_3": job("job_4", "beta").to_json(),
        "job_5": b"[]",
        **{
            id: replace(job(id, "beta"), **wrong).to_json()
            for id, wrong in {
                "job_9": {"queued_at": "some day"},
                "job_10": {"agent_id": "no agent!"},
                "job_11": {"not_before_ms": 10**400},
                "job_12": {"max_attempts": -1, "priority": "strange"},
                "job_13": {"agent_id": None, "agent_type": "a b"},
            }.items()
        },
        "job_8": job("job_8", "beta", SCHEDULER_AGENT).to_json(),
    }
    terms = ("status=pending",)
    puts = tuple(Put("job", key, "beta", body, terms) for key, body in bodies.items())
    [answer] = await troupe.store.commit([Commit("beta", puts=puts)])
    assert isinstance(answer, Committed)
    for job_id in ("job_1", *bodies):
        await beta.send(SCHEDULER_AGENT, {"jobId": job_id}, "job.queued")
    await acme.ask("writer:a", {"id": "job_6"}, "run")
    await completed(acme, "job_6")
    assert troupe.scheduler is not None and troupe.scheduler.status()["queued"] == 0
    await troupe.kill_scheduler()
    troupe.start_scheduler()
    await acme.ask("writer:a", {"id": "job_7"}, "run")
    await completed(acme, "job_7")
    ran = await troupe.store.history("acme/writer:a", 0, BATCH_MAX)
    runs = [one.message_id for one in ran if one.message_id.startswith("run:")]
    assert [id.split(":")[1] for id in runs] == ["job_6", "job_7"]


async def test_nothing_that_is_said_to_the_scheduler_ends_it(troupe) -> None:
    """One message of one agent would stop everybody's work, and again after each restart."""
    acme, beta = troupe.client("acme"), troupe.client("beta")
    await beta.ask("writer:a", {"id": "job_1", "goes_on": False}, "run")
    await beta.ask("writer:a", {}, "say")
    for content in STRANGE:
        for message_type in OF_RUNS:
            await beta.send(SCHEDULER_AGENT, content, message_type)
    await acme.ask("writer:a", {"id": "job_2"}, "run")
    await completed(acme, "job_2")
    assert troupe._scheduler is not None and not troupe._scheduler.done()

    async def heard() -> bool:
        return await troupe.store.inbox(SCHEDULER, 0, 1) == []

    await eventually(heard)


async def test_the_end_of_a_run_is_said_by_its_host_alone(troupe) -> None:
    """Who makes one up would free the slot of what runs, or give the scheduler false times."""
    beta = troupe.client("beta")
    await beta.ask("writer:a", {"id": "job_1", "goes_on": False}, "run")

    async def running() -> bool:
        document = await beta.get("job", "job_1")
        return document is not None and AgentJob.from_json(document.body).status == "running"

    await eventually(running)
    assert (await beta.ask(SCHEDULER_AGENT, ENDS, "job.ended"))["code"] == "invalid_message"
    with pytest.raises(DeadLetterError, match="only the host of a run"):
        await beta.ask("writer:b", ENDS, "end")
    assert troupe.scheduler is not None and troupe.scheduler.status()["running"] == 1
