"""The IssueAgent walks every branch of its saga, and only those."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.issue import BOUNCES_MAX, REJECTIONS_MAX, IssueAgent
from actors.settings import DepartmentSettings
from runtime.ids import AgentId
from tests.turns import Turns

AT = "2026-11-21T08:00:00.000Z"
TREE = "1" * 40
HASH = "a" * 64
OTHER_HASH = "b" * 64


def issue(**fields: Any) -> dict[str, Any]:
    return {
        "id": "issue_1",
        "source": "manual",
        "type": "bug",
        "priority": "high",
        "title": "Totals are wrong",
        "description": "The sum is one too low.",
        "context": {"repository": "/repositories/shop", "baseRef": "main"},
        "status": "queued",
        "organizationId": "acme",
        "createdAt": AT,
        "updatedAt": AT,
        **fields,
    }


def classification(agent: str = "code", **fields: Any) -> dict[str, Any]:
    return {
        "type": "bug",
        "priority": "critical",
        "module": "cart",
        "complexity": "simple",
        "agentType": agent,
        "confidence": 0.9,
        "classifier": "rules@1",
        **fields,
    }


def work(job_id: str, artifact_hash: str = HASH) -> dict[str, Any]:
    return {
        "jobId": job_id,
        "repository": "/repositories/shop",
        "baseCommit": TREE,
        "baseTree": TREE,
        "finalTree": "2" * 40,
        "artifactHash": artifact_hash,
        "patchBytes": 10,
        "summary": "Adds the missing one.",
    }


def opinion(verdict: str | None = "approve", gates: str = "passed") -> dict[str, Any]:
    result = {"gate": "tests", "verdict": gates, "message": "the tests fail"}
    automated = {
        "verdict": verdict,
        "summary": "seen",
        "blocking": [{"path": "cart.py", "line": 3, "why": "off by one"}],
        "testGaps": ["an empty cart"],
    }
    data: dict[str, Any] = {"gates": {"verdict": gates, "results": [result]}}
    return {**data, "automated": automated} if verdict else data


class Walk(Turns):
    """An IssueAgent and short words for what happens to it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(IssueAgent(AgentId("issue:issue_1"), DepartmentSettings(**settings)))

    async def submitted(self, **fields: Any) -> Walk:
        await self.deliver("issue.submitted", {"issue": issue(**fields), "jobId": "job_first"})
        return self

    async def classified(self, agent: str = "code", asked: int = 1, **fields: Any) -> Walk:
        content = {"asked": asked, "classification": classification(agent, **fields)}
        await self.deliver("triage.classified", content, "triage:main")
        return self

    async def ended(
        self, status: str, result: Any = None, error: Any = None, job: str | None = None
    ) -> None:
        job_id = job or self.job
        content = {"jobId": job_id, "status": status, "result": result, "error": error}
        await self.deliver(f"job.{status}", content, f"code:{job_id}")

    async def completed(self, outcome: str, data: Any = None, **more: Any) -> None:
        result = {"outcome": outcome, "summary": f"It is {outcome}.", "data": data or {}, **more}
        await self.ended("completed", result)

    async def worked(self, artifact_hash: str = HASH) -> None:
        await self.completed("finished", {"work": work(self.job, artifact_hash)})

    async def until_approval(self) -> Walk:
        await (await self.submitted()).classified()
        await self.worked()
        await self.completed("reviewed", opinion())
        return self

    async def decided(
        self,
        approved: bool,
        comment: str | None = None,
        artifact_hash: str = HASH,
        sender: str = "client:http",
    ) -> Any:
        content = {
            "approved": approved, "artifactHash": artifact_hash, "comment": comment, "by": "ann",
        }  # fmt: skip
        return await self.deliver("review.decided", content, sender)

    @property
    def job(self) -> str:
        return str(self.jobs()[-1]["id"])

    @property
    def kinds(self) -> list[str]:
        return [job["agentType"] for job in self.jobs()]

    @property
    def record(self) -> dict[str, Any]:
        return self.document("issue", "issue_1")

    @property
    def reviews(self) -> list[dict[str, Any]]:
        return [json.loads(body) for (name, _), body in self.documents.items() if name == "review"]


