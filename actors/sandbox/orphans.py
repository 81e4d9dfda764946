"""Orphans: sandboxes whose host died in the instant when they were made.

bubblewrap's first process asks the kernel to be killed with its parent only
after it has been set up; a host that is killed before that leaves it waiting
for ever (its command is never run: see the gate in `command`), or, in the last
microseconds, running.  Such a process is told by its parent: the parent of
every living sandbox's first process is a bubblewrap.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from actors.sandbox.command import GATE


def kill_orphans(proc: Path = Path("/proc")) -> int:
    """Kill this machine's orphaned sandboxes with all they run; how many there were."""
    killed = 0
    for process in proc.glob("[0-9]*"):
        with suppress(OSError, ValueError):  # it has ended meanwhile, or is not ours to look at
            if _is_orphan(process):
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
    return killed


def _is_orphan(process: Path) -> bool:
    if GATE.encode() not in (process / "cmdline").read_bytes() or _name(process) != "bwrap":
        return False
    status = dict(
        line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if line
    )
    first_of_its_namespace = status["NSpid"].split()[1:][-1:] == ["1"]
    return first_of_its_namespace and _name(process.parent / status["PPid"]) != "bwrap"


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except FileNotFoundError:
        return ""
