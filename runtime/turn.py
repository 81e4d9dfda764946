"""One turn: what a handler did, collected, and the one commit it becomes.

Nothing here touches the store.  A turn that is dropped has done nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from runtime.clock import Clock, iso
from runtime.errors import NotYoursError
from runtime.ids import SCHEDULER_AGENT, SYSTEM, AgentId, Ids, address, kind_of, split
from runtime.journal import State, encode
from runtime.message import BROADCAST_PREFIX, Attachment, Message
from runtime.patience import patiently
from runtime.store.contract import (
    ABSENT,
    ANY,
    Ack,
    Commit,
    Event,
    FeedEvent,
    Fence,
    Put,
    Remind,
    Send,
    Snapshot,
    Store,
)

_to_text = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


def to_json(value: Any) -> bytes:
    """JSON bytes; ValueError or TypeError for what JSON can't say."""
    return str(value).encode() if type(value) is int else _to_text(value).encode()


def feed_event(
    organization: str, event: str, data: Mapping[str, Any], rooms: tuple[str, ...], at_ms: int
) -> FeedEvent:
    """A public event; its data carries the timestamp, as in the source's table."""
    body = to_json({**data, "timestamp": iso(at_ms)})
    return FeedEvent(organization, event, rooms, at_ms, body)


RUNTIMES: Final = frozenset(
    {
        "agent", "artifact", "asked", "content", "dead_letter", "hold", "idempotency", "key",
        "kind", "ledger", "occurrence", "repository_head", "schedule", "schedule_revision",
        "scheduler", "service", "signal", "stats", "suspect",
    }
)  # fmt: skip
"""Collections that only the runtime writes. Of `job` a handler may make a new document, which
is how jobs are enqueued, and change none."""
OF_RUNS: Final = frozenset({"job.ended", "job.ready"})
"""What only the host of a run says to the scheduler, never a handler."""
UNANSWERED: Final = ("reply", "reminder")


def is_answered(message: Message) -> bool:
    """Whether what a handler returns is sent to the sender.

    A client reads it from the message's outcome.  A reply is never answered, nor a
    reminder: two agents that always return something would talk for ever.
    """
    return message.message_type not in UNANSWERED and kind_of(message.sender) != "client"


class Past(Protocol):
    """What an agent's state has been; `Folded` is it."""

    async def at(self, version: int | None, store: Store) -> State: ...


class Place:
    """What is the same for all turns of an activation: who it is, and what a turn can ask."""

    __slots__ = ("address", "agent", "clock", "ids", "organization", "past", "store")

    def __init__(self, where: str, past: Past, clock: Clock, ids: Ids, store: Store) -> None:
        self.address = where
        self.organization, self.agent = split(where)
        self.clock = clock
        self.ids = ids
        self.store = store
        self.past = past

    async def state_at(self, version: int | None) -> State:
        return await self.past.at(version, self.store)

    async def get(self, collection: str, key: str) -> bytes | None:
        """A document of the agent's organization."""
        document = await patiently(self.store.get, collection, key)
        visible = document is not None and document.organization == self.organization
        return document.body if document is not None and visible else None


class Turn:
    """Collects one handler's doing; implements `AgentContext`."""

    __slots__ = (
        "_feed", "_named", "_place", "_reminders", "broadcasts", "organization", "puts", "sends",
        "wants_snapshot",
    )  # fmt: skip

    def __init__(self, place: Place) -> None:
        self._place = place
        self.organization = place.organization
        self.sends: list[Send] = []
        self.broadcasts: list[Message] = []
        """Messages to a role; the host expands them before the commit."""
        self._named: list[tuple[str, Any]] = []
        self._reminders: list[Remind] = []
        self.puts: list[Put] = []
        self._feed: list[FeedEvent] = []
        self.wants_snapshot = False

    @property
    def agent(self) -> AgentId:
        return self._place.agent

    def now_ms(self) -> int:
        return self._place.clock.now_ms()

    def new_id(self, prefix: str) -> str:
        return self._place.ids.new(prefix)

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
    ) -> str:
        if message_type in OF_RUNS and recipient == SCHEDULER_AGENT:
            raise NotYoursError(f"only the host of a run says {message_type}")
        message = Message(
            message_id=message_id or self._place.ids.ulid(),
            sender=self.agent,
            recipient=recipient,
            message_type=message_type,
            content=content,
            timestamp=iso(self.now_ms()),
            reply_to=reply_to,
            metadata=metadata,
            attachments=attachments,
        )
        if recipient.startswith(BROADCAST_PREFIX):
            self.broadcasts.append(message)
        else:
            self.deliver(message, recipient)
        return message.message_id

    def deliver(self, message: Message, recipient: str) -> None:
        """Put a message into one agent's inbox with this turn."""
        self.sends.append(
            Send(
                message.message_id,
                self._place.address,
                address(self.organization, recipient),
                message.to_json(),
                message.reply_to,
            )
        )

    def record(self, name: str, data: Any) -> None:
        self._named.append((name, data))

    def remind(self, key: str, at_ms: int | None, content: Any) -> None:
        message = Message(
            message_id=f"reminder:{key}:{at_ms}",
            sender=self.agent,
            recipient=self.agent,
            message_type="reminder",
            content={"key": key, "content": content},
            timestamp=iso(at_ms if at_ms is not None else self.now_ms()),
        )
        self._reminders.append(Remind(key, at_ms, message.to_json()))

    def put(
        self, collection: str, key: str, body: bytes | None, terms: Mapping[str, str], expect: int
    ) -> None:
        if collection in RUNTIMES or (collection == "job" and expect != ABSENT):
            raise NotYoursError(f"the collection `{collection}` is the runtime's")
        pairs = tuple(f"{name}={value}" for name, value in terms.items())
        self.puts.append(Put(collection, key, self.organization, body, pairs, expect))

    def publish(self, event: str, data: dict[str, Any], rooms: tuple[str, ...]) -> None:
        self._feed.append(feed_event(self.organization, event, data, rooms, self.now_ms()))

    def snapshot(self) -> None:
        self.wants_snapshot = True

    async def state_at(self, version: int | None) -> State:
        return await self._place.state_at(version)

    async def get(self, collection: str, key: str) -> bytes | None:
        return await self._place.get(collection, key)

    def events(self, patch: list[list[Any]], schema: int, first: bool) -> tuple[Event, ...]:
        """The journal events: one a name, the last with the patch; none when nothing happened.

        `first`: the agent's first turn always leaves an event, so that
        `initialize` runs once in its life.
        """
        named = self._named
        if not named:
            if not (patch or first):
                return ()
            return (Event("initialized" if first else "changed", encode(patch), schema),)
        name, data = named[-1]
        before = [Event(name, encode([], data), schema) for name, data in named[:-1]]
        return (*before, Event(name, encode(patch, data), schema))

    def commit(
        self,
        fence: Fence,
        version: int,
        events: tuple[Event, ...],
        snapshot: Snapshot | None,
        ack: Ack | None,
    ) -> Commit:
        """Everything the handler did, as one atomic write."""
        return Commit(
            organization=self.organization,
            agent=self._place.address,
            fence=fence,
            expected_version=version,
            acks=(ack,) if ack else (),
            events=events,
            snapshot=snapshot,
            sends=tuple(self.sends),
            reminders=tuple(self._reminders),
            puts=tuple(self.puts),
            feed=tuple(self._feed),
        )


__all__ = ["ABSENT", "ANY", "SYSTEM", "Place", "Turn", "feed_event", "to_json"]