async def test_an_issue_goes_from_submission_to_delivery() -> None:
    """Without this, the one walk the product is made for is broken."""
    walk = await Walk().submitted()
    [asked] = walk.messages("triage.classify")
    assert asked.recipient == "triage:main"
    assert asked.content["issue"]["title"] == "Totals are wrong"

    await walk.classified()
    assert walk.record["status"] == "queued"
    assert (walk.record["priority"], walk.record["context"]["module"]) == ("critical", "cart")
    [job] = walk.jobs()
    assert (job["id"], job["agentType"], job["replyTo"]) == ("job_first", "code", "issue:issue_1")
    assert (job["issueId"], job["priority"]) == ("issue_1", "critical")
    assert job["payload"]["repository"] == "/repositories/shop"
    assert job["payload"]["baseRef"] == "main"

    await walk.worked()
    assert walk.kinds == ["code", "review"]
    assert walk.record["status"] == "processing"

    await walk.completed("reviewed", opinion())
    assert walk.record["status"] == "review"
    [review] = walk.reviews
    assert (review["status"], review["artifactHash"]) == ("pending", HASH)
    assert walk.record["reviewId"] == review["id"]

    await walk.decided(True)
    assert walk.reviews[0]["status"] == "approved"
    assert walk.reviews[0]["decidedBy"] == "ann"
    assert walk.kinds[-1] == "delivery"
    payload = walk.jobs()[-1]["payload"]
    assert payload["review"]["status"] == "approved"
    assert payload["work"]["artifactHash"] == HASH

    await walk.completed("delivered", {"branch": "troupe/issue_1-totals", "commit": TREE})
    assert walk.record["status"] == "completed"
    assert walk.record["resolution"]["branch"] == "troupe/issue_1-totals"
    assert walk.record["resolution"]["patchArtifact"] == HASH
    assert walk.record["jobIds"] == [job["id"] for job in walk.jobs()]


async def test_every_change_is_told_in_the_issues_room() -> None:
    """Else who watches an issue misses a step of it."""
    walk = await Walk().until_approval()
    await walk.decided(True)
    await walk.completed("delivered", {"branch": "b"})
    told = [event for event, _ in walk.events]
    assert told == [
        "issue:queued", "issue:processing", "review:requested", "issue:review",
        "review:approved", "issue:processing", "issue:completed",
    ]  # fmt: skip
    assert await walk.deliver("job.started", {"jobId": walk.job}, "scheduler:main") is None
    assert len(walk.events) == len(told), "what is over is not told again"
    feed = [event for commit in walk.commits for event in commit.feed]
    assert all("issue:issue_1" in event.rooms for event in feed)


async def test_the_record_says_what_lists_filter_by() -> None:
    """Else the API's filters find nothing."""
    walk = await (await Walk().submitted()).classified()
    put = next(put for put in walk.commits[-1].puts if put.collection == "issue")
    assert set(put.terms) == {
        "status=queued", "type=bug", "priority=critical", "module=cart", "source=manual",
    }  # fmt: skip


async def test_the_cost_is_the_sum_of_the_jobs() -> None:
    """Else dollars are unaccounted for."""
    walk = await (await Walk().submitted()).classified()
    for cost in (0.25, 0.5):
        record = {**walk.jobs()[-1], "costUsd": cost}
        walk.documents["job", walk.job] = json.dumps(record).encode()
        if cost == 0.25:
            await walk.worked()
    await walk.completed("reviewed", opinion())
    assert walk.record["costUsd"] == pytest.approx(0.75)


async def test_a_question_is_researched_and_reported() -> None:
    """Else questions end in code."""
    walk = await (await Walk().submitted()).classified("research")
    assert walk.kinds == ["research"]
    artifact = {
        "id": "artifact_1", "jobId": "job_first", "type": "analysis", "name": "report.md",
        "sha256": HASH, "sizeBytes": 3,
    }  # fmt: skip
    await walk.completed("reported", artifacts=[artifact])
    assert walk.record["status"] == "completed"
    assert walk.record["resolution"]["reportArtifact"] == HASH


