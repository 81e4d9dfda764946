"""Finding and ending the processes of one deployment: by its mark, never by name.

Every process started for a deployment carries its data directory in the
environment, so what a killed supervisor has left behind can be found and ended
without touching anybody else's Ray.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.cluster.settings import MARKER

TERM_WAIT_S = 5.0


def marked(root: Path) -> list[int]:
    """Pids of this user's processes that belong to the deployment at `root`, but this one.

    The children of a marked process belong to it too: some clear their
    environment (sandboxes) or write over it (Ray's agents, to set a title).
    """
    mark = f"{MARKER}={root}".encode()
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parents[int(folder.name)] = _parent(folder)
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue
    for pid in list(parents):
        line = [pid]
        while line[-1] in parents and line[-1] not in found:
            line.append(parents[line[-1]])
        if line[-1] in found:
            found.update(line)
    return sorted(found - {os.getpid()})


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process of this user was started with.

    Raises:
        OSError: it has ended, or is not this user's.
    """
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if entry)
    return {name: value for name, _, value in pairs}


def _parent(folder: Path) -> int:
    """The second field after the command's name, which may hold anything but ends with `)`."""
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def end_all(root: Path) -> int:
    """End every marked process, politely first; returns how many there were."""
    pids = first = marked(root)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            _signal(pid, number)
        deadline = time.monotonic() + TERM_WAIT_S
        while (pids := marked(root)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not pids:
            break
    return len(first)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@contextmanager
def held(lock: Path) -> Iterator[bool]:
    """Try to hold an flock for the block; yields whether it was free."""
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_held(lock: Path) -> bool:
    """Whether some process holds the lock."""
    if not lock.exists():
        return False
    with held(lock) as free:
        return not free
