"""Sessions: one for each run of a job, with what it took, what it cost and why it failed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Write
from runtime.console import sessions
from runtime.console.settings import ConsoleSettings
from runtime.errors import DeadLetterError, JobWaiting
from runtime.job import AgentJob, Job, JobResult, JobStatus
from runtime.jobs.holds import HOLDS, Hold
from runtime.keys import Role
from runtime.message import Message
from runtime.schedule.record import SCHEDULES
from runtime.store.contract import Commit, Put
from tests.http import HttpTroupe
from tests.troupe import LocalTroupe, eventually, soon


@dataclass
class World:
    """What each run of a job does: a word for each, the last for all that follow."""

    script: list[str] = field(default_factory=lambda: ["done"])
    began: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


def worker(world: World) -> type[BaseAgent]:
    class Worker(BaseAgent):
        kind = "worker"

        class State(AgentState):
            pass

        async def receive_message(self, message: Message) -> object:
            for number in range(message.content["jobs"]):
                job = f"job_{number:03}"
                self.enqueue(
                    AgentJob.new(
                        id=job, organization_id="acme", agent_type="worker", agent_id="worker:one",
                        now_ms=self.context.now_ms(),
                    )
                )  # fmt: skip
            return None

        async def process_task(self, job: Job) -> JobResult:
            word = world.script.pop(0) if len(world.script) > 1 else world.script[0]
            world.began.put_nowait(word)

            async def call(context: object) -> str:
                job.spend(0.25, 100)
                if word == "hold":
                    await world.go_on.wait()
                return word

            await job.step(f"{word}-{job.record.attempts}", call, kind="external")
            if word == "fail":
                raise RuntimeError("the outside is down")
            if word == "wait" and await job.signal("answer") is None:
                raise JobWaiting("question")
            return JobResult(outcome="finished", summary="")

    return Worker


class Here:
    def __init__(self, troupe: LocalTroupe, api: HttpTroupe, ann: httpx2.AsyncClient) -> None:
        self.troupe, self.api, self.ann = troupe, api, ann

    async def start(self, jobs: int = 1) -> None:
        await self.troupe.client().ask("worker:one", {"jobs": jobs}, "start")

    async def sessions(self, **query: Any) -> list[dict[str, Any]]:
        """Over all pages."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            params = {**query, **({"cursor": cursor} if cursor else {})}
            answer = await self.ann.get("/api/agents/worker:one/sessions", params=params)
            assert answer.status_code == 200, answer.text
            found += answer.json()["items"]
            cursor = answer.json()["nextCursor"]
            if cursor is None:
                return found

    async def until(self, job: str, status: JobStatus) -> AgentJob:
        async def there() -> AgentJob | None:
            document = await self.troupe.client().get("job", job)
            record = AgentJob.from_json(document.body) if document else None
            return record if record and record.status is status else None

        return await eventually(there)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def here(world: World) -> AsyncIterator[Here]:
    troupe = LocalTroupe({"worker": worker(world)})
    troupe._random.random = lambda: 0.0  # type: ignore[method-assign]
    await troupe.start()
    api = HttpTroupe(troupe.store, troupe.clock)
    async with await api.client(Role.VIEWER) as ann:
        yield Here(troupe, api, ann)
    await troupe.stop()


