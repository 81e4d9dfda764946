"""Jobs: the record of a queued unit of long work, and what the work may ask for.

A job runs in `process_task(job)` of its agent.  Everything it does to the
outside is a step: the intent is durable before the call, the result after it,
and a recorded result is returned without calling again.  So process_task may
be run from its beginning any number of times; between steps it must be a pure
function of the job and the results.

Source: DESIGN "jobs and steps"; names of AgentJob as in the source documents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from runtime.clock import iso
from runtime.wire import WireStruct, written

ArtifactType = Literal["code_change", "analysis", "recommendation", "documentation"]
StepKind = Literal["pure", "workspace", "external"]
LOGS_MAX = 50
"""Log lines kept on the job's record; all of them are in the feed."""


class Priority(StrEnum):
    """Urgency; `medium` is accepted for NORMAL."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @classmethod
    def _missing_(cls, value: object) -> Priority | None:
        text = str(value).lower()
        return cls.NORMAL if text == "medium" else next((one for one in cls if one == text), None)

    @property
    def rank(self) -> int:
        """0 is most urgent."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class JobStatus(StrEnum):
    PENDING = "pending"
    """In the queue, or waiting for its next attempt."""
    RUNNING = "running"
    WAITING = "waiting"
    """For a person, a limit or a child: holds no slot."""
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class LogLine(WireStruct, frozen=True, kw_only=True):
    time: str
    message: str


class JobConfig(WireStruct, frozen=True, kw_only=True):
    """What an attempt may use and spend."""

    model: str | None = None
    max_tokens: int = written(16_000)
    """Output tokens a model call."""
    timeout_s: float = written(2_700.0)
    """Wall time of all attempts while running."""
    rounds_max: int = written(60)
    tokens_max: int = written(1_500_000)
    cost_usd_max: float = written(2.0)
    tools: tuple[str, ...] = written(())


class Artifact(WireStruct, frozen=True, kw_only=True):
    """A work product; its content is stored under its SHA-256."""

    id: str
    job_id: str
    type: ArtifactType
    name: str
    sha256: str
    size_bytes: int
    media_type: str = written("text/plain")


class JobResult(WireStruct, frozen=True, kw_only=True):
    """What process_task returns; `outcome` names how the work stopped."""

    outcome: str
    """`finished`, `budget_rounds`, `stuck`, `refused_by_gate`, ..."""
    summary: str
    artifacts: tuple[Artifact, ...] = written(())
    pull_request_url: str | None = None
    recommendations: tuple[str, ...] = written(())
    data: dict[str, Any] = msgspec.field(default_factory=lambda: {})
    """For the agent that asked for the job."""


class AgentJob(WireStruct, frozen=True, kw_only=True):
    """The job's record, as stored and as answered by the API."""

    id: str
    organization_id: str
    issue_id: str | None = None
    agent_type: str
    """The kind of the agent that does it."""
    agent_id: str | None = None
    """The agent that does it; absent: one of its own, `agentType:id`."""
    status: JobStatus = written(JobStatus.PENDING)
    reason: str | None = None
    """Why it is waiting, paused or failed: a code."""
    priority: Priority = written(Priority.NORMAL)
    attempts: int = written(0)
    max_attempts: int | None = None
    """First try and retries; absent until the first start: as many as the operator says."""
    not_before_ms: int = written(0)
    config: JobConfig = written(JobConfig())
    payload: dict[str, Any] = msgspec.field(default_factory=lambda: {})
    reply_to: str | None = None
    """Agent id that is told: `job.started`, `job.waiting`, `job.completed`, `job.failed`,
    `job.cancelled`, each with `jobId`."""
    repository: str | None = None
    limit_key: str | None = None
    occurrence_id: str | None = None
    """The due time of a schedule that it was fired for."""
    progress: int = written(0)
    """0..100; never falls."""
    current_step: str | None = None
    logs: tuple[LogLine, ...] = written(())
    result: JobResult | None = None
    error: str | None = None
    cost_usd: float = written(0.0)
    tokens: int = written(0)
    created_at: str
    queued_at: str
    started_at: str | None = None
    completed_at: str | None = None

    @classmethod
    def new(
        cls, *, id: str, organization_id: str, agent_type: str, now_ms: int, **fields: Any
    ) -> AgentJob:
        """A job that is about to be queued at `now_ms`, as it will be read.

        Raises:
            ValueError, TypeError: of the fields one is unknown or of the wrong type.
        """
        now = iso(now_ms)
        job = cls(
            id=id,
            organization_id=organization_id,
            agent_type=agent_type,
            created_at=now,
            queued_at=now,
            **fields,
        )
        return job.checked()

    @property
    def agent(self) -> str:
        """Id of the agent that does the job."""
        return self.agent_id or f"{self.agent_type}:{self.id}"


@dataclass(frozen=True)
class StepContext:
    """What a step's callable is told."""

    idempotency_key: str
    """The same at every call of this step."""
    repeated: bool
    """An earlier call may have happened: its intent is recorded, no result."""
    request: Any
    """As recorded with the *first* intent (for `workspace`: the tree of before)."""


class Job(Protocol):
    """What process_task may ask of the runtime while it runs."""

    @property
    def record(self) -> AgentJob:
        """The record as of now."""

    async def step(
        self,
        key: str,
        call: Callable[[StepContext], Awaitable[Any]],
        *,
        kind: StepKind = "pure",
        request: Any = None,
    ) -> Any:
        """Call the outside once and remember what it answered.

        Args:
            key: unique within the job, the same on every run (`round-3/model`).
            call: makes the call; what it returns must be JSON-able.
            kind: how an intent without a result is settled: `pure` runs again;
                `workspace` runs again after `call` has put the tree of
                `context.request` back; `external` is asked for by
                `context.idempotency_key` first.
            request: JSON-able; what is asked, kept with the intent.

        Returns:
            The recorded result; on a resumed job without calling.

        Raises:
            NondeterminismError: the recorded result was for another request.
            JobCancelled, JobPaused: asked for since the last step; nothing was called.
        """

    async def progress(self, percent: int, current_step: str, message: str | None = None) -> None:
        """Say how far the work is; durable with the next step, at the latest after a second.

        Raises:
            ValueError: the record can't say this (half a percent, a step that is no text).
        """

    def spend(self, cost_usd: float, tokens: int) -> None:
        """Add to the record's cost; durable with the next step's result, once.

        Call it inside `call` of a step, never beside one: a recorded step adds nothing.

        Raises:
            ValueError: no number that a record can hold; nothing was added.
        """

    async def artifact(
        self, type: ArtifactType, name: str, content: bytes, media_type: str = "text/plain"
    ) -> Artifact:
        """Keep a work product; the same content twice is stored once."""

    async def read_artifact(self, sha256: str) -> bytes | None:
        """The content stored under a hash, if it is of this organization."""

    async def publish(self, event: str, data: dict[str, Any]) -> None:
        """Put an event in the feed, in the job's and its issue's rooms, with the next commit."""

    async def signal(self, name: str) -> Any | None:
        """The content of the message `job.signal {name}` sent to this job, if one came.

        To wait for one, raise `JobWaiting(reason)`: the job runs again when it comes.
        """
