"""One seed, many seeds: run the deployment under trouble, judge its history, count what happened.

A run that exercised too little proves nothing, so a report also fails when the
counts are below the floors: what each seed must bring on average.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

from runtime.clock import Clock
from runtime.ids import SCHEDULER
from runtime.store.contract import Store
from runtime.store.sqlite import SqliteStore
from runtime.verify import network
from runtime.verify.chaos.scheduled import tell
from runtime.verify.history import Fact, Violation, neighbours
from runtime.verify.invariants import INVARIANTS, unjudged, violations
from runtime.verify.invariants.jobs import starts
from runtime.verify.loop import LoopClock, run
from runtime.verify.nemesis import Nemesis
from runtime.verify.reader import read_everything
from runtime.verify.world import Plan, World

OpenStore = Callable[[Clock], Awaitable[Store]]
"""Opens another store than one in memory, on this clock."""
TROUBLE: Final = Plan()
CALM: Final = Plan(trouble_s=0.0, faults=network.CALM)
"""The same work without any trouble: checkers that cry wolf would show here."""

FLOORS: Final = {
    "kills": 18.0, "partitions": 4.0, "freezes": 2.0, "zombies": 2.0, "clockSteps": 0.8,
    "secondSchedulers": 0.3, "drains": 0.3, "blackouts": 0.2, "incarnations": 0.1,
    "callsLostBefore": 6.0, "callsLostAfter": 8.0, "callsTwice": 3.0, "pollsDeaf": 8.0,
    "callsSlow": 12.0, "callsCut": 20.0,
    "staleCommitsRefused": 5.0, "begunNotRecorded": 3.0, "outsideDuplicates": 2.0,
    "turns": 250.0, "jobs": 15.0, "deadLetters": 2.0, "reminders": 4.0, "clientOk": 250.0,
    "dueTimes": 0.9,
}  # fmt: skip
"""What a seed brings at least, on average; about half of what it usually does.

Of due times less: every second seed has none.
"""
FAULTS: Final = {
    "partition": "partitions", "freeze": "freezes", "mute": "zombies",
    "clock_step": "clockSteps", "second_scheduler": "secondSchedulers", "drain": "drains",
    "blackout": "blackouts", "incarnation": "incarnations", "kill": "kills",
    "lost_before": "callsLostBefore", "lost_after": "callsLostAfter", "twice": "callsTwice",
    "deaf": "pollsDeaf", "slow": "callsSlow", "cut": "callsCut",
}  # fmt: skip
"""Names of strikes and of faulty calls in the figure."""


@dataclass
class Run:
    """What one seed came to."""

    seed: int
    digest: str
    counts: Counter[str]
    violations: list[Violation]
    facts: list[Fact]
    unjudged: frozenset[str] = frozenset()
    """Rules that had nothing to judge."""

    def explain(self) -> list[str]:
        """The first violation with the facts around it, as lines."""
        first = self.violations[0]
        lines = [f"seed {self.seed}: {first.rule}: {first.text}"]
        return lines + neighbours(self.facts, first.i) if self.facts else lines


@dataclass
class Report:
    """What a range of seeds came to."""

    first: int
    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Run] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    unjudged: set[str] = field(default_factory=lambda: set(INVARIANTS))
    """Rules that had nothing to judge in any seed."""
    virtual_s: float = 0.0
    took_s: float = 0.0
    cpu_s: float = 0.0
    floors: Mapping[str, float] = field(default_factory=lambda: FLOORS)

    def add(self, one: Run, virtual_s: float) -> None:
        self.seeds += 1
        self.counts += one.counts
        self.digests.append(one.digest)
        self.unjudged &= one.unjudged
        self.virtual_s += virtual_s
        if one.violations:
            self.failed.append(one)

    def too_little(self) -> list[str]:
        """What happened less often than the floors ask for."""
        return [
            f"{name} {self.counts[name]} of {int(rate * self.seeds)}"
            for name, rate in self.floors.items()
            if self.counts[name] < int(rate * self.seeds)
        ]

    @property
    def silent(self) -> list[str]:
        """The rules that no seed has judged."""
        return [rule for rule in INVARIANTS if rule in self.unjudged]

    @property
    def good(self) -> bool:
        return not self.failed and not self.too_little()

    def figure(self) -> dict[str, Any]:
        """Everything as one JSON object."""
        names = [*FLOORS, "messages", "commits", "calls"]
        return {
            "seeds": self.seeds,
            "first": self.first,
            "virtualHours": round(self.virtual_s / 3600, 2),
            **{name: self.counts[name] for name in dict.fromkeys(names)},
            "rules": len(INVARIANTS),
            "rulesNotJudged": self.silent,
            "violations": sum(len(one.violations) for one in self.failed),
            "failedSeeds": [one.seed for one in self.failed],
            "tooLittle": self.too_little(),
            "historyHash": hashlib.sha256(" ".join(self.digests).encode()).hexdigest()[:32],
            "seconds": round(self.took_s, 1),
            "cpuSeconds": round(self.cpu_s, 1),
        }

    def sentence(self) -> str:
        """The figure in words."""
        if self.failed:
            one = self.failed[0]
            return f"{len(self.failed)} of {self.seeds} seeds broke a rule, seed {one.seed} first."
        if self.too_little():
            return f"No rule was broken, but too little happened: {', '.join(self.too_little())}."
        counts = self.counts
        return (
            f"{self.seeds} seeds, {self.virtual_s / 3600:.1f} virtual hours: "
            f"{counts['turns']} turns and {counts['jobs']} job runs under {counts['kills']} kills "
            f"and {counts['partitions']} partitions, {counts['staleCommitsRefused']} stale commits "
            f"refused; {len(INVARIANTS) - len(self.unjudged)} of {len(INVARIANTS)} rules judged, "
            f"none broken (not judged: {', '.join(self.silent)})."
        )


def run_seed(
    seed: int,
    plan: Plan = TROUBLE,
    open_store: OpenStore | None = None,
) -> tuple[Run, float]:
    """Run one seed; what it came to, and how long it took in virtual seconds."""
    with silenced():
        return run(_simulated(seed, plan, open_store))


@contextmanager
def silenced() -> Iterator[None]:
    """No log: what is provoked here is no news."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


