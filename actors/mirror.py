"""Mirrors: one bare copy of each repository, shared by the jobs that work on it.

A mirror is only ever added to, under a file lock, so a commit that a job began
from stays readable whatever happens to the original.  The original is only
read.  Whoever works on top of a mirror has a share in it, and one in which
nobody has a share may be removed (`upkeep`).  What a job does on top of a
mirror is `workspace`'s business; who may name which repository is intake's.

Below `root/mirrors`: `<name>.git`, `<name>.lock` held while it is fetched into,
`<name>.use` shared while it is used; its time is the last use.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.errors import (
    BaseRefUnknownError,
    RepositoryBusyError,
)
from actors.git import Git
from actors.remote import HEX, RepositorySource, fetch, remote_refs

__all__ = [
    "Mirror",
    "RepositorySource",
    "Share",
    "has_commit",
    "lock",
    "locked",
    "mirror",
    "try_lock",
]
LOCK_TIMEOUT_S = 660.0
LOCK_POLL_S = 0.05
REMOVALS_MAX = 1_000


class Share:
    """A share in a mirror; it ends with the process at the latest."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def taken(self) -> bool:
        """Take it; False if the mirror is being removed."""
        try:
            fcntl.flock(self.handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def end(self) -> None:
        """Give it up; idempotent."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


@dataclass(frozen=True)
class Mirror:
    """A bare copy under `root/mirrors`; `commit` is what the job starts from."""

    git: Git
    commit: str
    share: Share
    """The mirror stays as long as somebody has one."""

    @property
    def path(self) -> Path:
        return self.git.git_dir


async def mirror(
    root: Path, source: RepositorySource, base_ref: str | None, base_commit: str | None
) -> Mirror:
    """A mirror that has the commit the job starts from.

    The original is asked each time, except when `base_commit` is named and here.

    Args:
        base_ref: branch, tag or commit; None or `HEAD`: the default branch.
        base_commit: the commit recorded when the job began; wins over `base_ref`.

    Raises:
        RepositoryUnknownError, NotARepositoryError, RepositoryEmptyError,
        RepositoryUnsafeError, BaseRefUnknownError, RepositoryBusyError, DiskFullError.
    """
    location = source.location
    git = Git(root / "mirrors" / f"{hashlib.sha256(location.encode()).hexdigest()[:32]}.git")
    share = await _shared(git.git_dir.with_suffix(".use"))
    try:
        return Mirror(git, await _found(git, source, base_ref, base_commit), share)
    except BaseException:
        share.end()
        raise


async def _found(
    git: Git, source: RepositorySource, base_ref: str | None, base_commit: str | None
) -> str:
    """The commit that the job starts from, fetched if it is not here."""
    if base_commit is not None and await has_commit(git, base_commit):
        return base_commit
    location = source.location
    remote = await remote_refs(git, source, location)
    wanted = base_commit or remote.find(base_ref)
    async with locked(git.git_dir.with_suffix(".lock")):
        if wanted is None or not await has_commit(git, wanted):
            await fetch(git, source, location, remote)
    return await _commit(git, wanted or str(base_ref))


async def has_commit(git: Git, commit: str) -> bool:
    """Whether the git dir is there and has this commit."""
    if not (git.git_dir / "HEAD").exists():
        return False
    try:
        return await _commit(git, commit) == commit
    except BaseRefUnknownError:
        return False


@asynccontextmanager
async def locked(path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> AsyncIterator[int]:
    """Hold the lock on a file; it ends with the process, so it can't go stale.

    Raises:
        RepositoryBusyError: somebody else held it for `timeout_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = await _locked_handle(path, timeout_s)
    try:
        yield handle
    finally:
        os.close(handle)


async def _locked_handle(path: Path, timeout_s: float) -> int:
    for _ in range(REMOVALS_MAX):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not await lock(handle, timeout_s):
                break
            if _is_at(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever had it removed the file: this lock is nobody's
    raise RepositoryBusyError(path.name)


def _is_at(path: Path, handle: int) -> bool:
    return path.exists() and os.fstat(handle).st_ino == path.stat().st_ino


async def _shared(path: Path) -> Share:
    for _ in range(REMOVALS_MAX):
        share = Share(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            if share.taken() and _is_at(path, share.handle):
                os.utime(share.handle)
                return share
        except BaseException:
            share.end()
            raise
        share.end()  # it is being removed, which takes a moment
        await asyncio.sleep(LOCK_POLL_S)
    raise RepositoryBusyError(path.name)


async def lock(handle: int, timeout_s: float) -> bool:
    """Take the exclusive lock of an open file; False if another held it all the time."""
    for _ in range(max(1, round(timeout_s / LOCK_POLL_S))):
        if try_lock(handle):
            return True
        await asyncio.sleep(LOCK_POLL_S)
    return False


def try_lock(handle: int) -> bool:
    """Take the exclusive lock of an open file without waiting."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _commit(git: Git, name: str) -> str:
    """The full id of a commit that is here, by its id or the beginning of it."""
    if not HEX.fullmatch(name):
        raise BaseRefUnknownError(name)
    output = await git.run(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}",
        codes=(0, 1, 128),
    )  # fmt: skip
    if output.exit_code != 0 or not output.text:
        raise BaseRefUnknownError(name)
    return output.text
