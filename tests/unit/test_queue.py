"""The queue of jobs: shares, order, limits; pure, with time and chance given."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from runtime.job import Priority
from runtime.schedule.queue import AGEING_MS, GONE_MAX, LEFT_MAX, JobQueue, Limits, Place, place

WIDE = Limits(total=1_000, organization=1_000, agent=0, key=0)


def queued(queue: JobQueue, *places: Place) -> JobQueue:
    for one in places:
        queue.add(one)
    return queue


def started(queue: JobQueue) -> list[str]:
    """Start all that may start now."""
    found = []
    while (one := queue.next()) is not None:
        queue.start(one)
        found.append(one.job_id)
    return found


def many(organization: str, jobs: int, **where: str) -> list[Place]:
    return [
        place(f"{organization}{number}", organization, number, Priority.NORMAL, **where)
        for number in range(jobs)
    ]


def test_the_urgent_and_the_old_are_first() -> None:
    """A critical job would wait for all others, or a low one for ever."""
    places = [place(name, "a", 0, Priority(name)) for name in ("low", "normal", "high", "critical")]
    places.append(place("aged low", "a", -4 * AGEING_MS, Priority.LOW))
    assert started(queued(JobQueue(WIDE), *places)) == [
        "aged low", "critical", "high", "normal", "low",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "where"),
    [
        (Limits(total=2, organization=9), {}),
        (Limits(total=9, organization=2), {}),
        (Limits(total=9, organization=9, repository=2), {"repository": "r"}),
        (Limits(total=9, organization=9, agent=2), {"agent": "code:one"}),
        (Limits(total=9, organization=9, key=2), {"key": "k"}),
    ],
)
def test_each_limit_holds_and_gives_way_when_a_job_ends(limits, where) -> None:
    """More would run at once than was allowed, or nothing would follow a job that ends."""
    queue = queued(JobQueue(limits), *many("a", 5, **where))
    assert started(queue) == ["a0", "a1"]
    queue.end("a1")
    assert started(queue) == ["a2"]
    queue.end("a0")
    queue.end("a2")
    assert started(queue) == ["a3", "a4"]


def test_what_a_limit_stops_holds_up_nobody_else() -> None:
    """One busy agent would stop all that were queued after its next job."""
    queue = JobQueue(Limits(total=9, organization=9, repository=2))
    queued(queue, *many("a", 50, agent="code:one"), *many("b", 50, repository="r"))
    queued(queue, place("free", "a", 10**6, Priority.LOW))
    assert sorted(started(queue)) == ["a0", "b0", "b1", "free"]


def test_repositories_and_keys_are_an_organizations_own() -> None:
    """One organization's work would be slowed down by another's, and tell of it."""
    for where in ({"repository": "r"}, {"key": "k"}):
        queue = JobQueue(Limits(total=9, organization=9, repository=1, key=1))
        queued(queue, *many("a", 2, **where), *many("b", 2, **where))
        assert sorted(started(queue)) == ["a0", "b0"]


def test_a_job_taken_out_of_the_queue_does_not_start() -> None:
    """A cancelled job would run."""
    queue = queued(JobQueue(Limits(total=9, organization=9)), *many("a", 3, agent="code:one"))
    assert queue.remove("a0") and not queue.remove("a0")
    assert started(queue) == ["a1"]
    assert queue.remove("a2")
    queue.end("a1")
    assert started(queue) == [] and len(queue) == 0


def test_organizations_take_turns_however_much_they_have() -> None:
    """Who queues most would be served most."""
    queue = JobQueue(WIDE)
    queued(queue, *many("a", 1_000), *many("b", 30), *many("c", 30))
    first = [queue.next() for _ in range(90)]
    assert Counter(one.organization for one in first if one) == {"a": 30, "b": 30, "c": 30}
    assert all(queue.next() for _ in range(970)) and queue.next() is None


def test_a_flood_of_urgent_jobs_is_its_organizations_own() -> None:
    """Calling everything critical would starve the others."""
    queue = JobQueue(WIDE)
    queued(queue, *(place(f"a{n}", "a", n, Priority.CRITICAL) for n in range(100)), *many("b", 10))
    first = [queue.next() for _ in range(20)]
    assert sum(one is not None and one.organization == "b" for one in first) == 10


def test_shares_are_not_saved_up() -> None:
    """Who could not start anything for a day would have all slots for hours."""
    queue = JobQueue(Limits(total=5, organization=5, key=1))
    queued(queue, *many("a", 400), *many("b", 100, key="k"), *many("c", 200))
    holding = next(one for one in iter(queue.next, None) if one.organization == "b")
    queue.start(holding)
    for _ in range(300):  # b can't start, the others take turns
        assert queue.next().organization != "b"  # type: ignore[union-attr]
    queue.end(holding.job_id)
    queued(queue, *(place(f"free{n}", "b", n, Priority.NORMAL) for n in range(100)))
    first = [queue.next().organization for _ in range(queue.owed_max + 40)]  # type: ignore[union-attr]
    assert first.count("b") <= queue.owed_max + 40 // 3 + 2


def test_whatever_happens_limits_hold_and_no_slot_is_left_empty() -> None:
    """A lane that was parked and forgotten would never run; a count that slips lets too many."""
    source = random.Random(4)
    for _ in range(8):
        limits = Limits(
            source.randint(1, 8),
            source.randint(1, 5),
            source.randint(0, 3),
            1,
            source.randint(0, 2),
        )
        queue, waiting, running = JobQueue(limits), dict[str, Place](), dict[str, Place]()
        for number in range(200):
            match source.randrange(4):
                case 0 | 1:
                    one = place(
                        f"j{number}", source.choice("abc"), source.randrange(10**6),
                        source.choice(list(Priority)), repository=source.choice(["", "r", "s"]),
                        agent=source.choice(["", "x", "y"]), key=source.choice(["", "k"]),
                    )  # fmt: skip
                    waiting[one.job_id] = one
                    queue.add(one)
                case 2 if waiting:
                    gone = source.choice(list(waiting))
                    del waiting[gone]
                    queue.remove(gone)
                case _ if running:
                    gone = source.choice(list(running))
                    del running[gone]
                    queue.end(gone)
            for chosen in iter(queue.next, None):
                assert all(not same_limits(chosen, other) or chosen < other
                           for other in waiting.values() if other is not chosen)  # fmt: skip
                running[chosen.job_id] = waiting.pop(chosen.job_id)
                queue.start(chosen)
                assert within(limits, running)
            for one in waiting.values():
                assert not within(limits, {**running, one.job_id: one}), one
        assert len(queue) == len(waiting) and queue.running == len(running)


def same_limits(one: Place, other: Place) -> bool:
    return one[2:] == other[2:]


def within(limits: Limits, running: dict[str, Place]) -> bool:
    """Whether so many may run at once; counted anew."""
    places = running.values()

    def most(which: list[tuple[str, str]]) -> int:
        return max(Counter(one for one in which if one[1]).values(), default=0)

    found = [
        (limits.total, len(places)),
        (limits.organization, most([("", one.organization) for one in places])),
        (limits.repository, most([(one.organization, one.repository) for one in places])),
        (limits.agent, most([(one.organization, one.agent) for one in places])),
        (limits.key, most([(one.organization, one.key) for one in places])),
    ]
    return all(not limit or count <= limit for limit, count in found)


# Fairness


@dataclass(frozen=True)
class Arrival:
    at_ms: float
    took_ms: float
    organization: str


def bursts(source: random.Random, organization: str, of: int, every_ms: int) -> Iterator[Arrival]:
    """40 times so many jobs at once, each of about a second."""
    for number in range(40):
        for _ in range(of):
            yield Arrival(number * every_ms, source.expovariate(1 / 1_000), organization)


def waits(coming: list[Arrival], limits: Limits, of: str) -> list[float]:
    """How long each job of one organization was queued, in simulated milliseconds."""
    queue, found = JobQueue(limits), []
    coming = sorted(coming, key=lambda one: one.at_ms)
    ends: list[tuple[float, str]] = []
    at, left = 0, sum(one.organization == of for one in coming)
    while left:
        if at < len(coming) and (not ends or coming[at].at_ms <= ends[0][0]):
            now_ms = coming[at].at_ms
            queue.add(place(f"{at}", coming[at].organization, round(now_ms), Priority.NORMAL))
            at += 1
        else:
            now_ms, ended = heapq.heappop(ends)
            queue.end(ended)
        while (one := queue.next()) is not None:
            queue.start(one)
            job = coming[int(one.job_id)]
            heapq.heappush(ends, (now_ms + job.took_ms, one.job_id))
            if job.organization == of:
                found.append(now_ms - job.at_ms)
                left -= 1
    return found


@pytest.mark.parametrize(("of", "every_ms"), [(20, 15_000), (50, 40_000), (100, 80_000)])
def test_a_backlog_of_10_000_at_most_doubles_the_waits_of_another(of, every_ms) -> None:
    """One organization's backlog would be everybody's."""
    quiet = list(bursts(random.Random(of), "quiet", of, every_ms))
    flood = [Arrival(0, one.took_ms, "flood") for one in bursts(random.Random(1), "", 250, 1)]
    assert len(flood) == 10_000

    def p95(coming: list[Arrival]) -> float:
        found = sorted(waits(coming, Limits(), "quiet"))
        return found[int(0.95 * len(found))]

    assert p95(quiet + flood) <= 2 * p95(quiet)


def test_accounts_of_those_who_left_are_bounded() -> None:
    """Each organization that ever had a job would be kept in memory."""
    queue = JobQueue(WIDE)
    for number in range(LEFT_MAX + 50):
        queue.add(place("job", f"o{number}", 0, Priority.NORMAL))
        assert queue.next() is not None
    assert len(queue._left) == LEFT_MAX


@pytest.mark.parametrize("held", [True, False])
def test_jobs_that_left_the_queue_are_forgotten(held: bool) -> None:
    """What is cancelled of a held agent would be in memory for as long as the hold lasts."""
    queue = JobQueue(Limits(1, 1))
    first = place("first", "a", 0, Priority.NORMAL, agent="code:one")
    last = place("last", "a", 9_999, Priority.NORMAL, agent="code:one")
    queue.add(first)
    assert queue.next() == first
    queue.start(first)
    if held:
        queue.hold("a", "code:one")
    queue.add(last)
    assert queue.next() is None
    for number in range(10_000):
        queue.add(place(f"j{number}", "a", number, Priority.NORMAL, agent="code:one"))
        assert queue.next() is None
        assert queue.remove(f"j{number}")
    [lane] = queue._tenants["a"].lanes.values()
    assert len(lane.heap) <= 2 * GONE_MAX
    queue.end("first")
    queue.let_go("a", "code:one")
    assert queue.next() == last
    assert queue.next() is None


def test_a_held_agent_gets_no_job_until_it_is_let_go() -> None:
    """An agent that keeps failing would go on failing; or never work again."""
    queue = queued(JobQueue(Limits(9, 9)), *many("a", 2, agent="code:one"), *many("b", 1))
    queue.hold("a", "code:one")
    assert started(queue) == ["b0"]
    queue.hold("a", "code:one")
    queue.let_go("a", "code:one")
    assert started(queue) == ["a0"]
    queue.hold("a", "code:one")
    queue.end("a0")
    assert started(queue) == []
    queue.let_go("a", "code:one")
    assert started(queue) == ["a1"]
