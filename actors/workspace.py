"""The workspace of a job: a plain working tree, and a git that remembers each of its states.

The git dir lies outside the tree and outside the sandbox, so nothing the agent
writes is ever git's configuration; the files carry no `.git`.  A state is named
by its tree id: after `snapshot` and after `restore` the tree equals that id,
byte for byte (ignored files are scratch and are let be; empty directories and
times are not kept).  The workspace is a cache: base commit and recorded deltas
make it again anywhere.  Where repositories come from is `mirror`'s business,
who may write into the tree `room`'s.

Layout below `root`: `mirrors/`, and for each job `jobs/<id>/git` (objects),
`jobs/<id>/base.json` and `jobs/<id>/room-<n>/`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from actors import holes
from actors.base import Base, established, recorded
from actors.changes import Change, parse
from actors.errors import (
    DeltaDamagedError,
    DiskFullError,
    GitError,
    GitTimeoutError,
    SnapshotRefusedError,
    TooManyFilesError,
    TreeMissingError,
    WorkspaceError,
)
from actors.git import check_object, encode
from actors.mirror import Mirror, RepositorySource, Share, locked, mirror
from actors.names import Names
from actors.room import Room, disk_errors, enter, opening, quiet_job_removed, remove_inside
from actors.setup.laid import Laid

ADD_TIMEOUT_S = 120.0
CHECKOUT_TIMEOUT_S = 600.0
FILES_ADDED_MAX = 50_000
"""Files in a tree beyond those of the base."""
NAMES_BYTES_MAX = 512 << 20
DELTA_BYTES_MAX = 256 << 20
UNPACK_BYTES_MAX = 1 << 20
"""A larger delta is kept as a pack, a smaller one as loose objects."""
OPEN_TIMEOUT_S = 900.0
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Workspace:
    """Made by `open`; calls on it run one after another."""

    def __init__(self, job: Path, base: Base, room: Room, share: Share, tree: str | None) -> None:
        self._job = job
        self._base = base
        self._room = room
        self._share = share
        self._busy = asyncio.Lock()
        self._names = Names(room.files)
        self._recorded_stamp = b""
        self.git = room.git(job / "git")
        """For reading commits and trees; never with the tree's own configuration."""
        self.current_tree = tree
        """The last state known by name; None after adopting a tree, until the next one."""
        self.adopted = tree is None
        """The tree is as somebody left it, and nothing was restored yet."""
        self.laid: Laid | None = None
        """What a setup made, beside the tree; no state ever has any of it."""

    @classmethod
    async def open(
        cls,
        root: Path,
        job_id: str,
        source: RepositorySource,
        base_ref: str | None = None,
        *,
        base_commit: str | None = None,
    ) -> Workspace:
        """The job's workspace: what is there, if nobody else is in it, else made anew.

        After a crash the tree may hold anything: `restore` the recorded state.

        Args:
            base_ref: branch, tag or commit; None: the default branch. Looked up when the
                job begins; afterwards the job keeps its base.
            base_commit: the base as recorded, when the workspace may be made elsewhere.

        Raises:
            RepositoryUnknownError, NotARepositoryError, RepositoryEmptyError,
            RepositoryUnsafeError, BaseRefUnknownError, RepositoryBusyError, DiskFullError.
        """
        if not _JOB_ID.fullmatch(job_id):
            raise WorkspaceError("not a usable job id", repr(job_id[:128]))
        job = root / "jobs" / job_id
        with disk_errors():
            for directory in (root / "mirrors", root / "jobs"):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = recorded(job)
        start = base_commit or (known.commit if known else None)
        copy = await mirror(root, source, base_ref, start)
        try:
            async with locked(opening(job), OPEN_TIMEOUT_S):
                with disk_errors():
                    job.mkdir(exist_ok=True, mode=0o700)
                    return await cls._enter(job, job_id, copy)
        except BaseException:
            copy.share.end()
            raise

    @classmethod
    async def _enter(cls, job: Path, job_id: str, copy: Mirror) -> Workspace:
        base = await established(job, copy)
        room, new = await enter(job, job_id)
        workspace = cls(job, base, room, copy.share, base.tree if new else None)
        try:
            room.unlock_index()
            if new:
                await workspace._check_out(base.tree)
                room.ready.touch()
        except BaseException:
            room.leave()
            raise
        return workspace

    @property
    def base_commit(self) -> str:
        return self._base.commit

    @property
    def base_tree(self) -> str:
        return self._base.tree

    @property
    def tree_path(self) -> Path:
        """The working tree; what is mounted at /workspace."""
        return self._room.files

    @property
    def lock_handle(self) -> int:
        """To be held by everything that may write into the tree."""
        return self._room.handle

    async def snapshot(self, only: Sequence[str] | None = None) -> str:
        """Record the tree as it is and return its id.

        Args:
            only: nothing but these paths has changed since the last state; they are
                recorded even if .gitignore names them. Cheaper than looking everywhere.

        Raises:
            SnapshotRefusedError: something in the tree can't be recorded; the tree is as
                it was, and so is the last state.
            DiskFullError.
        """
        async with self._busy:
            self._room.unlock_index()
            before = holes.packs(self.git.git_dir)
            with _refusals():
                await self._add(only or ())
                if only is None or self.current_tree is None:
                    await self._add_all()
                await self._leave_out_laid()
            await holes.refuse_large(self.git, self.tree_path, before)
            await self._refuse_many_files()
            if self.current_tree is None or self._index_stamp() != self._recorded_stamp:
                self.current_tree = (await self.git.run("write-tree", "--missing-ok")).text
                self._recorded_stamp = self._index_stamp()
            return self.current_tree

    async def restore(self, tree: str) -> None:
        """Make the working tree equal a recorded state; ignored files stay.

        Raises:
            TreeMissingError: it was not recorded here and no delta was applied.
            DiskFullError.
        """
        check_object(tree)
        if not await self.has(tree):
            raise TreeMissingError(tree)
        async with self._busy:
            self.current_tree, self.adopted = None, False
            self._room.unlock_index()
            try:
                await self._remove_holes()
                await self._check_out(tree)
                await holes.remove_untracked(self.git, self.tree_path)
            except DiskFullError:
                raise
            except (GitError, WorkspaceError):
                await self._room.wipe()  # then from nothing: a damaged index, paths git can't walk
                await self._check_out(tree)
            self.current_tree = tree

    async def has(self, tree: str) -> bool:
        """Whether a state is here with everything in it."""
        found = await self.git.run(
            "rev-list", "--objects", "--quiet", check_object(tree), codes=(0, 1, 128)
        )
        return found.exit_code == 0

    async def delta(self, old: str, new: str) -> bytes:
        """What another machine with `old` needs to have `new`; empty if they are the same."""
        if check_object(old) == check_object(new):
            return b""
        packed = await self.git.run(
            "pack-objects", "--revs", "--stdout", "-q", "--window=0",
            stdin=f"{new}\n^{old}\n".encode(), output_bytes_max=DELTA_BYTES_MAX,
        )  # fmt: skip
        return packed.stdout

    async def apply_delta(self, delta: bytes, new: str) -> None:
        """Take what `delta` gave elsewhere; doing it again changes nothing.

        Raises:
            DeltaDamagedError: afterwards `new` is still not whole.
        """
        if await self.has(new):
            return
        how = ("unpack-objects", "-q", "--strict")
        if len(delta) > UNPACK_BYTES_MAX:
            how = ("index-pack", "--stdin", "--strict")
        said = ""
        try:
            if delta:
                await self.git.run(*how, stdin=delta)
        except DiskFullError:
            raise
        except GitError as error:
            said = str(error)
        if not await self.has(new):
            raise DeltaDamagedError(new, said)

    async def diff(self, old: str, new: str, paths: Sequence[str] = ()) -> bytes:
        """The unified diff, with binary files, as `git apply` takes it."""
        output = await self._compare(
            old, new, "--patch", "--binary", "--full-index", "--no-color",
            "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", paths=paths,
        )  # fmt: skip
        return output

    async def changes(self, old: str, new: str) -> list[Change]:
        """What differs, path by path."""
        return parse(await self._compare(old, new, "--raw", "--numstat", "-z", "--no-abbrev"))

    def release(self) -> None:
        """Leave the workspace where it is, for whoever opens it next; idempotent."""
        self._room.leave()
        self._share.end()

    async def close(self) -> None:
        """Remove everything of the job but what another owner is still in; idempotent."""
        self._room.leave()
        await quiet_job_removed(self._job, OPEN_TIMEOUT_S)
        self._share.end()

    async def _add(self, paths: Sequence[str]) -> None:
        """Record single paths; one that is gone is recorded as gone."""
        plain = [path for path in paths if self._room.reaches(path)]
        if plain:
            await self.git.run(
                "-c", f"core.bigFileThreshold={holes.FILE_BYTES_MAX}",
                "update-index", "--add", "--remove", "--replace", "-z", "--stdin",
                stdin=b"".join(encode(path) + b"\0" for path in plain),
                timeout_s=ADD_TIMEOUT_S,
            )  # fmt: skip

    async def _add_all(self) -> None:
        """`git add`, while `find` looks for holes; the holes' sentence comes first."""
        holes.refuse_filled_submodules(self.tree_path, self._base.submodules)
        adding = asyncio.ensure_future(
            self.git.run(
                "-c", f"core.bigFileThreshold={holes.FILE_BYTES_MAX}", "add", "--all",
                timeout_s=ADD_TIMEOUT_S,
            )
        )  # fmt: skip
        try:
            await holes.refuse_kinds(self.git, await holes.suspects(self._names))
            holes.refuse_unread((await adding).stderr)
        finally:
            adding.cancel()
            await asyncio.gather(adding, return_exceptions=True)

    async def _leave_out_laid(self) -> None:
        """Single files of a setup lie in the tree, and a .gitignore may name them for git."""
        if self.laid is not None and self.laid.files:
            await self.git.run(
                "update-index", "--force-remove", "-z", "--stdin",
                stdin=b"".join(encode(path) + b"\0" for path in self.laid.files),
            )  # fmt: skip

    async def _remove_holes(self) -> None:
        found = await holes.suspects(self._names)
        await remove_inside(self.tree_path, [*found.repositories, *found.special])

    async def _check_out(self, tree: str) -> None:
        await self.git.run("read-tree", "--reset", "-u", tree, timeout_s=CHECKOUT_TIMEOUT_S)
        await self._room.give_to_job()
        # Handing files over changed their status time; without this the next add reads them
        # all, and each snapshot writes down again what is not in the shared part.
        await self.git.run("update-index", "-q", "--refresh", "--split-index", codes=(0, 1))

    async def _compare(self, old: str, new: str, *how: str, paths: Sequence[str] = ()) -> bytes:
        check_object(old), check_object(new)
        return (await self.git.run("diff-tree", "-r", "-M", *how, old, new, "--", *paths)).stdout

    def _index_stamp(self) -> bytes:
        """The index's checksum of itself: the same stamp, the same entries."""
        with (self._room.place / "index").open("rb") as index:
            index.seek(-len(self.base_tree) // 2, os.SEEK_END)
            return index.read()

    async def _refuse_many_files(self) -> None:
        """Refuse a tree of far more files than the base has.

        The index is split: what most entries are lies in a shared file that is seldom
        written.  The entries of both are more than there are, so counting them exactly
        is left for when they seem too many.
        """
        limit = self._base.files + FILES_ADDED_MAX
        if self._entries() <= limit:
            return
        listed = await self.git.run("ls-files", "-z", output_bytes_max=NAMES_BYTES_MAX)
        if listed.stdout.count(b"\0") > limit:
            raise TooManyFilesError(f"more than {FILES_ADDED_MAX} new files")

    def _entries(self) -> int:
        """Of the index and of the largest part that it may share, from their headers."""
        shared = map(_entries, self.git.git_dir.glob("sharedindex.*"))
        return _entries(self._room.place / "index") + max(shared, default=0)


def _entries(index: Path) -> int:
    """The number of entries, from an index's header."""
    with index.open("rb") as file:
        return int.from_bytes(file.read(12)[8:], "big")


@contextmanager
def _refusals() -> Iterator[None]:
    """git would not record something: say so as a refusal, not as git's failure."""
    try:
        yield
    except GitTimeoutError as error:
        raise TooManyFilesError(str(error)) from error
    except GitError as error:
        raise SnapshotRefusedError(*error.args) from error
