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
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from actors.errors import (
    BaseRefUnknownError,
    DiskFullError,
    GitError,
    NotARepositoryError,
    RefNameError,
    RepositoryBusyError,
    RepositoryEmptyError,
    RepositoryUnknownError,
    RepositoryUnsafeError,
)
from actors.git import LOCAL_UPLOAD_PACK, Git, Transport, check_ref

FETCH_TIMEOUT_S = 600.0
LOCK_TIMEOUT_S = 660.0
LOCK_POLL_S = 0.05
REMOVALS_MAX = 1_000
URL_LENGTH_MAX = 2_000

_HTTPS = re.compile(r"https://[^\s\x00-\x20@/]+(:\d+)?/[^\s\x00-\x1f]+")
_SSH = re.compile(r"ssh://([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?/[^\s\x00-\x1f]+")
_SCP = re.compile(r"(\w[\w.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^-/:\s][^\s\x00-\x1f]*", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class RepositorySource:
    """Where the work is to be done: a path on this machine, or an https or ssh URL."""

    url_or_path: str
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For the transport alone: `https_proxy`, `SSH_AUTH_SOCK`."""
    config: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For the transport alone: `http.extraHeader` with a token. Never written to disk."""

    @property
    def transport(self) -> Transport:
        """How it is reached.

        Raises:
            RepositoryUnknownError: neither an absolute path nor an https or ssh URL.
        """
        place = self.url_or_path
        if len(place) <= URL_LENGTH_MAX and "\x00" not in place:
            if place.startswith(("/", "file:///")):
                return "file"
            if _HTTPS.fullmatch(place):
                return "https"
            if _SSH.fullmatch(place) or _SCP.fullmatch(place):
                return "ssh"
        raise RepositoryUnknownError("an absolute path, https:// or ssh:// is needed", place[:200])

    @property
    def location(self) -> str:
        """What git is given; for a path, absolute and without symbolic links.

        Raises:
            RepositoryUnknownError: there is nothing at the path.
            NotARepositoryError: the path is no directory.
        """
        if self.transport != "file":
            return self.url_or_path
        path = Path(self.url_or_path.removeprefix("file://"))
        try:
            resolved = path.resolve(strict=True)
        except OSError as error:
            raise RepositoryUnknownError(str(path)) from error
        if not resolved.is_dir():  # git would take a file for a bundle
            raise NotARepositoryError(str(path))
        return str(resolved)


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
    remote = await _remote_refs(git, source, location)
    wanted = base_commit or remote.find(base_ref)
    async with locked(git.git_dir.with_suffix(".lock")):
        if wanted is None or not await has_commit(git, wanted):
            await _fetch(git, source, location, remote)
    return await _commit(git, wanted or str(base_ref))


@dataclass(frozen=True)
class RemoteRefs:
    """What the original has: ref name to object id; a tag is also there as `name^{}`."""

    refs: Mapping[str, str]

    def find(self, base_ref: str | None) -> str | None:
        """The commit behind a name; None if it may be a commit id.

        Raises:
            RepositoryEmptyError, BaseRefUnknownError.
        """
        if not self.refs:
            raise RepositoryEmptyError()
        if base_ref in (None, "", "HEAD"):
            if "HEAD" not in self.refs:
                raise RepositoryEmptyError("its default branch does not exist yet")
            return self.refs["HEAD"]
        assert base_ref is not None
        try:
            name = check_ref(base_ref)
        except RefNameError as error:
            raise BaseRefUnknownError(*error.args) from error
        for candidate in (name, f"refs/heads/{name}", f"refs/tags/{name}"):
            if candidate.startswith("refs/") and candidate in self.refs:
                return self.refs.get(candidate + "^{}", self.refs[candidate])
        if _HEX.fullmatch(name):
            return None
        raise BaseRefUnknownError(name)


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


async def _remote_refs(git: Git, source: RepositorySource, location: str) -> RemoteRefs:
    listing = await _ask(git, source, location, "ls-remote", "--quiet", *_upload_pack(source))
    lines = (line.partition("\t") for line in listing.splitlines())
    return RemoteRefs({name: object_id for object_id, _, name in lines})


async def _fetch(git: Git, source: RepositorySource, location: str, remote: RemoteRefs) -> None:
    if not (git.git_dir / "HEAD").exists():
        await _create(git, "sha1" if len(next(iter(remote.refs.values()))) == 40 else "sha256")
    head = ["+HEAD:refs/troupe/head"] if "HEAD" in remote.refs else []
    refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", *head]
    options = ("--quiet", "--prune", "--force", "--no-tags", "--no-write-fetch-head")
    await _ask(
        git, source, location, "fetch", *options, "--update-shallow", *_upload_pack(source),
        operands=refspecs,
    )  # fmt: skip


async def _create(git: Git, object_format: str) -> None:
    """An empty bare repository, made aside and renamed, so that half of one is never found."""
    aside = git.git_dir.with_suffix(".new")
    if aside.exists():
        await asyncio.to_thread(shutil.rmtree, aside)
    aside.mkdir(parents=True)
    await Git(aside).run(
        "init", "--quiet", "--bare", "--template=", f"--object-format={object_format}"
    )
    aside.rename(git.git_dir)


async def _ask(
    git: Git, source: RepositorySource, location: str, *args: str, operands: list[str] | None = None
) -> str:
    """Run a command that speaks with the original; its failures become sentences."""
    try:
        output = await git.run(
            *args, "--end-of-options", location, *(operands or []),
            allow=(source.transport,),
            env=source.env,
            config=source.config,
            timeout_s=FETCH_TIMEOUT_S,
        )  # fmt: skip
    except DiskFullError:
        raise
    except GitError as error:
        if source.transport == "file" and "not appear to be a git repository" in str(error):
            raise NotARepositoryError(location) from error
        if "fsck error" in str(error):
            raise RepositoryUnsafeError(source.url_or_path, str(error.args[-1])) from error
        raise RepositoryUnknownError(source.url_or_path, str(error)) from error
    return output.text


def _upload_pack(source: RepositorySource) -> list[str]:
    return [f"--upload-pack={LOCAL_UPLOAD_PACK}"] if source.transport == "file" else []


async def _commit(git: Git, name: str) -> str:
    """The full id of a commit that is here, by its id or the beginning of it."""
    if not _HEX.fullmatch(name):
        raise BaseRefUnknownError(name)
    output = await git.run(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}",
        codes=(0, 1, 128),
    )  # fmt: skip
    if output.exit_code != 0 or not output.text:
        raise BaseRefUnknownError(name)
    return output.text
