"""What sandboxes run, by /proc and the control groups, and whether it outlives its host.

    a host's sandboxes   the `bwrap` processes that are its children, with all below them
    left of a dead host  those of them that live, what they have started since, and who is
                         in a control group that bears the host's number

A host is dead from when it is first missed, so nothing is held against it that
the watch was late to see.  A process is told by its number and its start.
"""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from actors.errors import DiskFullError, SandboxRefusedError
from actors.sandbox import Sandbox
from runtime.verify.invariants.plans import ORPHAN_GRACE_MS

BWRAP: Final = "bwrap"
GROUPS: Final = (Path("/sys/fs/cgroup/memory/troupe"), Path("/sys/fs/cgroup/troupe"))
"""Where a run's control group is made, as <pid of its host>-<number>: version 1 and 2."""
_ENDED: Final = frozenset("ZX")
_KILL: Final = 1 << (signal.SIGKILL - 1)


class Process(NamedTuple):
    pid: int
    started: int
    """In ticks after boot: with it, a number is nobody else's."""


class Seen(NamedTuple):
    parent: int
    name: str
    process: Process


@dataclass
class _Dead:
    host: Process
    at_ms: int
    left: set[Process]


class Finding(NamedTuple):
    f: str
    """`kill`: a host that had sandboxes is missed; `sandbox`: what is left when its time is up."""
    host: str
    left: list[str]
    """Each `PID STATE`, the state as in /proc, with `killed` where a SIGKILL waits to be heard."""


class SandboxWatch:
    """To be asked to look again and again."""

    def __init__(
        self,
        hosts: Callable[[], Collection[int]],
        groups: Iterable[Path] = GROUPS,
        proc: Path = Path("/proc"),
    ) -> None:
        self._hosts = hosts
        self._groups = tuple(groups)
        self._proc = proc
        self._held: dict[Process, set[Process]] = {}
        """Living host -> what its sandboxes ran at the last look."""
        self._dead: list[_Dead] = []

    @property
    def busy(self) -> list[int]:
        """Hosts that had a sandbox at the last look."""
        return [host.pid for host, held in self._held.items() if held]

    @property
    def waiting(self) -> bool:
        """Whether a dead host's time is not up yet."""
        return bool(self._dead)

    def look(self, now_ms: int) -> list[Finding]:
        """What has become of the hosts and their sandboxes since the last look."""
        known = {*self._held}
        pids = self._hosts()
        seen = self._living()
        found = []
        for host in sorted(known):
            if host.pid in seen and seen[host.pid].process == host:
                continue
            if left := self._held.pop(host):
                self._dead.append(_Dead(host, now_ms, left))
                found.append(Finding("kill", _name(host), []))
        below = _children(seen)
        for pid in pids:
            if pid in seen:
                boxes = [one.process for one in below[pid] if one.name == BWRAP]
                self._held[seen[pid].process] = _with_descendants(boxes, seen, below)
        return found + self._judged(now_ms, seen, below)

    def _judged(
        self, now_ms: int, seen: Mapping[int, Seen], below: Mapping[int, list[Seen]]
    ) -> list[Finding]:
        found = []
        for dead in list(self._dead):
            grouped = [seen[pid].process for pid in self._in_groups(dead.host.pid) if pid in seen]
            living = _with_descendants([*dead.left, *grouped], seen, below)
            dead.left |= living
            if now_ms - dead.at_ms > ORPHAN_GRACE_MS:
                self._dead.remove(dead)
                told = (self._told(process.pid) for process in sorted(living))
                found.append(Finding("sandbox", _name(dead.host), [one for one in told if one]))
        return found

    def _living(self) -> dict[int, Seen]:
        seen = {}
        for folder in self._proc.glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                head, _, tail = (folder / "stat").read_text().rpartition(")")
                state, parent, *rest = tail.split()
                if state not in _ENDED:
                    pid = int(folder.name)
                    name = head.partition("(")[2]
                    seen[pid] = Seen(int(parent), name, Process(pid, int(rest[17])))
        return seen

    def _told(self, pid: int) -> str:
        """How a process lives; nothing if it has ended."""
        with suppress(OSError):
            lines = (self._proc / str(pid) / "status").read_text().splitlines()
            fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
            if (state := fields["State"][:1]) not in _ENDED:
                return f"{pid} {state}{' killed' if pending & _KILL else ''}"
        return ""

    def _in_groups(self, host: int) -> list[int]:
        pids: list[int] = []
        for root in self._groups:
            for group in root.glob(f"{host}-*/cgroup.procs"):
                with suppress(OSError):  # it has been removed meanwhile
                    pids += [int(line) for line in group.read_text().split()]
        return pids


def refusal() -> str:
    """Why this machine can't isolate commands; empty if it can.

    Asked in a process of its own, because the sandbox makes its process adopt orphans.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_refusal).result()


def _refusal() -> str:
    try:
        asyncio.run(Sandbox().probe())
    except (SandboxRefusedError, DiskFullError) as error:
        return str(error)
    return ""


def _name(host: Process) -> str:
    return f"host {host.pid}/{host.started}"


def _children(seen: Mapping[int, Seen]) -> dict[int, list[Seen]]:
    below: dict[int, list[Seen]] = defaultdict(list)
    for one in seen.values():
        below[one.parent].append(one)
    return below


def _with_descendants(
    processes: Iterable[Process], seen: Mapping[int, Seen], below: Mapping[int, list[Seen]]
) -> set[Process]:
    """Those of them that live, and all below those."""
    found: set[Process] = set()
    left = [one for one in processes if one.pid in seen and seen[one.pid].process == one]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += [child.process for child in below.get(one.pid, ())]
    return found
