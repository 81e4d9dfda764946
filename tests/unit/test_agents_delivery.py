"""The DeliveryAgent brings approved work, and only that, and only once."""

from __future__ import annotations

from typing import Any

import pytest

from actors.delivery_agent import DeliveryAgent
from actors.records import Review
from runtime.errors import JobFailedError
from tests.agents import AT, SOLVED, Case, case, git
from tests.workshop import needs_sandbox

pytestmark = needs_sandbox


def approved(work: dict[str, Any], **fields: Any) -> dict[str, Any]:
    values = {
        "id": "review_1", "issue_id": "issue_1", "job_id": work["jobId"],
        "organization_id": "acme", "status": "approved", "artifact_hash": work["artifactHash"],
        "summary": work["summary"], "requested_at": AT, "decided_at": AT, "decided_by": "ann",
    }  # fmt: skip
    return Review.model_validate({**values, **fields}).to_wire()


def branches(work: Case) -> list[str]:
    return git(work.repository, "branch", "--format=%(refname:short)").splitlines()


async def test_approved_work_becomes_a_branch(tmp_path):
    """Else an approval leads to nothing."""
    async with case(tmp_path, *SOLVED) as work:
        result = await work.run()
        proposed = result.data["work"]
        job = work.next(DeliveryAgent, result, review=approved(proposed))
        delivered = await job.run()
        assert delivered.outcome == "delivered"
        branch = delivered.data["branch"]
        assert branches(work) == ["main", branch]
        assert git(work.repository, "rev-parse", f"{branch}^{{tree}}") == proposed["finalTree"]
        assert git(work.repository, "status", "--short") == ""
        assert "Troupe-Model: troupe-scripted-1" in git(work.repository, "log", "-1", branch)
        assert job.workspaces == []


@pytest.mark.parametrize("boundary", [1, 2, 3, 4])
async def test_a_delivery_killed_anywhere_is_finished_not_repeated(tmp_path, boundary):
    """Else a crash delivers twice, or leaves approved work behind."""
    async with case(tmp_path, *SOLVED) as work:
        result = await work.run()
        job = work.next(DeliveryAgent, result, review=approved(result.data["work"]))
        assert await job.run(crash_at=boundary) is None
        delivered = await job.run()
        assert branches(work) == ["main", delivered.data["branch"]]


async def test_nothing_but_what_was_approved_is_delivered(tmp_path):
    """Else an approval of one change delivers another."""
    async with case(tmp_path, *SOLVED) as work:
        result = await work.run()
        proposed = result.data["work"]
        for review in (
            approved(proposed, status="pending"),
            approved(proposed, status="rejected"),
            approved(proposed, artifact_hash="0" * 64),
            approved(proposed, issue_id="issue_2"),
        ):
            with pytest.raises(JobFailedError):
                await work.next(DeliveryAgent, result, review=review).run()
        assert branches(work) == ["main"]
