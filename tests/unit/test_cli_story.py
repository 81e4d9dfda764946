"""`troupe explain`: sentences made of the records the API answers, and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from actors.commands.explain import due_time
from actors.commands.story import Material, tell
from actors.records import (
    AgentIssue,
    AutomatedReview,
    Classification,
    Evidence,
    GateReport,
    IssueContext,
    Resolution,
    Review,
)
from runtime.job import AgentJob, JobResult, JobStatus

NOW = datetime(2026, 11, 21, 8, 10, 0, tzinfo=UTC)
HASH = "3f2a9c10be77" + "0" * 52


def at(second: int) -> str:
    return f"2026-11-21T08:00:{second:02d}.000Z"


def issue(**fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "id": "issue_1",
        "source": "manual",
        "type": "bug",
        "priority": "high",
        "title": "Export drops the end",
        "description": "",
        "context": IssueContext(repository="/srv/briefs"),
        "organization_id": "acme",
        "created_at": at(1),
        "updated_at": at(40),
        "job_id": "job_1",
        "job_ids": ("job_1",),
        "classification": Classification(
            type="bug",
            priority="high",
            complexity="simple",
            agent_type="code",
            confidence=0.9,
            evidence=(Evidence(rule="failing-test", quote="fails in\ntest_a_long_brief"),),
            classifier="rules@1",
        ),
    }
    return AgentIssue(**(known | fields)).to_wire()


def job(**fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "id": "job_1",
        "organization_id": "acme",
        "agent_type": "code",
        "created_at": at(2),
        "queued_at": at(2),
        "started_at": at(3),
        "attempts": 1,
        "cost_usd": 0.0312,
        "tokens": 12_345,
    }
    return AgentJob(**(known | fields)).to_wire()


def steps(*keys: str, again: int = 0) -> list[dict[str, Any]]:
    return [
        {"key": key, "attempts": 2 if number < again else 1, "at": at(5 + number)}
        for number, key in enumerate(keys)
    ]


def text(material: Material) -> str:
    story = tell(material, NOW)
    return "\n".join([*(s.text for s in story.happened), story.now, story.cost, *story.next])


def test_the_story_is_told_in_the_order_of_time() -> None:
    """Causes would come after their effects."""
    review = Review(
        id="review_1",
        issue_id="issue_1",
        job_id="job_1",
        organization_id="acme",
        status="approved",
        artifact_hash=HASH,
        gates=GateReport(verdict="passed", results=()),
        automated=AutomatedReview(verdict="approve"),
        requested_at=at(30),
        decided_at=at(35),
        decided_by="ann",
        comment="good",
    ).to_wire()
    done = job(
        status=JobStatus.COMPLETED,
        completed_at=at(20),
        result=JobResult(outcome="finished", summary="Fixed the last page."),
    )
    material = Material(
        issue=issue(
            status="completed",
            resolution=Resolution(outcome="delivered", branch="troupe/1-export"),
        ),
        jobs=[done],
        steps={"job_1": steps("round-1/model", "round-1/tool-1", "round-2/model", again=1)},
        reviews=[review],
    )
    story = tell(material, NOW)
    times = [sentence.time for sentence in story.happened]
    assert times == sorted(times)
    told = text(material)
    for part in (
        "handed in from manual",
        "Triage (rules@1) called it a simple bug, priority high, for the code agent, because of "
        '"fails in test_a_long_brief" (failing-test)',
        "began after 1.0 s in the queue",
        "recorded 3 steps, 2 model calls among them, for $0.0312, 12,345 tokens",
        "1 step had to be begun again after an interruption",
        "completed after 17 s (finished): Fixed the last page",
        "the gates say passed, the reviewing agent says approve",
        'ann approved the change 3f2a9c10be77 (review_1): "good"',
        "It is completed (delivered); the work is in troupe/1-export.",
        "git -C /srv/briefs log -p troupe/1-export",
    ):
        assert part in told, part


def test_a_wait_is_told_with_its_cure() -> None:
    """The user would wait for ever for a model that nobody configures."""
    told = text(
        Material(
            issue=issue(status="pending", reason="model_not_configured"),
            jobs=[job(status=JobStatus.WAITING, reason="model_not_configured")],
        )
    )
    assert "It is pending, for 9 min now: it waits for a model: none is configured" in told
    assert "ANTHROPIC_API_KEY" in told


def test_a_review_is_the_next_thing_to_do() -> None:
    """The user would not learn that the work waits for them."""
    told = text(Material(issue=issue(status="review", review_id="review_9"), jobs=[job()]))
    assert "a person to review the change" in told
    assert "troupe review show review_9" in told
    assert "troupe cancel" not in told


def test_triages_question_is_told_with_how_to_answer() -> None:
    """An issue that triage could not place would stay for ever."""
    told = text(Material(issue=issue(status="review", reason="needs_triage")))
    assert "triage could not tell" in told
    assert "troupe issues tell issue_1 --agent code" in told


def test_every_change_of_status_is_read_from_the_journal() -> None:
    """Only the last status would be known, and not why it was another before."""
    history = [
        {"at": at(1), "patch": [["set", ["issue"], {"status": "pending", "reason": None}]]},
        {"at": at(2), "patch": [["set", ["issue", "status"], "queued"], ["set", ["job"], "job_1"]]},
        {"at": at(3), "patch": [["set", ["asked"], 2]]},
        {
            "at": at(4),
            "patch": [
                ["set", ["issue", "status"], "pending"],
                ["set", ["issue", "reason"], "model_not_configured"],
            ],
        },
        {
            "at": at(5),
            "patch": [["del", ["issue", "reason"]], ["set", ["issue", "status"], "queued"]],
        },
    ]
    story = tell(Material(issue=issue(), history=history), NOW)
    moved = [s.text for s in story.happened if s.text.startswith("The issue became")]
    assert [text.split(" became ")[1].split(":")[0].rstrip(".") for text in moved] == [
        "pending",
        "queued",
        "pending",
        "queued",
    ]
    assert "model_not_configured" in moved[2]


def test_people_and_dead_letters_are_told_and_agents_talk_is_not() -> None:
    """What went wrong would drown in what agents say to each other."""

    def row(message_type: str, content: Any, **fields: Any) -> dict[str, Any]:
        message = {"messageType": message_type, "sender": "client:key_1", "content": content}
        return {"status": "processed", "acceptedAt": at(6), "message": message, **fields}

    told = text(
        Material(
            issue=issue(),
            messages=[
                row("issue.message", {"text": "use pages of 50", "by": "ann"}),
                row("issue.cancel", {"by": "bob"}),
                row("job.started", {"jobId": "job_1"}),
                row("triage.classified", {}, status="dead", error="ValueError: no"),
            ],
        )
    )
    assert 'ann said: "use pages of 50".' in told
    assert "bob asked to cancel it." in told
    assert "A message triage.classified was given up: ValueError: no." in told
    assert "job.started" not in told


def test_a_job_alone_has_a_story() -> None:
    """A job of one's own agent could not be explained."""
    alone = job(id="job_9", status=JobStatus.FAILED, completed_at=at(9), error="ValueError: no")
    story = tell(Material(jobs=[alone]), NOW)
    assert story.id == "job_9"
    assert "It is failed" in story.now
    assert any("ValueError: no" in sentence.text for sentence in story.happened)


