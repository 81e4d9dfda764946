"""A world to look at: one of everything, of one organization."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import msgspec

from actors.records import AgentIssue, GateReport, GateResult, IssueContext, Review
from runtime.agent import BaseAgent, job_terms
from runtime.client import Client, Write
from runtime.clock import iso
from runtime.deadletters import burial
from runtime.hosting.directory import described
from runtime.ids import AgentId, address
from runtime.job import AgentJob, Artifact, JobResult, JobStatus
from runtime.registry import Service
from runtime.schedule.record import (
    Occurrence,
    Revision,
    Schedule,
    Spec,
    encode,
    occurrence_id,
    revision_key,
    schedule_key,
)
from runtime.store.contract import Put, StoredMessage

PATCH = b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n"
_numbers = count(1)


@dataclass(frozen=True)
class World:
    """Ids of what there is."""

    issue: AgentIssue
    job: AgentJob
    artifact: Artifact
    review: Review
    agent: str
    letter: str
    occurrence: str
    service: str = "billing"


class _Coder(BaseAgent):
    """For its public record: nobody lives here."""

    kind = "code"
    role = "developer"
    capabilities = ("edit",)


async def populate(door: Client) -> World:
    """An organization with an issue in review, its job, and what belongs to them.

    Args:
        door: the organization's way to the store, as agents' writes would come.
    """
    organization, now_ms = door.organization, door.clock.now_ms()
    mark = f"{organization}{next(_numbers)}"
    issue, artifact, job, review = _work(organization, mark, await door.put_content(PATCH), now_ms)
    letter = _letter(organization, job.agent, f"m-{mark}", now_ms)
    planned = _schedule(organization, job.agent, now_ms)
    await door.send(
        job.agent,
        {"n": 1},
        message_id=f"m-{mark}",
        writes=[
            Write("issue", issue.id, issue.to_json(), issue.terms()),
            Write("job", job.id, job.to_json(), job_terms(job)),
            Write("artifact", artifact.id, artifact.to_json(), {"job": job.id}),
            Write("review", review.id, review.to_json(), review.terms()),
            _same(described(_Coder(AgentId(job.agent)), organization, now_ms)),
            letter,
            _service(organization, iso(now_ms)),
            *planned,
        ],
    )
    return World(issue, job, artifact, review, job.agent, letter.key, planned[-1].key)


def _work(
    organization: str, mark: str, digest: str, now_ms: int
) -> tuple[AgentIssue, Artifact, AgentJob, Review]:
    """An issue, and what of its job's work waits for a person."""
    now = iso(now_ms)
    issue = AgentIssue(
        id=f"issue_{mark}", source="manual", type="bug", priority="high", title="It fails",
        description="d", context=IssueContext(module="crm"), status="review",
        organization_id=organization, created_at=now, updated_at=now, job_id=f"job_{mark}",
        review_id=f"review_{mark}",
    )  # fmt: skip
    artifact = Artifact(
        id=f"artifact_{mark}", job_id=f"job_{mark}", type="code_change", name="change.patch",
        sha256=digest, size_bytes=len(PATCH), media_type="text/x-diff",
    )  # fmt: skip
    job = AgentJob.new(
        id=f"job_{mark}", organization_id=organization, agent_type="code", now_ms=0,
        issue_id=issue.id, status=JobStatus.WAITING, agent_id=f"code:job_{mark}",
        result=JobResult(outcome="finished", summary="done", artifacts=(artifact,)),
    )  # fmt: skip
    review = Review(
        id=f"review_{mark}", issue_id=issue.id, job_id=job.id, organization_id=organization,
        artifact_hash=digest, patch_artifact=digest, requested_at=now,
        gates=GateReport(
            verdict="passed",
            results=(GateResult(gate="tests", verdict="passed", message="12 passed"),),
        ),
    )  # fmt: skip
    return issue, artifact, job, review


def _letter(organization: str, agent: str, message_id: str, now_ms: int) -> Write:
    """The dead letter of a message that was given up."""
    where = address(organization, agent)
    message = StoredMessage(
        1, message_id, f"{organization}/client:test", where, b"{}", now_ms, attempts=4
    )
    [put] = burial(where, message, "boom", now_ms)["puts"]
    return _same(put)


def _service(organization: str, now: str) -> Write:
    service = Service(
        service_id=World.service, organization_id=organization, metadata={"kind": "erp"},
        endpoints={}, registered_at=now, updated_at=now, ttl_s=None,
    )  # fmt: skip
    return Write("service", f"{organization}/{service.service_id}", service.to_json(), {})


def _same(put: Put) -> Write:
    """What the runtime would put, written by the organization's client."""
    return Write(put.collection, put.key, put.body, dict(term.split("=", 1) for term in put.terms))


def _schedule(organization: str, agent: str, now_ms: int) -> list[Write]:
    """A schedule that has missed its one due time so far."""
    spec = msgspec.Raw(encode(Spec("cron", "0 0 * * *")))
    made_ms = now_ms - 86_400_000
    record = Schedule(
        f"schedule_{agent}", organization, agent, "default", 1, spec, now_ms, tzdata="test"
    )
    revision = Revision(record.id, agent, "default", 1, spec, made_ms, "test", "ann")
    key = occurrence_id(record.id, 1, now_ms)
    missed = Occurrence(key, record.id, agent, "default", 1, "missed", now_ms, now_ms)
    of = {"of": f"{agent}/default"}
    return [
        Write("schedule", schedule_key(organization, agent, "default"), encode(record),
              {"agent": agent}),
        Write("schedule_revision", revision_key(record.id, 1), encode(revision), of),
        Write("occurrence", key, encode(missed), of),
    ]  # fmt: skip
