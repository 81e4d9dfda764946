"""What work could leave behind on a machine, looked for where it would be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from actors.mirror import try_lock
from actors.sandbox import owner_of_job
from actors.sandbox.limits import CGROUP_ROOT, PARENT
from tests.agents import git
from tests.workshop import fingerprint


def descendants(pid: int | None = None) -> set[int]:
    """Every living process below one, this one unless given."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        try:
            children = {int(child) for child in task.read_text().split()}
        except OSError:
            continue
        found |= children.union(*(descendants(child) for child in children))
    return found


def of_jobs(jobs: Iterable[str]) -> list[str]:
    """Command lines of processes that run as the user of one of these jobs."""
    users = {owner_of_job(job) for job in jobs} - {None}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid in users:
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def with_words(words: str) -> list[int]:
    """Processes with `words` in their command line, this one aside."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = cmdline.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line and int(cmdline.parent.name) != os.getpid():
            found.append(int(cmdline.parent.name))
    return found


def mounts(below: Path) -> list[str]:
    """Mounts of this machine that have to do with a folder."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(below) in line]


def groups() -> list[Path]:
    """Control groups of runs of this process."""
    parents = [*CGROUP_ROOT.glob(PARENT), *CGROUP_ROOT.glob(f"*/{PARENT}")]
    return [group for parent in parents for group in parent.glob(f"{os.getpid()}-*")]


def open_files(below: Path) -> list[str]:
    """Files below a folder that this process holds open."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith(f"{below}/"):
            found.append(target)
    return found


def locked(below: Path) -> list[Path]:
    """Lock files below a folder that somebody holds, and git's, which are held by being there."""
    held = []
    for path in (*below.rglob("*.lock"), *below.rglob("lock")):
        with path.open("rb+") as file:
            if path.parent.name == ".git" or not try_lock(file.fileno()):
                held.append(path)
    return held


def untouched(repository: Path) -> dict[str, object]:
    """All of somebody's repository but what a delivery adds: objects and branches of ours."""
    files = fingerprint(repository)
    added = (".git/objects", ".git/refs/heads")
    kept = {name: facts for name, facts in files.items() if not name.startswith(added)}
    return {**kept, "main": git(repository, "rev-parse", "main", "HEAD")}


def branches(repository: Path) -> set[str]:
    return set(git(repository, "for-each-ref", "--format=%(refname:short)").splitlines())
