"""Strikes: the processes of a deployment, and how they are killed and paused.

Processes are found by the deployment's mark and told apart by what they call
themselves, so a strike never reaches anybody else's.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtime.clock import SystemClock
from runtime.cluster.processes import marked

TITLES: Final = {
    "host": "ray::AgentHost",
    "scheduler": "ray::Scheduler",
    "registry": "ray::Registry",
    "replica": "ray::ServeReplica",
    "raylet": "raylet",
    "node": "raylet",
    "gcs": "gcs_server",
}
"""How the processes call themselves; `raylet` is the head's, `node` the second node's."""
WEIGHTS: Final = {
    "host": 12, "scheduler": 12, "registry": 3, "replica": 6, "redis": 5, "node": 2,
}  # fmt: skip
CLOCK: Final = SystemClock()
PAUSE_S: Final = (1.0, 15.0)
"""Shorter and longer than a lease."""


@dataclass(frozen=True)
class Strike:
    """One process struck."""

    kind: str
    how: str
    """`kill` or `pause`."""
    at_ms: int
    """True time."""


@dataclass
class Striker:
    """Strikes one process of a deployment at a time."""

    data: Path
    """Marks the processes of the deployment."""
    node: Path | None
    """Marks those of its second node."""
    random: random.Random
    others: dict[str, Callable[[], None]] = field(default_factory=dict)
    """Kinds that are not of the deployment -> what kills, and starts, one of them."""
    busy: Callable[[], Collection[int]] = tuple
    """Pids among which every other strike looks first."""
    strikes: list[Strike] = field(default_factory=list)
    _paused: list[tuple[float, int]] = field(default_factory=list)
    """(when it goes on, pid)"""

    def strike_any(self, kinds: Sequence[str]) -> Strike | None:
        """Strike one process of a random kind; None when there was none of it."""
        [kind] = self.random.choices(kinds, [WEIGHTS[kind] for kind in kinds])
        return self.strike(kind)

    def strike(self, kind: str) -> Strike | None:
        """Kill or pause one process of this kind; None when there was none of it."""
        how = "pause" if kind in ("host", "scheduler") and self.random.random() < 1 / 6 else "kill"
        if kind in self.others:
            self.others[kind]()
        elif not self._signal(kind, how):
            return None
        made = Strike(kind, how, CLOCK.now_ms())
        self.strikes.append(made)
        return made

    def wake(self, everybody: bool = False) -> None:
        """Let paused processes go on whose time has come."""
        now = time.monotonic()
        due = [pid for until, pid in self._paused if everybody or until <= now]
        self._paused = [(until, pid) for until, pid in self._paused if pid not in due]
        for pid in due:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def pids(self, kind: str) -> list[int]:
        """The living processes of a kind, in order."""
        return sorted(pid for pid in self._marked(kind) if title(pid).startswith(TITLES[kind]))

    def _signal(self, kind: str, how: str) -> bool:
        found = self.pids(kind)
        busy = sorted({*found}.intersection(self.busy()))
        if busy and self.random.random() < 1 / 2:
            found = busy
        if not found:
            return False
        pid = self.random.choice(found)
        try:
            os.kill(pid, signal.SIGSTOP if how == "pause" else signal.SIGKILL)
        except ProcessLookupError:
            return False
        if how == "pause":
            self._paused.append((time.monotonic() + self.random.uniform(*PAUSE_S), pid))
        return True

    def _marked(self, kind: str) -> list[int]:
        head = [] if kind == "node" else marked(self.data)
        node = [] if kind in ("raylet", "gcs") or self.node is None else marked(self.node)
        return [*head, *node]


def title(pid: int) -> str:
    """The command line, without the folder of the program."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return Path(words[0].decode(errors="replace")).name if words else ""