async def test_each_attempt_is_a_session_with_its_own_cost_and_where_it_failed(
    here: Here, world: World
) -> None:
    """An operator could not tell what a retried job did, what it cost, or where it broke."""
    world.script = ["fail", "fail", "done"]
    await here.start()
    record = await here.until("job_000", JobStatus.COMPLETED)
    [listed] = (await here.ann.get("/api/jobs")).json()["items"]
    assert listed == (await here.ann.get("/api/jobs/job_000")).json()
    assert (listed["status"], "error" in listed) == ("completed", False), "that of an attempt"
    done, second, first = await here.sessions()
    assert [one["status"] for one in (first, second, done)] == ["failed", "failed", "completed"]
    assert {one["jobId"] for one in (first, second, done)} == {"job_000"}
    assert len({one["id"] for one in (first, second, done)}) == 3
    for one in (first, second):
        assert one["error"] == "RuntimeError: the outside is down"
        assert one["trace"][-1].endswith("in process_task")
        assert "test_http_sessions.py:" in one["trace"][-1]
    assert "error" not in done
    assert [one["costUsd"] for one in (first, second, done)] == [0.25, 0.25, 0.25]
    assert sum(one["costUsd"] for one in (first, second, done)) == record.cost_usd
    assert sum(one["tokens"] for one in (first, second, done)) == record.tokens == 300
    for one in (first, second, done):
        assert one["startedAt"] <= one["endedAt"]
        assert one["durationMs"] >= 0


async def test_why_a_job_is_tried_again_is_told_until_it_has_ended_well(
    here: Here, world: World
) -> None:
    """Nobody would see why it is being repeated, or it would seem to have ended badly."""
    world.script = ["fail", "hold"]
    await here.start()
    assert await soon(world.began.get()) == "fail"
    assert await soon(world.began.get()) == "hold"
    job = (await here.ann.get("/api/jobs/job_000")).json()
    assert (job["status"], job["error"]) == ("running", "RuntimeError: the outside is down")
    world.go_on.set()
    await here.until("job_000", JobStatus.COMPLETED)
    assert "error" not in (await here.ann.get("/api/jobs/job_000")).json()


@pytest.mark.parametrize(
    ("status", "told"), [("failed", True), ("cancelled", False), ("completed", False)]
)
async def test_a_job_tells_how_it_ended_not_how_an_attempt_did(status: str, told: bool) -> None:
    """A job that a person has cancelled would be shown as one that has failed."""
    api = HttpTroupe()
    job = AgentJob.new(
        id="job_1", organization_id="acme", agent_type="worker", now_ms=0, error="ValueError: no",
        status=JobStatus(status),
    )  # fmt: skip
    write = Write("job", job.id, job.to_json(), job_terms(job))
    await api.door().commit(writes=[write])
    async with await api.client(Role.VIEWER) as ann:
        answer = (await ann.get("/api/jobs/job_1")).json()
        assert (await ann.get("/api/jobs")).json()["items"] == [answer]
    assert ("error" in answer) is told


async def test_what_runs_is_a_session_and_a_kill_of_its_host_makes_no_second(
    here: Here, world: World
) -> None:
    """A run would be missing while it lasts, or counted twice when it goes on elsewhere."""
    world.script = ["hold"]
    await here.start()
    await soon(world.began.get())
    [running] = await here.sessions()
    assert (running["status"], "endedAt" in running) == ("running", False)
    await here.troupe.kill_host("host-0")
    world.go_on.set()
    await here.troupe.start_host("host-0")
    await here.until("job_000", JobStatus.COMPLETED)
    [over] = await here.sessions()
    assert (over["id"], over["status"]) == (running["id"], "completed")
    assert over["startedAt"] == running["startedAt"]


async def test_a_wait_ends_a_session_and_what_follows_is_another(here: Here, world: World) -> None:
    """A job that waits for days for a person would look as if it had worked for days."""
    world.script = ["wait", "done"]
    await here.start()
    await here.until("job_000", JobStatus.WAITING)
    [waiting] = await here.sessions()
    assert waiting["status"] == "waiting"
    content = {"jobId": "job_000", "name": "answer", "content": 1}
    await here.troupe.client().ask("scheduler:main", content, "job.signal")
    await here.until("job_000", JobStatus.COMPLETED)
    assert [one["status"] for one in await here.sessions()] == ["completed", "waiting"]


