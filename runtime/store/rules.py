"""The rules of a commit, the same for every store: what is refused, and why.

`refusal` looks at one commit and at what is stored (a `View`) and answers the
first reason against it; it writes nothing.  `check_call` finds what no store
could mean (a caller's mistake, so ValueError, never a refusal).  Where the
facts come from and how they are written is each store's business.

The order of the reasons is part of the contract: organization first, because
it must not tell a stranger what another tenant has; then the fence; then what
a retried commit would meet.  Whose a document is can only be told from the
document, so that is judged where its revision is.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import accumulate
from typing import Final, Protocol, TypeVar

from runtime.errors import InvalidIdError, StoreFullError
from runtime.ids import SYSTEM, organization_id, ulid_time
from runtime.store.contract import (
    ABSENT,
    ANSWER_BYTES_MAX,
    ANY,
    BATCH_MAX,
    MANY_MAX,
    Activation,
    Commit,
    Refused,
    Result,
    Send,
    StoredMessage,
)
from runtime.store.roster import INBOX_MAX, PENDING_MAX, Agent

T = TypeVar("T")

_SYSTEM: Final = SYSTEM + "/"


class View(Protocol):
    """What is stored, as the rules ask for it."""

    @property
    def incarnation(self) -> str: ...

    @property
    def received(self) -> Container[tuple[str, str]]:
        """(recipient, message id) of every message that is kept."""

    @property
    def forgotten(self) -> str:
        """`ulid_time_of` the latest finish of a forgotten message; empty: none was."""

    @property
    def agent(self) -> Callable[[str], Agent | None]:
        """The agent of an address."""

    def step(self, job: str, key: str) -> tuple[str, int, bool] | None:
        """(agent, epoch of its latest intent, has a result), or None: no intent."""

    def document(self, collection: str, key: str) -> tuple[int, str | None]:
        """The revision a document had last, 0 if it never was, and whose it is; None: not there."""


def check_call(commits: Sequence[Commit]) -> None:
    """Raise ValueError for a call that has no meaning."""
    if not 1 <= len(commits) <= BATCH_MAX:
        raise ValueError(f"commit takes 1..{BATCH_MAX} commits, not {len(commits)}")
    for commit in commits:
        if any("" in put.terms for put in commit.puts):
            raise ValueError("an empty term")
        if commit.agent is None:
            if commit.fence is not None or commit.expected_version is not None:
                raise ValueError("a fence or an expected version without an agent")
            if (
                commit.acks
                or commit.events
                or commit.retries
                or commit.buries
                or commit.snapshot is not None
                or commit.reminders
                or commit.intents
                or commit.results
            ):
                raise ValueError("only an agent has an inbox, a journal, reminders and steps")
        elif commit.fence is None:
            raise ValueError(f"a commit of {commit.agent} without a fence")
        elif commit.events and commit.expected_version is None:
            raise ValueError(f"events of {commit.agent} without an expected version")


def check_limit(limit: int, ended: Sequence[str] = ()) -> None:
    """Raise ValueError for a call of `prune` or `purge` that asks for too much at once."""
    if not 1 <= limit <= BATCH_MAX or len(ended) > BATCH_MAX:
        raise ValueError(f"at most {BATCH_MAX} at once, not {limit} and {len(ended)}")


def check_many(keys: Sequence[str]) -> None:
    """Raise ValueError for a `get_many` that asks for nothing or too much."""
    if not 1 <= len(keys) <= MANY_MAX:
        raise ValueError(f"get_many takes 1..{MANY_MAX} keys, not {len(keys)}")


def check_purge(organization: str, limit: int) -> None:
    """Raise ValueError for a purge that has no meaning."""
    check_limit(limit)
    try:
        organization_id(organization)
    except InvalidIdError as error:
        raise ValueError(str(error)) from error
    if organization == SYSTEM:
        raise ValueError("the organization `system` can't be purged")


def check_room(commits: Sequence[Commit], pending: int) -> None:
    """Raise StoreFullError for a call that adds to inboxes that are too full already."""
    if pending < PENDING_MAX:
        return
    added = sum(len(one.sends) - len(one.acks) - len(one.buries) for one in commits)
    if added > 0:
        raise StoreFullError(f"{pending} messages are pending")


def refusal(commit: Commit, view: View) -> Refused | None:
    """The first reason against `commit`, or None: it may be written."""
    sends = commit.sends
    if sends and commit.organization != SYSTEM and (refused := _foreign(commit)):
        return refused
    address = commit.agent
    if address is not None:
        agent = view.agent(address)
        if refused := _fenced(commit, agent, view.incarnation):
            return refused
    if commit.puts and (refused := _puts(commit, view)):
        return refused
    if sends and (refused := _sends(sends, view)):
        return refused
    if address is None:
        return _room(sends, view)
    assert agent is not None
    return _inbox(commit, agent) or _steps(commit, view)


def _foreign(commit: Commit) -> Refused | None:
    own = commit.organization + "/"
    for send in commit.sends:
        inside = send.recipient.startswith(own) or send.recipient.startswith(_SYSTEM)
        if not inside or not send.sender.startswith(own):
            return Refused("foreign_organization", send.recipient)
    return None


def _fenced(commit: Commit, agent: Agent | None, incarnation: str) -> Refused | None:
    fence, version = commit.fence, commit.expected_version
    assert fence is not None
    if fence.incarnation != incarnation:
        return Refused("stale_incarnation", f"now {incarnation}")
    if agent is None or fence.epoch != agent.epoch or not agent.epoch:
        return Refused("stale_epoch", f"now {agent.epoch if agent else 0}")
    if version is not None and version != agent.version:
        return Refused("version_conflict", f"now {agent.version}")
    return None


def _puts(commit: Commit, view: View) -> Refused | None:
    writer = commit.organization
    written: dict[tuple[str, str], tuple[int, str | None]] = {}
    for put in commit.puts:
        where, own = (put.collection, put.key), put.organization
        last, owner = written.get(where) or view.document(*where)
        if (owner is not None and owner != own) or writer not in (own, SYSTEM):
            return Refused("foreign_organization", f"{put.collection}/{put.key}")
        if put.expect not in (ANY, last if owner is not None else ABSENT):
            return Refused("revision_conflict", f"{put.collection}/{put.key}")
        lives = put.body is not None
        written[where] = (last + 1 if lives or owner is not None else last, own if lives else None)
    return None


def _sends(sends: tuple[Send, ...], view: View) -> Refused | None:
    received, forgotten = view.received, view.forgotten
    sent: set[tuple[str, str]] = set()
    for send in sends:
        key = (send.recipient, send.message_id)
        if key in received or key in sent:
            return Refused("duplicate", send.message_id)
        if forgotten and _expired(send.message_id, forgotten):
            return Refused("expired", send.message_id)
        sent.add(key)
    return None


def _room(sends: tuple[Send, ...], view: View) -> Refused | None:
    for send in sends:
        agent = view.agent(send.recipient)
        if agent is not None and len(agent.pending) >= INBOX_MAX:
            return Refused("inbox_full", send.recipient)
    return None


def _expired(message_id: str, forgotten: str) -> bool:
    made = ulid_time(message_id)
    return made is not None and made <= forgotten


def _inbox(commit: Commit, agent: Agent) -> Refused | None:
    done: set[str] = set()
    pending, acks = agent.pending, commit.acks
    if commit.at_once:
        if pending:
            return Refused("overtaking", acks[0].message_id)
        acks = acks[1:]
    for group in (acks, commit.retries, commit.buries):
        for item in group:
            if item.message_id not in pending or item.message_id in done:
                return Refused("not_pending", item.message_id)
            done.add(item.message_id)
    return None


def _steps(commit: Commit, view: View) -> Refused | None:
    if not (commit.intents or commit.results):
        return None
    begun: set[tuple[str, str]] = set()
    for intent in commit.intents:
        step = view.step(intent.job, intent.key)
        if step is not None and step[2]:
            return Refused("step_conflict", intent.key)
        begun.add((intent.job, intent.key))
    ended: set[tuple[str, str]] = set()
    for result in commit.results:
        key = (result.job, result.key)
        if key in ended or not (key in begun or _begun_before(result, commit, view)):
            return Refused("step_conflict", result.key)
        ended.add(key)
    return None


def _begun_before(result: Result, commit: Commit, view: View) -> bool:
    assert commit.fence is not None
    return view.step(result.job, result.key) == (commit.agent, commit.fence.epoch, False)


def cause_of(commit: Commit) -> str | None:
    """The message whose turn a commit is: the first that it acknowledges."""
    return commit.acks[0].message_id if commit.acks else None


def reminder_id(key: str, due_ms: int) -> str:
    """Id of the message that a due reminder becomes."""
    return f"reminder:{key}:{due_ms}"


def page_limit(limit: int) -> int:
    """The rows a caller may have when it asks for `limit`."""
    return max(0, min(limit, BATCH_MAX))


def cut(messages: Sequence[StoredMessage]) -> tuple[StoredMessage, ...]:
    """The first of `messages` that fit an answer; at least one if there is one."""
    if len(messages) < 2:
        return tuple(messages)
    return cut_by(messages, map(message_bytes, messages))


def cut_by(rows: Sequence[T], sizes: Iterable[int]) -> tuple[T, ...]:
    """The first of `rows` up to the one that passes an answer, by the sizes of all of them."""
    return tuple(rows[: bisect(list(accumulate(sizes)), ANSWER_BYTES_MAX) + 1])


def message_bytes(message: StoredMessage) -> int:
    """What a message adds to an answer, about."""
    return len(message.body) + len(message.reply or b"") + len(message.error or "")


def fill(activations: Iterable[Activation]) -> list[Activation]:
    """Activations, each made only while those before it leave room in an answer."""
    taken: list[Activation] = []
    room = ANSWER_BYTES_MAX
    for one in activations:
        taken.append(one)
        room -= activation_bytes(one)
        if room < 0:
            break
    return taken


def activation_bytes(one: Activation) -> int:
    """What an activation adds to an answer, about."""
    size = len(one.snapshot.body) if one.snapshot is not None else 0
    size += sum([len(event.body) for event in one.events])
    return size + sum([message_bytes(message) for message in one.inbox])
