"""Repositories, workspaces, sandboxed trees and toolboxes for tests, all of them real."""

from __future__ import annotations

import asyncio
import hashlib
import os
import select
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from actors.delivery import Delivered, DeliveryOrder, deliver
from actors.mirror import RepositorySource
from actors.records import AgentIssue, IssueSubmission, Review
from actors.sandbox import Completed, Sandbox, owner_of_job
from actors.sandbox.command import SYSTEM_PATH
from actors.tools import ToolBox
from actors.workspace import Workspace

SANDBOX = Sandbox()
"""Shared, so that the self-test runs once."""
needs_sandbox = pytest.mark.skipif(
    shutil.which("bwrap", path=SYSTEM_PATH) is None, reason="bubblewrap is not installed"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")

GIT_ENVIRONMENT = {
    "PATH": SYSTEM_PATH,
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "@1700000000 +0000",
    "GIT_COMMITTER_DATE": "@1700000000 +0000",
}


OPTIONS = (
    "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", "-c", "safe.directory=*",
)  # fmt: skip


def git(where: Path, *args: str, stdin: bytes | None = None) -> str:
    """A person's git, as they would type it in `where`."""
    done = subprocess.run(
        ["git", *OPTIONS, *args],
        cwd=where, env=GIT_ENVIRONMENT, input=stdin, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="surrogateescape").strip()


def put(where: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files."""
    for name, content in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def repository(where: Path, files: Mapping[str, str | bytes] | None = None) -> Path:
    """A repository with one commit on `main`."""
    where.mkdir(parents=True)
    git(where, "init", "--quiet")
    put(where, {"README.md": "hello\n"} if files is None else files)
    commit(where)
    return where


def names(where: Path) -> list[str]:
    """What lies in a directory, sorted."""
    return sorted(path.name for path in where.iterdir())


def commit(where: Path, message: str = "one") -> str:
    """Commit everything in a person's working tree."""
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(where, "rev-parse", "HEAD")


async def workspace(
    root: Path, files: Mapping[str, str | bytes] | None = None, job_id: str = "job_1"
) -> Workspace:
    """A workspace on a new repository at `root/origin`."""
    origin = root / "origin"
    if not origin.exists():
        repository(origin, files)
    return await Workspace.open(root / "data", job_id, RepositorySource(str(origin)))


def job_tree(root: Path, files: Mapping[str, str | bytes] | None = None) -> Path:
    """A plain tree that belongs to a user of this process's own, for the sandbox alone.

    What a user may run is counted on the whole machine: a fork bomb in one worker would
    leave the others' commands without a process.
    """
    tree = root / "tree"
    tree.mkdir()
    put(tree, files or {})
    owner = owner_of_job(f"job_{os.getpid()}")
    if owner is not None:
        for path in (tree, *tree.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)
    return tree


async def bash(tree: Path, command: str, **how: object) -> Completed:
    """Run a command in the sandbox."""
    return await SANDBOX.run(["bash", "-c", command], workspace=tree, **how)  # type: ignore[arg-type]


@dataclass
class Shelf:
    """Artifacts in memory."""

    content: dict[str, bytes] = field(default_factory=dict)

    async def put(self, name: str, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self.content[sha256] = content
        return sha256

    async def get(self, sha256: str) -> bytes | None:
        return self.content.get(sha256)


@dataclass(frozen=True)
class Policy:
    """The repository's commands."""

    setup: str | None = None
    test: str | None = "python -m pytest -q"
    lint: str | None = None
    types: str | None = None


def toolbox(space: Workspace, shelf: Shelf | None = None, **how: object) -> ToolBox:
    """A toolbox on a workspace."""
    commands = how.pop("commands", Policy())
    return ToolBox(space, SANDBOX, commands, shelf or Shelf(), **how)  # type: ignore[arg-type]


_numbers = count(1)


def a_year() -> str:
    """Seconds to sleep that no other run of these tests asks for, to know a process by."""
    return f"31536000.{os.getpid():07}{next(_numbers):03}"


def processes_with(marker: str) -> list[int]:
    """The processes of this machine that have `marker` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


async def recorded(space: Workspace, tree: str, path: str) -> bytes | None:
    """A file's content (of a link: its target) in a state; None if there is no such file."""
    found = await space.git.run("cat-file", "blob", f"{tree}:{path}", codes=(0, 128))
    return found.stdout if found.exit_code == 0 else None


async def delivered(space: Workspace, tree: str, repository: Path | None = None) -> Delivered:
    """Deliver a state as if a person had approved it; without a repository, the patch only."""
    patch = await space.diff(space.base_tree, tree)
    said = IssueSubmission(source="manual", title="A change")
    at = "2026-11-21T08:00:00.000Z"
    review = Review(
        id="review_1", issue_id="issue_1", job_id="job_1", organization_id="acme",
        status="approved", artifact_hash=hashlib.sha256(patch).hexdigest(), summary="",
        requested_at=at, decided_at=at, decided_by="ann",
    )  # fmt: skip
    issue = AgentIssue.of(said, "issue_1", "acme", at)
    kept = space.git.git_dir.parent / "deliveries"
    return await deliver(
        DeliveryOrder(issue, review, patch, space.base_commit, tree, space.git, kept, repository)
    )


def refusals(monkeypatch: pytest.MonkeyPatch, whose: Any, name: str) -> asyncio.Event:
    """Set as soon as a lock, really tried for by `whose.name`, was another's."""
    refused, take = asyncio.Event(), getattr(whose, name)

    def taking(*held: Any) -> bool:
        taken: bool = take(*held)
        if not taken:
            refused.set()
        return taken

    monkeypatch.setattr(whose, name, taking)
    return refused


async def until(look: Callable[[], object], within_s: float = 30.0) -> None:
    """Return as soon as it is so; what does not come in time fails the test."""
    async with asyncio.timeout(within_s):
        while not look():
            await asyncio.sleep(0.005)


def wait_until_ended(pids: Sequence[int], within_s: float = 10.0) -> None:
    """Return when all have ended; a process that does not end in time fails the test."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        ended = poll.poll(within_s * 1000)
        os.close(fd)
        assert ended, f"process {pid} is still there"


def fingerprint(where: Path) -> dict[str, tuple[object, ...]]:
    """Everything about every file below a directory that a write would change."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in (where, *where.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        facts = (status.st_mode, status.st_ino, status.st_mtime_ns, status.st_uid)
        seen[str(path.relative_to(where))] = (*facts, hashlib.sha256(content).hexdigest())
    return seen
