"""Which repository an issue may name, checked without telling what is on the disk.

A path is looked at only below an allowed root, component by component and never
through a symbolic link, so nothing outside a root is ever touched.  "Outside",
"not there", "a link" and "not readable" get one and the same answer.  Only of a
directory that is really there, below a root, is it said that it is no git
repository or has no commit; git itself is not run here.

The answer is of this moment.  Who uses the repository later looks again.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from actors.errors import RefNameError, RepositoryUnknownError
from actors.git import check_ref
from actors.intake.settings import IntakeSettings
from actors.mirror import RepositorySource
from runtime.console.problems import ProblemError, invalid

FIELD: Final = "body.context.repository"
HEAD_BYTES_MAX: Final = 4_096
REFS_SEEN_MAX: Final = 1_000
"""Directories below refs that are searched for one ref."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DETACHED = re.compile(rb"[0-9a-f]{40,64}\s*")
_PACKED = re.compile(rb"^[0-9a-f]{40,64} refs/", re.MULTILINE)


class Found(StrEnum):
    """What is at a path."""

    NOTHING = "nothing"
    """Or nothing that may be known."""
    NO_REPOSITORY = "no_repository"
    EMPTY = "empty"
    REPOSITORY = "repository"


async def check_repository(named: str, settings: IntakeSettings) -> str:
    """The repository that an issue names: a URL as it is, a path without detours.

    Raises:
        ProblemError: 422, with code repository_not_allowed, not_a_repository or
            empty_repository.
    """
    try:
        transport = RepositorySource(named).transport
    except RepositoryUnknownError:
        raise _not_allowed() from None
    if transport != "file":
        if _host(named) not in settings.repository_hosts:
            raise _not_allowed()
        return named
    place = below(named.removeprefix("file://"), settings.repository_roots)
    if place is None:
        raise _not_allowed()
    return await _check_place(*place)


def check_base_ref(name: str) -> None:
    """Raise ProblemError (422 invalid_base_ref) for what git would not take as a ref."""
    try:
        check_ref(name)
    except RefNameError as error:
        raise invalid("body.context.baseRef", "invalid_base_ref", str(error)) from None


async def _check_place(root: Path, parts: tuple[str, ...]) -> str:
    match await asyncio.to_thread(look, root, parts):
        case Found.NOTHING:
            raise _not_allowed()
        case Found.NO_REPOSITORY:
            raise invalid(FIELD, "not_a_repository", "This directory is not a git repository.")
        case Found.EMPTY:
            raise invalid(FIELD, "empty_repository", "The repository has no commit yet.")
    return str(root.joinpath(*parts))


def _not_allowed() -> ProblemError:
    return invalid(
        FIELD,
        "repository_not_allowed",
        "Not a repository on an allowed host, nor one below an allowed directory.",
    )


def _host(url: str) -> str | None:
    """The host of `https://`, `ssh://` or `user@host:path`, in lower case."""
    if "://" not in url:
        return url.partition(":")[0].rpartition("@")[2].lower()
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def below(path: str, roots: Iterable[Path]) -> tuple[Path, tuple[str, ...]] | None:
    """The allowed root a path lies in and the way from there, without touching the path.

    The root comes back without symbolic links: which directory it stands for is
    the operator's choice.
    """
    wanted = Path(os.path.normpath(path))
    for root in roots:
        real = root.resolve()
        for spelled in (Path(os.path.normpath(root)), real):
            if wanted.is_relative_to(spelled):
                return real, wanted.relative_to(spelled).parts
    return None


def look(root: Path, parts: tuple[str, ...]) -> Found:
    """What is at `root/parts`, following no link on the way."""
    try:
        with _opened(root, parts) as directory:
            try:
                with _directory(".git", directory) as git_dir:
                    return _judge(git_dir)
            except OSError:
                return _judge(directory)  # a bare one, or none
    except OSError:
        return Found.NOTHING


@contextmanager
def _opened(root: Path, parts: tuple[str, ...]) -> Iterator[int]:
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            current, above = os.open(part, _DIRECTORY, dir_fd=current), current
            os.close(above)
        yield current
    finally:
        os.close(current)


@contextmanager
def _directory(name: str, parent: int) -> Iterator[int]:
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _judge(git_dir: int) -> Found:
    try:
        head = _read("HEAD", git_dir)
        for name in ("objects", "refs"):
            with _directory(name, git_dir):
                pass
    except OSError:
        return Found.NO_REPOSITORY
    has_commit = _DETACHED.fullmatch(head) or _has_refs(git_dir)
    return Found.REPOSITORY if has_commit else Found.EMPTY


def _has_refs(git_dir: int) -> bool:
    """Whether there is a branch or a tag, loose, packed or in a reftable."""
    try:
        if _PACKED.search(_read("packed-refs", git_dir)):
            return True
    except OSError:
        pass  # there are none packed
    for top in ("refs/heads", "refs/tags"):
        walk = os.fwalk(top, dir_fd=git_dir, follow_symlinks=False)
        for _, _, files, _ in islice(walk, REFS_SEEN_MAX):
            if any(not name.startswith(".") for name in files):
                return True
    try:
        with _directory("reftable", git_dir):
            return True
    except OSError:
        return False


def _read(name: str, parent: int) -> bytes:
    descriptor = os.open(name, _FILE, dir_fd=parent)
    try:
        return os.read(descriptor, HEAD_BYTES_MAX)
    finally:
        os.close(descriptor)
