"""A room: one working tree of a job, owned by whoever holds its lock.

The lock is held by everything that can still write into the tree: the process
that opened it, the git commands it started, and its sandboxes.  So a room
whose lock is free is quiet, and a room whose owner is only paused is never
taken over: the next owner gets another one.  What the tree should contain is
`workspace`'s business.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.errors import DiskFullError, WorkspaceError
from actors.git import SYSTEM_PATH, Git, decode, encode
from actors.mirror import lock, locked
from actors.sandbox import kill_orphans, owner_of_job

LOCK_WAIT_S = 2.0
"""For what a killed owner started to end; a living owner keeps its room."""
SETTLE_S = 0.05
"""A killed sandbox gives the lock up a moment before its last process is gone."""
TOOL_TIMEOUT_S = 300.0
ROOMS_MAX = 100
OPENING = ".opening-"
BATCH = 500
"""Names in one command line."""


@dataclass
class Room:
    """`place/files` is the tree, `place/index` git's index of it, `place/lock` the lock."""

    place: Path
    job_id: str
    handle: int

    @property
    def files(self) -> Path:
        return self.place / "files"

    def git(self, git_dir: Path) -> Git:
        """git on this tree; every command holds the lock until it ends."""
        index = self.place / "index"
        return Git(git_dir, self.files, index, inherit_fds=(self.handle,), durable=False)

    def unlock_index(self) -> None:
        """Remove the lock that a killed git left; nobody living can hold it."""
        self.place.joinpath("index.lock").unlink(missing_ok=True)

    async def give_to_job(self) -> None:
        """Hand what we wrote to the job's user (as root; else the job's user is ours)."""
        owner = owner_of_job(self.job_id)
        if owner is not None:
            await tool("chown", "-hR", "--from=0", f"{owner}:{owner}", str(self.files))

    async def wipe(self) -> None:
        """An empty tree and no index."""
        await remove(self.files)
        for name in ("index", "index.lock"):
            self.place.joinpath(name).unlink(missing_ok=True)
        with disk_errors():
            self.files.mkdir()

    def reaches(self, path: str) -> bool:
        """Whether a name leads to a place in the tree without going through a link."""
        parts = Path(path).parts
        if not parts or ".." in parts or Path(path).is_absolute():
            return False
        above = [self.files.joinpath(*parts[:depth]) for depth in range(1, len(parts))]
        return not any(place.is_symlink() for place in above)

    @property
    def ready(self) -> Path:
        """A file that is there once the first checkout was whole."""
        return self.place / "ready"

    def leave(self) -> None:
        """Give the lock up and let the room stay; idempotent."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


async def enter(job: Path, job_id: str) -> tuple[Room, bool]:
    """The job's quiet room, or a new one; with whether it is new.

    The caller holds the job's opening lock.  Rooms beyond the first quiet one are removed.
    """
    found: Room | None = None
    for place in _places(job):
        room = Room(place, job_id, _open_lock(place))
        if not await _taken(room, LOCK_WAIT_S if found is None else 0.0):
            room.leave()
        elif found is None and room.ready.exists():
            found = room
        else:
            await remove(place)
            room.leave()
    if found is not None:
        await asyncio.sleep(SETTLE_S)
        return found, False
    return await _new(job, job_id), True


async def _taken(room: Room, wait_s: float) -> bool:
    if await lock(room.handle, wait_s):
        return True
    return kill_orphans() > 0 and await lock(room.handle, LOCK_WAIT_S)


async def quiet_rooms_removed(job: Path, wait_s: float = 0.0) -> bool:
    """Remove every room nobody is in; False if somebody is still in one after `wait_s`.

    A process that is just being started for another job holds every lock of its
    parent until it has become its program: that nobody is in a room shows only
    after a moment.
    """
    empty = True
    for place in _places(job):
        handle = _open_lock(place)
        if await lock(handle, wait_s):
            await remove(place)
        else:
            empty = False
        os.close(handle)
    return empty


def opening(job: Path) -> Path:
    """Locked while a job's workspace is opened or removed."""
    return job.parent / f"{OPENING}{job.name}"


async def quiet_job_removed(job: Path, wait_s: float) -> None:
    """Remove everything of a job but what somebody is in.

    Raises:
        RepositoryBusyError: it was being opened for `wait_s`.
    """
    async with locked(opening(job), wait_s):
        if await quiet_rooms_removed(job, min(wait_s, LOCK_WAIT_S)):
            await remove(job)
        opening(job).unlink(missing_ok=True)


async def _new(job: Path, job_id: str) -> Room:
    places = _places(job)
    if len(places) >= ROOMS_MAX:
        raise WorkspaceError("too many rooms of this job are still in use", job_id)
    place = job / f"room-{_number(places[0]) + 1 if places else 1}"
    with disk_errors():
        place.mkdir(mode=0o700)
        room = Room(place, job_id, _open_lock(place))
    await lock(room.handle, LOCK_WAIT_S)
    await room.wipe()
    return room


def _places(job: Path) -> list[Path]:
    """The newest first."""
    return sorted(job.glob("room-[0-9]*"), key=_number, reverse=True)


def _number(place: Path) -> int:
    return int(place.name.partition("-")[2])


def _open_lock(place: Path) -> int:
    return os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


async def remove(path: Path) -> None:
    """Remove a tree however deep it is; one that is not there is no error."""
    await tool("rm", "-rf", "--one-file-system", "--", str(path))


async def remove_inside(root: Path, names: Sequence[str]) -> None:
    """Remove files and trees, named from `root`."""
    await _in_batches(("rm", "-rf", "--one-file-system", "--"), root, names, ())


async def remove_empty_inside(root: Path, names: Sequence[str]) -> None:
    """Remove directories below and including these that hold nothing."""
    await _in_batches(("find",), root, names, ("-depth", "-type", "d", "-empty", "-delete"))


async def _in_batches(
    before: Sequence[str], root: Path, names: Sequence[str], after: Sequence[str]
) -> None:
    paths = [encode(f"{root}/{name}") for name in names]
    for begin in range(0, len(paths), BATCH):
        await tool(*before, *paths[begin : begin + BATCH], *after)


async def tool(*argv: str | bytes, output_bytes_max: int = 1 << 20) -> bytes:
    """Run a command of the system, bounded in time, and return what it printed.

    Raises:
        WorkspaceError: it failed; DiskFullError: for want of space.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"},
        limit=output_bytes_max,
    )
    try:
        async with asyncio.timeout(TOOL_TIMEOUT_S):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode == 0:
        return stdout
    said = decode(stderr)[-300:].strip()
    if "No space left on device" in said:
        raise DiskFullError(said)
    raise WorkspaceError(said)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn the system's "no space left" into the sentence that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(str(error.filename)) from error
        raise
