"""What an agent's author writes: a subclass of `BaseAgent` and its state.

    class Counter(BaseAgent):
        kind = "counter"

        class State(AgentState):
            total: int = 0

        async def receive_message(self, message: Message) -> int:
            self.state.total += message.content["by"]
            return self.state.total

An agent handles one message at a time.  What a handler does (changes of
`self.state`, messages sent, documents put, reminders set, jobs enqueued) is
collected and becomes durable in one commit when it returns; when it raises,
none of it happens and the message is tried again later.  So a handler must not
touch the outside: that is what jobs and their steps are for.

Activation, commits and fences are the host's business (`runtime.hosting.host`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from runtime.errors import NotYoursError, TroupeError
from runtime.ids import SCHEDULER_AGENT, AgentId, kind_of
from runtime.job import AgentJob, Job, JobResult
from runtime.journal import State, Upcaster
from runtime.message import Attachment, Message
from runtime.wire import WireModel, WireStruct

logger = logging.getLogger(__name__)

ABSENT = 0
"""`put(expect=...)`: the document must not exist yet."""
ANY = -1


_turn: ContextVar[AgentContext] = ContextVar("turn")


def enter(turn: AgentContext) -> None:
    """From here on what this asyncio task does is done in `turn`."""
    _turn.set(turn)


class AgentState(BaseModel):
    """Base of an agent's state: JSON-able fields, each with a default."""

    model_config = ConfigDict(extra="ignore")


class DeactivationReason(StrEnum):
    IDLE = "idle"
    DRAIN = "drain"
    FENCED = "fenced"
    """Another host has the agent; nothing can be saved any more."""


class AgentContext(Protocol):
    """The agent's way to its runtime; given by the host at activation.

    Everything that writes is collected for the turn's commit.
    """

    organization: str

    def now_ms(self) -> int: ...
    def new_id(self, prefix: str) -> str: ...
    def send(
        self,
        recipient: str,
        content: Any,
        message_type: str,
        *,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
        attachments: tuple[Attachment, ...] | None = None,
        message_id: str | None = None,
    ) -> str: ...
    def record(self, name: str, data: Any) -> None: ...
    def remind(self, key: str, at_ms: int | None, content: Any) -> None: ...
    def put(
        self, collection: str, key: str, body: bytes | None, terms: Mapping[str, str], expect: int
    ) -> None: ...
    def publish(self, event: str, data: dict[str, Any], rooms: tuple[str, ...]) -> None: ...
    def snapshot(self) -> None: ...
    async def state_at(self, version: int | None) -> State: ...
    async def get(self, collection: str, key: str) -> bytes | None: ...


