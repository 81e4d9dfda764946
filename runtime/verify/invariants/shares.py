"""Fair shares: half of I18. Organizations that have jobs to start take turns.

What could have started at each start follows from the commits: a job that the
scheduler has taken and not started, of an organization that is not near its
limit.  Jobs that share an agent, a repository or a limit with others are left
out, for they may have to wait though a slot is free.

Who had nothing to start before a window may be owed starts in it, so many that
they are `OWED_ROUNDS` times all slots (`runtime.schedule.queue`): of n organizations
one can have had (n - 1)/n of them more than its share for that, or less.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from runtime.ids import SCHEDULER
from runtime.schedule.queue import OWED_ROUNDS
from runtime.store.contract import Commit
from runtime.verify.history import Fact, Violation
from runtime.verify.invariants.jobs import starts
from runtime.verify.invariants.reading import commits, finished, is_run, read_job

WINDOW: Final = 100
"""Starts an organization in a window, at most; longer stretches are cut into windows."""
WINDOW_MIN: Final = 50
"""A window with fewer says nothing."""
SHARE_TOLERANCE: Final = 0.2
"""Of a share, beside what may have been owed."""
NEAR: Final = 2
"""Jobs that may have ended without the scheduler knowing yet: so near to a limit none is open."""


class Start(NamedTuple):
    """One job is started."""

    i: int
    organization: str
    open: frozenset[str]
    """The organizations of which a job could have been started, this one among them."""


def fair_shares(facts: Sequence[Fact]) -> list[Violation]:
    """I18: of a window of starts each organization with open jobs has its share, and its dues."""
    found = []
    limits = next((fact.value for fact in facts if fact.f == "limits"), None)
    owed = OWED_ROUNDS * limits["total"] if limits is not None else 0
    for window in windows(facts):
        served = Counter(start.organization for start in window)
        organizations = sorted(window[0].open)
        share = len(window) / len(organizations)
        most = SHARE_TOLERANCE * share + owed * (1 - 1 / len(organizations))
        for organization in organizations:
            if abs(served[organization] - share) > most:
                text = f"{organization} had {served[organization]} of {len(window)}"
                found.append(Violation("I18", window[-1].i, text))
    return found


def windows(facts: Sequence[Fact]) -> Iterator[list[Start]]:
    """Stretches of starts in which the same organizations, two or more, had open jobs."""
    window: list[Start] = []
    for start in _Starts().go(facts):
        wanted = len(start.open) * WINDOW
        if window and (start.open != window[0].open or len(window) == wanted):
            yield from _long_enough(window)
            window = []
        window.append(start)
    yield from _long_enough(window)


def _long_enough(window: list[Start]) -> Iterator[list[Start]]:
    organizations = len(window[0].open) if window else 0
    if organizations > 1 and len(window) >= organizations * WINDOW_MIN:
        yield window


class _Starts:
    def __init__(self) -> None:
        self.limit = 1 << 30
        self.plain: dict[str, str] = {}
        """Pending jobs that share nothing -> organization."""
        self.taken: dict[str, set[str]] = defaultdict(set)
        """Organization -> those of them that the scheduler knows of."""
        self.running: dict[tuple[str, str], str] = {}
        """(agent, message id) of a run -> organization."""
        self.counts: Counter[str] = Counter()

    def go(self, facts: Sequence[Fact]) -> Iterator[Start]:
        limits = next((fact.value for fact in facts if fact.f == "limits"), None)
        self.limit = limits["organization"] if limits is not None else self.limit
        for fact, _, commit in commits(facts):
            if commit.agent == SCHEDULER:
                for ack in commit.acks:
                    self._take(ack.message_id.removeprefix("queued:"))
            self._end(commit)
            for job, organization in starts(commit):
                yield Start(fact.i, organization, self._open() | {organization})
                self.taken[organization].discard(job)
                self.plain.pop(job, None)
            self._begin(commit)
            self._change(commit)

    def _open(self) -> frozenset[str]:
        return frozenset(
            organization
            for organization, jobs in self.taken.items()
            if jobs and self.counts[organization] < self.limit - NEAR
        )

    def _take(self, job: str) -> None:
        if job in self.plain:
            self.taken[self.plain[job]].add(job)

    def _end(self, commit: Commit) -> None:
        for message_id in finished(commit):
            organization = self.running.pop((commit.agent or "", message_id), None)
            if organization is not None:
                self.counts[organization] -= 1

    def _begin(self, commit: Commit) -> None:
        runs = [send for send in commit.sends if is_run(send.message_id)]
        for send, (_, organization) in zip(runs, starts(commit), strict=False):
            self.running[send.recipient, send.message_id] = organization
            self.counts[organization] += 1

    def _change(self, commit: Commit) -> None:
        for put in commit.puts:
            if put.collection != "job" or put.body is None:
                continue
            job = read_job(put.body)
            alone = not (job.agent_id or job.repository or job.limit_key)
            if job.status == "pending" and alone and not job.not_before_ms:
                self.plain[job.id] = job.organization_id
            else:
                self.plain.pop(job.id, None)
                self.taken[job.organization_id].discard(job.id)
