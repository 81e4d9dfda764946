"""From what was submitted to what is stored, sent and answered: pure functions."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from actors.records import AgentIssue, IssueStatus, IssueSubmission
from runtime.wire import WireModel


class Submitted(WireModel):
    """The answer to a submission."""

    id: str = Field(examples=["issue_01JD4W9GZ3N5"])
    status: IssueStatus = Field(examples=["queued"])
    job_id: str = Field(examples=["job_01JD4W9GZ3N5"])
    """The id its first job will have; the job is there once the issue is classified."""
    estimated_wait: str = Field(examples=["2 minutes"])
    tracking_url: str = Field(examples=["/api/issues/issue_01JD4W9GZ3N5"])


def queued(
    submission: IssueSubmission, repository: str | None, id: str, organization: str, at: str
) -> AgentIssue:
    """The issue as it is accepted: durable and in line to be classified."""
    issue = AgentIssue.of(submission, id, organization, at)
    context = issue.context.model_copy(update={"repository": repository})
    return issue.model_copy(update={"status": "queued", "context": context})


def submitted_message(issue: AgentIssue, job_id: str) -> dict[str, Any]:
    """Content of `issue.submitted`."""
    return {"issue": issue.to_wire(), "jobId": job_id}


def answer(issue: AgentIssue, job_id: str, estimated_wait: str) -> Submitted:
    """What the submitter is told."""
    return Submitted(
        id=issue.id,
        status=issue.status,
        job_id=job_id,
        estimated_wait=estimated_wait,
        tracking_url=f"/api/issues/{issue.id}",
    )


def external_key(organization: str, submission: IssueSubmission) -> str | None:
    """What makes (source, externalId) unique; None when there is no external id."""
    if submission.external_id is None:
        return None
    return f"{organization}/{submission.source}/{submission.external_id}"


def has_words(issue: AgentIssue, words: str) -> bool:
    """Whether every word is somewhere in what people read of the issue."""
    text = " ".join((issue.id, issue.external_id or "", issue.title, issue.description)).casefold()
    return all(word in text for word in words.casefold().split())
