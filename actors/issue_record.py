"""The record of one issue: the documents people read, written with each decision.

`issue` (key: the issue's id) and `review` documents, the cost of the jobs, and
the events in the issue's room all change in the turn that decides, so nobody
ever sees a status that was not decided or misses one that was.  Deciding is
`issue`'s business.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from actors.assignment import Assignment, Work
from actors.records import AgentIssue, IssueStatus, Resolution, Review, transition
from actors.settings import DepartmentSettings
from runtime.agent import AgentState, BaseAgent
from runtime.clock import iso
from runtime.ids import AgentId
from runtime.job import AgentJob, Priority


class Stage(StrEnum):
    """What the issue is waiting for."""

    NEW = "new"
    TRIAGE = "triage"
    ASKED = "asked"
    """A person, to say what kind of work it is."""
    WORK = "work"
    REVIEW = "review"
    """The automated one."""
    APPROVAL = "approval"
    """The human review."""
    DELIVERY = "delivery"
    DONE = "done"


class IssueState(AgentState):
    issue: AgentIssue | None = None
    stage: Stage = Stage.NEW
    asked: int = 0
    """Questions put to triage; an answer to an older one is late."""
    first_job: str | None = None
    """The id that the submitter was told, until the first job takes it."""
    job: str | None = None
    """The job whose end is waited for, or was last."""
    costs: dict[str, float] = Field(default_factory=dict)
    """USD by job."""
    work: Work | None = None
    review: Review | None = None
    bounces: int = 0
    """Since a person last spoke."""
    rejections: int = 0
    messages: int = 0
    told: int = 0
    """Messages passed on to the present job."""


class IssueRecord(BaseAgent):
    """What an IssueAgent knows and shows of its issue."""

    State = IssueState
    state: IssueState

    def __init__(self, agent_id: AgentId, settings: DepartmentSettings) -> None:
        super().__init__(agent_id)
        self._settings = settings

    @property
    def _issue(self) -> AgentIssue:
        assert self.state.issue is not None, "no message but issue.submitted comes this far"
        return self.state.issue

    @property
    def _present_work(self) -> Work:
        assert self.state.work is not None, "a review follows work"
        return self.state.work

    @property
    def _room(self) -> str:
        return f"issue:{self._issue.id}"

    async def _settle(self, job_id: str) -> None:
        """Take the job's cost into the issue's."""
        body = await self.context.get("job", job_id)
        if body is not None:
            self.state.costs[job_id] = AgentJob.from_json(body).cost_usd
            self._change(cost_usd=sum(self.state.costs.values()))

    def _end(
        self, status: Literal["completed", "failed"], outcome: str, summary: str, **where: Any
    ) -> None:
        """The saga is over; the record says how and where the work product is."""
        self.state.stage = Stage.DONE
        patch = self.state.work.artifact_hash if self.state.work else None
        resolution = Resolution(outcome=outcome, summary=summary, patch_artifact=patch, **where)
        self._change(resolution=resolution)
        self._move(status, reason=outcome if status == "failed" else None)

    def _fail(self, reason: str, error: str) -> None:
        """The present job failed for good; only its retry goes on."""
        patch = self.state.work.artifact_hash if self.state.work else None
        resolution = Resolution(outcome=reason, summary=error, patch_artifact=patch)
        self._change(resolution=resolution)
        self._move("failed", reason=reason)

    def _change(self, **fields: Any) -> None:
        self.state.issue = self._issue.model_copy(update=fields)

    def _move(self, status: IssueStatus, reason: str | None = None) -> None:
        """Set the status, write the record and tell everybody."""
        issue, now = self._issue, iso(self.context.now_ms())
        if issue.status == "failed" and status not in ("failed", "pending", "queued"):
            # A retried job has come to its end although the issue had been given up.
            issue = transition(issue, "queued")
        if status not in ("failed", "completed"):
            issue = issue.model_copy(update={"resolution": None})
        issue = transition(issue, status, reason=reason, updated_at=now)
        self.state.issue = issue
        self.put("issue", issue.id, issue, issue.terms())
        self._publish(status, {"status": status, "reason": reason, "jobId": issue.job_id})

    def _publish(self, event: str, data: dict[str, Any]) -> None:
        self.publish(f"issue:{event}", {"issueId": self._issue.id, **data}, self._room)

    def _put_review(self, event: str) -> None:
        review = self.state.review
        assert review is not None
        self.put("review", review.id, review, review.terms())
        data = {
            "reviewId": review.id,
            "issueId": review.issue_id,
            "jobId": review.job_id,
            "status": review.status,
            "artifactHash": review.artifact_hash,
        }
        self.publish(f"review:{event}", data, self._room)

    def _queue(self, kind: str, assignment: Assignment) -> None:
        job_id, self.state.first_job = self.state.first_job, None
        job = AgentJob.new(
            id=job_id or self.context.new_id("job"),
            organization_id=self.context.organization,
            agent_type=kind,
            now_ms=self.context.now_ms(),
            issue_id=self._issue.id,
            priority=Priority(self._issue.priority),
            config=self._settings.job_config(),
            payload=assignment.to_wire(),
            reply_to=self.agent_id,
            repository=assignment.repository,
        )
        self.enqueue(job)
        self.state.job = job.id
        self._change(job_id=job.id, job_ids=(*self._issue.job_ids, job.id))
