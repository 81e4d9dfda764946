"""The department's records: what an issue, its classification and its review are.

An issue's status moves only along `TRANSITIONS`, and a review is decided only
for the artifact it was asked for: both are pure functions here, so that every
writer keeps them.  Records are frozen; a change is a new record.  Storing them
and deciding when to move is the agents' business.

Source: the shapes of the source's `AgentIssue` and `POST /api/issues`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from actors.errors import AgentError
from runtime.wire import WireModel

TITLE_LENGTH_MAX: Final = 200
DESCRIPTION_BYTES_MAX: Final = 64 << 10
METADATA_BYTES_MAX: Final = 64 << 10
LIST_LENGTH_MAX: Final = 200
"""Affected files, related issues: at most so many names."""
NAME_LENGTH_MAX: Final = 1_024
COMMENT_LENGTH_MAX: Final = 10_000
FINDINGS_MAX: Final = 100
"""Findings kept of one gate; its message says how many there were."""

IssueSource = Literal["erp", "github", "manual"]
IssueType = Literal["bug", "feature", "enhancement", "question", "task"]
IssueStatus = Literal["pending", "queued", "processing", "review", "completed", "failed"]
Complexity = Literal["simple", "medium", "complex"]
AgentType = Literal["code", "research", "triage"]
ReviewStatus = Literal["pending", "approved", "rejected", "superseded"]
GateVerdict = Literal["passed", "failed", "needs_human", "unknown"]


def _spelled(value: object) -> object:
    """The issue's spelling of a priority: lower case, `medium` for `normal`."""
    if not isinstance(value, str):
        return value
    text = str(value).strip().lower()
    return "medium" if text == "normal" else text


