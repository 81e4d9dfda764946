"""Which job is next: shares between organizations, then priority with ageing, under limits. Pure.

Between organizations it is deficit round-robin: each start is charged to its
organization, and of those that have a job which may start, the one that was
charged least is next.  Who has had nothing to start, or could not, is owed what it
has missed, at most all slots `OWED_ROUNDS` times: a burst of a quiet organization is
begun at once and then has its share, and nobody saves shares up.  A slot is never
taken away, so there is always the end of somebody's job to wait for.  One
organization's priorities are its own: a flood of critical jobs costs the others what
any flood does.

Within an organization a job's place is `queued_ms + rank * AGEING_MS`, fixed when
it is queued: among equals the oldest is first, and waiting one AGEING_MS is worth
one step of priority, so nothing starves and nothing has to be re-sorted.  A job
that was interrupted keeps its `queued_ms` and with it its place.

Jobs that share all their limits are a lane.  A lane whose head may not start is
parked at the limit that stops it, and looked at again when that has room: what
can't start costs nothing, however much of it there is.

Source: Shreedhar and Varghese, "Efficient fair queueing using deficit round robin" (1995).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, NamedTuple

from runtime.job import Priority

AGEING_MS = 10 * 60 * 1000
"""Waiting this long outweighs one step of priority."""
OWED_ROUNDS: Final = 3
"""Starts an organization may be owed, as a multiple of the slots."""
LEFT_MAX: Final = 1_000
"""Organizations without queued jobs whose accounts are kept; an older one is settled."""
GONE_MAX: Final = 64
"""Places in a lane that may outnumber the others though their jobs have left the queue."""
LANES_KNOWN: Final = 4_096
"""Lanes whose limits need not be named anew."""
UNLIMITED: Final = 0

_Limit = tuple[str, str, str]
"""(what is limited, organization, which one)"""


@dataclass(frozen=True)
class Limits:
    """How many jobs may run at once; all of them hold together. 0: no limit."""

    total: int = 5
    organization: int = 5
    repository: int = UNLIMITED
    """Of one organization in one repository."""
    agent: int = 1
    """Of one agent, which does one job at a time: a second one would hold a slot and wait."""
    key: int = 1
    """Of one organization with one `limitKey`."""


class Place(NamedTuple):
    """A queued job; sorts by who is next in its organization."""

    key_ms: int
    job_id: str
    organization: str
    repository: str = ""
    agent: str = ""
    """The agent that others share; empty: the job has one of its own."""
    key: str = ""
    queued_ms: int = 0


def place(
    job_id: str,
    organization: str,
    queued_ms: int,
    priority: Priority,
    *,
    repository: str | None = None,
    agent: str | None = None,
    key: str | None = None,
) -> Place:
    at_ms = queued_ms + priority.rank * AGEING_MS
    return Place(at_ms, job_id, organization, repository or "", agent or "", key or "", queued_ms)


_LaneName = tuple[str, str, str]
"""(repository, agent, key)"""


class _Lane:
    """The queued jobs that share their limits, and whose turn it is among them."""

    __slots__ = ("gone", "heap", "name", "parked")

    def __init__(self, name: _LaneName) -> None:
        self.name = name
        self.heap: list[Place] = []
        self.gone = 0
        """Places in the heap whose jobs are not queued any more."""
        self.parked = False
        """A limit stops it; it is looked at again when that has room."""


class _Tenant:
    """An organization with queued jobs."""

    __slots__ = ("charged", "heads", "lanes")

    def __init__(self, charged: int) -> None:
        self.charged = charged
        """Starts so far, as the round counts them."""
        self.lanes: dict[_LaneName, _Lane] = {}
        self.heads: list[tuple[Place, int, _Lane]] = []
        """Heads of lanes that are not parked; what is no head any more is passed over."""


class JobQueue:
    """The queued jobs and the counts of the running ones."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.owed_max = OWED_ROUNDS * limits.total
        """Starts an organization may be owed."""
        self._tenants: dict[str, _Tenant] = {}
        """In the order in which they were served last."""
        self._queued: dict[str, Place] = {}
        self._running: dict[str, Place] = {}
        self._counts: dict[_Limit, int] = {}
        """Running jobs by what limits them; none is not said."""
        self._parked: dict[_Limit, list[tuple[_Tenant, _Lane]]] = {}
        self._left: dict[str, int] = {}
        """What organizations had been charged when they had no queued job any more."""
        self._round = 0
        """The most that an organization had been charged before it was served."""
        self._held: set[_Limit] = set()
        """Agents that get no job whatever their limit says."""
        self._serial = count()

    def __len__(self) -> int:
        return len(self._queued)

    def __contains__(self, job_id: str) -> bool:
        """Whether the job is queued or running."""
        return job_id in self._queued or job_id in self._running

    def oldest_ms(self) -> int | None:
        """When the job was queued that waits for longest; looks at all of them."""
        return min((one.queued_ms for one in self._queued.values()), default=None)

    @property
    def running(self) -> int:
        return len(self._running)

    def running_for(self, job_id: str) -> str | None:
        """The organization of a job that counts as running."""
        place = self._running.get(job_id)
        return place.organization if place is not None else None

    def add(self, one: Place) -> None:
        """Queue a job; one that is queued or running already is passed over."""
        if one.job_id in self:
            return
        tenant = self._tenants.get(one.organization)
        if tenant is None:
            charged = self._left.pop(one.organization, 0)
            tenant = _Tenant(max(charged, self._round - self.owed_max))
            self._tenants[one.organization] = tenant
        name = (one.repository, one.agent, one.key)
        lane = tenant.lanes.get(name)
        if lane is None:
            lane = tenant.lanes[name] = _Lane(name)
        self._queued[one.job_id] = one
        heappush(lane.heap, one)
        if lane.heap[0] is one and not lane.parked:
            heappush(tenant.heads, (one, next(self._serial), lane))

    def remove(self, job_id: str) -> bool:
        """Take a job out of the queue; False when it was not in it."""
        one = self._queued.pop(job_id, None)
        if one is None:
            return False
        tenant = self._tenants[one.organization]
        lane = tenant.lanes[one.repository, one.agent, one.key]
        lane.gone += 1
        if lane.gone > max(GONE_MAX, len(lane.heap) // 2):
            self._sweep(tenant, lane)
        return True

    def _sweep(self, tenant: _Tenant, lane: _Lane) -> None:
        """Forget what is queued no more: of a held agent nobody comes by it."""
        lane.heap = [one for one in lane.heap if self._queued.get(one.job_id) is one]
        heapify(lane.heap)
        lane.gone = 0
        if not (lane.parked and lane.heap):
            self._offer(tenant, lane)

    def start(self, one: Place) -> None:
        """Count a job as running."""
        if one.job_id not in self._running:
            self._running[one.job_id] = one
            for limit in _limits_of(one):
                self._counts[limit] = self._counts.get(limit, 0) + 1

    def end(self, job_id: str) -> None:
        """A running job has let go of its slot. Idempotent."""
        one = self._running.pop(job_id, None)
        if one is None:
            return
        for limit in _limits_of(one):
            left = self._counts.pop(limit) - 1
            if left:
                self._counts[limit] = left
            if limit in self._parked:
                self._look_at(limit)

    def _look_at(self, limit: _Limit) -> None:
        """There may be room for what was parked at a limit."""
        for tenant, lane in self._parked.pop(limit, ()):
            lane.parked = False
            self._offer(tenant, lane)

    def hold(self, organization: str, agent: str) -> None:
        """Start no job of an agent that jobs share. Idempotent."""
        self._held.add(("agent", organization, agent))

    def let_go(self, organization: str, agent: str) -> None:
        """Start its jobs again. Idempotent."""
        limit = ("agent", organization, agent)
        if limit in self._held:
            self._held.remove(limit)
            self._look_at(limit)

    def next(self) -> Place | None:
        """Take the next job that may run now out of the queue."""
        if len(self._running) >= self.limits.total:
            return None
        best: tuple[int, str, tuple[Place, _Lane]] | None = None
        for organization, tenant in list(self._tenants.items()):
            if best is not None and tenant.charged >= best[0]:
                continue  # of those charged the same, who was served longest ago is first
            if self._is_full(("organization", organization, "")):
                continue
            if (head := self._head(tenant)) is not None:
                best = (tenant.charged, organization, head)
            elif not tenant.lanes:
                self._leave(organization)
        return self._take(*best[1:]) if best is not None else None

    def _take(self, organization: str, head: tuple[Place, _Lane]) -> Place:
        tenant = self._tenants[organization]
        chosen, lane = head
        heappop(tenant.heads)
        heappop(lane.heap)
        del self._queued[chosen.job_id]
        self._offer(tenant, lane)
        self._round = max(self._round, tenant.charged)
        tenant.charged = max(tenant.charged, self._round - self.owed_max) + 1
        if tenant.lanes:  # behind those that were served before
            self._tenants[organization] = self._tenants.pop(organization)
        else:
            self._leave(organization)
        return chosen

    def _leave(self, organization: str) -> None:
        """Keep an organization's account for when it comes back."""
        self._left[organization] = self._tenants.pop(organization).charged
        if len(self._left) > LEFT_MAX:
            del self._left[next(iter(self._left))]

    def _head(self, tenant: _Tenant) -> tuple[Place, _Lane] | None:
        """The tenant's next job that no limit but its own number stops."""
        heads = tenant.heads
        while heads:
            one, _, lane = heads[0]
            if lane.parked or not lane.heap or lane.heap[0] is not one:
                heappop(heads)  # no head any more, or offered again later
            elif self._queued.get(one.job_id) is not one:
                heappop(heads)
                self._offer(tenant, lane)
            elif (full := self._full(one)) is not None:
                heappop(heads)
                lane.parked = True
                self._parked.setdefault(full, []).append((tenant, lane))
            else:
                return one, lane
        return None

    def _offer(self, tenant: _Tenant, lane: _Lane) -> None:
        """Put the lane's head among the heads; an empty lane is forgotten."""
        while lane.heap and self._queued.get(lane.heap[0].job_id) is not lane.heap[0]:
            heappop(lane.heap)
            lane.gone -= 1
        if lane.heap:
            heappush(tenant.heads, (lane.heap[0], next(self._serial), lane))
        elif tenant.lanes.get(lane.name) is lane:
            del tenant.lanes[lane.name]

    def _full(self, one: Place) -> _Limit | None:
        """The first limit that leaves no room for a job, but for its organization's."""
        for limit in _limits_of(one)[1:]:
            if self._is_full(limit):
                return limit
        return None

    def _is_full(self, limit: _Limit) -> bool:
        if limit in self._held:
            return True
        most: int = getattr(self.limits, limit[0])
        return most != UNLIMITED and self._counts.get(limit, 0) >= most


def _limits_of(one: Place) -> tuple[_Limit, ...]:
    """What a job counts for."""
    return _limits(one.organization, one.repository, one.agent, one.key)


@lru_cache(maxsize=LANES_KNOWN)  # asked for when a job is chosen, when it starts and when it ends
def _limits(organization: str, repository: str, agent: str, key: str) -> tuple[_Limit, ...]:
    limits = [("organization", organization, "")]
    for what, which in (("repository", repository), ("agent", agent), ("key", key)):
        if which:
            limits.append((what, organization, which))
    return tuple(limits)