async def test_the_newest_come_first_over_all_pages_and_by_status(
    here: Here, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last run of an agent that ran a thousand times would be on the last page."""
    monkeypatch.setattr(sessions, "WINDOW_MIN", 4)
    world.script = ["fail", "done"]
    await here.start(jobs=12)
    for number in range(12):
        await here.until(f"job_{number:03}", JobStatus.COMPLETED)
    whole = await here.sessions(limit=200)
    assert len(whole) == 13
    starts = [one["startedAt"] for one in whole]
    assert starts == sorted(starts, reverse=True)
    for limit in (1, 5):
        assert await here.sessions(limit=limit) == whole
    failed = await here.sessions(status="failed", limit=1)
    assert failed == [one for one in whole if one["status"] == "failed"] != []


LISTS = ("sessions", "messages", "history")


async def test_an_agent_that_never_lived_is_shown_and_let_go() -> None:
    """Two jobs fail while nobody hosts its kind: it is held, and nobody could resume it."""
    troupe = LocalTroupe({})
    api = HttpTroupe(troupe.store, troupe.clock, ConsoleSettings(command_wait_s=5.0))
    troupe.start_scheduler()
    hold = Hold(agent_id="ghost:a", organization_id="acme", failures=2, held=True, by="scheduler")
    put = Put(HOLDS, "acme/ghost:a", "acme", hold.to_json())
    job = AgentJob.new(
        id="job_1", organization_id="acme", agent_type="ghost", agent_id="ghost:a",
        now_ms=troupe.clock.now_ms(), payload={},
    )  # fmt: skip
    terms = tuple(f"{name}={value}" for name, value in job_terms(job).items())
    queued = Put("job", job.id, "acme", job.to_json(), terms)
    await troupe.store.commit([Commit("acme", puts=(put, queued))])
    await troupe.kill_scheduler()
    troupe.start_scheduler()  # it reads who is held as it begins
    async with await api.client(Role.OPERATOR) as ann:
        shown = (await ann.get("/api/agents/ghost:a")).json()
        assert (shown["status"], shown["hold"]["by"]) == ("paused", "scheduler")
        assert "updatedAt" not in shown
        assert (await ann.post("/api/agents/ghost:a/resume")).status_code == 200
        assert "hold" not in (await ann.get("/api/agents/ghost:a")).json()
        assert (await ann.post("/api/agents/ghost:b/resume")).status_code == 404
    await troupe.kill_scheduler()
    await troupe.store.close()


@pytest.mark.parametrize("collection", ["agent", SCHEDULES, "job"])
async def test_an_agent_of_which_nothing_is_kept_has_empty_lists(collection: str) -> None:
    """Would deny an agent that is there, once its messages are forgotten or before it ran."""
    api = HttpTroupe()
    key = "acme/worker:one" if collection == "agent" else "it"
    await api.door().commit(writes=[Write(collection, key, b"{}", {"agent": "worker:one"})])
    async with await api.client() as ann, await api.client(organization="globex") as bob:
        for what in LISTS:
            answer = await ann.get(f"/api/agents/worker:one/{what}")
            assert (answer.status_code, answer.json()) == (200, {"items": [], "nextCursor": None})
            assert (await ann.get(f"/api/agents/worker:two/{what}")).status_code == 404
            assert (await bob.get(f"/api/agents/worker:one/{what}")).status_code == 404


async def test_an_agent_that_was_only_written_to_has_all_its_lists() -> None:
    """Would deny in one list an agent that another one shows."""
    api = HttpTroupe()
    async with await api.client() as ann:
        await ann.post("/api/agents/worker:one/messages", json={"content": 1})
        found = [(await ann.get(f"/api/agents/worker:one/{what}")).json() for what in LISTS]
    assert [len(page["items"]) for page in found] == [0, 1, 0]


async def test_only_the_scheduler_makes_sessions(here: Here) -> None:
    """An agent could write executions of another that never were."""
    await here.start()
    await here.until("job_000", JobStatus.COMPLETED)
    before = await here.sessions()
    client = here.troupe.client()
    sent = await client.send("worker:one", {"jobId": "job_x", "jobs": 0}, "job.run")
    with contextlib.suppress(DeadLetterError):
        await client.answer("worker:one", sent)
    assert await here.sessions() == before