@pytest.mark.parametrize("outcome", ["stuck", "budget_cost", "no_change", "refused_by_model"])
async def test_work_that_stops_early_fails_with_its_outcome(outcome: str) -> None:
    """Else a user can't tell why there is no result."""
    walk = await (await Walk().submitted()).classified()
    await walk.completed(outcome, {"work": work("job_first")})
    assert (walk.record["status"], walk.record["reason"]) == ("failed", outcome)
    assert walk.record["resolution"]["patchArtifact"] == HASH, "what there is of it is kept"
    assert walk.kinds == ["code"]


async def test_an_issue_without_a_repository_says_so() -> None:
    """Else a job fails later with an error nobody understands."""
    walk = await (await Walk().submitted(context={})).classified()
    assert (walk.record["status"], walk.record["reason"]) == ("failed", "no_repository")
    assert walk.jobs() == []


async def test_the_operators_repository_is_used_when_none_is_named() -> None:
    """Else an ERP that knows no repositories can't submit."""
    walk = await (await Walk(repository="/repositories/erp").submitted(context={})).classified()
    assert walk.jobs()[0]["payload"]["repository"] == "/repositories/erp"


# Review


async def test_a_reviewers_objections_go_back_to_the_code_agent() -> None:
    """Else a review has no effect."""
    walk = await (await Walk().submitted()).classified()
    await walk.worked()
    await walk.completed("reviewed", opinion("request_changes"))
    payload = walk.jobs()[-1]["payload"]
    assert walk.kinds == ["code", "review", "code"]
    assert [note["text"] for note in payload["notes"]] == [
        "cart.py:3: off by one", "missing test: an empty cart",
    ]  # fmt: skip
    assert payload["work"]["finalTree"] == "2" * 40, "it goes on from the change"
    assert walk.record["status"] == "queued"


async def test_after_two_bounces_a_person_decides() -> None:
    """Else two agents disagree for ever, at the owner's cost."""
    walk = await (await Walk().submitted()).classified()
    for _ in range(BOUNCES_MAX + 1):
        await walk.worked()
        await walk.completed("reviewed", opinion("request_changes"))
    assert walk.kinds == ["code", "review"] * (BOUNCES_MAX + 1)
    assert walk.record["status"] == "review"
    assert walk.reviews[0]["automated"]["verdict"] == "request_changes"


async def test_what_a_gate_refuses_ends_refused_and_reaches_nobody() -> None:
    """Else a person could be asked to approve what no person may approve."""
    walk = await (await Walk().submitted()).classified()
    for _ in range(BOUNCES_MAX):
        await walk.worked()
        await walk.completed("refused_by_gate", opinion(None, "failed"))
        assert walk.jobs()[-1]["payload"]["notes"][0]["source"] == "gate"
    await walk.worked()
    await walk.completed("refused_by_gate", opinion(None, "failed"))
    assert (walk.record["status"], walk.record["reason"]) == ("failed", "refused_by_gate")
    assert walk.reviews == []


async def test_gates_without_an_opinion_reach_a_person() -> None:
    """Else a repository without a reviewer has its work sent back for no reason."""
    walk = await (await Walk().submitted()).classified()
    await walk.worked()
    await walk.completed("reviewed", opinion(None))
    assert walk.record["status"] == "review"


async def test_an_escalation_reaches_a_person_at_once() -> None:
    """Else what needs a person is tried again by a machine."""
    walk = await (await Walk().submitted()).classified()
    await walk.worked()
    await walk.completed("reviewed", opinion("escalate", "needs_human"))
    assert walk.record["status"] == "review"


async def test_a_persons_comment_leads_to_another_try_with_new_bounces() -> None:
    """Else a rejection throws the work away, or the second try has no reviewer."""
    walk = await (await Walk().submitted()).classified()
    for _ in range(BOUNCES_MAX + 1):
        await walk.worked()
        await walk.completed("reviewed", opinion("request_changes"))
    await walk.decided(False, "Use a decimal.")
    assert walk.kinds[-1] == "code"
    [note] = walk.jobs()[-1]["payload"]["notes"]
    assert note == {"source": "person", "text": "Use a decimal."}
    assert walk.record["status"] == "queued"
    await walk.worked(OTHER_HASH)
    await walk.completed("reviewed", opinion("request_changes"))
    assert walk.kinds[-1] == "code", "the reviewer may send it back again"
    await walk.worked(OTHER_HASH)
    await walk.completed("reviewed", opinion())
    assert [review["status"] for review in walk.reviews] == ["rejected", "pending"]
    assert walk.reviews[-1]["artifactHash"] == OTHER_HASH