class BaseAgent:
    """A durable, addressable agent. Subclasses set `kind` and, as a rule, `State`."""

    kind: ClassVar[str] = "agent"
    State: ClassVar[type[AgentState]] = AgentState
    schema_version: ClassVar[int] = 1
    """Raised by one with every incompatible change of `State`."""
    upcasters: ClassVar[Mapping[int, Upcaster]] = {}
    """`upcasters[n]` lifts a stored state from schema n to n + 1."""
    role: str = "agent"
    capabilities: tuple[str, ...] = ()

    def __init__(
        self,
        agent_id: AgentId,
        role: str | None = None,
        capabilities: tuple[str, ...] | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.role = role or type(self).role
        self.capabilities = capabilities or type(self).capabilities
        self.state: Any = self.State()

    @property
    def context(self) -> AgentContext:
        """The turn this code runs in; outside of one, LookupError.

        It belongs to the asyncio task, so a job that runs beside a turn of the
        same agent can't write into it.
        """
        return _turn.get()

    @context.setter
    def context(self, turn: AgentContext) -> None:
        enter(turn)

    # Life: each is called by the host; none may touch the outside.

    async def initialize(self) -> None:
        """Once in the agent's life, in the turn of its first message, before it."""

    async def activate(self) -> None:
        """Each time the agent comes into memory; its state is loaded. May not write."""

    async def deactivate(self, reason: DeactivationReason) -> None:
        """Before the agent leaves memory; best effort: a killed host does not call it."""

    async def receive_message(self, message: Message) -> Any:
        """Handle one message; what is returned (JSON-able) is the answer to it.

        If the sender is an agent, a non-None answer is also sent to it as a
        message of type `reply` with `replyTo` set. What is returned for a
        `reply` or a `reminder` is sent to nobody.
        """
        raise UnhandledMessageError(self.agent_id, message.message_type)

    async def process_task(self, job: Job) -> JobResult:
        """Do a job: long work, resumed exactly after a crash. May not change self.state."""
        raise UnhandledMessageError(self.agent_id, f"job {job.record.id}")

    # What a handler may do; all of it lands in the turn's one commit.

    async def send_message(
        self,
        recipient: str,
        content: Any,
        message_type: str = "standard",
        *,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
        attachments: tuple[Attachment, ...] | None = None,
        message_id: str | None = None,
    ) -> str:
        """Send to an agent (`kind:key`) or to a role (`role:reviewer`: everyone of it).

        Returns the message id. Give `message_id` where the same message must
        not be sent twice by two different turns.

        Raises:
            NotYoursError: it is the end of a run, and for the scheduler.
        """
        return self.context.send(
            recipient,
            content,
            message_type,
            reply_to=reply_to,
            metadata=metadata,
            attachments=attachments,
            message_id=message_id,
        )

    def record(self, name: str, data: Any = None) -> None:
        """Name what this turn did in the journal: a domain event, for people to read."""
        self.context.record(name, data)

    def remind(
        self,
        key: str,
        *,
        after_s: float | None = None,
        at_ms: int | None = None,
        content: Any = None,
    ) -> None:
        """Wake this agent later, durably, with a message of type `reminder`.

        `content` arrives as {"key": key, "content": content}. One reminder a
        key: a new one replaces it.
        """
        due = at_ms if at_ms is not None else self.context.now_ms() + round((after_s or 0) * 1000)
        self.context.remind(key, due, content)

    def cancel_reminder(self, key: str) -> None:
        self.context.remind(key, None, None)

    def put(
        self,
        collection: str,
        key: str,
        record: WireModel | WireStruct | None,
        terms: Mapping[str, str] | None = None,
        expect: int = ANY,
    ) -> None:
        """Write a document that the API reads; `terms` is what lists can filter by.

        A key means one document whoever names it: the turn fails with
        `foreign_organization` where it is another organization's.

        Raises:
            NotYoursError: the collection is the runtime's own.
        """
        body = record.to_json() if record is not None else None
        self.context.put(collection, key, body, terms or {}, expect)

    def publish(self, event: str, data: dict[str, Any], *rooms: str) -> None:
        """Put a public event into the feed, in this agent's room and `rooms`."""
        self.context.publish(event, data, (f"agent:{self.agent_id}", *rooms))

    def enqueue(self, job: AgentJob) -> None:
        """Hand a job to the scheduler; its id makes it unique.

        Raises:
            NotYoursError: the job is another organization's, or for the scheduler.
        """
        if job.organization_id != self.context.organization:
            raise NotYoursError(f"{job.id} is {job.organization_id}'s")
        if job.agent == SCHEDULER_AGENT:
            raise NotYoursError(f"{job.id} is for the scheduler, which does no jobs")
        self.put("job", job.id, job, job_terms(job), expect=ABSENT)
        self.context.send(
            SCHEDULER_AGENT, {"jobId": job.id}, "job.queued", message_id=f"queued:{job.id}"
        )

    # The surface of the source documents.

    async def execute(self, payload: dict[str, Any], job_id: str | None = None) -> str:
        """Enqueue a job for this very agent; returns its id."""
        now = self.context.now_ms()
        job = AgentJob.new(
            id=job_id or self.context.new_id("job"),
            organization_id=self.context.organization,
            agent_type=self.kind,
            agent_id=self.agent_id,
            payload=payload,
            now_ms=now,
        )
        self.enqueue(job)
        return job.id

    async def stop(self, job_id: str) -> None:
        """Cancel a job of this agent."""
        self.context.send(SCHEDULER_AGENT, {"jobId": job_id}, "job.cancel")

    def log_event(self, name: str, data: dict[str, Any] | None = None) -> None:
        """Publish `agent:<name>` and log it."""
        logger.info("%s %s", self.agent_id, name, extra={"action": f"agent.{name}"})
        self.publish(f"agent:{name}", {"agentId": self.agent_id, **(data or {})})

    async def save_state(self) -> None:
        """Save a snapshot with this turn; never needed for safety, the journal has it all."""
        self.context.snapshot()

    async def load_state(self, state_id: int | None = None) -> AgentState:
        """The state at a version of the journal (None: the latest committed), not made current."""
        return self.State.model_validate(await self.context.state_at(state_id))


def job_terms(job: AgentJob) -> dict[str, str]:
    """What lists of jobs can be filtered by."""
    terms: dict[str, str] = {"status": job.status, "agent": job.agent, "agentType": job.agent_type}
    if job.issue_id:
        terms["issue"] = job.issue_id
    return terms


def is_client(sender: str) -> bool:
    """Whether a sender is a program outside, which has no inbox."""
    return kind_of(sender) == "client"


class UnhandledMessageError(TroupeError):
    """The agent has no handler for this."""


__all__ = [
    "ABSENT",
    "ANY",
    "AgentContext",
    "AgentState",
    "BaseAgent",
    "DeactivationReason",
    "UnhandledMessageError",
    "is_client",
    "job_terms",
]
