"""Triage: rules at once, a model beside them if there is one, and no issue left waiting."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from actors.records import IssueSubmission
from actors.sample import ISSUE_NAME
from actors.settings import SAMPLE_DEFAULT
from actors.triage import TriageAgent
from runtime.ids import AgentId
from runtime.job import AgentJob
from tests.agents import issue, services
from tests.jobs import Durable, run
from tests.scripted import one_scene, scripted_server, settings_for
from tests.turns import Turns

CRASH = {
    "title": "Export crashes on empty carts",
    "description": "Steps to reproduce: export an empty cart.\nActual: it crashes.",
    "declared_type": None,
}
ANSWER = {
    "type": "bug",
    "priority": "critical",
    "module": "cart",
    "complexity": "simple",
    "confidence": "high",
    "evidence": [
        {"supports": "type", "quote": "it crashes"},
        {"supports": "priority", "quote": "Export crashes"},
    ],
}


async def asked(triage: Turns, number: int = 1, **fields: Any) -> None:
    about = issue(**{**CRASH, **fields}).to_wire()
    await triage.deliver("triage.classify", {"asked": number, "issue": about}, "issue:issue_1")


def told(triage: Turns) -> list[dict[str, Any]]:
    return [message.content for message in triage.messages("triage.classified")]


def triage_with(made) -> Turns:
    return Turns(TriageAgent(AgentId("triage:main"), made))


async def finished(triage: Turns, made) -> None:
    """Run the job that triage has queued and bring its result back."""
    record = AgentJob.from_wire(triage.jobs()[-1])
    result = await run(TriageAgent(AgentId(record.agent), made), Durable(record))
    content = {"jobId": record.id, "status": "completed", "result": result.to_wire()}
    await triage.deliver("job.completed", content, record.agent)


async def test_without_a_model_rules_answer_in_the_turn(tmp_path):
    """Else an issue without a model is never classified."""
    async with services(tmp_path, None) as made:
        triage = triage_with(made)
        await asked(triage)
        [answer] = told(triage)
        assert answer["asked"] == 1
        assert answer["classification"]["type"] == "bug"
        assert answer["classification"]["agentType"] == "code"
        assert triage.jobs() == []


async def test_with_a_model_both_are_heard(tmp_path):
    """Else the model is paid and not heard, or heard without its rules."""
    async with (
        scripted_server(one_scene({"json": ANSWER}, role="role: triage")) as server,
        services(tmp_path, server) as made,
    ):
        triage = triage_with(made)
        await asked(triage)
        assert told(triage) == []
        [job] = triage.jobs()
        assert (job["agentType"], job["replyTo"]) == ("triage", "triage:main")
        await finished(triage, made)
        [answer] = told(triage)
        assert answer["jobId"] == job["id"]
        assert answer["classification"]["priority"] == "critical"
        assert answer["classification"]["classifier"].startswith("rules@")
        assert "+" in answer["classification"]["classifier"]
        recent = (await server.calls())["recent"]
        assert len(recent) == 1


async def test_whatever_the_model_does_the_rules_answer_stands(tmp_path):
    """Else a model that fails holds every issue up."""
    async with (
        scripted_server(one_scene({"text": "No JSON."}, role="role: triage")) as server,
        services(tmp_path, server) as made,
    ):
        for fault in (
            None,
            {"kind": "refusal"},
            {"kind": "status", "status": 400},
            {"kind": "status", "status": 529, "retryAfter": "3600"},
        ):
            await server.faults(*([fault] if fault else []))
            triage = triage_with(made)
            await asked(triage)
            await finished(triage, made)
            [answer] = told(triage)
            assert answer["classification"]["classifier"] == "rules@1", fault


async def test_a_job_that_fails_gives_the_rules_answer_once(tmp_path):
    """Else an issue is stranded by a lost job, or classified twice."""
    async with (
        scripted_server(one_scene({"json": ANSWER})) as server,
        services(tmp_path, server) as made,
    ):
        triage = triage_with(made)
        await asked(triage, 3)
        content = {"jobId": triage.jobs()[0]["id"], "result": None, "error": "lost"}
        for _ in range(2):
            await triage.deliver("job.failed", content, "scheduler:main")
        [answer] = told(triage)
        assert answer["asked"] == 3
        assert triage.agent.state.asked == {}


async def test_nobody_but_an_issue_can_ask_and_no_client_can_answer(tmp_path):
    """Else a client's message classifies somebody's issue."""
    async with (
        scripted_server(one_scene({"json": ANSWER})) as server,
        services(tmp_path, server) as made,
    ):
        triage = triage_with(made)
        about = {"asked": 1, "issue": issue(**CRASH).to_wire()}
        await triage.deliver("triage.classify", about, "client:http")
        assert triage.jobs() == []
        await asked(triage)
        done = {"jobId": triage.jobs()[0]["id"], "result": None}
        await triage.deliver("job.failed", done, "client:http")
        assert told(triage) == []


async def test_the_script_speaks_about_the_samples_issue_only(tmp_path):
    """Else a script classifies somebody's own issue."""
    sample = IssueSubmission.model_validate(
        json.loads((SAMPLE_DEFAULT.parent / ISSUE_NAME).read_text())
    )
    async with (
        scripted_server(one_scene({"json": ANSWER})) as server,
        services(tmp_path, settings_for(server.url)) as made,
    ):
        triage = triage_with(made)
        await asked(triage)
        assert len(told(triage)) == 1
        await asked(triage, title=sample.title, description=sample.description)
        assert len(triage.jobs()) == 1
        elsewhere = replace(made.settings, sample_dir=tmp_path / "absent" / "sample")
        made.settings = elsewhere
        await asked(triage, title=sample.title, description=sample.description)
        assert len(triage.jobs()) == 1