IssuePriority = Annotated[Literal["critical", "high", "medium", "low"], BeforeValidator(_spelled)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

PRIORITIES: Final[tuple[IssuePriority, ...]] = ("critical", "high", "medium", "low")
"""Most urgent first."""


class IssueContext(WireModel):
    """Where the work is and what is known about it."""

    module: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    affected_files: Annotated[tuple[Name, ...], Field(max_length=LIST_LENGTH_MAX)] = ()
    related_issues: Annotated[tuple[Name, ...], Field(max_length=LIST_LENGTH_MAX)] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    organization_id: str | None = None
    """Must be the key's own; set by the intake."""
    repository: Name | None = None
    """An https or ssh URL, or a path under a root that the operator allowed."""
    base_ref: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Default: the repository's default branch."""

    @field_validator("metadata")
    @classmethod
    def _metadata_is_bounded(cls, value: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(value).encode()) > METADATA_BYTES_MAX:
            raise ValueError(f"metadata is over {METADATA_BYTES_MAX} bytes of JSON")
        return value


class IssueSubmission(WireModel):
    """The body of `POST /api/issues`.

    The ERP's own client sends no `externalId` and repeats the module at the top:
    both are accepted; a GitHub issue always has its id.
    """

    source: IssueSource
    external_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Unique per source and organization."""
    type: IssueType | None = None
    priority: IssuePriority | None = None
    title: Annotated[str, Field(min_length=1, max_length=TITLE_LENGTH_MAX)]
    description: str = ""
    module: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Same as `context.module`; the two may not differ."""
    context: IssueContext = IssueContext()

    @field_validator("title")
    @classmethod
    def _title_says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("title is blank")
        return value

    @field_validator("description")
    @classmethod
    def _description_is_bounded(cls, value: str) -> str:
        if len(value.encode()) > DESCRIPTION_BYTES_MAX:
            raise ValueError(f"description is over {DESCRIPTION_BYTES_MAX} bytes")
        return value

    @model_validator(mode="after")
    def _says_one_thing(self) -> IssueSubmission:
        if self.source == "github" and self.external_id is None:
            raise ValueError("externalId is required for source github")
        if self.module and self.context.module and self.module != self.context.module:
            raise ValueError("module and context.module differ")
        return self

    @property
    def declared_module(self) -> str | None:
        return self.context.module or self.module


class Evidence(WireModel):
    """Why a rule decided as it did: `quote` is a piece of the issue, verbatim."""

    rule: str
    quote: str


class Classification(WireModel):
    """What kind of work an issue is and who should do it."""

    type: IssueType
    priority: IssuePriority
    module: str | None = None
    complexity: Complexity
    agent_type: AgentType
    """`triage`: a person decides first."""
    capabilities: tuple[str, ...] = ()
    confidence: float = Field(ge=0, le=1)
    evidence: tuple[Evidence, ...] = ()
    classifier: str
    """`rules@1`, or `rules@1+<model>`."""
    abstained: bool = False
    abstain_reason: str | None = None
    """A code: `no_signal`, `narrow_margin`, `model_disagrees`, ..."""


class Resolution(WireModel):
    """How the issue ended and where its work product is."""

    outcome: str
    """`delivered`, `reported`, `rejected`, `cancelled`, `stuck`, ..."""
    summary: str | None = None
    branch: str | None = None
    commit: str | None = None
    pull_request_url: str | None = None
    patch_artifact: Sha256 | None = None
    report_artifact: Sha256 | None = None


class AgentIssue(WireModel):
    """An issue as it is stored and answered."""

    id: str
    external_id: str | None = None
    source: IssueSource
    type: IssueType
    priority: IssuePriority
    title: str
    description: str
    context: IssueContext
    status: IssueStatus = "pending"
    organization_id: str
    created_at: str
    updated_at: str
    job_id: str | None = None
    """The job at work now, or the last one."""
    job_ids: tuple[str, ...] = ()
    classification: Classification | None = None
    review_id: str | None = None
    resolution: Resolution | None = None
    reason: str | None = None
    """A code: why it waits or failed."""
    cost_usd: float = 0.0
    declared_type: IssueType | None = None
    """What its author called it; `type` is what it was classified as."""
    declared_priority: IssuePriority | None = None

    @classmethod
    def of(cls, submission: IssueSubmission, id: str, organization_id: str, at: str) -> AgentIssue:
        """The record of an issue as it comes in; `at` is RFC 3339."""
        context = submission.context.model_copy(
            update={"module": submission.declared_module, "organization_id": organization_id}
        )
        return cls(
            id=id,
            external_id=submission.external_id,
            source=submission.source,
            type=submission.type or "task",
            priority=submission.priority or "medium",
            title=submission.title,
            description=submission.description,
            context=context,
            organization_id=organization_id,
            created_at=at,
            updated_at=at,
            declared_type=submission.type,
            declared_priority=submission.priority,
        )

    def terms(self) -> dict[str, str]:
        """What lists of issues can be filtered by."""
        terms: dict[str, str] = {
            "status": self.status,
            "type": self.type,
            "priority": self.priority,
            "source": self.source,
        }
        if self.context.module:
            terms["module"] = self.context.module
        return terms

    def submission(self) -> IssueSubmission:
        """What its author said, as far as it is kept: what a classifier looks at."""
        return IssueSubmission.model_construct(
            source=self.source,
            external_id=self.external_id,
            type=self.declared_type,
            priority=self.declared_priority,
            title=self.title,
            description=self.description,
            module=None,
            context=self.context,
        )


class GateFinding(WireModel):
    """One place a gate or a reviewer objects to."""

    path: str | None = None
    line: int | None = None
    """1-based, in the final tree unless `why` says otherwise."""
    why: str


class GateResult(WireModel):
    """What one gate says of a candidate."""

    gate: str
    verdict: GateVerdict
    message: str
    findings: tuple[GateFinding, ...] = ()


class GateReport(WireModel):
    """All gates of one candidate; `verdict` is the worst of theirs."""

    verdict: GateVerdict
    results: tuple[GateResult, ...]


class AutomatedReview(WireModel):
    """The ReviewAgent's opinion."""

    verdict: Literal["approve", "request_changes", "escalate"]
    summary: str = ""
    blocking: tuple[GateFinding, ...] = ()
    test_gaps: tuple[str, ...] = ()
    model: str | None = None


class Review(WireModel):
    """An entry of the human review queue, bound to one artifact."""

    id: str
    issue_id: str
    job_id: str
    organization_id: str
    status: ReviewStatus = "pending"
    artifact_hash: Sha256
    """What is approved: nothing else is ever delivered on this review."""
    patch_artifact: Sha256 | None = None
    summary: str = ""
    gates: GateReport | None = None
    automated: AutomatedReview | None = None
    requested_at: str
    decided_at: str | None = None
    decided_by: str | None = None
    """The principal; never an agent."""
    comment: str | None = None

    def terms(self) -> dict[str, str]:
        """What lists of reviews can be filtered by."""
        return {"status": self.status, "issue": self.issue_id}


class ReviewDecision(WireModel):
    """The body of `POST /api/reviews/{id}/approve` and `/reject`."""

    artifact_hash: Sha256
    comment: Annotated[str, Field(max_length=COMMENT_LENGTH_MAX)] | None = None


class IllegalTransitionError(AgentError):
    """An issue can't move from this status to that one."""


class ReviewOutdatedError(AgentError):
    """The decision was made on another artifact than the one under review."""


class ReviewClosedError(AgentError):
    """The review is already decided otherwise."""


TRANSITIONS: Final[dict[IssueStatus, frozenset[IssueStatus]]] = {
    # review: triage abstained and asks a person; processing, completed: its job had waited
    "pending": frozenset({"queued", "processing", "review", "completed", "failed"}),
    # pending: it waits again, e.g. for a model; completed: a job that ended before it was seen
    "queued": frozenset({"pending", "processing", "review", "completed", "failed"}),
    "processing": frozenset({"pending", "queued", "review", "completed", "failed"}),
    # queued: rejected with a comment, so it is done again
    "review": frozenset({"pending", "queued", "processing", "completed", "failed"}),
    # pending, queued: a person retries
    "failed": frozenset({"pending", "queued"}),
    "completed": frozenset(),
}


def transition(
    issue: AgentIssue,
    status: IssueStatus,
    *,
    reason: str | None = None,
    updated_at: str | None = None,
) -> AgentIssue:
    """The issue in its new status, with the reason of that status (or none).

    Moving to the status it has is legal and changes only reason and time.

    Raises:
        IllegalTransitionError: `TRANSITIONS` has no such move.
    """
    if status != issue.status and status not in TRANSITIONS[issue.status]:
        raise IllegalTransitionError(issue.id, f"{issue.status} -> {status}")
    update: dict[str, Any] = {"status": status, "reason": reason}
    if updated_at is not None:
        update["updated_at"] = updated_at
    return issue.model_copy(update=update)


def decide(
    review: Review,
    decision: ReviewDecision,
    status: Literal["approved", "rejected"],
    *,
    by: str,
    at: str,
) -> Review:
    """The review as decided; the same decision again changes nothing.

    Raises:
        ReviewOutdatedError: the hash is not the one under review, or that was superseded.
        ReviewClosedError: it was decided the other way.
    """
    if review.status == "superseded" or decision.artifact_hash != review.artifact_hash:
        raise ReviewOutdatedError(review.id, review.artifact_hash)
    if review.status == status:
        return review
    if review.status != "pending":
        raise ReviewClosedError(review.id, review.status)
    update = {"status": status, "decided_at": at, "decided_by": by, "comment": decision.comment}
    return review.model_copy(update=update)
