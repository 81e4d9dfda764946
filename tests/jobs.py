"""A Job in memory for tests of agents: what is durable is kept apart from the run that is killed.

`Durable` outlives runs, as the store does.  `MemoryJob` is one run of
process_task over it and keeps the Protocol's promises; `crash_at=n` kills it at
the n-th boundary (before or after anything becomes durable or is called), with
a BaseException so that no handler can save itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from runtime.agent import BaseAgent
from runtime.clock import iso
from runtime.errors import JobCancelled, NondeterminismError
from runtime.job import (
    LOGS_MAX,
    AgentJob,
    Artifact,
    ArtifactType,
    JobResult,
    LogLine,
    StepContext,
    StepKind,
)

NOW_MS = 1_700_000_000_000


class Killed(BaseException):
    """The process is gone at this boundary."""


@dataclass
class RecordedStep:
    kind: StepKind
    intent: str
    intents: int = 1
    result: str | None = None


@dataclass
class Durable:
    """What survives a kill: the record, the steps, the content, the signals, the feed."""

    record: AgentJob
    steps: dict[str, RecordedStep] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    signals: dict[str, Any] = field(default_factory=dict)
    feed: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    cancelled: bool = False

    def everything(self) -> str:
        """All that was written down, as one text, to look for what must not be there."""
        parts = [self.record.to_json().decode(), json.dumps(self.feed)]
        parts += [f"{step.intent}\n{step.result}" for step in self.steps.values()]
        parts += [content.decode("utf-8", "replace") for content in self.content.values()]
        return "\n".join(parts)

    def result(self, key: str) -> Any:
        """What a step returned."""
        step = self.steps[key]
        assert step.result is not None, f"{key} has no result"
        return json.loads(step.result)


def new_job(agent_type: str, payload: dict[str, Any], **fields: Any) -> Durable:
    """A job about to run for the first time."""
    record = AgentJob.new(
        id=fields.pop("id", "job_01TEST"),
        organization_id="acme",
        agent_type=agent_type,
        now_ms=NOW_MS,
        payload=payload,
        issue_id="issue_1",
        **fields,
    )
    return Durable(record)


class MemoryJob:
    """One run over what is durable; implements `runtime.job.Job`."""

    def __init__(self, durable: Durable, crash_at: int | None = None) -> None:
        self.durable = durable
        self.boundaries = 0
        """How many boundaries this run has passed."""
        self.calls: list[str] = []
        """Keys of the steps that were called, not returned from the journal."""
        self._crash_at = crash_at
        self._volatile = durable.record
        """The record with what is not durable yet."""

    @property
    def record(self) -> AgentJob:
        return self._volatile

    async def step(
        self,
        key: str,
        call: Callable[[StepContext], Awaitable[Any]],
        *,
        kind: StepKind = "pure",
        request: Any = None,
    ) -> Any:
        if self.durable.cancelled:
            raise JobCancelled
        asked = json.dumps(request)
        known = self.durable.steps.get(key)
        if known is not None and known.result is not None:
            if known.intent != asked:
                raise NondeterminismError(self.record.id, key)
            return json.loads(known.result)
        intent = known.intent if known is not None else asked
        self._boundary()
        if kind != "pure":
            intents = known.intents + 1 if known is not None else 1
            self.durable.steps[key] = RecordedStep(kind, intent, intents)
            self._boundary()
        self.calls.append(key)
        context = StepContext(f"{self.record.id}:{key}", known is not None, json.loads(intent))
        result = json.dumps(await call(context))
        self._boundary()
        recorded = self.durable.steps.setdefault(key, RecordedStep(kind, intent))
        recorded.result = result
        self.durable.record = self._volatile
        self._boundary()
        return json.loads(result)

    async def progress(self, percent: int, current_step: str, message: str | None = None) -> None:
        logs = self.record.logs
        if message is not None:
            logs = (*logs, LogLine(time=iso(NOW_MS), message=message))[-LOGS_MAX:]
        percent = max(self.record.progress, min(100, percent))
        self._change(progress=percent, current_step=current_step, logs=logs)

    def spend(self, cost_usd: float, tokens: int) -> None:
        self._change(cost_usd=self.record.cost_usd + cost_usd, tokens=self.record.tokens + tokens)

    async def artifact(
        self, type: ArtifactType, name: str, content: bytes, media_type: str = "text/plain"
    ) -> Artifact:
        digest = hashlib.sha256(content).hexdigest()
        artifact = Artifact(
            id=f"artifact_{digest[:12]}",
            job_id=self.record.id,
            type=type,
            name=name,
            sha256=digest,
            size_bytes=len(content),
            media_type=media_type,
        )
        self._boundary()
        self.durable.content[digest] = content
        self.durable.artifacts[artifact.id] = artifact
        self._boundary()
        return artifact

    async def read_artifact(self, sha256: str) -> bytes | None:
        return self.durable.content.get(sha256)

    async def publish(self, event: str, data: dict[str, Any]) -> None:
        self.durable.feed.append((event, json.loads(json.dumps(data))))

    async def signal(self, name: str) -> Any | None:
        return self.durable.signals.get(name)

    def _change(self, **fields: Any) -> None:
        self._volatile = replace(self._volatile, **fields).checked()

    def _boundary(self) -> None:
        self.boundaries += 1
        if self.boundaries == self._crash_at:
            raise Killed


async def run(agent: BaseAgent, durable: Durable, crash_at: int | None = None) -> JobResult | None:
    """Run process_task once; None when it was killed. What it raises else comes out."""
    job = MemoryJob(durable, crash_at)
    try:
        result = await agent.process_task(job)
    except Killed:
        return None
    durable.record = job.record
    return result
