"""One chaos run: a deployment of its own, a load, strikes, calm, and the verdict.

Everything is in a folder that is removed afterwards (kept when something was
found), on free ports, with its own Ray, store and, for Redis, redis-server.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtime.clock import SystemClock
from runtime.cluster import ClusterSettings, Running, down, local_store, up
from runtime.cluster.processes import end_all
from runtime.store.contract import Store
from runtime.store.redis import RedisStore
from runtime.store.sqlite import SqliteStore
from runtime.verify.chaos import target
from runtime.verify.chaos.aftermath import Aftermath, violations
from runtime.verify.chaos.load import Load, Promises
from runtime.verify.chaos.outside import Outside
from runtime.verify.chaos.reading import is_settled, read
from runtime.verify.chaos.redis import RedisProcess
from runtime.verify.chaos.strikes import Strike, Striker
from runtime.verify.history import Violation
from runtime.verify.report import Outcome

HOSTS: Final = 3
CLIENTS: Final = 6
JOBS_AT_ONCE: Final = 20
PAUSE_S: Final = 0.4
"""Mean between two requests of a client."""
CALM_S: Final = 180.0
"""How long everything may take to come to its end when nothing is struck any more."""
SAY_S: Final = 10.0
SHOWN_MAX: Final = 10
FLOORS: Final = {"strikes": 3, "jobs": 20, "messages": 100, "calls": 50}
"""A minute of a run must have exercised at least this, or it shows nothing."""
SQLITE: Final = ("host", "scheduler", "registry", "store", "replica")
REDIS: Final = ("host", "scheduler", "registry", "replica", "redis")
WHOLE: Final = ("raylet", "gcs")
"""Kinds whose death makes the supervisor start the machine's Ray anew."""


@dataclass(frozen=True)
class Plan:
    minutes: float = 1.0
    seed: int = 1
    store: str = "sqlite"
    """`sqlite` or `redis`."""
    whole: bool = True
    """Whether Ray's own processes are struck too."""
    strike_s: float = 3.0
    """Mean between two strikes."""

    @property
    def kinds(self) -> Sequence[str]:
        kinds = REDIS if self.store == "redis" else SQLITE
        return (*kinds, *WHOLE) if self.whole else kinds


def chaos(plan: Plan) -> Outcome:
    """Run it; takes the plan's minutes and two more."""
    root = Path(tempfile.mkdtemp(prefix="troupe-chaos-"))
    outcome = asyncio.run(_Run(plan, root).run())
    if outcome.good:
        shutil.rmtree(root, ignore_errors=True)
    else:
        outcome.details.append(f"what is left is in {root}")
    return outcome


