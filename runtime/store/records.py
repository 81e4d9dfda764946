"""What crosses the store's door: the parts of a commit, its answer, and what is read back.

Every struct is a msgpack array, so a field is only ever appended, with a
default: an older process still reads it.  Nothing here decides anything; what
the parts mean together, and which commits are refused, is `contract`'s, from
where the names are imported.
"""

from __future__ import annotations

from typing import Final, Literal, TypedDict

import msgspec

RefusalReason = Literal[
    "stale_incarnation",
    "stale_epoch",
    "version_conflict",
    "revision_conflict",
    "duplicate",
    "expired",
    "inbox_full",
    "overtaking",
    "not_pending",
    "step_conflict",
    "foreign_organization",
]


class Record(msgspec.Struct, array_like=True, frozen=True):
    """Base of all wire structs: msgpack arrays, fields only ever appended."""


class Fence(Record, frozen=True):
    incarnation: str
    epoch: int


class Ack(Record, frozen=True):
    """The message is done; it leaves the inbox and its outcome is kept.

    It is pending, or the commit's own first send, to the committing agent itself, which
    the first ack then names: such a message is handled at once and never in the inbox.
    """

    message_id: str
    reply: bytes | None = None
    """JSON of what the handler returned."""


class Retry(Record, frozen=True):
    """The message failed and stays first in line; the host waits until `not_before_ms`."""

    message_id: str
    not_before_ms: int
    error: str


class Bury(Record, frozen=True):
    """The message is given up on: it becomes a dead letter with its reason."""

    message_id: str
    error: str


class Event(Record, frozen=True):
    """One change of an agent's state; `body` is JSON."""

    name: str
    body: bytes
    schema: int = 1


class Snapshot(Record, frozen=True):
    """The fold of the journal up to and including this commit's events."""

    body: bytes
    schema: int = 1


class Send(Record, frozen=True):
    """A message for `recipient`'s inbox; unique by (recipient, message_id) while it is kept."""

    message_id: str
    sender: str
    """Address or `organization/client:name`."""
    recipient: str
    """Address."""
    body: bytes
    """The whole envelope as JSON."""
    reply_to: str | None = None


class Remind(Record, frozen=True):
    """Set the reminder `key` of the committing agent, replacing it; `due_ms=None` cancels it.

    When due, a message with id `reminder:<key>:<due_ms>` whose body is `body`
    enters the agent's own inbox.
    """

    key: str
    due_ms: int | None
    body: bytes = b"{}"


class Intent(Record, frozen=True):
    """A step is about to be called under this commit's epoch.

    Refused with `step_conflict` when the step already has a result.
    """

    job: str
    key: str
    kind: Literal["pure", "workspace", "external"]
    body: bytes
    """JSON of the request."""


class Result(Record, frozen=True):
    """What a step returned.

    Refused with `step_conflict` unless its intent was recorded under this
    commit's epoch and it has no result yet.
    """

    job: str
    key: str
    body: bytes


ABSENT: Final = 0
"""`Put.expect`: the document must not exist."""
ANY: Final = -1
"""`Put.expect`: whatever is there is replaced."""


class Put(Record, frozen=True):
    """Write a document; `body=None` deletes it. Its revision grows by one with each put.

    It stays its organization's until it is deleted: a put that names another is refused.
    A revision never comes twice: one that is made again after its deletion
    goes on counting.
    """

    collection: str
    key: str
    organization: str
    body: bytes | None
    terms: tuple[str, ...] = ()
    """What `list_documents` can filter by, each `name=value`."""
    expect: int = ANY
    """The revision it must have now, or ABSENT, or ANY."""


class FeedEvent(Record, frozen=True):
    """A public event; its place in the feed is given by the store."""

    organization: str
    event: str
    """`job:started`, `agent:progress`, ..."""
    rooms: tuple[str, ...]
    at_ms: int
    body: bytes