def test_an_earlier_attempts_error_is_not_how_another_one_ended() -> None:
    """A job that a person has cancelled would be told as one that has failed."""
    ended = {"completed_at": at(9), "error": "RuntimeError: out", "reason": "cancelled"}
    told = text(Material(jobs=[job(status=JobStatus.CANCELLED, **ended)]))
    assert "job_1 cancelled after 6.0 s." in told and "RuntimeError" not in told


def test_a_question_of_a_job_is_answered_to_its_issue() -> None:
    """The command that is shown would name a job, which nobody can tell anything."""
    asks = {"status": JobStatus.WAITING, "reason": "question"}
    told = text(Material(jobs=[job(issue_id="issue_7", **asks)]))
    assert 'troupe issues tell issue_7 "..."' in told
    assert "issues tell" not in text(Material(jobs=[job(**asks)]))
    issues = Material(issue=issue(status="pending", reason="question"), jobs=[job(**asks)])
    assert 'troupe issues tell issue_1 "..."' in text(issues)


def test_how_long_a_job_runs_is_counted_from_its_newest_start() -> None:
    """Hours in the queue, or of an attempt that failed, would pass for work."""
    run = {"jobId": "job_1", "startedAt": "2026-11-21T08:09:50.000Z", "status": "running"}
    runs = job(status=JobStatus.RUNNING)
    assert tell(Material(jobs=[runs], sessions={"job_1": [run]}), NOW).now == (
        "It is running, for 10 s now."
    )
    assert tell(Material(jobs=[runs]), NOW).now == "It is running."
    waits = job(status=JobStatus.WAITING, reason="model_not_configured")
    ended = {**run, "status": "waiting", "endedAt": "2026-11-21T08:09:55.000Z"}
    assert "for 5 s now" in tell(Material(jobs=[waits], sessions={"job_1": [ended]}), NOW).now
    assert "now" not in tell(Material(jobs=[waits], sessions={"job_1": [run]}), NOW).now


