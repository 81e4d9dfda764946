"""Limits: what one run in the sandbox may use, and what holds it to that.

Memory is counted for all processes of a run together by a control group, which
lives as long as its run; where none can be made the same number holds per
process, and the probe says so.  All else is held by rlimits, which the kernel
counts per job, because each job has a user of its own.  Time and output are
`process` and `streams`' business.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CGROUP_ROOT = Path("/sys/fs/cgroup")
PARENT = "troupe"
LOCKED_BYTES_MAX = 1 << 16
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


def set_rlimits(pid: int, limits: Limits, grouped: bool) -> None:
    """Limit a process and all that it starts from now on."""
    values = {
        resource.RLIMIT_NOFILE: limits.open_files_max,
        resource.RLIMIT_FSIZE: limits.file_bytes_max,
        resource.RLIMIT_NPROC: limits.processes_max,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: LOCKED_BYTES_MAX,
    }
    if not grouped:  # with a group, it would only break runtimes that reserve much
        values[resource.RLIMIT_AS] = limits.memory_bytes
    for which, value in values.items():
        _, hard = resource.prlimit(pid, which)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, which, (lower, lower))


@dataclass(frozen=True)
class Group:
    """The control group of one run."""

    directory: Path
    v2: bool

    def started(self, start: Callable[[], T]) -> T:
        """Call `start` on a thread of its own; what it starts is counted here from its birth.

        Moving another process takes a lock that all processes share, and waits for each
        processor: 14 ms.  A thread may move itself for nothing, but in v2 only with its
        whole process: there the caller must `add` what it has started.
        """
        if self.v2:
            return start()
        (self.directory / "tasks").write_text("0")
        try:
            return start()
        finally:
            (self.directory.parent / "tasks").write_text("0")

    def add(self, pid: int) -> None:
        """Everything that `pid` starts from now on is counted here; slow, and for v2 only."""
        (self.directory / "cgroup.procs").write_text(str(pid))

    def limit(self, memory_bytes: int) -> None:
        """Set the most that it may use; there is no swap on top."""
        most, with_swap, swap_bytes = (
            ("memory.max", "memory.swap.max", 0)
            if self.v2
            else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", memory_bytes)
        )
        (self.directory / most).write_text(str(memory_bytes))
        with suppress(OSError):  # no swap accounting: then there is no swap to use
            (self.directory / with_swap).write_text(str(swap_bytes))

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something in it for want of memory."""
        file = self.directory / ("memory.events" if self.v2 else "memory.oom_control")
        with suppress(OSError):
            return any(
                line.startswith("oom_kill ") and line != "oom_kill 0"
                for line in file.read_text().splitlines()
            )
        return False

    def remove(self) -> bool:
        """False if something is still in it."""
        try:
            self.directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


@dataclass
class Groups:
    """Makes the groups of this process."""

    parent: Path
    v2: bool
    _leftover: list[Group] = field(default_factory=list)

    @classmethod
    def detect(cls, root: Path = CGROUP_ROOT) -> Groups | None:
        """What this process may use; None if it can't hold the memory of a run."""
        v2 = (root / "cgroup.controllers").exists()
        groups = cls((root if v2 else root / "memory") / PARENT, v2)
        try:
            groups.parent.mkdir(exist_ok=True)
            if v2:
                _delegate(root)
                _delegate(groups.parent)
            groups._sweep()
            groups.make(Limits()).remove()
        except OSError:
            return None
        return groups

    def make(self, limits: Limits) -> Group:
        """A new, empty group with these limits.

        Raises:
            OSError: the kernel would not make one.
        """
        self._leftover = [group for group in self._leftover if not group.remove()]
        group = self._create()
        group.limit(limits.memory_bytes)
        return group

    def end(self, group: Group) -> None:
        """Remove a group; one that is not empty yet is tried again with the next."""
        if not group.remove():
            self._leftover.append(group)

    def _create(self) -> Group:
        for number in islice(_numbers, GROUPS_MAX):
            directory = self.parent / f"{os.getpid()}-{number}"
            with suppress(FileExistsError):  # of an earlier process with our number
                directory.mkdir()
                return Group(directory, self.v2)
        raise OSError(errno.EEXIST, "no control group could be made")

    def _sweep(self) -> None:
        """Remove the empty groups of processes that are gone."""
        for directory in self.parent.iterdir():
            owner = directory.name.partition("-")[0]
            if owner.isdecimal() and not Path("/proc", owner).exists():
                with suppress(OSError):
                    directory.rmdir()


def _delegate(directory: Path) -> None:
    """Let the groups below a v2 group limit memory, if that is not so already."""
    with suppress(OSError):
        (directory / "cgroup.subtree_control").write_text("+memory")
