"""What released code has written is read by this code: states fold, jobs go on, none is lost.

A test that fails here says that an upgrade would break work that is under way.
It is mended in the code (an upcaster, a default, the old name of a step), never
in the fixture.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from actors.department import kinds_with
from actors.models.prices import SCRIPTED_MODEL
from actors.models.settings import ModelSettings
from actors.services import Services
from actors.settings import DepartmentSettings
from runtime.clock import SystemClock
from runtime.errors import NondeterminismError
from runtime.ids import AgentId
from runtime.job import AgentJob, JobResult
from runtime.journal import fold
from runtime.store.sqlite import SqliteStore
from runtime.turn import to_json
from tests.acceptance.department import department
from tests.jobs import Durable, MemoryJob, RecordedStep
from tests.released import (
    DELIVERED,
    FIXTURES,
    HELD,
    KINDS,
    QUESTION,
    WAITING,
    environment,
    place,
    read,
    unpack,
)
from tests.scripted import scripted_process
from tests.workshop import SANDBOX, needs_sandbox

VERSIONS = sorted(path for path in FIXTURES.iterdir() if path.is_dir())
by_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
by_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
async def factories(tmp_path):
    """The department's agents, with a model that is nowhere: to ask it would be to pay again."""
    nowhere = ModelSettings.from_env(
        {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "TROUPE_MODEL": SCRIPTED_MODEL}
    )
    settings = DepartmentSettings(
        data_dir=tmp_path / "data", repository_roots=(tmp_path,), model=nowhere
    )
    services = Services(settings, sandbox=SANDBOX)
    yield kinds_with(services)
    await services.model.aclose()


def folded(agent, events):
    """The state that this code makes of a journal."""
    changes = ((to_json(event["body"]), event["schema"]) for event in events)
    return agent.State.model_validate(fold(None, changes, agent.schema_version, agent.upcasters))


@by_version
@by_kind
def test_a_released_journal_makes_the_state_it_made(version, kind, factories, tmp_path):
    """An agent would wake up after an upgrade without what it knew, or not at all."""
    kept = read(version, kind, tmp_path)
    agent = factories[kind](AgentId(kept["agent"]))
    state = folded(agent, kept["events"]).model_dump(mode="json")
    assert lacks(kept["state"], state) == []
    assert kept["events"] or kind not in ("issue", "triage"), "nothing was shown"


def lacks(old, new, where="state"):
    """Where the new state does not say what the old one said; what is new may be there."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            place
            for name, value in old.items()
            for place in lacks(value, new.get(name), f"{where}.{name}")
        ]
    return [] if old == new else [f"{where}: {old!r} != {new!r}"]


@by_version
@by_kind
async def test_a_released_job_is_replayed_without_a_call(version, kind, factories, tmp_path):
    """A job under way at an upgrade would be paid for again, or fail on its own journal."""
    for kept in read(version, kind, tmp_path)["jobs"]:
        record = AgentJob.from_wire(kept["record"])
        job = MemoryJob(Durable(record, recorded(kept["steps"])))
        result = await factories[kind](AgentId(record.agent)).process_task(job)
        assert job.calls == []
        before = told(JobResult.from_wire(kept["record"]["result"]))
        assert lacks(before, told(result), "result") == []


def recorded(steps):
    return {
        step["key"]: RecordedStep(
            step["kind"], json.dumps(step["request"]), result=json.dumps(step["result"])
        )
        for step in steps
    }


def told(result):
    """What others are told; an artifact's id is the store's."""
    wire = result.to_wire()
    wire["artifacts"] = [one["sha256"] for one in wire.get("artifacts", ())]
    return wire


@by_version
async def test_a_changed_request_would_be_noticed(version, factories, tmp_path):
    """The replays above would pass whatever the code asks for."""
    [kept] = read(version, "code", tmp_path)["jobs"]
    kept["steps"][0]["request"]["repository"] = "/elsewhere"
    job = MemoryJob(Durable(AgentJob.from_wire(kept["record"]), recorded(kept["steps"])))
    with pytest.raises(NondeterminismError):
        await factories["code"](AgentId("code:x")).process_task(job)


@by_version
async def test_every_agent_of_a_released_store_activates(version, factories, tmp_path):
    """One agent that can't be read would hold its issue for ever."""
    store = await SqliteStore.open(unpack(version, tmp_path), SystemClock())
    await store.register("o", "host-0", 10)
    agents = [one.key for one in await store.list_documents("agent", "acme", limit=100)]
    claimed = await store.claim("o", 100, agents)
    assert len(claimed) == len(agents) > 10
    for found in claimed:
        kind = found.agent.partition("/")[2].partition(":")[0]
        agent = factories[kind](AgentId(found.agent.partition("/")[2]))
        base = (json.loads(found.snapshot.body), found.snapshot.schema) if found.snapshot else None
        changes = ((event.body, event.schema) for event in found.events)
        agent.State.model_validate(fold(base, changes, agent.schema_version, agent.upcasters))
    await store.close()


@by_version
@needs_sandbox
async def test_a_released_department_goes_on_with_its_work(version, tmp_path):
    """An upgrade would lose the issues that are under way, or begin them again."""
    where = place(tmp_path)
    unpack(version, tmp_path)
    script = json.loads((version / "script.json").read_text())
    async with scripted_process(tmp_path, script) as server:
        store = await SqliteStore.open(tmp_path / "data" / "troupe.db", SystemClock())
        jobs = [
            AgentJob.from_json(one.body)
            for one in await store.list_documents("job", terms=["status=running"])
        ]
        [held] = jobs
        before = [step for step in await store.steps(held.id) if step.result is not None]
        await store.close()
        async with department(tmp_path, environment(server)) as troupe:
            listed = (await troupe.get("/api/issues"))["items"]
            issues = {issue["title"]: issue["id"] for issue in listed}
            assert set(issues) == {DELIVERED, WAITING, HELD, QUESTION}
            await troupe.decide(issues[WAITING], "approve", "Good.")
            await troupe.decide(issues[HELD], "approve", "Good.")
            for title in (WAITING, HELD):
                await troupe.until(issues[title], lambda found: found["status"] == "completed")
            for title in (DELIVERED, QUESTION):
                assert (await troupe.get(f"/api/issues/{issues[title]}"))["status"] == "completed"
            after = await troupe.steps(held.id)
            assert [(s.key, s.result) for s in after[: len(before)]] == [
                (s.key, s.result) for s in before
            ]
            rounds = [s for s in after if s.key.endswith("/model")]
            again = [s for s in before if s.key.endswith("/model")]
        calls = await server.calls()
        asked = len(rounds) - len(again) + 1  # the rest of the work, and its review
        assert (len(again), calls["total"]) == (3, asked)
    branches = subprocess.run(
        ["git", "-C", str(where), "branch", "--list", "troupe/*"], capture_output=True, text=True
    ).stdout.split()
    assert len([name for name in branches if name.startswith("troupe/")]) == 2