async def test_rejections_have_a_limit() -> None:
    """Else one issue costs without end."""
    walk = await Walk().until_approval()
    for _ in range(REJECTIONS_MAX):
        await walk.decided(False, "No.")
        await walk.worked()
        await walk.completed("reviewed", opinion())
    await walk.decided(False, "Still no.")
    assert (walk.record["status"], walk.record["reason"]) == ("failed", "rejected")
    assert walk.record["resolution"]["summary"] == "Still no."


async def test_a_rejection_without_a_comment_ends_the_issue() -> None:
    """Else an agent tries again and can't know what to change."""
    walk = await Walk().until_approval()
    await walk.decided(False)
    assert (walk.record["status"], walk.record["reason"]) == ("failed", "rejected")


# Who may say what, late and twice


async def test_an_agent_can_never_approve() -> None:
    """Else an agent that was talked into it delivers its own work."""
    walk = await Walk().until_approval()
    jobs = len(walk.jobs())
    for sender in ("code:job_first", "review:job_2", "issue:issue_1", "triage:main"):
        await walk.decided(True, sender=sender)
    assert len(walk.jobs()) == jobs
    assert walk.reviews[0]["status"] == "pending"


async def test_a_client_can_not_play_an_agent() -> None:
    """Else whoever may send a message to an agent can skip work and review."""
    walk = await (await Walk().submitted()).classified()
    result = {"outcome": "finished", "summary": "", "data": {"work": work(walk.job)}}
    content = {"jobId": walk.job, "status": "completed", "result": result, "error": None}
    answer = await walk.deliver("job.completed", content, "client:http")
    assert answer["changed"] is False
    assert walk.kinds == ["code"]
    other = Walk()
    await other.submitted()
    await other.deliver(
        "triage.classified", {"asked": 1, "classification": classification()}, "client:http"
    )
    assert other.jobs() == []


async def test_a_decision_on_another_artifact_changes_nothing() -> None:
    """Else a person approves what they have not seen."""
    walk = await Walk().until_approval()
    answer = await walk.decided(True, artifact_hash=OTHER_HASH)
    assert answer["changed"] is False
    assert walk.reviews[0]["status"] == "pending"
    assert walk.record["status"] == "review"


async def test_what_comes_twice_or_late_changes_nothing() -> None:
    """Else a repeated message starts the same work twice."""
    walk = await Walk().until_approval()
    await walk.decided(True)
    before = (walk.agent.state, walk.kinds, walk.record)
    first, review = walk.jobs()[0]["id"], walk.jobs()[1]["id"]
    finished = {"outcome": "finished", "summary": "", "data": {"work": work(first, OTHER_HASH)}}
    await walk.submitted(title="Another")
    await walk.classified("research")
    await walk.ended("completed", finished, job=first)
    await walk.ended("failed", error="late", job=review)
    await walk.ended("cancelled", job=first)
    await walk.decided(False, "too late")
    await walk.decided(True)
    await walk.deliver("something.else", {})
    assert (walk.agent.state, walk.kinds, walk.record) == before


async def test_agents_are_not_answered() -> None:
    """Else every finished job gets a reply that nobody handles and that ends as a dead letter."""
    walk = await (await Walk().submitted()).classified()
    content = {"jobId": walk.job, "status": "failed", "result": None, "error": "x"}
    assert await walk.deliver("job.failed", content, f"code:{walk.job}") is None


# Failure and cancelling


async def test_a_failed_job_fails_the_issue_and_its_retry_goes_on() -> None:
    """Else redelivering a dead job leads nowhere."""
    walk = await (await Walk().submitted()).classified()
    await walk.ended("failed", error="HopelessError: The disk is full")
    assert (walk.record["status"], walk.record["reason"]) == ("failed", "work_failed")
    assert walk.record["resolution"]["summary"] == "The disk is full"
    await walk.worked()
    assert walk.record["status"] == "processing"
    assert "resolution" not in walk.record
    assert walk.kinds == ["code", "review"]