def test_costs_of_several_jobs_are_added_and_split() -> None:
    """The price of a bounce would be hidden."""
    jobs = [job(), job(id="job_2", agent_type="review", cost_usd=0.01, tokens=10)]
    story = tell(Material(issue=issue(), jobs=jobs), NOW)
    assert story.cost == "$0.0412, 12,355 tokens (code $0.0312, review $0.0100)"


def test_a_long_text_of_others_is_one_short_line() -> None:
    """A stack trace would push the story off the screen."""
    story = tell(
        Material(jobs=[job(status=JobStatus.FAILED, completed_at=at(9), error="x" * 5_000)]), NOW
    )
    assert max(len(sentence.text) for sentence in story.happened) < 400


def test_an_attempt_that_failed_is_told_with_when_the_next_one_is() -> None:
    """A job that waits five minutes for its next attempt would look forgotten."""
    waits = job(status=JobStatus.PENDING, error="TimeoutError: no answer", not_before_ms=1)
    told = text(Material(jobs=[waits]))
    assert "an attempt failed (TimeoutError: no answer), the next is not before 1970" in told
    fresh = job(status=JobStatus.PENDING, attempts=0, not_before_ms=1)
    assert "the next is" not in text(Material(jobs=[fresh]))


def test_attempts_that_failed_and_hosts_that_died_are_told() -> None:
    """The record knows the last error only, and nothing of a host."""
    runs = [
        {"id": "run:job_1:3", "jobId": "job_1", "status": "completed", "startedAt": at(30),
         "endedAt": at(40), "durationMs": 10_000,
         "interrupted": [{"attempt": 1, "startedAt": at(30), "endedAt": at(35)}]},
        {"id": "run:job_1:2", "jobId": "job_1", "status": "failed", "startedAt": at(20),
         "endedAt": at(22), "durationMs": 2_000, "error": "TimeoutError: no answer"},
    ]  # fmt: skip
    done = {"id": "job_1", "agentType": "code", "priority": "high", "queuedAt": at(19),
            "startedAt": at(20), "completedAt": at(40), "status": "completed"}  # fmt: skip
    told = [one.text for one in tell(Material(jobs=[done], sessions={"job_1": runs}), NOW).happened]
    assert told[2:4] == [
        "An attempt of the code job job_1 failed after 2.0 s (TimeoutError: no answer).",
        "The host of the code job job_1 had died, and another one went on with it.",
    ]
    failed = {**done, "status": "failed", "completedAt": at(23), "error": "TimeoutError"}
    story = tell(Material(jobs=[failed], sessions={"job_1": runs[1:]}), NOW)
    assert sum("TimeoutError" in one.text for one in story.happened) == 1


class Asked:
    """A session whose API knows one due time and its job."""

    as_json = False

    def __init__(self, **fields: Any) -> None:
        self.out = self
        self.one = {
            "agentId": "code:a", "name": "default", "revision": 1, "due": at(1), "count": 1,
            "decidedAt": at(2), "cause": "time", **fields,
        }  # fmt: skip
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Asked]:
        yield self

    async def get(self, path: str) -> dict[str, Any]:
        return self.one if "occurrences" in path else {"id": "job_1", "status": "pending"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"outcome": "fired", "jobId": "job_1"}, "fired: its job was made."),
        ({"outcome": "superseded", "reason": "changed"}, "superseded: the schedule was changed"),
        ({"outcome": "superseded", "reason": "tzdata"}, "superseded: a new release of tzdata came"),
    ],
)
def test_a_due_time_is_told_as_what_became_of_it(fields: dict[str, str], sentence: str) -> None:
    """A job that waits would have run, and a schedule that nobody has touched be changed."""
    session: Any = Asked(**fields)
    asyncio.run(due_time(session, "occ_1"))
    assert sentence in "\n".join(session.said)
