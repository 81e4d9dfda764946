"""The records keep the source's shapes and move only along their tables."""

from __future__ import annotations

import pickle
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.records import (
    DESCRIPTION_BYTES_MAX,
    METADATA_BYTES_MAX,
    TRANSITIONS,
    AgentIssue,
    IllegalTransitionError,
    IssueContext,
    IssueStatus,
    IssueSubmission,
    Review,
    ReviewClosedError,
    ReviewDecision,
    ReviewOutdatedError,
    decide,
    transition,
)

STATUSES: tuple[IssueStatus, ...] = get_args(IssueStatus)
AT = "2026-11-21T08:00:00.000Z"
HASH = "a" * 64

FROM_THE_SOURCE = """{
  "source": "erp",
  "externalId": "brief-123",
  "type": "bug",
  "priority": "high",
  "title": "Brief PDF export failing for large documents",
  "description": "When exporting briefs with more than 50 pages...",
  "context": {
    "module": "briefs",
    "organizationId": "org_xxx",
    "metadata": {"affectedUsers": ["user_123"], "errorLogs": "..."}
  }
}"""

FROM_THE_ERP_CLIENT = """{
  "source": "erp", "type": "task", "title": "Rename the column", "description": "d",
  "module": "crm", "priority": "Normal",
  "context": {"module": "crm", "organizationId": "org_xxx"}
}"""


def issue(status: IssueStatus = "pending") -> AgentIssue:
    return AgentIssue(
        id="issue_1",
        source="manual",
        type="bug",
        priority="high",
        title="t",
        description="d",
        context=IssueContext(),
        status=status,
        organization_id="acme",
        created_at=AT,
        updated_at=AT,
        reason="model_not_configured",
    )


def review() -> Review:
    return Review(
        id="review_1",
        issue_id="issue_1",
        job_id="job_1",
        organization_id="acme",
        artifact_hash=HASH,
        requested_at=AT,
    )


def submission(**fields: object) -> IssueSubmission:
    return IssueSubmission.model_validate({"source": "manual", "title": "t", **fields})


def test_the_sources_example_is_accepted_and_comes_back_as_it_was() -> None:
    """Would break the body every ERP installation already sends."""
    parsed = IssueSubmission.model_validate_json(FROM_THE_SOURCE)
    assert parsed.external_id == "brief-123"
    assert parsed.context.metadata["affectedUsers"] == ["user_123"]
    assert parsed.to_wire()["externalId"] == "brief-123"


def test_the_erp_clients_body_is_accepted() -> None:
    """Would break the source's own client: no externalId, the module twice."""
    parsed = IssueSubmission.model_validate_json(FROM_THE_ERP_CLIENT)
    assert parsed.declared_module == "crm"
    assert parsed.priority == "medium"


@pytest.mark.parametrize(
    "fields",
    [
        {"title": ""},
        {"title": "  \n"},
        {"title": "x" * 201},
        {"title": 7},
        {"source": "slack"},
        {"priority": "urgent"},
        {"type": "story"},
        {"colour": "red"},
        {"context": {"modul": "crm"}},
        {"context": {"affectedFiles": ["a"] * 201}},
        {"context": {"metadata": {"a": "x" * METADATA_BYTES_MAX}}},
        {"source": "github"},
        {"module": "crm", "context": {"module": "briefs"}},
        {"description": "ä" * (DESCRIPTION_BYTES_MAX // 2 + 1)},
        {"externalId": ""},
    ],
)
def test_a_body_that_is_wrong_is_refused(fields: dict[str, object]) -> None:
    """Would let unknown, oversized or contradicting fields into the store."""
    with pytest.raises(ValidationError):
        submission(**fields)


def test_the_description_may_have_its_whole_size() -> None:
    """Would refuse an issue of exactly the promised size."""
    assert submission(description="x" * DESCRIPTION_BYTES_MAX).description


def test_records_are_camel_case_and_frozen() -> None:
    """Would leak snake_case onto the wire, or let a record change under its reader."""
    wire = issue().to_wire()
    assert {"organizationId", "createdAt", "costUsd", "jobIds"} <= wire.keys()
    with pytest.raises(ValidationError):
        issue().status = "failed"  # type: ignore[misc]


@given(st.sampled_from(STATUSES), st.sampled_from(STATUSES))
def test_only_moves_of_the_table_are_legal(before: IssueStatus, after: IssueStatus) -> None:
    """Would let a completed issue come back to life."""
    if after == before or after in TRANSITIONS[before]:
        moved = transition(issue(before), after, updated_at="later")
        assert (moved.status, moved.reason, moved.updated_at) == (after, None, "later")
    else:
        with pytest.raises(IllegalTransitionError, match=f"{before} -> {after}"):
            transition(issue(before), after)


def test_every_status_has_its_row_and_is_reachable() -> None:
    """Would leave a status nobody can enter, or one without a rule."""
    assert set(TRANSITIONS) == set(STATUSES)
    assert set().union(*TRANSITIONS.values()) == set(STATUSES)
    assert not TRANSITIONS["completed"]


def test_an_issue_remembers_what_its_author_declared() -> None:
    """Would classify by a default that nobody has said."""
    said = IssueSubmission.model_validate_json(FROM_THE_ERP_CLIENT)
    issue = AgentIssue.of(said, "issue_1", "acme", AT)
    assert (issue.type, issue.priority, issue.context.module) == ("task", "medium", "crm")
    assert issue.context.organization_id == "acme"
    back = issue.submission()
    assert (back.type, back.priority, back.declared_module) == ("task", "medium", "crm")
    bare = AgentIssue.of(submission(), "issue_2", "acme", AT)
    assert (bare.submission().type, bare.submission().priority) == (None, None)


def test_approving_an_older_artifact_is_refused() -> None:
    """Would deliver a change that nobody looked at."""
    with pytest.raises(ReviewOutdatedError, match=HASH):
        decide(review(), ReviewDecision(artifact_hash="b" * 64), "approved", by="ann", at=AT)
    superseded = review().model_copy(update={"status": "superseded"})
    with pytest.raises(ReviewOutdatedError):
        decide(superseded, ReviewDecision(artifact_hash=HASH), "approved", by="ann", at=AT)


def test_a_decision_is_taken_once() -> None:
    """Would turn an approval into a rejection after the delivery, or fail a retried request."""
    decision = ReviewDecision(artifact_hash=HASH, comment="fine")
    approved = decide(review(), decision, "approved", by="ann", at=AT)
    assert (approved.status, approved.decided_by, approved.comment) == ("approved", "ann", "fine")
    assert decide(approved, decision, "approved", by="bob", at="later") == approved
    with pytest.raises(ReviewClosedError, match="approved"):
        decide(approved, decision, "rejected", by="bob", at=AT)


@pytest.mark.parametrize(
    "error", [IllegalTransitionError("i", "a -> b"), ReviewClosedError("r"), ReviewOutdatedError()]
)
def test_errors_cross_processes_whole(error: Exception) -> None:
    """Would arrive in another process as a serialization failure."""
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
