"""Upkeep: what jobs leave on this machine is bounded; nothing that is in use is touched.

    mirrors        not used for `days`, or beyond the size; never one that somebody has a share in
    dependencies   the same; never one that is being made or copied
    jobs           what a killed host left: quiet for an hour; the journal can make it again

Removing is a rename first, so half of something removed is never found.  Each
host begins this when it starts and goes on every hour; where several are, one
at a time does it.  A waiting job uses nothing here: it fetches again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.disk import used_bytes
from actors.errors import AgentError, RepositoryBusyError
from actors.git import Git
from actors.mirror import try_lock
from actors.room import OPENING, quiet_job_removed, remove

logger = logging.getLogger(__name__)

EVERY_S: Final = 3_600.0
QUIET_S: Final = 3_600.0
"""A job's place that nobody is in may be taken over by the next host for so long."""
DAY_S: Final = 86_400.0
PACKS_MAX: Final = 50
"""Of a mirror; every fetch adds one, and reading slows down with their number."""
REPACK_TIMEOUT_S: Final = 600.0
GONE: Final = ".gone"


@dataclass(frozen=True)
class Kept:
    """A mirror or an entry of dependencies."""

    place: Path
    locks: tuple[Path, ...]
    """All held exclusively by whoever removes it; the first one's time is the last use."""

    @property
    def used_s(self) -> float:
        """When it was used last, seconds since 1970."""
        for path in (self.locks[0], self.place):
            with suppress(OSError):
                return path.stat().st_mtime
        return 0.0


class Upkeep:
    """Of the folder that mirrors, dependencies and jobs lie in."""

    def __init__(
        self, root: Path, days: float, bytes_max: int, now_s: Callable[[], float] = time.time
    ) -> None:
        self._root = root
        self._days = days
        self._bytes_max = bytes_max
        self._now_s = now_s
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Go on from now, in the event loop of this process; without one there is no host."""
        with suppress(RuntimeError):
            self._task = asyncio.get_running_loop().create_task(self._go_on(), name="upkeep")

    async def _go_on(self) -> None:
        while True:
            try:
                await self.run()
            except (OSError, AgentError):
                logger.warning("upkeep failed", exc_info=True, extra={"action": "caches.failed"})
            await asyncio.sleep(EVERY_S)

    async def run(self) -> None:
        """Do it once, unless another process is doing it."""
        if not self._root.is_dir():
            return
        with _exclusively(self._root / "upkeep.lock") as mine:
            if mine:
                await self._finish_removals()
                await self._remove_quiet_jobs()
                await self._remove_unused()
                await self._tidy_mirrors()

    # Jobs

    async def _remove_quiet_jobs(self) -> None:
        for job in sorted((self._root / "jobs").glob("[!.]*")):
            if self._now_s() - await asyncio.to_thread(_touched_s, job) > QUIET_S:
                with suppress(RepositoryBusyError):  # it is being opened just now
                    await quiet_job_removed(job, 0.0)
        for lock in (self._root / "jobs").glob(f"{OPENING}*"):
            job = lock.with_name(lock.name.removeprefix(OPENING))
            if not job.exists() and self._now_s() - lock.stat().st_mtime > QUIET_S:
                with suppress(RepositoryBusyError):
                    await quiet_job_removed(job, 0.0)

    # Mirrors and dependencies

    async def _remove_unused(self) -> None:
        kept = sorted(self._kept(), key=lambda one: one.used_s)
        sizes = {one.place: await used_bytes(one.place) for one in kept}
        total = sum(sizes.values())
        for one in kept:
            old = self._now_s() - one.used_s > self._days * DAY_S
            if (old or total > self._bytes_max) and await self._removed(one):
                total -= sizes[one.place]
                logger.info(
                    "removed %s, unused for %.1f days",
                    one.place.name,
                    (self._now_s() - one.used_s) / DAY_S,
                    extra={"action": "caches.removed", "bytes": sizes[one.place]},
                )

    def _kept(self) -> Iterator[Kept]:
        mirrors = self._root / "mirrors"
        for name in {
            path.stem for kind in ("*.git", "*.use", "*.lock") for path in mirrors.glob(kind)
        }:
            locks = (mirrors / f"{name}.use", mirrors / f"{name}.lock")
            yield Kept(mirrors / f"{name}.git", locks)
        for lock in (self._root / "dependencies").glob("*.lock"):
            yield Kept(lock.with_suffix(""), (lock,))

    async def _removed(self, one: Kept) -> bool:
        """Remove it if nobody uses it; False if somebody does."""
        with _all_locked(one.locks) as mine:
            if not mine:
                return False
            gone = one.place.with_suffix(GONE)
            await remove(gone)
            if one.place.exists():
                one.place.rename(gone)
            for lock in one.locks:
                lock.unlink(missing_ok=True)
        await remove(gone)
        return True

    async def _finish_removals(self) -> None:
        """What a killed process was about to remove, or to make."""
        for kind in ("mirrors", "dependencies"):
            for place in (self._root / kind).glob(f"*{GONE}"):
                await remove(place)
            for place in (self._root / kind).glob("*.new"):
                with _exclusively(place.with_suffix(".lock")) as mine:
                    if mine:
                        await remove(place)

    async def _tidy_mirrors(self) -> None:
        """What killed fetches left, and the many packs of a mirror that is fetched often.

        Nothing that is in a pack is dropped: a job may have begun from what is not
        reachable any more.
        """
        for place in (self._root / "mirrors").glob("*.git"):
            with _exclusively(place.with_suffix(".lock")) as mine:
                if mine:
                    _remove_half_fetched(place)
                    if len(list((place / "objects/pack").glob("*.pack"))) > PACKS_MAX:
                        how = ("repack", "--geometric=2", "-d", "--quiet")
                        await Git(place).run(*how, timeout_s=REPACK_TIMEOUT_S)


def _touched_s(job: Path) -> float:
    """When somebody has last worked in a job's place."""
    places = (job, *job.glob("room-*"), *job.glob("room-*/index"), *job.glob("room-*/files"))
    times = [0.0]
    for place in places:
        with suppress(OSError):
            times.append(place.stat().st_mtime)
    return max(times)


def _remove_half_fetched(mirror: Path) -> None:
    objects = mirror / "objects"
    for place in (*objects.glob("pack/tmp_*"), *objects.glob("pack/.tmp-*")):
        place.unlink(missing_ok=True)
    for place in objects.glob("tmp_objdir-*"):
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _all_locked(paths: tuple[Path, ...]) -> Iterator[bool]:
    """Hold all of some locks, or say that somebody else has one."""
    with _exclusively(paths[0]) as first:
        if not first or len(paths) == 1:
            yield first
        else:
            with _all_locked(paths[1:]) as rest:
                yield rest


@contextmanager
def _exclusively(path: Path) -> Iterator[bool]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)
