"""The roster: who may hold agents, who holds which, and whose inbox waits.

It keeps in memory what claiming and polling decide on: owners with their
leases, and for each known agent its epoch, its holder and the ids of its
pending messages.  An agent without pending messages may be forgotten by a
store that can read it again.

Invariant: an agent is in `waiting[holder]` exactly while it has pending
messages (those of `system`, which are claimed only by name, in `reserved`).
Safety never rests here: a lapsed lease only means that claiming is not rude.
Bodies, durability and parking belong to the stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import nsmallest
from itertools import chain, islice
from typing import Final

from runtime.ids import SYSTEM

RECENT_MAX: Final = 1 << 16
"""Latest arrivals a poll finds without looking at every waiting agent."""
INBOX_MAX: Final = 10_000
"""Messages that may wait in one inbox before those from outside are refused."""
PENDING_MAX: Final = 1_000_000
"""Messages that may wait in all inboxes together; beyond it only what makes room is taken."""
OWNERS_MAX: Final = 10_000
"""Owners remembered; beyond it the one whose lease lapsed first is forgotten."""


class Agent:
    """What the store must know of an agent to judge a commit."""

    __slots__ = ("address", "epoch", "owner", "pending", "reserved", "row", "version")

    def __init__(
        self,
        address: str,
        epoch: int = 0,
        version: int = 0,
        owner: str | None = None,
        row: int = 0,
    ) -> None:
        self.address = address
        self.epoch = epoch
        self.version = version
        self.owner = owner
        self.pending: dict[str, int] = {}
        """message id -> seq, in order of seq."""
        self.row = row
        """Where the store keeps it; 0 when that is nowhere yet."""
        self.reserved = address.startswith(SYSTEM + "/")
        """Only claimed by name."""

    @property
    def first_seq(self) -> int:
        """Seq of the message that waits longest."""
        return next(iter(self.pending.values()))


class Owner:
    """A host as the store sees it."""

    __slots__ = ("lapsed", "lease_until_ms", "name", "told")

    def __init__(self, name: str, lease_until_ms: int) -> None:
        self.name = name
        self.lease_until_ms = lease_until_ms
        self.lapsed = False
        """Set when the lapse has been noticed, so that it is announced once; taken back with
        the clock."""
        self.told = 0
        """`Roster.risen` as of the last poll that had news."""


_ByHolder = dict[str | None, dict[Agent, None]]


class Roster:
    def __init__(self, head_seq: int = 0, epoch_floor: int = 0) -> None:
        self.epoch_floor = epoch_floor
        """The greatest epoch of any agent that was purged; first epochs are beyond it."""
        self.owners: dict[str, Owner] = {}
        self.waiting: _ByHolder = {}
        """Agents with pending messages, by holder."""
        self.reserved: _ByHolder = {}
        """The same for agents that are claimed only by name."""
        self.head_seq = head_seq
        """Seq of the latest message."""
        self.pending = 0
        """Pending messages of all agents."""
        self.risen = 1
        """Grows whenever an agent becomes ready; tells an owner's poll what is news."""
        self.lapses = 0
        """Grows whenever a lease is noticed to have ended, or to live again."""
        self._recent: list[tuple[Agent, str] | None] = [None] * RECENT_MAX
        self._recent_from = head_seq + 1

    # owners

    def register(self, owner: str, name: str, lease_until_ms: int) -> list[str]:
        """Give `owner` a lease; the other owners of its name are removed and returned."""
        gone = [id for id, one in self.owners.items() if one.name == name and id != owner]
        present = self.owners.get(owner)
        if present is not None and present.name == name:
            present.lease_until_ms, present.lapsed = lease_until_ms, False
        else:
            if present is None and len(self.owners) - len(gone) >= OWNERS_MAX:
                gone.append(min(self.owners, key=lambda id: self.owners[id].lease_until_ms))
            self.owners[owner] = Owner(name, lease_until_ms)
        for id in gone:
            del self.owners[id]
            self.risen += bool(self.waiting.get(id))
        return gone

    def renew(self, owner: str, lease_until_ms: int) -> bool:
        """Extend a lease; False when the owner is not known (any more)."""
        present = self.owners.get(owner)
        if present is None:
            return False
        present.lease_until_ms, present.lapsed = lease_until_ms, False
        return True

    def live(self, owner: str | None, now_ms: int) -> bool:
        present = self.owners.get(owner) if owner is not None else None
        return present is not None and present.lease_until_ms > now_ms

    def alive(self, now_ms: int) -> tuple[str, ...]:
        """Ids of the owners whose lease is live, in order."""
        return tuple(sorted(id for id in self.owners if self.live(id, now_ms)))

    def next_lapse_ms(self) -> int | None:
        """When the next lease ends that nobody has noticed yet."""
        ends = [one.lease_until_ms for one in self.owners.values() if not one.lapsed]
        return min(ends, default=None)

    def lapse(self, now_ms: int) -> None:
        """Notice the leases that have ended; agents that wait there become ready."""
        for holder, one in self.owners.items():
            ended = one.lease_until_ms <= now_ms
            if ended == one.lapsed:
                continue
            one.lapsed = ended
            self.lapses += 1
            if ended:
                self.risen += bool(self.waiting.get(holder))

    # holding

    def claimable(self, owner: str, limit: int, now_ms: int) -> list[Agent]:
        """Agents with pending messages that `owner` may take, longest waiting first."""
        if not self.live(owner, now_ms):
            return []
        return nsmallest(limit, self._ready(now_ms), key=lambda agent: agent.first_seq)

    def takeable(self, agent: Agent, owner: str, now_ms: int) -> bool:
        """Whether `owner` may take this agent now."""
        if agent.owner == owner or not self.live(owner, now_ms):
            return False
        return not self.live(agent.owner, now_ms)

    def take(self, agent: Agent, owner: str) -> None:
        """Make `owner` the holder, under the next epoch."""
        self._move(agent, owner)
        agent.epoch = (agent.epoch or self.epoch_floor) + 1
        self.owners[owner].told = 0

    def drop(self, agent: Agent) -> None:
        """Make nobody the holder."""
        owner = self.owners.get(agent.owner or "")
        if owner is not None:
            owner.told = 0
        self._move(agent, None)
        self.risen += bool(agent.pending) and not agent.reserved

    def purge(self, agent: Agent) -> None:
        """The agent exists no more, nor do its messages; whoever holds it is fenced."""
        if agent.pending:
            self._unlist(agent)
        self.pending -= len(agent.pending)
        agent.pending.clear()
        agent.owner = None
        self.epoch_floor = max(self.epoch_floor, agent.epoch)

    def _move(self, agent: Agent, owner: str | None) -> None:
        if agent.pending:
            self._unlist(agent)
        agent.owner = owner
        if agent.pending:
            self._list(agent)

    def _list(self, agent: Agent) -> None:
        lists = self.reserved if agent.reserved else self.waiting
        lists.setdefault(agent.owner, {})[agent] = None

    def _unlist(self, agent: Agent) -> None:
        lists = self.reserved if agent.reserved else self.waiting
        listed = lists[agent.owner]
        del listed[agent]
        if not listed:
            del lists[agent.owner]

    # messages

    def arrived(self, agent: Agent, message_id: str, seq: int, now_ms: int) -> None:
        """A message is in the agent's inbox; `seq` is beyond every earlier one."""
        if not agent.pending:
            self._list(agent)
            self.risen += not (agent.reserved or self.live(agent.owner, now_ms))
        agent.pending[message_id] = seq
        self.pending += 1
        self.head_seq = seq
        self._recent[seq % RECENT_MAX] = (agent, message_id)

    def passed(self, seq: int) -> None:
        """A message was handled at once: it has a seq and is in no inbox."""
        self.head_seq = seq
        self._recent[seq % RECENT_MAX] = None

    def finished(self, agent: Agent, message_id: str) -> int:
        """A pending message is done or dead; its seq."""
        seq = agent.pending.pop(message_id)
        self.pending -= 1
        if not agent.pending:
            self._unlist(agent)
        return seq

    def restore(self, agent: Agent, message_id: str, seq: int) -> None:
        """A message that was pending when the store was opened; in order of seq."""
        if not agent.pending:
            self._list(agent)
        agent.pending[message_id] = seq
        self.pending += 1

    # polling

    def ready(self, owner: str, now_ms: int) -> int:
        """How many agents `owner` could claim now."""
        if not self.live(owner, now_ms):
            return 0
        return sum(
            len(agents) for holder, agents in self.waiting.items() if not self.live(holder, now_ms)
        )

    def is_news(self, owner: str, messages: bool, ready: int, now_ms: int) -> bool:
        """Whether a poll that found this is worth answering at once; remembers that it was.

        Messages always are.  Ready agents are when one became ready after the
        last such poll, or when the owner took or gave up agents since: a host
        that is full is told once.
        """
        self.lapse(now_ms)
        present = self.owners.get(owner)
        news = messages or (ready > 0 and present is not None and present.told < self.risen)
        if news and present is not None:
            present.told = self.risen
        return news

    def arrivals(self, owner: str, after: int, limit: int) -> list[tuple[int, Agent, str]]:
        """(seq, agent, message id) of what waits for `owner` beyond `after`, in order."""
        if after + 1 < max(self._recent_from, self.head_seq - RECENT_MAX + 1):
            found = (
                (seq, agent, message_id)
                for agent in chain(self.waiting.get(owner, ()), self.reserved.get(owner, ()))
                for message_id, seq in agent.pending.items()
                if seq > after
            )
            return nsmallest(limit, found, key=lambda one: one[0])
        return list(islice(self._late(owner, after), limit))

    def _late(self, owner: str, after: int) -> Iterator[tuple[int, Agent, str]]:
        for seq in range(after + 1, self.head_seq + 1):
            entry = self._recent[seq % RECENT_MAX]
            if entry is None:
                continue
            agent, message_id = entry
            if agent.owner == owner and agent.pending.get(message_id) == seq:
                yield seq, agent, message_id

    def _ready(self, now_ms: int) -> Iterator[Agent]:
        for holder, agents in self.waiting.items():
            if not self.live(holder, now_ms):
                yield from agents


def in_order(agents: Sequence[str]) -> Sequence[str]:
    """Addresses without repetition, in their order."""
    return list(dict.fromkeys(agents))
