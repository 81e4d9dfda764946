"""The TriageAgent: says what kind of work an issue is and who should do it.

Rules answer at once, in the turn.  With a model, a job of its own asks it once
and merges what it says; whatever goes wrong with the model, the rules' answer
stands, so an issue never waits here.  One agent for each organization, `triage:main`;
its jobs run in agents of their own, side by side.

Messages: triage.classify {asked, issue} -> triage.classified {asked, classification, jobId?}
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, Field

from actors.classify import MODEL_SCHEMA, ModelAnswerError, classify, merge_model
from actors.models.errors import ModelError
from actors.models.request import ModelRequest
from actors.prompts import render
from actors.records import AgentIssue, Classification
from actors.sample import is_sample_issue
from actors.services import Services
from actors.untrusted import data_block, nonce
from runtime.agent import AgentState, BaseAgent
from runtime.ids import AgentId, kind_of
from runtime.job import AgentJob, Job, JobResult, Priority, StepContext
from runtime.message import Message

logger = logging.getLogger(__name__)

ASKED_MAX: Final = 1_000
"""Issues a model looks at, at once; more get the rules' answer."""
ANSWER_TOKENS_MAX: Final = 4_000
JOB_ENDS: Final = frozenset({"job.completed", "job.failed", "job.cancelled"})
COST_USD_MAX: Final = 0.25
"""Of one classification."""


class Asked(BaseModel):
    """An issue that a model is looking at."""

    by: str
    """The agent to answer."""
    number: int
    """Of its question."""
    rules: Classification


class TriageState(AgentState):
    asked: dict[str, Asked] = Field(default_factory=dict)
    """By job."""


class TriageAgent(BaseAgent):
    """Classifies the issues of one organization."""

    kind = "triage"
    role = "triage"
    capabilities = ("classify", "prioritize")
    State = TriageState
    state: TriageState

    def __init__(self, agent_id: AgentId, services: Services) -> None:
        super().__init__(agent_id)
        self.services = services

    async def receive_message(self, message: Message) -> None:
        """Classify for an IssueAgent, or pass on what a model's job has brought."""
        sender, what = kind_of(message.sender), message.message_type
        if what == "triage.classify" and sender == "issue":
            await self._classify(message)
        elif what in JOB_ENDS and sender in ("triage", "scheduler"):
            await self._answered(message)

    async def _classify(self, message: Message) -> None:
        issue = AgentIssue.model_validate(message.content["issue"])
        rules = classify(issue.submission())
        asked = Asked(by=message.sender, number=message.content["asked"], rules=rules)
        if self._asks_model(issue) and len(self.state.asked) < ASKED_MAX:
            self._ask_model(issue, asked)
        else:
            await self._tell(asked, rules, None)

    def _asks_model(self, issue: AgentIssue) -> bool:
        """The script speaks about the sample's issue only, by its words."""
        settings = self.services.model.settings
        if settings.provider == "scripted":
            return is_sample_issue(self.services.settings.sample_dir, issue)
        return settings.configured

    def _ask_model(self, issue: AgentIssue, asked: Asked) -> None:
        job = AgentJob.new(
            id=self.context.new_id("job"),
            organization_id=self.context.organization,
            agent_type=self.kind,
            now_ms=self.context.now_ms(),
            issue_id=issue.id,
            priority=Priority(asked.rules.priority),
            payload={"issue": issue.to_wire(), "rules": asked.rules.to_wire()},
            reply_to=self.agent_id,
        )
        self.enqueue(job)
        self.state.asked[job.id] = asked

    async def _answered(self, message: Message) -> None:
        job_id = message.content["jobId"]
        asked = self.state.asked.pop(job_id, None)
        if asked is None:
            return
        result = message.content.get("result") or {}
        said = result.get("data", {}).get("classification")
        found = Classification.model_validate(said) if said else asked.rules
        await self._tell(asked, found, job_id)

    async def _tell(self, asked: Asked, found: Classification, job_id: str | None) -> None:
        content = {"asked": asked.number, "classification": found.to_wire(), "jobId": job_id}
        await self.send_message(asked.by, content, "triage.classified")

    # The model's opinion, in a job

    async def process_task(self, job: Job) -> JobResult:
        issue = AgentIssue.model_validate(job.record.payload["issue"])
        rules = Classification.model_validate(job.record.payload["rules"])
        said = await job.step("model", partial(self._ask, job, issue), kind="external")
        found, summary = rules, f"Classified by rules: {said.get('failed')}"
        if "text" in said:
            try:
                found = merge_model(rules, said["text"], issue.submission(), said["model"])
                summary = f"Classified as {found.type} by {found.classifier}"
            except ModelAnswerError as error:
                summary = f"Classified by rules: {error}"
        return JobResult(
            outcome="classified", summary=summary, data={"classification": found.to_wire()}
        )

    async def _ask(self, job: Job, issue: AgentIssue, context: StepContext) -> dict[str, Any]:
        await job.progress(10, "Classifying", "Classifying")
        marker = nonce(job.record.id)
        text = f"Title: {issue.title}\n\n{issue.description}"
        client = self.services.model
        request = ModelRequest(
            model=client.settings.triage_model,
            system=render("triage_system"),
            messages=[
                {
                    "role": "user",
                    "content": render(
                        "triage_task",
                        untrusted=render("untrusted", nonce=marker),
                        issue=data_block("issue", text, marker),
                    ),
                }
            ],
            max_tokens=ANSWER_TOKENS_MAX,
            output_format=MODEL_SCHEMA,
            purpose="triage",
        )
        try:
            answer = await client.complete(request, budget_usd=COST_USD_MAX)
        except ModelError as error:
            logger.warning("triage without a model: %s", error, extra={"action": "triage.rules"})
            job.spend(error.spent_usd, 0)
            return {"failed": str(error)}
        job.spend(answer.cost_usd or 0.0, answer.usage.total_tokens)
        if answer.stop_reason != "end_turn":
            return {"failed": f"the model stopped with {answer.stop_reason}"}
        return {"text": answer.text, "model": request.model, "answer": answer.to_json()}
