"""Trouble: kills, cuts, frozen processes, zombies, clocks that step, a second scheduler.

Each strike is drawn from one seeded source and written into the history.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from runtime.store.memory import MemoryStore
from runtime.verify.process import Process
from runtime.verify.world import World

CLOCK_STEP_S_MAX: Final = 20.0
STEPS_MAX: Final = 400
"""Steps of its tasks within which a process dies that is killed between two awaits."""


class Nemesis:
    """Strikes until told to stop."""

    def __init__(self, world: World) -> None:
        self.counts: Counter[str] = Counter()
        self._world = world
        self._random = random.Random(f"{world.seed}/nemesis")  # noqa: S311 - it must repeat
        self._next_host = world.plan.hosts
        self._strikes: dict[str, tuple[int, Callable[[], None]]] = {
            "kill_host": (34, self._kill_host),
            "kill_host_in_work": (12, self._kill_host_in_work),
            "kill_scheduler": (10, self._kill_scheduler),
            "cut": (14, self._cut),
            "blackout": (2, self._blackout),
            "freeze": (8, self._freeze),
            "mute": (8, self._mute),
            "clock_step": (5, self._clock_step),
            "second_scheduler": (3, self._second_scheduler),
            "drain": (3, self._drain),
            "incarnation": (2, self._incarnation),
        }

    async def run(self, seconds: float) -> None:
        """Strike for so long."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        names = list(self._strikes)
        weights = [weight for weight, _ in self._strikes.values()]
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._world.plan.trouble_s))
            if loop.time() >= until_s:
                return
            [chosen] = self._random.choices(names, weights)
            self._strikes[chosen][1]()

    def lose_a_host(self) -> None:
        """The last strike: a machine that never comes back; others must take its agents over."""
        self._lose(self._random.choice(list(self._world.hosts)))

    # Helpers

    def _note(self, kind: str, key: str = "", value: object = None) -> None:
        self.counts[kind] += 1
        self._world.history.add("nemesis", "info", kind, key=key, value=value)

    def _later(self, delay_s: float, call: Callable[..., None], *arguments: object) -> None:
        self._world.network.later(delay_s, call, *arguments)

    def _a_host(self) -> str:
        return self._random.choice(list(self._world.hosts))

    def _a_process(self) -> Process | None:
        """A host or a scheduler that runs."""
        world = self._world
        found = [process for process, _ in world.hosts.values() if process.runs]
        found += [process for process in world.schedulers if process.runs]
        return self._random.choice(found) if found else None

    # Strikes

    def _kill_host(self) -> None:
        name = self._a_host()
        if self._random.random() < 1 / 6:
            self._lose(name)
            return
        self._kill(self._world.hosts[name][0])
        self._later(self._random.uniform(0.05, 4.0), self._restart_host, name)

    def _kill_host_in_work(self) -> None:
        """The process dies between two steps of its tasks, not when the loop is at rest."""
        name = self._a_host()
        process = self._world.hosts[name][0]
        if not process.alive:
            return
        self._note("kill", process.name, "in work")
        process.steps_left = self._random.randint(1, STEPS_MAX)
        self._later(self._random.uniform(2.0, 4.0), self._restart_host, name)

    def _kill(self, process: Process) -> None:
        if process.alive:
            self._note("kill", process.name)
            process.kill()

    def _lose(self, name: str) -> None:
        """The machine is gone; another one, of another name, comes in its place."""
        self._kill(self._world.hosts[name][0])
        del self._world.hosts[name]
        fresh = f"host-{self._next_host}"
        self._next_host += 1
        self._world.start_host(fresh)

    def _restart_host(self, name: str) -> None:
        if name not in self._world.hosts:
            return
        self._world.hosts[name][0].kill()
        self._world.start_host(name)

    def _kill_scheduler(self) -> None:
        for process in self._world.schedulers:
            self._kill(process)
        self._later(self._random.uniform(0.05, 4.0), self._restart_scheduler)

    def _restart_scheduler(self) -> None:
        if not any(process.alive for process in self._world.schedulers):
            self._world.start_scheduler()

    def _second_scheduler(self) -> None:
        self._note("second_scheduler")
        self._world.start_scheduler()

    def _cut(self) -> None:
        process = self._a_process()
        if process is None:
            return
        seconds = self._random.choice((0.2, 1.0, 4.0, 12.0)) * self._random.uniform(0.5, 1.5)
        self._note("partition", process.name, round(seconds, 3))
        self._set_cut(process.name, True)
        self._later(seconds, self._set_cut, process.name, False)

    def _set_cut(self, name: str, cut: bool) -> None:
        line = self._world.network.lines.get(name)
        if line is not None:
            line.cut = cut

    def _blackout(self) -> None:
        """Nobody reaches the store."""
        seconds = self._random.uniform(0.2, 5.0)
        self._note("blackout", "", round(seconds, 3))
        for name, line in self._world.network.lines.items():
            line.cut = True
            self._later(seconds, self._set_cut, name, False)

    def _freeze(self) -> None:
        """SIGSTOP, and after a while SIGCONT: it goes on as if nothing had been."""
        process = self._a_process()
        if process is None:
            return
        seconds = self._random.uniform(0.5, 12.0)
        self._note("freeze", process.name, round(seconds, 3))
        process.freeze()
        self._later(seconds, process.thaw)

    def _mute(self) -> None:
        """A zombie: its lease lapses and its agents move, and it keeps on writing."""
        process = self._random.choice([one for one, _ in self._world.hosts.values()])
        seconds = self._random.uniform(4.0, 12.0)
        self._note("mute", process.name, round(seconds, 3))
        self._set_mute(process.name, frozenset({"renew", "register"}))
        self._later(seconds, self._set_mute, process.name, frozenset())

    def _set_mute(self, name: str, methods: frozenset[str]) -> None:
        self._world.network.lines[name].mute = methods

    def _clock_step(self) -> None:
        world = self._world
        seconds = round(self._random.uniform(-CLOCK_STEP_S_MAX, CLOCK_STEP_S_MAX), 3)
        process = self._a_process()
        if process is None or self._random.random() < 1 / 4:
            self._note("clock_step", "store", seconds)
            world.store_clock.step(seconds)
        else:
            self._note("clock_step", process.name, seconds)
            process.clock.step(seconds)

    def _drain(self) -> None:
        """An orderly end, as at a scale-down."""
        name = self._a_host()
        process, host = self._world.hosts[name]
        if not process.runs:
            return
        self._note("drain", process.name)
        process.spawn(host.drain())
        self._later(self._random.uniform(3.0, 6.0), self._restart_host, name)

    def _incarnation(self) -> None:
        """The store may have lost accepted data, as after a reboot; here it has not."""
        store = self._world.store
        if isinstance(store, MemoryStore):
            store.forget_owners()
            self._note("incarnation", store.incarnation)
