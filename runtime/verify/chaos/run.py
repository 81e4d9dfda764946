"""One chaos run: a deployment of its own, a load, strikes, calm, and the verdict.

Everything is in a folder that is removed afterwards (kept when something was
found), on free ports, with its own Ray of two nodes, store and, for Redis,
redis-server.  The verdict is that of `runtime.verify.invariants` on the history
that `merge` makes of what was noted, seen and stored.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.cluster import ClusterSettings, Running, down, up
from runtime.cluster.port import free_port
from runtime.cluster.processes import end_all
from runtime.cluster.stores import local_client
from runtime.ids import HOME, Ids, split
from runtime.message import Message
from runtime.store.contract import Store
from runtime.store.redis import RedisStore
from runtime.store.sqlite import SqliteStore
from runtime.turn import to_json
from runtime.verify.chaos import scheduled, target
from runtime.verify.chaos.live import Client as Person
from runtime.verify.chaos.live import Live
from runtime.verify.chaos.load import Load, Promises
from runtime.verify.chaos.merge import merge
from runtime.verify.chaos.node import Node
from runtime.verify.chaos.notes import read_notes
from runtime.verify.chaos.outside import OutsideServer
from runtime.verify.chaos.part import Part
from runtime.verify.chaos.plan import Plan
from runtime.verify.chaos.reading import is_settled, marks
from runtime.verify.chaos.redis import RedisProcess
from runtime.verify.chaos.report import report
from runtime.verify.chaos.strikes import Striker
from runtime.verify.chaos.watch import WATCH, folder
from runtime.verify.driver import Driver
from runtime.verify.history import Fact, History
from runtime.verify.outside import Outside
from runtime.verify.reader import read_everything
from runtime.verify.report import Outcome

HOSTS: Final = 4
CLIENTS: Final = 4
ORGANIZATIONS: Final = (HOME, "acme", "beta")
JOBS_AT_ONCE: Final = 20
JOBS_AN_ORGANIZATION: Final = 16
PAUSE_S: Final = 0.4
"""Mean between two requests of a client over HTTP."""
ACT_S: Final = 0.7
"""Mean between two acts of a client at the store; there is one an organization."""
CALM_S: Final = 240.0
"""How long everything may take to come to its end when nothing is struck any more."""
SAY_S: Final = 10.0
WHOLE: Final = ("gcs", "raylet")
"""Kinds whose death makes the supervisor start the machine's Ray anew, in turns."""
WHOLE_EVERY_S: Final = 150.0
WHOLE_FIRST_S: Final = 25.0
WHOLE_WAIT_S: Final = 120.0
"""After every second of them nothing else is struck until an agent answers, or so long."""
BUSY_S: Final = 60.0
"""How long a host that is worth a strike is waited for when the storm has missed all of them."""
BUSY_LOOK_S: Final = 1.0
RUSH_JOBS: Final = 100
"""Hired by each organization while the scheduler is paused; then they take turns: rule I18."""
RUSH_FIRST_S: Final = 8.0
RUSH_EVERY_S: Final = 120.0


def chaos(plan: Plan, part: Part | None = None) -> Outcome:
    """Run it, with a part of another layer; takes the plan's minutes and a few more."""
    root = Path(tempfile.mkdtemp(prefix="troupe-chaos-"))
    outcome = asyncio.run(_Run(plan, root, part).run())
    if outcome.good:
        shutil.rmtree(root, ignore_errors=True)
    else:
        outcome.details.append(f"what is left is in {root}")
    return outcome


