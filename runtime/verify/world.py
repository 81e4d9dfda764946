"""The simulated deployment: a store, hosts, a scheduler, clients, and who starts them again.

Everything in it that is Troupe's is the class that production uses.  The
world plays what Ray and the operating system do: it starts processes, and
starts those anew that have ended.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from runtime.errors import StoreUnavailableError, UndoneError
from runtime.hosting.host import Host, HostSettings
from runtime.ids import HOME, Ids
from runtime.jobs.seat import FencedError
from runtime.kinds import Kinds
from runtime.message import Message
from runtime.patience import patiently
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.contract import Feed, Store
from runtime.store.memory import MemoryStore
from runtime.store.sqlite import SqliteStore
from runtime.verify.driver import Driver
from runtime.verify.history import History, Tailed
from runtime.verify.loop import LoopClock
from runtime.verify.network import CALM, Faults, Network
from runtime.verify.outside import Outside
from runtime.verify.planning import Planning
from runtime.verify.process import Process, task_factory
from runtime.verify.workload import factories

RESTART_S: Final = 1.0
"""After which a process that ended by itself is started again."""
GRACE_S: Final = 5.0
"""What dead processes had sent has arrived by then."""
SETTLE_FACTS_MAX: Final = 10_000
"""So much happens in peace only if something goes round for ever; usual are five hundred."""


@dataclass(frozen=True)
class Plan:
    """The shape of one run."""

    duration_s: float = 180.0
    """Virtual seconds of trouble."""
    settle_s: float = 400.0
    """Virtual seconds after the trouble within which everything must have come to its end."""
    hosts: int = 3
    organizations: tuple[str, ...] = (HOME, "acme", "beta")
    """The first is the one that may pause the scheduler."""
    drivers: int = 2
    """Clients an organization."""
    pause_s: float = 1.5
    """Mean between two acts of a client."""
    planned: float = 0.5
    """Share of the seeds that have schedules: who writes all the time notices more by itself."""
    plan_s: float = 4.0
    """Mean between two things that are asked of an organization's schedules."""
    trouble_s: float = 2.2
    """Mean between two troubles; 0: none."""
    faults: Faults = field(default_factory=Faults)
    limits: Limits = field(default_factory=lambda: Limits(4, 3))
    host: HostSettings = field(default_factory=lambda: HostSettings(lease_s=3.0, idle_s=12.0))


