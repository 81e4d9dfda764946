"""The way to the store, with everything that can go wrong on it.

`faulty` is a store in, a store out: what comes out is production's `CodedStore`
over a transport that delays, loses, repeats and cuts.  A call whose answer is
lost has been done; one that is lost before has not; the caller sees the same
StoreUnavailableError.  What a killed process had sent may still arrive.

Everything is drawn from one seeded source, so a run can be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, Literal

from runtime.clock import Clock
from runtime.errors import StoreUnavailableError
from runtime.store.contract import Store
from runtime.store.remote import CodedStore
from runtime.store.sqlite import SqliteStore
from runtime.store.wire import METHODS, answer, encode
from runtime.verify.history import History
from runtime.verify.process import Process
from runtime.verify.tap import Tap

Fault = Literal["none", "lost_before", "lost_after", "twice", "slow", "deaf"]
Boundary = Callable[[Process, str], None]
"""Told that a process is at a boundary, `before commit` or `after claim`; may kill it there."""

WRITES: Final = frozenset({"commit", "claim", "register", "release"})
"""Calls that change something; boundaries lie around them."""
CONNECT_S: Final = 2.0
"""A cut is noticed within this: what a transport waits for a connection."""


@dataclass(frozen=True)
class Faults:
    """How often a call goes wrong, as a chance in 1, and how long things take."""

    lost_before: float = 0.004
    """The call never reaches the store."""
    lost_after: float = 0.006
    """It is done and its answer lost."""
    twice: float = 0.004
    """A call that may be repeated is done twice; the first answer arrives, late."""
    slow: float = 0.01
    deaf: float = 0.03
    """No wake-up reaches a poll: it ends with its own patience."""
    latency_s: float = 0.001
    """Mean, each way."""
    slow_s_max: float = 4.0

    def draw(self, source: random.Random, method: str) -> Fault:
        at = source.random()
        for name in ("lost_before", "lost_after", "slow"):
            at -= getattr(self, name)
            if at < 0:
                return name
        if METHODS[method].repeatable and (at := at - self.twice) < 0:
            return "twice"
        return "deaf" if method == "poll" and at < self.deaf else "none"


USUAL: Final = Faults()
CALM: Final = Faults(0.0, 0.0, 0.0, 0.0, 0.0)
"""Latency only."""


class Network:
    """All lines to one store."""

    def __init__(
        self, store: Store, history: History, store_clock: Clock, seed: str, faults: Faults
    ) -> None:
        self.store = store
        self.history = history
        self.store_clock = store_clock
        self.random = random.Random(f"{seed}/network")  # noqa: S311 - it must repeat
        self.faults = faults
        self.counts: Counter[str] = Counter()
        """Faults that met a call, by kind."""
        self.lines: dict[str, Line] = {}
        """By process; one beside the store has none."""
        self.boundary: Boundary | None = None
        self._loop = asyncio.get_running_loop()
        self._context = Context()
        """Of no process: what happens on the way outlives who asked for it."""

    def connect(self, process: Process) -> Store:
        """The store, as this process reaches it."""
        line = Line(self, process)
        self.lines[process.name] = line
        process.on_death.append(line.hang_up)
        return CodedStore(line)

    def beside(self, process: Process, store: SqliteStore) -> Store:
        """The store from inside its process, where nothing is on the way."""
        return Tap(store.inside(), self.history, self.store_clock, process.name)

    def later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_later(delay_s, call, *arguments, context=self._context)

    def latency_s(self) -> float:
        return self.random.expovariate(1 / self.faults.latency_s)


@dataclass
class _Request:
    method: str
    payload: bytes
    wait_s: float
    fault: Fault
    answered: asyncio.Future[bytes]


class Line:
    """One process's way to the store; a `Transport`."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._tap = Tap(network.store, network.history, network.store_clock, process.name)
        self._parked: dict[asyncio.Task[None], None] = {}
        self.cut = False
        self.mute: frozenset[str] = frozenset()
        """Methods whose calls do not come through."""

    async def call(self, method: str, payload: bytes, wait_s: float) -> bytes:
        network = self._network
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        fault = network.faults.draw(network.random, method)
        request = _Request(method, payload, wait_s, fault, answered)
        network.later(self._delay_s(fault), self._arrive, request)
        return await answered

    async def close(self) -> None:
        """Nothing: a line is as long-lived as its process."""

    def hang_up(self) -> None:
        """The process is gone; what waits at the store for it waits no more."""
        for task in self._parked:
            task.cancel()

    def _delay_s(self, fault: Fault) -> float:
        if fault == "slow":
            return self._network.random.uniform(0.1, self._network.faults.slow_s_max)
        return self._network.latency_s()

    def _arrive(self, request: _Request) -> None:
        if not self._process.alive and self._network.random.random() < 1 / 2:
            return  # it was still in the dead process's buffers
        if self._blocked(request.method):
            self._lose(request, "cut")
        elif request.fault == "lost_before":
            self._lose(request, "lost_before")
        else:
            task = asyncio.get_running_loop().create_task(self._serve(request))
            if request.wait_s:
                self._parked[task] = None
                task.add_done_callback(self._parked.pop)

    async def _serve(self, request: _Request) -> None:
        network, payload = self._network, request.payload
        if request.fault == "deaf":
            network.counts["deaf"] += 1
            await asyncio.sleep(request.wait_s)
            *arguments, _ = METHODS["poll"].arguments.decode(payload)
            payload = encode((*arguments, 0.0))
        self._boundary("before", request.method)
        body = await answer(self._tap, request.method, payload)
        self._boundary("after", request.method)
        if request.fault == "twice":
            network.counts["twice"] += 1
            await asyncio.sleep(network.latency_s())
            await answer(self._tap, request.method, payload)
        if self._blocked(request.method):
            self._lose(request, "cut")
        elif request.fault == "lost_after":
            self._lose(request, "lost_after")
        else:
            network.counts["slow"] += request.fault == "slow"
            network.later(self._delay_s(request.fault), self._deliver, request, body)

    def _boundary(self, when: str, method: str) -> None:
        """What dies before a call was never heard by the store; what dies after, hears nothing."""
        if self._network.boundary is not None and method in WRITES:
            self._network.boundary(self._process, f"{when} {method}")
            if not self._process.alive:
                raise asyncio.CancelledError

    def _deliver(self, request: _Request, body: bytes) -> None:
        if self._blocked(request.method):
            self._lose(request, "cut")
        elif self._process.alive and not request.answered.done():
            request.answered.set_result(body)

    def _lose(self, request: _Request, why: str) -> None:
        self._network.counts[why] += 1
        self._network.later(self._network.random.uniform(0.0, CONNECT_S), self._fail, request)

    def _fail(self, request: _Request) -> None:
        if self._process.alive and not request.answered.done():
            request.answered.set_exception(StoreUnavailableError("no answer"))

    def _blocked(self, method: str) -> bool:
        return self.cut or method in self.mute


def faulty(store: Store, process: Process, seed: str, faults: Faults = USUAL) -> Store:
    """A store as one process on a bad network sees it; its history is thrown away."""
    return Network(store, History(), process.clock, seed, faults).connect(process)
