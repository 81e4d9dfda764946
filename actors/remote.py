"""Speaking with a repository's original: a path on this machine, or an https or ssh URL.

It is only read.  Every question has a time limit and none of them can ask a
person; a fetch stops before the disk is full.  What fails becomes a sentence
that says what to do, without anything secret.  Where the copy is kept is
`mirror`'s business; who may name which repository is intake's.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from actors.errors import (
    BaseRefUnknownError,
    DiskFullError,
    GitError,
    GitTimeoutError,
    NotARepositoryError,
    RefNameError,
    RepositoryEmptyError,
    RepositoryUnknownError,
    RepositoryUnsafeError,
)
from actors.git import LOCAL_UPLOAD_PACK, Git, Transport, check_ref

FETCH_TIMEOUT_S = 600.0
LIST_TIMEOUT_S = 120.0
"""For the names of an original's branches and tags; a host that is up answers in one second."""
DISK_FREE_BYTES_MIN = 256 << 20
"""Left by a fetch: the store may lie on the same disk."""
DISK_POLL_S = 0.5
URL_LENGTH_MAX = 2_000

_HTTPS = re.compile(r"https://[^\s\x00-\x20@/]+(:\d+)?/[^\s\x00-\x1f]+")
_SSH = re.compile(r"ssh://([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?/[^\s\x00-\x1f]+")
_SCP = re.compile(r"(\w[\w.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^-/:\s][^\s\x00-\x1f]*", re.ASCII)
HEX = re.compile(r"[0-9a-f]{7,64}")
_LOGIN = "it asks for a login, and Troupe has none: name its ssh URL, with a key of Troupe's user"
_REASONS: Final = (
    ("could not read Username", _LOGIN),
    ("Authentication failed", _LOGIN),
    ("returned error: 30", "it has moved: name its new URL"),
    ("certificate", "its certificate is not trusted on this machine"),
    ("Permission denied", "the host knows no key of Troupe's user"),
    ("Host key verification failed", "the host's own key is not among the known hosts"),
)
"""In git's words -> what it means."""


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
        if HEX.fullmatch(name):
            return None
        raise BaseRefUnknownError(name)


async def remote_refs(git: Git, source: RepositorySource, location: str) -> RemoteRefs:
    how = ("ls-remote", "--quiet", *_upload_pack(source))
    listing = await _ask(git, source, location, *how, timeout_s=LIST_TIMEOUT_S)
    lines = (line.partition("\t") for line in listing.splitlines())
    return RemoteRefs({name: object_id for object_id, _, name in lines})


async def fetch(git: Git, source: RepositorySource, location: str, remote: RemoteRefs) -> None:
    if not (git.git_dir / "HEAD").exists():
        await _create(git, "sha1" if len(next(iter(remote.refs.values()))) == 40 else "sha256")
    head = ["+HEAD:refs/troupe/head"] if "HEAD" in remote.refs else []
    refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", *head]
    options = ("--quiet", "--prune", "--force", "--no-tags", "--no-write-fetch-head")
    await _ask(
        git, source, location, "fetch", *options, "--update-shallow", *_upload_pack(source),
        operands=refspecs,
        timeout_s=FETCH_TIMEOUT_S,
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
    git: Git,
    source: RepositorySource,
    location: str,
    *args: str,
    operands: Sequence[str] = (),
    timeout_s: float,
) -> str:
    """Run a command that speaks with the original; its failures become sentences."""
    running = asyncio.ensure_future(
        git.run(
            *args, "--end-of-options", location, *operands,
            allow=(source.transport,),
            env=source.env,
            config=source.config,
            timeout_s=timeout_s,
        )
    )  # fmt: skip
    watching = asyncio.ensure_future(_disk_runs_out(git.git_dir.parent))
    try:
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done() and not running.done():
            raise DiskFullError(watching.result(), "it may be too large a repository")
        return (await running).text
    except DiskFullError:
        raise
    except GitError as error:
        if source.transport == "file" and "not appear to be a git repository" in str(error):
            raise NotARepositoryError(location) from error
        if "fsck error" in str(error):
            raise RepositoryUnsafeError(source.url_or_path, str(error.args[-1])) from error
        raise RepositoryUnknownError(source.url_or_path, *_why(error)) from error
    finally:
        running.cancel()
        watching.cancel()
        await asyncio.gather(running, watching, return_exceptions=True)


def _why(error: GitError) -> list[str]:
    """What git's words mean, if that is known, and the first lines of them."""
    said = str(error.args[-1])
    if isinstance(error, GitTimeoutError):
        return [f"no answer within {said}"]
    means = [meaning for sign, meaning in _REASONS if sign in said][:1]
    lines = [line for line in said.splitlines() if line and "askpass" not in line]
    return [*means, " ".join(lines[:2])]


async def _disk_runs_out(folder: Path) -> str:
    """Return, with what there is, once there is too little space left."""
    while True:
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        if free < DISK_FREE_BYTES_MIN:
            return f"{free >> 20} MB are free"
        await asyncio.sleep(DISK_POLL_S)


def _upload_pack(source: RepositorySource) -> list[str]:
    return [f"--upload-pack={LOCAL_UPLOAD_PACK}"] if source.transport == "file" else []