class World:
    """Create it inside a running virtual loop."""

    def __init__(
        self, seed: str, plan: Plan, store: Store | None = None, clock: LoopClock | None = None
    ) -> None:
        """
        Args:
            store: default: one in memory.
            clock: the store's.
        """
        self.seed = seed
        self.plan = plan
        self.loop = asyncio.get_running_loop()
        self.loop.set_task_factory(task_factory)
        self.loop.set_exception_handler(self._unhandled)
        self.random = random.Random(f"{seed}/world")  # noqa: S311 - it must repeat
        self.store_clock = clock or LoopClock(self.loop)
        true_time = LoopClock(self.loop)
        self.history = History(true_time.now_ms)
        self.store = store or MemoryStore(self.store_clock, self.random.randbytes)
        self.network = Network(self.store, self.history, self.store_clock, seed, plan.faults)
        self.outside = Outside(self.history)
        self.processes: list[Process] = []
        self.hosts: dict[str, tuple[Process, Host]] = {}
        """By the name of the host: the process that has it now."""
        self.schedulers: list[Process] = []
        self.drivers: list[Driver] = []
        self.planners: list[Planning] = []
        self.unhandled: list[str] = []
        """Errors nobody awaited."""
        self._numbers: Counter[str] = Counter()
        self.history.add("world", "info", "limits", value=asdict(plan.limits))
        if isinstance(self.store, MemoryStore):
            self.history.add("world", "info", "incarnation", key=self.store.incarnation)

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(f"{context['message']}: {context.get('exception')!r}")

    # Processes

    def process(self, name: str) -> Process:
        """A new process; its clock is a little wrong."""
        self._numbers[name] += 1
        offset_ms = self.random.randint(-400, 400) if self.plan.trouble_s else 0
        process = Process(f"{name}#{self._numbers[name]}", self.seed, offset_ms)
        self.processes.append(process)
        return process

    def start_host(self, name: str) -> None:
        process = self.process(name)
        store = self.network.connect(process)
        host = Host(
            name,
            store,
            Kinds(factories(self.outside, process.name), store),
            process.clock,
            Ids(process.clock, process.random.randbytes),
            process.random.random,
            self.plan.host,
        )
        self.hosts[name] = (process, host)
        self._keep(process, _run_host(host), lambda: self.start_host(name))

    def start_scheduler(self) -> None:
        process = self.process("scheduler")
        if isinstance(self.store, SqliteStore):  # as the embedded one has it
            store = self.network.beside(process, self.store)
        else:
            store = self.network.connect(process)
        scheduler = Scheduler(
            store,
            process.clock,
            Ids(process.clock, process.random.randbytes),
            process.random.random,
            self.plan.limits,
        )
        self.schedulers.append(process)
        self._keep(process, scheduler.run(), self._scheduler_again)

    def _scheduler_again(self) -> None:
        if not any(process.alive for process in self.schedulers):
            self.start_scheduler()

    def _keep(
        self, process: Process, work: Coroutine[Any, Any, None], again: Callable[[], None]
    ) -> None:
        """Run a process; when it ends by itself, start another in its place."""

        def ended(task: asyncio.Task[None]) -> None:
            if not process.alive or task.cancelled():
                return
            error = task.exception()
            fenced = isinstance(error, FencedError | UndoneError)
            self.history.add(process.name, "info", "exit", key=process.name, value=repr(error))
            if error is not None and not fenced:
                self.unhandled.append(f"{process.name} ended: {error!r}")
            process.kill()
            self.network.later(RESTART_S, again)

        process.spawn(work).add_done_callback(ended)

    # Clients

    def start_clients(self) -> list[asyncio.Task[None]]:
        """Drivers, planners and subscribers; the tasks of the first two."""
        tasks = []
        organizations = self.plan.organizations
        planned = random.Random(f"{self.seed}/plans").random() < self.plan.planned  # noqa: S311
        for organization in organizations:
            others = [other for other in organizations if other != organization]
            for _ in range(self.plan.drivers):
                process = self.process(f"client-{organization}")
                store = self.network.connect(process)
                driver = Driver(organization, others, process, store, self.history, self.ask_host)
                self.drivers.append(driver)
                tasks.append(process.spawn(driver.run(self.plan.pause_s)))
            if planned:
                tasks.append(self._plan(organization))
            self._subscribe(organization)
        self._subscribe(None)
        return tasks

    def _plan(self, organization: str) -> asyncio.Task[None]:
        process = self.process(f"planner-{organization}")
        store = self.network.connect(process)
        planner = Planning(organization, process, store, self.history, self.ask_host)
        self.planners.append(planner)
        return process.spawn(planner.run(self.plan.plan_s))

    async def ask_host(
        self, organization: str, message: Message, where: str, wait_s: float
    ) -> bytes:
        """Ask through some host, as a call to its Ray actor does.

        Raises:
            StoreUnavailableError: no answer in time; whether it was accepted is unknown.
        """
        process, host = self.random.choice(list(self.hosts.values()))
        asking = process.spawn(host.ask(organization, message.sender, message, where))
        done, _ = await asyncio.wait((asking,), timeout=wait_s)
        if not done:
            raise StoreUnavailableError(f"{process.name} does not answer")
        return asking.result()

    def _subscribe(self, organization: str | None) -> None:
        process = self.process(f"subscriber-{organization or 'all'}")
        process.spawn(self._follow(process, self.network.connect(process), organization))

    async def _follow(self, process: Process, store: Store, organization: str | None) -> None:
        """Read the feed, now and then as a client that comes back with its old cursor."""
        after, incarnation = 0, ""
        while True:
            asked_at = len(self.history.facts)
            feed: Feed = await patiently(
                store.tail, after, 100, 10.0, organization, incarnation or None
            )
            now = (await patiently(store.health)).incarnation
            cursors = tuple(entry.cursor for entry in feed.entries)
            tailed = Tailed(after, incarnation, cursors, feed.cursor, feed.reset, asked_at)
            self.history.add(
                process.name, "ok", "tail", org=organization or "", key=process.name, value=tailed
            )
            after = feed.cursor
            if feed.reset or not incarnation:
                incarnation = now
            await asyncio.sleep(process.random.expovariate(1 / 3.0))

    # Peace

    def calm(self) -> None:
        """No faults from here on."""
        self.network.faults = CALM
        for line in self.network.lines.values():
            line.cut, line.mute = False, frozenset()
        for process in self.processes:
            process.thaw()
        self.history.add("nemesis", "info", "calm")

    async def settle(self, tasks: list[asyncio.Task[None]]) -> None:
        """Let everything that was accepted come to its end."""
        deadline_s = self.loop.time() + self.plan.settle_s
        for driver in self.drivers:
            driver.stopping = True
        for planner in self.planners:
            planner.stopping = True
        await asyncio.wait(tasks, timeout=self.plan.settle_s)
        first = self.drivers[:: self.plan.drivers]
        await asyncio.wait(
            [asyncio.ensure_future(self._settled(first, deadline_s))], timeout=self.plan.settle_s
        )

    async def _settled(self, drivers: list[Driver], deadline_s: float) -> None:
        await drivers[0].schedule("scheduler.resume")
        facts_max = len(self.history.facts) + SETTLE_FACTS_MAX
        while self.loop.time() < deadline_s and len(self.history.facts) < facts_max:
            plans = sum([await planner.settle() for planner in self.planners])
            jobs = [job for driver in drivers for job in await driver.settle()]
            if not plans and not jobs and not await self.pending():
                self.history.add("world", "ok", "drained")
                return
            await asyncio.sleep(2.0)

    async def pending(self) -> int:
        """How many agents have messages waiting."""
        addresses = {
            send.recipient
            for fact in self.history.facts
            if fact.f == "commit" and fact.type == "ok"
            for send in fact.value.commit.sends
        }
        return sum([len(await self.store.inbox(one, 0, 1)) for one in sorted(addresses)])

    async def stop(self) -> None:
        """Every process dies; what they had sent arrives or does not."""
        for process in self.processes:
            process.kill()
        await asyncio.sleep(GRACE_S)

    def end(self) -> None:
        """Throw everything away."""
        for process in self.processes:
            process.bury()


async def _run_host(host: Host) -> None:
    await host.start()
    await host.watch()
