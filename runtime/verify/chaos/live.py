"""What is seen from outside of the deployment: a history with true times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runtime.clock import Clock, SystemClock
from runtime.verify.history import Fact, History, Kind


class Live(History):
    """Facts with the nanosecond of each; see `merge`."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__(lambda: now_ns() // 1_000_000)
        self._now_ns = now_ns
        self.at_ns: list[int] = []

    def add(self, proc: str, type: Kind, f: str, **fields: Any) -> Fact:
        self.at_ns.append(self._now_ns())
        return super().add(proc, type, f, **fields)

    def add_at(self, at_ns: int, proc: str, type: Kind, f: str, **fields: Any) -> None:
        """Add what is learned late but became true at `at_ns`."""
        self.at_ns.append(at_ns)
        self.facts.append(Fact(len(self.facts), at_ns // 1_000_000, proc, type, f, **fields))

    @property
    def timed(self) -> list[tuple[int, Fact]]:
        """(nanoseconds, fact), in the order in which they were added."""
        return list(zip(self.at_ns, self.facts, strict=True))


@dataclass(frozen=True)
class Client:
    """Somebody real, who uses the deployment."""

    name: str
    random: random.Random
    clock: Clock = field(default_factory=SystemClock)