class Commit(Record, frozen=True):
    """One atomic write. `agent` and `fence` are None for writers that are no agents."""

    organization: str
    agent: str | None = None
    """Address of the committing agent."""
    fence: Fence | None = None
    expected_version: int | None = None
    """Length of the agent's journal before `events`; None only when `events` is empty."""
    acks: tuple[Ack, ...] = ()
    retries: tuple[Retry, ...] = ()
    buries: tuple[Bury, ...] = ()
    events: tuple[Event, ...] = ()
    snapshot: Snapshot | None = None
    sends: tuple[Send, ...] = ()
    reminders: tuple[Remind, ...] = ()
    intents: tuple[Intent, ...] = ()
    results: tuple[Result, ...] = ()
    puts: tuple[Put, ...] = ()
    feed: tuple[FeedEvent, ...] = ()

    @property
    def at_once(self) -> bool:
        """Whether the first send is a message that this very commit handles (see Ack)."""
        if not (self.acks and self.sends):
            return False
        first = self.sends[0]
        return first.recipient == self.agent and first.message_id == self.acks[0].message_id


class Parts(TypedDict, total=False):
    """What a commit of an agent may hold where its journal does not grow; see `Commit`."""

    acks: tuple[Ack, ...]
    retries: tuple[Retry, ...]
    buries: tuple[Bury, ...]
    sends: tuple[Send, ...]
    intents: tuple[Intent, ...]
    results: tuple[Result, ...]
    puts: tuple[Put, ...]
    feed: tuple[FeedEvent, ...]


class Committed(Record, frozen=True, tag="ok"):
    version: int
    """The agent's version afterwards; 0 for a commit without an agent."""
    seqs: tuple[int, ...]
    """Place in the inbox order of each of `sends`."""
    cursor: int
    """The feed's head afterwards."""


class Refused(Record, frozen=True, tag="no"):
    reason: RefusalReason
    detail: str = ""


class StoredMessage(Record, frozen=True):
    seq: int
    message_id: str
    sender: str
    recipient: str
    body: bytes
    accepted_ms: int
    reply_to: str | None = None
    status: Literal["pending", "processed", "dead"] = "pending"
    attempts: int = 0
    """Failed attempts so far."""
    not_before_ms: int = 0
    finished_ms: int | None = None
    reply: bytes | None = None
    error: str | None = None


class JournalEvent(Record, frozen=True):
    version: int
    name: str
    body: bytes
    schema: int
    at_ms: int
    cause: str | None
    """Id of the message whose turn recorded it."""


class Activation(Record, frozen=True):
    """Everything a host needs to bring a claimed agent to life."""

    agent: str
    epoch: int
    version: int
    snapshot_version: int
    snapshot: Snapshot | None
    events: tuple[JournalEvent, ...]
    """The journal after the snapshot, in order."""
    inbox: tuple[StoredMessage, ...]
    """Pending messages in order of seq, at most BATCH_MAX or 32 MiB; `inbox` has the rest."""
    abandoned: bool = False
    """Its last holder never gave it up: it died, or was silent for longer than its lease."""


class Poll(Record, frozen=True):
    messages: tuple[StoredMessage, ...]
    """Pending messages with seq > the given cursor for agents the owner holds, in order of seq."""
    cursor: int
    """Give it to the next poll."""
    ready: int
    """How many agents with pending messages nobody holds (0..BATCH_MAX), without `system`'s."""


class Step(Record, frozen=True):
    key: str
    kind: Literal["pure", "workspace", "external"]
    intent: bytes
    """As recorded first."""
    epoch: int
    """The epoch the latest intent was recorded under."""
    attempts: int
    """How many intents were recorded."""
    result: bytes | None
    at_ms: int
    """When its latest intent or its result was recorded."""


class Document(Record, frozen=True):
    key: str
    organization: str
    revision: int
    body: bytes
    terms: tuple[str, ...]
    updated_ms: int


class FeedEntry(Record, frozen=True):
    cursor: int
    organization: str
    event: str
    rooms: tuple[str, ...]
    at_ms: int
    body: bytes


class Feed(Record, frozen=True):
    entries: tuple[FeedEntry, ...]
    cursor: int
    """Give it to the next tail."""
    reset: bool
    """The cursor was of another incarnation or beyond the head: start over from what is here."""


class Health(Record, frozen=True):
    backend: str
    """memory | sqlite | redis"""
    durability: str
    """What survives: `none`, `power loss`, `process kill`."""
    incarnation: str
    commits: int
    """Accepted since this process opened the store."""
    refused: dict[str, int]
    """Refused since this process opened the store, by reason."""
    details: dict[str, str]
    owners: tuple[str, ...] = ()
    """Ids of the owners whose lease is live, in order."""


class Swept(Record, frozen=True):
    """What one call of `prune` or `purge` did."""

    rows: int
    """How many were removed."""
    more: bool
    """Whether there may be more: call again."""
