"""What `process_task` may ask for while it runs: steps, progress, money, work products, signals.

Each step is durable before and after its call, so the run may be cut anywhere
and begun again from the top.  What was asked of the run meanwhile (cancel,
pause) is met at the next step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from runtime.clock import iso
from runtime.errors import JobCancelled, JobPaused, NondeterminismError, StateChangedInTaskError
from runtime.ids import content_key
from runtime.job import (
    LOGS_MAX,
    AgentJob,
    Artifact,
    ArtifactType,
    LogLine,
    StepContext,
    StepKind,
)
from runtime.jobs.writer import JobWriter
from runtime.patience import patiently
from runtime.store.contract import Intent, Put, Step
from runtime.turn import to_json

if TYPE_CHECKING:
    from runtime.hosting.activation import Activation


class JobWork(JobWriter):
    """Implements `Job`."""

    def __init__(
        self,
        activation: Activation,
        record: AgentJob,
        revision: int,
        steps: list[Step],
        look: int | None,
    ) -> None:
        """
        Args:
            steps: those that are recorded.
            look: as for JobWriter.
        """
        super().__init__(activation, record, revision, look)
        self._steps = {step.key: step for step in steps}
        self._asked: str | None = None
        """`cancel` or `pause`, once asked for."""
        self._missed: dict[str, None] = {}
        """Keys of the signals this run has looked for in vain."""

    @property
    def record(self) -> AgentJob:
        return self._record

    async def step(
        self,
        key: str,
        call: Callable[[StepContext], Awaitable[Any]],
        *,
        kind: StepKind = "pure",
        request: Any = None,
    ) -> Any:
        self._checkpoint()
        asked = to_json(request)
        known = self._steps.get(key)
        if known is not None and known.result is not None:
            if known.intent != asked:
                raise NondeterminismError(self._record.id, key)
            return json.loads(known.result)
        body = known.intent if known is not None else asked
        intent = Intent(self._record.id, key, kind, body)
        if kind != "pure":
            await self._commit(intents=(intent,))
        context = StepContext(
            idempotency_key=f"{self._record.id}:{key}",
            repeated=known is not None,
            request=json.loads(body),
        )
        outcome = to_json(await call(context))
        self._remember(intent, outcome)
        self._write_soon(intent if kind == "pure" else None, outcome, key)
        return json.loads(outcome)

    async def progress(self, percent: int, current_step: str, message: str | None = None) -> None:
        now = iso(self._activation.host.clock.now_ms())
        logs = self._record.logs
        if message is not None:
            logs = (*logs, LogLine(time=now, message=message))[-LOGS_MAX:]
        percent = max(self._record.progress, min(100, percent))
        self._change(progress=percent, current_step=current_step, logs=logs)
        self._publish(
            "agent:progress",
            {
                "agentId": self._record.agent,
                "jobId": self._record.id,
                "progress": percent,
                "message": message or current_step,
                "currentStep": current_step,
                "costUsd": self._record.cost_usd,
            },
        )

    def spend(self, cost_usd: float, tokens: int) -> None:
        self._change(cost_usd=self._record.cost_usd + cost_usd, tokens=self._record.tokens + tokens)

    async def artifact(
        self, type: ArtifactType, name: str, content: bytes, media_type: str = "text/plain"
    ) -> Artifact:
        digest = hashlib.sha256(content).hexdigest()
        organization = self._activation.organization
        artifact = Artifact(
            id=f"artifact_{self._record.id.removeprefix('job_')}_{digest[:12]}",
            job_id=self._record.id,
            type=type,
            name=name,
            sha256=digest,
            size_bytes=len(content),
            media_type=media_type,
        ).checked()
        terms = (f"job={self._record.id}",)
        await self._commit(
            puts=(
                Put("content", content_key(organization, digest), organization, content),
                Put("artifact", artifact.id, organization, artifact.to_json(), terms),
            )
        )
        return artifact

    async def read_artifact(self, sha256: str) -> bytes | None:
        store, organization = self._activation.host.store, self._activation.organization
        document = await patiently(store.get, "content", content_key(organization, sha256))
        return document.body if document is not None else None

    async def publish(self, event: str, data: dict[str, Any]) -> None:
        self._publish(event, {"jobId": self._record.id, **data})

    async def signal(self, name: str) -> Any | None:
        store = self._activation.host.store
        key = f"{self._record.id}/{name}"
        document = await patiently(store.get, "signal", key)
        if document is None:
            self._missed[key] = None
        return json.loads(document.body) if document is not None else None

    # Looking

    def _checkpoint(self) -> None:
        self._heed()
        self._check_state()

    def _heed(self) -> None:
        if self._asked == "cancel":
            raise JobCancelled
        if self._asked == "pause":
            raise JobPaused

    def _check_state(self) -> None:
        if self._unwritable is not None:
            raise self._unwritable
        if not self._activation.state_is_committed:
            raise StateChangedInTaskError(self._activation.address)

    def _remember(self, intent: Intent, result: bytes) -> None:
        self._steps[intent.key] = Step(intent.key, intent.kind, intent.body, 0, 1, result, 0)
