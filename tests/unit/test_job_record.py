"""The bytes of a job's record, which every release reads, and what may not come into them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from pydantic import TypeAdapter

from runtime.agent import BaseAgent
from runtime.job import AgentJob, Artifact, Job, JobConfig, JobResult, LogLine, Priority
from runtime.wire import WireStruct
from tests.troupe import LocalTroupe
from tests.unit.test_jobs import until

WHOLE = (
    b'{"id":"job_1","organizationId":"acme","issueId":"issue_1","agentType":"code",'
    b'"agentId":"code:a","status":"completed","reason":"finished","priority":"normal",'
    b'"attempts":1,"maxAttempts":4,"notBeforeMs":5,"config":{"model":"m","maxTokens":16000,'
    b'"timeoutS":2700.0,"roundsMax":60,"tokensMax":1500000,"costUsdMax":2.0,"tools":["a"]},'
    b'"payload":{"a":null,"b":[1.5,"\xc3\xbc"]},"replyTo":"issue:1","repository":"/r",'
    b'"limitKey":"k","occurrenceId":"o","progress":100,"currentStep":"done",'
    b'"logs":[{"time":"t","message":"m"}],"result":{"outcome":"finished","summary":"s",'
    b'"artifacts":[{"id":"artifact_1","jobId":"job_1","type":"analysis","name":"a.md",'
    b'"sha256":"00","sizeBytes":2,"mediaType":"text/plain"}],"pullRequestUrl":"u",'
    b'"recommendations":["r"],"data":{"x":1}},"error":"e","costUsd":0.25,"tokens":7,'
    b'"createdAt":"1970-01-01T00:00:00.000Z","queuedAt":"1970-01-01T00:00:00.000Z",'
    b'"startedAt":"s","completedAt":"c"}'
)
LEAST = (
    b'{"id":"job_1","organizationId":"acme","agentType":"code","status":"pending",'
    b'"priority":"normal","attempts":0,"notBeforeMs":0,"config":{"maxTokens":16000,'
    b'"timeoutS":2700.0,"roundsMax":60,"tokensMax":1500000,"costUsdMax":2.0,"tools":[]},'
    b'"payload":{},"progress":0,"logs":[],"costUsd":0.0,"tokens":0,'
    b'"createdAt":"1970-01-01T00:00:00.000Z","queuedAt":"1970-01-01T00:00:00.000Z"}'
)
"""As 0.1.0 wrote them when they were pydantic models."""
RECORDS = [AgentJob, Artifact, JobConfig, JobResult, LogLine]


def made(**fields: Any) -> AgentJob:
    return AgentJob.new(id="job_1", organization_id="acme", agent_type="code", now_ms=0, **fields)


@pytest.mark.parametrize("body", [WHOLE, LEAST])
def test_a_released_record_is_read_and_written_byte_for_byte(body: bytes) -> None:
    """A host and a scheduler of two releases would not read each other's jobs."""
    assert AgentJob.from_json(body).to_json() == body
    assert AgentJob.from_wire(json.loads(body)).to_json() == body


def test_a_new_record_has_its_defaults_and_no_absent_field() -> None:
    """The API would answer without `attempts`, or with a row of nulls."""
    assert made().to_json() == LEAST


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_only_what_is_absent_may_be_left_out(record: type[WireStruct]) -> None:
    """A new field with a bare default would be missing from the bytes."""
    bare = [f.default for f in msgspec.structs.fields(record) if not f.required]
    assert {default for default in bare if default is not msgspec.NODEFAULT} <= {None}


def test_numbers_that_an_author_left_in_a_record_go_on_being_read() -> None:
    """One progress of 50.0 would be a job that nobody can read after an upgrade."""
    left = json.loads(LEAST) | {"progress": 50.0, "costUsd": 1, "priority": "MEDIUM"}
    job = AgentJob.from_json(json.dumps(left).encode())
    assert (job.progress, job.cost_usd, job.priority) == (50, 1.0, Priority.NORMAL)


@pytest.mark.parametrize(
    "changed",
    [{"unknown": 1}, {"status": "new"}, {"progress": "half"}, {"progress": 0.5}, {"payload": []}],
)
def test_a_record_of_another_form_is_refused(changed: dict[str, Any]) -> None:
    """What is read would not be what it says it is."""
    with pytest.raises(ValueError, match=next(iter(changed))):
        AgentJob.from_wire(json.loads(LEAST) | changed)


def test_a_job_is_made_as_it_will_be_read() -> None:
    """A record could be accepted that its scheduler can't read."""
    job = made(priority="medium", config={"tools": ["a"]}, payload={"at": (1, 2), 3: None})
    assert (job.priority, job.config) == (Priority.NORMAL, JobConfig(tools=("a",)))
    assert job.payload == {"at": [1, 2], "3": None}
    for wrong in ({"priority": "urgent"}, {"config": JobConfig(max_tokens="x")}, {"payload": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            made(**wrong)
    with pytest.raises(TypeError, match="key"):
        made(payload={None: 1})


async def test_what_a_job_returns_is_looked_at_before_it_is_written() -> None:
    """One wrong result would be a record that stops the scheduler at every start."""
    results: list[Any] = [
        JobResult(outcome="finished", summary=5),  # type: ignore[arg-type]
        None,
        JobResult(outcome="finished", summary="", data={"at": (1, 2)}),
    ]

    class Returns(BaseAgent):
        kind = "returns"

        async def receive_message(self, message: Any) -> None:
            await self.execute({}, "job_1")

        async def process_task(self, job: Job) -> JobResult:
            result: JobResult = results.pop(0)
            return result

    troupe = await LocalTroupe({"returns": Returns}).start()
    troupe._random.random = lambda: 0.0  # a failed run is tried again at once
    client = troupe.client()
    await client.ask("returns:a", {}, "start")
    job = await until(client, "job_1", "completed")
    await troupe.stop()
    assert job.result is not None
    assert (job.attempts, job.result.data) == (3, {"at": [1, 2]})


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_openapi_shows_the_fields_that_are_on_the_wire(record: type[WireStruct]) -> None:
    """A client made from the description would ask for names that never come."""
    shown = TypeAdapter(record).json_schema(by_alias=True)
    fields = msgspec.structs.fields(record)
    assert list(shown["properties"]) == [field.encode_name for field in fields]
    assert shown.get("required", []) == [f.encode_name for f in fields if f.required]
    assert (shown["title"], shown["additionalProperties"]) == (record.__name__, False)
