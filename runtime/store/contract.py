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

What is above stays until `Upkeep.prune` or `Upkeep.purge` removes it: "ever"
and "all" below mean "of what is kept".

`commit` is all-or-nothing for each `Commit` and writes several in one
transaction (one fsync); nothing is answered before it is durable.  A store
validates a whole commit before its first write, so a refusal changes nothing.

A page (`poll`, `inbox`, `history`, `journal`, `list_documents`, `tail`) ends with
the row that passes ANSWER_BYTES_MAX, or before, and a claim with the agent that
does.  So a page shorter than its limit is not the last: an empty one is, and of a
`poll` or a `tail` the cursor says how far it goes.

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
from typing import Final, Protocol

from runtime.store.records import (
    ABSENT,
    ANY,
    Ack,
    Activation,
    Bury,
    Commit,
    Committed,
    Document,
    Event,
    Feed,
    FeedEntry,
    FeedEvent,
    Fence,
    Health,
    Intent,
    JournalEvent,
    Parts,
    Poll,
    Put,
    Record,
    RefusalReason,
    Refused,
    Remind,
    Result,
    Retry,
    Send,
    Snapshot,
    Step,
    StoredMessage,
    Swept,
)

__all__ = [
    "ABSENT",
    "ANSWER_BYTES_MAX",
    "ANY",
    "BATCH_MAX",
    "DEAD_LETTERS",
    "MANY_MAX",
    "SNAPSHOT_EVERY",
    "Ack",
    "Activation",
    "Bury",
    "Commit",
    "Committed",
    "Document",
    "Event",
    "Feed",
    "FeedEntry",
    "FeedEvent",
    "Fence",
    "Health",
    "Intent",
    "JournalEvent",
    "Parts",
    "Poll",
    "Put",
    "Record",
    "RefusalReason",
    "Refused",
    "Remind",
    "Result",
    "Retry",
    "Send",
    "Snapshot",
    "Step",
    "Store",
    "StoredMessage",
    "Swept",
    "Upkeep",
]

BATCH_MAX: Final = 1_000
"""Commits in one call, agents in one claim, rows in one page: never more."""
ANSWER_BYTES_MAX: Final = 32 << 20
"""Bodies in one page, or for one claimed agent; the row that passes it is the last."""
MANY_MAX: Final = 64
"""Documents in one `get_many`: that many large ones still fit an answer."""
SNAPSHOT_EVERY: Final = 64
"""Events after which a host saves a snapshot; the tail that `claim` loads is bounded by it."""
DEAD_LETTERS: Final = "dead_letter"
"""Collection of dead letters. A dead message, which `<recipient>/<message id>` here names, is
kept as long as that document: somebody may yet redeliver it."""


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
            expired: a sent message id is a ULID as old as messages that `prune` has
                forgotten: nobody can tell whether it was accepted; detail is the id.
            inbox_full: INBOX_MAX messages wait for a recipient, and the commit is of no agent
                (what agents tell each other is bounded by all inboxes together); detail
                is the recipient.
            overtaking: a message that is handled at once (see Ack) would go before
                another that is pending; detail is its id.
            not_pending: an acknowledged, retried or buried message is not pending.
            step_conflict: see Intent and Result.
            foreign_organization: a send crosses organizations and neither is `system`,
                or its sender is not of the commit's organization. Judged first; the
                others in the order above. Also a document that is there and is another
                organization's than the put says, or that is not of the commit's own
                (`system` writes everybody's); judged with its revision, detail
                `collection/key`.

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
        """Extend the owner's lease; False when it is unknown or superseded by its name.

        A lease of 0 s gives it up: what the owner holds can be claimed from then on.
        """

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        """Take agents for `owner`, each with its epoch raised by one.

        Without `agents`: those with pending messages that nobody with a live
        lease holds, longest waiting first; those of the organization `system`
        (the scheduler) only by name. With `agents`: those of them that
        nobody else with a live lease holds, whether or not they have messages
        or ever existed. One that `owner` already holds is not returned again.
        Each says whether its last holder had left it without giving it up (`abandoned`).
        Once what they bring passes ANSWER_BYTES_MAX no more are taken: the others are as
        they were. An owner without a live lease gets nothing.
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
        """Events with version > `after`, in order; without gaps once it begins."""

    async def steps(self, job: str) -> list[Step]:
        """A job's steps in the order of their first intent."""

    async def get(self, collection: str, key: str) -> Document | None: ...

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        """Those of the documents that are there, each once, in any order.

        Args:
            keys: 1..MANY_MAX.

        Raises:
            ValueError: a limit is not kept.
        """

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
        cursor was given under. A cursor is void (`reset`) when it is of another
        incarnation, beyond the head, or before events that were forgotten; then
        the entries begin with the oldest.
        """

    async def health(self) -> Health: ...

    async def close(self) -> None:
        """Stop; waiting calls end with StoreUnavailableError. Idempotent."""


class Upkeep(Protocol):
    """The operator's verbs: what a store forgets. Every store has them beside `Store`'s."""

    async def prune(self, before_ms: int, limit: int, ended: Sequence[str] = ()) -> Swept:
        """Forget, oldest first, what nobody needs any more; call until there is no more.

            messages       processed before, or dead before and without their dead
                           letter (DEAD_LETTERS); their ids with them
            feed           events up to the first whose `at_ms` is not before
            journal        events from before that their agent's snapshot covers, up to
                           the first that is not so
            documents      what is left of those deleted before: their last revision
            steps          of the jobs `ended`, however young: only the caller knows
                           that a job is over

        Nothing else goes: no pending message, state, reminder or document. From then
        on a sent id that is a ULID, made no later than the latest `finished_ms` of a
        forgotten message, is refused as `expired`; other ids can be accepted anew.

        Args:
            before_ms: the store's clock.
            limit: rows removed in this call, 1..BATCH_MAX.
            ended: at most BATCH_MAX job ids.

        Raises:
            ValueError: a limit is not kept.
        """

    async def purge(self, organization: str, limit: int) -> Swept:
        """Remove an organization, about `limit` rows a call; call until there is no more.

        Its agents with all they have, the messages from and to it, its steps (by the
        agent that began them), documents and feed events; then its ids look as if they
        had never existed. Its agents are fenced before anything of them is gone: an
        address that is used again gets a first epoch beyond every one that was purged.
        Seqs and cursors are never given twice; owners and other organizations notice
        nothing. What is accepted for it meanwhile comes with the next round.

        Raises:
            ValueError: the organization is `system`, or the limit not in 1..BATCH_MAX.
        """