class _Run:
    def __init__(self, plan: Plan, root: Path) -> None:
        self._plan = plan
        self._data = root / "data"
        self._data.mkdir(mode=0o700)
        self._chance = random.Random(plan.seed)  # noqa: S311 - it must repeat
        self._outside = Outside(root / "outside.sock")
        self._redis = RedisProcess(root / "redis") if plan.store == "redis" else None
        restart = {"redis": self._redis.restart} if self._redis else {}
        self._striker = Striker(self._data, self._chance, restart)

    async def run(self) -> Outcome:
        if self._redis:
            self._redis.start()
        await self._outside.start()
        try:
            running = await asyncio.to_thread(self._up)
            promises = await self._storm(running)
            await asyncio.to_thread(down, self._data)
            after = await self._read(promises)
        finally:
            self._striker.wake(everybody=True)
            await asyncio.to_thread(end_all, self._data)
            await self._outside.close()
            if self._redis:
                self._redis.kill()
        return report(self._plan, self._striker.strikes, promises, after)

    def _up(self) -> Running:
        self._say("starting a deployment of its own")
        settings = ClusterSettings(
            data=str(self._data),
            port=_free_port(),
            hosts=HOSTS,
            store=self._redis.url if self._redis else "",
            agents=target.AGENTS,
            application=target.APPLICATION,
            max_concurrent=JOBS_AT_ONCE,
            max_per_organization=JOBS_AT_ONCE,
        )
        unset = ("REDIS_URL", "TROUPE_SETTINGS", "RAY_ADDRESS")
        env = {name: value for name, value in os.environ.items() if name not in unset}
        return up(settings, env={**env, target.OUTSIDE: str(self._outside.path)})

    async def _storm(self, running: Running) -> Promises:
        key = running.key_file.read_text().strip()
        load = Load(running.url, key, random.Random(self._plan.seed))  # noqa: S311 - it must repeat
        working = asyncio.create_task(load.run(CLIENTS, PAUSE_S))
        try:
            await self._strike_for(self._plan.minutes * 60, load.promises)
            self._say("calm: waiting until everything has come to its end")
            async with asyncio.timeout(CALM_S):
                await load.answered()
                load.stop()
                await working
                await self._settled(load.promises.jobs)
        except TimeoutError:
            self._say("it has not come to its end")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await load.close()
        return load.promises

    async def _strike_for(self, seconds: float, promises: Promises) -> None:
        until = time.monotonic() + seconds
        say_at = time.monotonic() + SAY_S
        while time.monotonic() < until:
            await asyncio.sleep(self._chance.expovariate(1 / self._plan.strike_s))
            await asyncio.to_thread(self._striker.strike, self._plan.kinds)
            self._striker.wake()
            if time.monotonic() >= say_at:
                say_at += SAY_S
                self._say(
                    f"{until - time.monotonic():.0f} s left, {len(self._striker.strikes)} strikes, "
                    f"{len(promises.messages)} messages and {len(promises.jobs)} jobs accepted"
                )
        self._striker.wake(everybody=True)

    async def _settled(self, jobs: list[str]) -> None:
        """Return when no message waits and every hired job has ended."""
        while True:
            async with local_store(self._data) as store:
                if await is_settled(store, jobs):
                    return
            await asyncio.sleep(1.0)

    async def _read(self, promises: Promises) -> Aftermath:
        self._say("everything is down; reading what is stored")
        async with self._opened() as store:
            return await read(store, promises, self._outside, target.OPENING)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Store]:
        store: Store
        if self._redis:
            store = RedisStore(self._redis.url)
        else:
            store = await SqliteStore.open(self._data / "troupe.db", SystemClock())
        try:
            yield store
        finally:
            await store.close()

    def _say(self, words: str) -> None:
        sys.stderr.write(f"chaos: {words}\n")
        sys.stderr.flush()


def report(plan: Plan, strikes: Sequence[Strike], promises: Promises, after: Aftermath) -> Outcome:
    """The verdict."""
    found = violations(after)
    calls = sum(len(made) for made in after.calls.values())
    done = {
        "strikes": len(strikes), "jobs": len(promises.jobs),
        "messages": len(promises.messages), "calls": calls,
    }  # fmt: skip
    short = [
        f"{name} {done[name]}, at least {round(floor * plan.minutes)} wanted"
        for name, floor in FLOORS.items()
        if done[name] < floor * plan.minutes
    ]
    resumed = sorted(_resumed(strikes, promises))
    figure: dict[str, Any] = {
        "verification": "chaos", "store": plan.store, "seed": plan.seed, "minutes": plan.minutes,
        **done,
        "struck": dict(Counter(f"{one.kind} {one.how}" for one in strikes)),
        "callsRepeated": calls - len(after.calls),
        "requests": promises.requests, "requestsFailed": promises.failures,
        "resumeMs": {"p50": _percentile(resumed, 0.5), "p95": _percentile(resumed, 0.95)},
        "violations": len(found), "tooLittle": short,
    }  # fmt: skip
    return Outcome(figure, _sentence(figure, found, short), not (found or short), [
        f"{one.rule}: {one.text}" for one in found[:SHOWN_MAX]
    ])  # fmt: skip


def _resumed(strikes: Sequence[Strike], promises: Promises) -> list[int]:
    """Milliseconds from each strike to the first answer to a question asked after it."""
    found = []
    for strike in strikes:
        answers = (answered for asked, answered in promises.probes if asked >= strike.at_ms)
        if (answer := next(answers, None)) is not None:
            found.append(answer - strike.at_ms)
    return found


def _percentile(ordered: Sequence[int], share: float) -> int | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _sentence(figure: dict[str, Any], found: list[Violation], short: list[str]) -> str:
    told = (
        f"{figure['strikes']} strikes in {figure['minutes']:g} min on {figure['store']}, "
        f"{figure['messages']} messages and {figure['jobs']} jobs accepted"
    )
    if found:
        return f"{told}: {len(found)} VIOLATIONS, the first: {found[0].rule}: {found[0].text}."
    if short:
        return f"{told}: nothing is wrong, but too little was done to say so: {'; '.join(short)}."
    p50, p95 = figure["resumeMs"]["p50"], figure["resumeMs"]["p95"]
    return f"{told}, all kept; an agent answered again after {p50} ms (p50), {p95} ms (p95)."


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