class _Run:
    def __init__(self, plan: Plan, root: Path, part: Part | None) -> None:
        self._plan = plan
        self._part = part
        self._data = root / "data"
        self._data.mkdir(mode=0o700)
        (root / "node").mkdir(mode=0o700)
        self._chance = random.Random(plan.seed)  # noqa: S311 - it must repeat
        self._live = Live()
        self._outside = OutsideServer(Outside(self._live), root / "outside.sock")
        self._redis = RedisProcess(root / "redis") if plan.store == "redis" else None
        self._settings = ClusterSettings(
            data=str(self._data),
            port=free_port(),
            hosts=HOSTS,
            store=self._redis.url if self._redis else "",
            agents=part.agents if part else target.AGENTS,
            application=part.application if part else target.APPLICATION,
            max_concurrent=JOBS_AT_ONCE,
            max_per_organization=JOBS_AN_ORGANIZATION,
            watch=WATCH,
        )
        unset = ("REDIS_URL", "RAY_ADDRESS", "TROUPE_", "ANTHROPIC_")  # an operator's own settings
        env = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
        self._env = {**env, target.OUTSIDE: str(self._outside.path)}
        if part:
            self._env |= part.environment(root)
        node_env = {**self._env, "TROUPE_SETTINGS": self._settings.to_json().decode()}
        self._node = Node(self._settings.directory, root / "node", node_env)
        restart = {"redis": self._redis.restart} if self._redis else {}
        self._striker = Striker(
            self._data, self._node.root if plan.whole else None, self._chance, restart,
            part.busy if part else tuple,
        )  # fmt: skip
        self._drivers: list[Driver] = []
        self._calm = asyncio.Event()

    async def run(self) -> Outcome:
        if self._redis:
            self._redis.start()
        await self._outside.start()
        keeping: asyncio.Task[None] | None = None
        try:
            limits = {"total": JOBS_AT_ONCE, "organization": JOBS_AN_ORGANIZATION}
            self._live.add("world", "info", "limits", value=limits)
            if self._part:
                await self._part.begin(self._live, lambda: self._striker.pids("host"))
            self._say("starting a deployment of its own")
            running = await asyncio.to_thread(up, self._settings, env=self._env)
            if self._plan.whole:
                keeping = asyncio.create_task(self._node.keep())
            promises = await self._storm(running)
            if keeping:
                keeping.cancel()
            await asyncio.to_thread(self._node.end)
            await asyncio.to_thread(down, self._data)
            facts = await self._history()
        finally:
            self._striker.wake(everybody=True)
            if keeping:
                keeping.cancel()
            await asyncio.to_thread(self._node.end)
            await asyncio.to_thread(end_all, self._data)
            if self._part:
                await self._part.end()
            await self._outside.close()
            if self._redis:
                self._redis.kill()
        return report(self._plan, self._striker.strikes, promises, facts, self._part)

    # The storm

    async def _storm(self, running: Running) -> Promises:
        key = running.key_file.read_text().strip()
        load = Load(running.url, key, random.Random(self._plan.seed), self._live)  # noqa: S311
        store = local_client(self._settings)
        working = asyncio.gather(load.run(CLIENTS, PAUSE_S), *self._drive(store))
        parting = asyncio.create_task(self._part.work(load.request) if self._part else _nothing())
        planning = asyncio.create_task(scheduled.begin(load.request))
        rushing = asyncio.create_task(self._rush())
        try:
            await self._strike_for(self._plan.minutes * 60, load)
            if self._part:
                await self._strike_busy(self._part)
            self._say("calm: waiting until everything has come to its end")
            self._live.add("nemesis", "info", "calm")
            self._calm.set()
            async with asyncio.timeout(CALM_S):
                if self._part:
                    self._part.stop()
                await asyncio.gather(load.answered(), planning, rushing)
                await scheduled.end(load.request)
                load.stop()
                for driver in self._drivers:
                    driver.stopping = True
                await working
                await self._settled(store, parting)
                self._live.add("world", "ok", "drained")
        except TimeoutError:
            self._say("it has not come to its end")
        finally:
            tasks = (working, planning, rushing, parting)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await load.close()
            await store.close()
        return load.promises

    def _drive(self, store: Store) -> list[Any]:
        """The simulation's clients, one an organization."""
        for organization in ORGANIZATIONS:
            others = [other for other in ORGANIZATIONS if other != organization]
            chance = random.Random(f"{self._plan.seed}/{organization}")  # noqa: S311
            person = Person(f"client-{organization}#1", chance)
            self._drivers.append(
                Driver(organization, others, person, store, self._live, _asking(store))
            )
        return [driver.run(ACT_S) for driver in self._drivers]

    async def _rush(self) -> None:
        """Now and then every organization has more to start than there are slots."""
        await asyncio.sleep(RUSH_FIRST_S)
        while not self._calm.is_set():
            await self._drivers[0].schedule("scheduler.pause")
            await asyncio.gather(*(driver.rush(RUSH_JOBS) for driver in self._drivers))
            await self._drivers[0].schedule("scheduler.resume")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._calm.wait(), RUSH_EVERY_S)

    async def _strike_for(self, seconds: float, load: Load) -> None:
        began = time.monotonic()
        say_at, whole_at = began + SAY_S, began + min(WHOLE_FIRST_S, seconds / 2)
        wholes = 0
        while time.monotonic() < began + seconds:
            await asyncio.sleep(self._chance.expovariate(1 / self._plan.strike_s))
            if self._plan.whole and time.monotonic() >= whole_at:
                whole_at += WHOLE_EVERY_S
                wholes += 1
                await self._strike_whole(WHOLE[wholes % 2], load, wholes % 4 < 2)
            else:
                struck = await asyncio.to_thread(self._striker.strike_any, self._plan.kinds)
                if struck is not None:
                    self._live.add("nemesis", "info", struck.how, key=struck.kind)
            self._striker.wake()
            if time.monotonic() >= say_at:
                say_at += SAY_S
                self._say_how_far(began + seconds - time.monotonic(), load.promises)
        self._striker.wake(everybody=True)

    async def _strike_busy(self, part: Part) -> None:
        """In a short run chance may have missed every host that was worth it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BUSY_S):
                while part.missed():
                    if part.busy():
                        await asyncio.to_thread(self._striker.strike, "host")
                    await asyncio.sleep(BUSY_LOOK_S)
        self._striker.wake(everybody=True)

    async def _strike_whole(self, kind: str, load: Load, wait: bool) -> None:
        struck = await asyncio.to_thread(self._striker.strike, kind)
        if struck is None:
            return
        self._live.add("nemesis", "info", struck.how, key=struck.kind)
        if not wait:
            return
        self._striker.wake(everybody=True)
        try:
            async with asyncio.timeout(WHOLE_WAIT_S):
                await load.answered()
        except TimeoutError:
            self._say(f"nobody has answered for {WHOLE_WAIT_S:.0f} s after {kind} was struck")

    async def _settled(self, store: Store, parting: asyncio.Task[None]) -> None:
        """Return when the part is through, no message waits and every job has ended."""
        await self._drivers[0].schedule("scheduler.resume")
        while True:
            left = [job for driver in self._drivers for job in await driver.settle()]
            if not left and parting.done() and await is_settled(store):
                return parting.result()
            await asyncio.sleep(1.0)

    # The history

    async def _history(self) -> list[Fact]:
        self._say("everything is down; reading what is stored")
        noted = read_notes(folder(self._settings))
        async with self._opened() as store:
            if self._part:
                await self._part.tell(store)
            history = History()
            history.facts = merge(noted, await marks(store), self._live.timed)
            await read_everything(store, history)
            scheduled.tell(history)
        return history.facts

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

    def _say_how_far(self, left_s: float, promises: Promises) -> None:
        self._say(
            f"{left_s:.0f} s left, {len(self._striker.strikes)} strikes, {promises.messages} "
            f"messages and {len(promises.jobs)} jobs accepted over HTTP"
        )

    def _say(self, words: str) -> None:
        sys.stderr.write(f"chaos: {words}\n")
        sys.stderr.flush()


async def _nothing() -> None:
    """The work of no part."""


def _asking(store: Store) -> Any:
    """Asks that the drivers would put to a host, which nobody can reach from outside of Ray."""
    clock = SystemClock()
    ids = Ids(clock)

    async def ask(organization: str, message: Message, where: str, wait_s: float) -> bytes:
        client = Client(store, clock, ids, organization, message.sender.partition(":")[2])
        answer = await client.ask(
            split(where)[1], message.content, message.message_type,
            message_id=message.message_id, wait_s=wait_s,
        )  # fmt: skip
        return to_json(answer)

    return ask
