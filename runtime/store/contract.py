"""The contract every store keeps: one writing verb, a few reads, fencing.

What is stored (A = address, `organization/kind:key`):

    agent      A -> epoch, owner, version, snapshot            one row an agent
    journal    (A, version) -> event                           dense from 1
    inbox      (A, message id) -> message, in order of `seq`   pending | processed | dead
    reminder   (A, key) -> due time, content                   enters the inbox when due
    step       (job id, key) -> intent, result
    document   (collection, key) -> revision, body, terms      `terms` are its index
    feed       cursor -> event
    owner      id -> name, lease                               who may hold agents

`commit` is all-or-nothing for each `Commit` and writes several in one
transaction (one fsync); nothing is answered before it is durable.  A store
validates a whole commit before its first write, so a refusal changes nothing.

Safety is the fence, never the clock: an activation carries (incarnation, epoch)
and the store refuses any other pair.  The incarnation changes when the store
may have lost accepted data (a restored backup, a reboot).  A lease only tells
whether claiming an agent would be rude.

The executable form of this contract is `tests/conformance/`; it is changed
first.  All times are the store's clock, milliseconds; all bodies are bytes the
store never looks into.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec

BATCH_MAX: Final = 1_000
"""Commits in one call, agents in one claim, rows in one page: never more."""
SNAPSHOT_EVERY: Final = 64
"""Events after which a host saves a snapshot; the tail that `claim` loads is bounded by it."""

RefusalReason = Literal[
    "stale_incarnation",
    "stale_epoch",
    "version_conflict",
    "revision_conflict",
    "duplicate",
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
    """The message is done; it leaves the inbox and its outcome is kept."""

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
    """A message for `recipient`'s inbox; unique by (recipient, message_id) for ever."""

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


class Store(Protocol):
    """Where everything durable lives. Every method may raise StoreUnavailableError."""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        """Write each commit wholly or not at all, in order, in one transaction.

        A later commit of the list sees the earlier ones. After return the
        accepted ones are durable at the store's level. After
        StoreUnavailableError each of them is wholly there or not at all.

        Args:
            commits: 1..BATCH_MAX.

        Refusals:
            stale_incarnation, stale_epoch: the fence is not the agent's present one.
            version_conflict: the journal's length is not `expected_version`.
            revision_conflict: a document is not as `expect` says; detail `collection/key`.
            duplicate: a sent message id is already in the recipient's inbox or
                history; detail is the id. Of a commit that is retried: it landed.
            not_pending: an acknowledged, retried or buried message is not pending.
            step_conflict: see Intent and Result.
            foreign_organization: a send crosses organizations and neither is `system`,
                or its sender is not of the commit's organization. Judged first; the
                others in the order above.

        Raises:
            ValueError: the call has no meaning (no commits, events without an agent, ...).
            StoreFullError: there is no room; nothing was written.
        """

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        """Make `owner` able to hold agents and return the store's incarnation.

        An older owner of the same `name` loses its lease at once, so what it
        held can be claimed; its fences die as its agents are claimed. Idempotent.
        """

    async def renew(self, owner: str, lease_s: float) -> bool:
        """Extend the owner's lease; False when it is unknown or superseded by its name."""

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        """Take agents for `owner`, each with its epoch raised by one.

        Without `agents`: those with pending messages that nobody with a live
        lease holds, longest waiting first; those of the organization `system`
        (the scheduler) only by name. With `agents`: those of them that
        nobody else with a live lease holds, whether or not they have messages
        or ever existed. One that `owner` already holds is not returned again.
        An owner without a live lease gets nothing.
        """

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        """Give agents up; those that `owner` does not hold are passed over."""

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> Poll:
        """What is new for `owner`; parks up to `wait_s` while there is nothing.

        Due reminders enter the inboxes here (and in `claim`). Start with
        `after=0`; a message can be answered again that `claim` has answered.
        Ready agents end the wait once: again only when more become ready, or
        after the owner took or gave up agents.
        """

    async def inbox(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        """Pending messages of an agent with seq > `after`, in order."""

    async def history(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        """All messages sent to an agent with seq > `after`, in order, whatever their status."""

    async def outcome(self, agent: str, message_id: str, wait_s: float) -> StoredMessage | None:
        """The message as soon as it is processed or dead, else as it is after `wait_s`.

        None: it was never accepted.
        """

    async def journal(self, agent: str, after: int, limit: int) -> list[JournalEvent]:
        """Events with version > `after`, in order."""

    async def steps(self, job: str) -> list[Step]:
        """A job's steps in the order of their first intent."""

    async def get(self, collection: str, key: str) -> Document | None: ...

    async def list_documents(
        self,
        collection: str,
        organization: str | None = None,
        terms: Sequence[str] = (),
        after: str | None = None,
        limit: int = 100,
        descending: bool = True,
    ) -> list[Document]:
        """Documents that carry all of `terms`, by key; strictly beyond `after` in that order."""

    async def count(
        self, collection: str, organization: str | None = None, terms: Sequence[str] = ()
    ) -> int: ...

    async def tail(
        self,
        after: int,
        limit: int,
        wait_s: float,
        organization: str | None = None,
        incarnation: str | None = None,
    ) -> Feed:
        """Events with cursor > `after`; parks up to `wait_s` while there are none.

        `after=-1` means the head: nothing old. `incarnation` is the one the
        cursor was given under. After a `reset` the entries begin with the oldest.
        """

    async def health(self) -> Health: ...

    async def close(self) -> None:
        """Stop; waiting calls end with StoreUnavailableError. Idempotent."""
