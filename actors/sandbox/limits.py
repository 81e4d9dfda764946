"""Limits: what one run in the sandbox may use, and the control groups that hold it to that.

A control group counts all processes of a run together; where none can be made
the same numbers hold per process (by rlimits) and the probe says so.  A group
lives as long as its run.  Time and output are `process` and `streams`' business.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PARENT = "troupe"
GROUPS_MAX = 1_000_000
_numbers = count()
"""Of this process; all its sandboxes draw from it."""


@dataclass(frozen=True)
class Limits:
    """Of one run; the defaults suit a test suite of a middling project."""

    memory_bytes: int = 4 << 30
    """Of all processes together, with what they keep in /tmp."""
    processes_max: int = 512
    open_files_max: int = 1_024
    file_bytes_max: int = 1 << 30
    """Of one file."""
    tmp_bytes: int = 512 << 20
    stream_bytes_max: int = 64 << 20
    """Printed in all; a command that prints more is killed."""
    disk_free_bytes_min: int = 256 << 20
    """Left on the workspace's disk; a command that eats into it is killed."""


def rlimits(limits: Limits, grouped: bool) -> list[str]:
    """The options of prlimit(1)."""
    options = [
        f"--nofile={limits.open_files_max}",
        f"--fsize={limits.file_bytes_max}",
        f"--nproc={limits.processes_max}",
        "--core=0",
        "--memlock=65536",
    ]
    # With a group, an address space limit would only break runtimes that reserve much.
    return options if grouped else [*options, f"--as={limits.memory_bytes}"]


@dataclass
class Group:
    """The control group of one run: one directory (v2), or one a controller (v1)."""

    directories: list[Path]
    v2: bool

    def add(self, pid: int) -> None:
        """Everything that `pid` starts from now on is counted here."""
        for directory in self.directories:
            # `pid` has one thread; moving a thread spares v1 a lock that all processes share.
            (directory / ("cgroup.procs" if self.v2 else "tasks")).write_text(str(pid))

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something in it for want of memory."""
        file = self.directories[0] / ("memory.events" if self.v2 else "memory.oom_control")
        with suppress(OSError):
            return any(
                line.startswith("oom_kill ") and line != "oom_kill 0"
                for line in file.read_text().splitlines()
            )
        return False

    def remove(self) -> bool:
        """False if something is still in it."""
        try:
            for directory in self.directories:
                directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


@dataclass
class Groups:
    """Makes the groups of this process; `missing` says why when it can't."""

    v2: bool
    parents: list[Path]
    _leftover: list[Group] = field(default_factory=list)

    @classmethod
    def detect(cls, root: Path = CGROUP_ROOT) -> Groups | None:
        """The controllers this process may use; None if memory and processes can't be held."""
        v2 = (root / "cgroup.controllers").exists()
        parents = [root / PARENT] if v2 else [root / "memory" / PARENT, root / "pids" / PARENT]
        groups = cls(v2, parents)
        try:
            for parent in parents:
                parent.mkdir(exist_ok=True)
            if v2:
                (parents[0] / "cgroup.subtree_control").write_text("+memory +pids")
            groups._sweep()
            groups.make(Limits()).remove()
        except OSError:
            return None
        return groups

    def make(self, limits: Limits) -> Group:
        """A new, empty group with these limits."""
        self._leftover = [group for group in self._leftover if not group.remove()]
        group = self._create()
        memory, pids = group.directories[0], group.directories[-1]
        if self.v2:
            (memory / "memory.max").write_text(str(limits.memory_bytes))
            with suppress(OSError):  # no swap accounting: then there is no swap to use
                (memory / "memory.swap.max").write_text("0")
        else:
            (memory / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
            with suppress(OSError):
                (memory / "memory.memsw.limit_in_bytes").write_text(str(limits.memory_bytes))
        (pids / "pids.max").write_text(str(limits.processes_max))
        return group

    def _create(self) -> Group:
        for number in islice(_numbers, GROUPS_MAX):
            group = Group([parent / f"{os.getpid()}-{number}" for parent in self.parents], self.v2)
            try:
                for directory in group.directories:
                    directory.mkdir()
            except FileExistsError:  # of an earlier process with our number
                continue
            return group
        raise OSError(errno.EEXIST, "no control group could be made")

    def end(self, group: Group) -> None:
        """Remove a group; one that is not empty yet is tried again with the next."""
        if not group.remove():
            self._leftover.append(group)

    def _sweep(self) -> None:
        """Remove the empty groups of processes that are gone."""
        for parent in self.parents:
            for directory in parent.iterdir():
                owner = directory.name.partition("-")[0]
                if owner.isdecimal() and not Path("/proc", owner).exists():
                    with suppress(OSError):
                        directory.rmdir()