async def test_started_and_waiting_jobs_show_in_the_status() -> None:
    """Else a user sees `queued` while the agent works, or no reason while it waits."""
    walk = await (await Walk().submitted()).classified()
    await walk.deliver("job.started", {"jobId": walk.job}, "scheduler:main")
    assert walk.record["status"] == "processing"
    waiting = {"jobId": walk.job, "reason": "model_not_configured"}
    await walk.deliver("job.waiting", waiting, f"code:{walk.job}")
    assert (walk.record["status"], walk.record["reason"]) == ("pending", "model_not_configured")
    await walk.deliver("job.started", {"jobId": "job_other"}, "scheduler:main")
    assert walk.record["status"] == "pending"


@pytest.mark.parametrize("stage", ["triage", "work", "review", "approval"])
async def test_cancel_ends_the_issue_wherever_it_is(stage: str) -> None:
    """Else work that nobody wants goes on and costs."""
    walk = await Walk().submitted()
    if stage != "triage":
        await walk.classified()
    if stage in ("review", "approval"):
        await walk.worked()
    if stage == "approval":
        await walk.completed("reviewed", opinion())
    await walk.deliver("issue.cancel", {"by": "ann"})
    assert (walk.record["status"], walk.record["reason"]) == ("failed", "cancelled")
    cancelled = [message.content["jobId"] for message in walk.messages("job.cancel")]
    assert cancelled == ([walk.job] if stage != "triage" else [])
    assert [review["status"] for review in walk.reviews] == ["superseded"] * (stage == "approval")
    await walk.decided(True)
    if stage != "triage":
        await walk.worked()
    assert walk.record["status"] == "failed"
    assert "delivery" not in walk.kinds


async def test_cancelling_a_delivery_waits_for_what_became_of_it() -> None:
    """Else the record says cancelled while the branch is there."""
    walk = await Walk().until_approval()
    await walk.decided(True)
    await walk.deliver("issue.cancel", {"by": "ann"})
    assert walk.record["status"] == "processing"
    await walk.completed("delivered", {"branch": "b"})
    assert walk.record["status"] == "completed"


async def test_a_job_cancelled_by_itself_fails_the_issue() -> None:
    """Else the issue waits for a job that will never end."""
    walk = await (await Walk().submitted()).classified()
    await walk.ended("cancelled")
    assert (walk.record["status"], walk.record["reason"]) == ("failed", "cancelled")


# People speaking


async def test_a_persons_words_reach_the_job_in_order() -> None:
    """Else steering is lost, or said twice."""
    walk = await (await Walk().submitted()).classified()
    for text in ("Look at cart.py.", "And at the tests."):
        await walk.deliver("issue.message", {"text": text, "by": "ann"})
    signals = [message.content for message in walk.messages("job.signal")]
    assert [(signal["jobId"], signal["name"]) for signal in signals] == [
        (walk.job, "message-1"), (walk.job, "message-2"),
    ]  # fmt: skip
    assert signals[1]["content"]["text"] == "And at the tests."


async def test_triage_asks_a_person_and_the_answer_is_classified_again() -> None:
    """Else an issue that rules can't place is stranded."""
    walk = await Walk().submitted()
    await walk.classified("triage", abstained=True, abstainReason="no_signal")
    assert (walk.record["status"], walk.record["reason"]) == ("review", "no_signal")
    assert walk.jobs() == []
    await walk.deliver("issue.message", {"text": "It crashes on empty carts.", "by": "ann"})
    again = walk.messages("triage.classify")[-1].content
    assert again["issue"]["description"].endswith("It crashes on empty carts.")
    await walk.classified(asked=1)
    assert walk.jobs() == [], "the answer to the first question is late"
    await walk.classified(asked=2)
    assert walk.kinds == ["code"]


async def test_a_person_can_name_the_agent() -> None:
    """Else a person's plain decision has to convince rules."""
    walk = await Walk().submitted()
    await walk.classified("triage", abstained=True)
    await walk.deliver("issue.message", {"text": "Just look.", "agentType": "research"})
    assert walk.kinds == ["research"]
