"""One turn: what a handler did, collected, and the one commit it becomes.

Nothing here touches the store.  A turn that is dropped has done nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from runtime.clock import Clock, iso
from runtime.ids import SYSTEM, AgentId, Ids, address
from runtime.journal import State, encode
from runtime.message import BROADCAST_PREFIX, Attachment, Message
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
)

ReadState = Callable[[int | None], Awaitable[State]]
ReadDocument = Callable[[str, str], Awaitable[bytes | None]]


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


class Turn:
    """Collects one handler's doing; implements `AgentContext`."""

    __slots__ = (
        "_address", "_clock", "_feed", "_ids", "_named", "_read_document", "_read_state",
        "_reminders", "agent", "broadcasts", "organization", "puts", "sends", "wants_snapshot",
    )  # fmt: skip

    def __init__(
        self,
        organization: str,
        agent: AgentId,
        clock: Clock,
        ids: Ids,
        read_state: ReadState,
        read_document: ReadDocument,
    ) -> None:
        self.organization = organization
        self.agent = agent
        self._address = f"{organization}/{agent}"
        self._clock = clock
        self._ids = ids
        self._read_state = read_state
        self._read_document = read_document
        self.sends: list[Send] = []
        self.broadcasts: list[Message] = []
        """Messages to a role; the host expands them before the commit."""
        self._named: list[tuple[str, Any]] = []
        self._reminders: list[Remind] = []
        self.puts: list[Put] = []
        self._feed: list[FeedEvent] = []
        self.wants_snapshot = False

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def new_id(self, prefix: str) -> str:
        return self._ids.new(prefix)

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
        message = Message(
            message_id=message_id or self._ids.ulid(),
            sender=self.agent,
            recipient=recipient,
            message_type=message_type,
            content=content,
            timestamp=iso(self._clock.now_ms()),
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
                self._address,
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
            timestamp=iso(at_ms if at_ms is not None else self._clock.now_ms()),
        )
        self._reminders.append(Remind(key, at_ms, message.to_json()))

    def put(
        self, collection: str, key: str, body: bytes | None, terms: Mapping[str, str], expect: int
    ) -> None:
        pairs = tuple(f"{name}={value}" for name, value in terms.items())
        self.puts.append(Put(collection, key, self.organization, body, pairs, expect))

    def publish(self, event: str, data: dict[str, Any], rooms: tuple[str, ...]) -> None:
        self._feed.append(feed_event(self.organization, event, data, rooms, self._clock.now_ms()))

    def snapshot(self) -> None:
        self.wants_snapshot = True

    async def state_at(self, version: int | None) -> State:
        return await self._read_state(version)

    async def get(self, collection: str, key: str) -> bytes | None:
        return await self._read_document(collection, key)

    def events(self, patch: list[list[Any]], schema: int, first: bool) -> tuple[Event, ...]:
        """The journal events: one a name, the last with the patch; none when nothing happened.

        `first`: the agent's first turn always leaves an event, so that
        `initialize` runs once in its life.
        """
        named = self._named or (
            [("initialized" if first else "changed", None)] * bool(patch or first)
        )
        if not named:
            return ()
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
            agent=self._address,
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


__all__ = ["ABSENT", "ANY", "SYSTEM", "Turn", "feed_event", "to_json"]