async def _simulated(seed: int, plan: Plan, open_store: OpenStore | None) -> tuple[Run, float]:
    clock = LoopClock(asyncio.get_running_loop())
    store = await open_store(clock) if open_store is not None else None
    world = World(str(seed), plan, store, clock)
    try:
        strikes = await _live(world)
        await world.stop()
        await read_everything(world.store, world.history)
        tell(world.history)
        await world.store.close()
    finally:
        world.end()
    gc.collect()  # errors that nobody looked at are found when their tasks go
    facts = world.history.facts
    found = violations(facts)
    found += [Violation("unhandled", len(facts) - 1, text) for text in world.unhandled]
    counts = count(facts) + Counter({FAULTS[name]: n for name, n in strikes.items()})
    counts += Counter({FAULTS[name]: n for name, n in world.network.counts.items()})
    counts["outsideDuplicates"] = world.outside.duplicates
    digest = world.history.digest()
    kept = facts if found else []
    silent = frozenset(unjudged(facts))
    return Run(seed, digest, counts, found, kept, silent), world.loop.time()


async def _live(world: World) -> Counter[str]:
    """The trouble, then peace until everything has come to its end; how often each struck."""
    plan = world.plan
    for number in range(plan.hosts):
        world.start_host(f"host-{number}")
    world.start_scheduler()
    tasks = world.start_clients()
    nemesis = Nemesis(world)
    if plan.trouble_s:
        await nemesis.run(plan.duration_s)
        nemesis.lose_a_host()
    else:
        await asyncio.sleep(plan.duration_s)
    world.calm()
    await world.settle(tasks)
    return nemesis.counts


def count(facts: Sequence[Fact]) -> Counter[str]:
    """What a history is made of."""
    counts: Counter[str] = Counter()
    running: dict[str, str] = {}
    for fact in facts:
        if fact.f == "commit":
            counts += _count_commit(fact)
        elif fact.f == "call":
            counts["calls"] += fact.type == "invoke"
            running[fact.value.run] = fact.key if fact.type == "invoke" else ""
        elif fact.type == "ok" and fact.proc.startswith("client"):
            counts["clientOk"] += 1
        elif fact.f == "due":
            counts["dueTimes"] += len(fact.value)
        elif fact.f == "final.agent":
            messages = fact.value.messages
            counts["messages"] += len(messages)
            counts["reminders"] += sum(one.message_id.startswith("reminder:") for one in messages)
            counts["deadLetters"] += sum(one.status == "dead" for one in messages)
    counts["begunNotRecorded"] = sum(bool(key) for key in running.values())
    return counts


def _count_commit(fact: Fact) -> Counter[str]:
    if fact.type == "fail":
        return Counter({"staleCommitsRefused": int(fact.key.startswith("stale_"))})
    commit = fact.value.commit
    is_turn = fact.agent not in ("", SCHEDULER) and commit.expected_version is not None
    return Counter(
        {
            "commits": 1,
            "turns": int(is_turn and bool(commit.acks)),
            "jobs": len(list(starts(commit))),
        }
    )


def run_seed_on_sqlite(seed: int, plan: Plan = TROUBLE) -> tuple[Run, float]:
    """The same on the SQLite store."""
    with TemporaryDirectory() as directory:

        async def open_store(clock: Clock) -> Store:
            path, drawn = Path(directory) / "store.db", Random(seed).randbytes  # noqa: S311
            return await SqliteStore.open(path, clock, boot_id="one", random_bytes=drawn)

        return run_seed(seed, plan, open_store)


def simulate(
    first: int = 1,
    seeds: int = 200,
    plan: Plan = TROUBLE,
    run_one: Callable[[int, Plan], tuple[Run, float]] = run_seed,
) -> Report:
    """Run a range of seeds; the first that breaks a rule ends it."""
    impossible = set() if run_one is run_seed else {"incarnations"}
    floors = {name: rate for name, rate in FLOORS.items() if name not in impossible}
    if not plan.trouble_s:
        floors = {name: FLOORS[name] for name in ("turns", "jobs", "clientOk")}
    report = Report(first, floors=floors)
    began, cpu_before_s = time.monotonic(), time.process_time()
    for seed in range(first, first + seeds):
        one, virtual_s = run_one(seed, plan)
        report.add(one, virtual_s)
        if one.violations:
            break
    report.took_s = time.monotonic() - began
    report.cpu_s = time.process_time() - cpu_before_s
    return report
