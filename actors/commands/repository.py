"""What `--repo` names, checked before anything is sent.

A path is checked only when Troupe runs on this machine: elsewhere it is a path
of that machine.  The server checks again; this is for a clear sentence at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from actors.commands.failures import WrongUsageError
from actors.errors import GitError
from actors.git import Git

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SSH: Final = re.compile(r"[\w.-]+@[\w.-]+:[^/].*|[\w.-]+@[\w.-]+:/.*")
STATUS_S: Final = 5.0
"""Longest search for uncommitted changes; they are only remarked upon."""


@dataclass(frozen=True)
class Repository:
    """A repository to work on, as it is sent."""

    address: str
    """An absolute path, or a URL."""
    uncommitted: tuple[str, ...] = ()
    """Changed files that the work will not see: it starts from a commit."""


async def find_repository(named: str, base_ref: str | None, *, local: bool) -> Repository:
    """The repository that `--repo` names.

    Raises:
        WrongUsageError: there is none, it has no commit, or no such base.
    """
    if _URL.match(named) or _SSH.fullmatch(named):
        return Repository(_checked_url(named))
    if not local:
        return Repository(_path_elsewhere(named))
    path, git_dir = _find(named)
    git = Git(git_dir, path)
    await _check_commits(git, path, base_ref)
    return Repository(str(path), () if git_dir == path else await _uncommitted(git))


def _checked_url(named: str) -> str:
    try:
        secret = urlsplit(named).password if _URL.match(named) else None
    except ValueError as error:
        raise WrongUsageError(f"{named} is not a URL: {error}.") from error
    if secret:
        raise WrongUsageError(
            "The URL has a password in it, which everybody who reads the issue would see.",
            "Leave it out: the server has its own credentials for its hosts.",
        )
    return named


def _path_elsewhere(named: str) -> str:
    if not named.startswith("/"):
        raise WrongUsageError(
            f"{named} is a relative path, and Troupe runs on another machine.",
            "Give a path of that machine from its root, or a URL.",
        )
    return named


def _find(named: str) -> tuple[Path, Path]:
    """The absolute path and its git dir, which is the path itself when it is bare."""
    path = Path(named).expanduser().resolve()
    return path, _git_dir(path)


def _git_dir(path: Path) -> Path:
    if not path.exists():
        raise WrongUsageError(f"There is no {path}.", "Check --repo: a folder, or a URL.")
    if not path.is_dir():
        raise WrongUsageError(f"{path} is a file, not a repository.", "Name its folder.")
    if (path / ".git").exists():
        return path / ".git"
    if (path / "HEAD").is_file() and (path / "objects").is_dir():
        return path  # bare
    for parent in path.parents:
        if (parent / ".git").exists():
            raise WrongUsageError(
                f"{path} is a folder inside the repository {parent}.", f"Use: --repo {parent}"
            )
    raise WrongUsageError(
        f"{path} is not a git repository.",
        f"Make it one: git -C {path} init && git -C {path} add . && git -C {path} commit -m start",
    )


async def _check_commits(git: Git, path: Path, base_ref: str | None) -> None:
    try:
        head = await git.run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", codes=(0, 1))
        some = await git.run("rev-list", "--all", "--max-count=1")
        if head.exit_code and not some.text:
            raise WrongUsageError(
                f"{path} has no commit yet.", f"Commit something first: git -C {path} commit"
            )
        if base_ref is None:
            return
        name = f"{base_ref}^{{commit}}"
        known = await git.run(
            "rev-parse", "--verify", "--quiet", "--end-of-options", name, codes=(0, 1)
        )
    except GitError as error:
        raise WrongUsageError(f"git can't read {path}: {error}") from error
    if known.exit_code:
        raise WrongUsageError(
            f"{path} has no branch, tag or commit {base_ref}.", f"See: git -C {path} branch --all"
        )


async def _uncommitted(git: Git) -> tuple[str, ...]:
    """Tracked files that differ from the last commit; none where git can't tell."""
    try:
        status = await git.run(
            "status", "--porcelain", "--untracked-files=no", "-z", timeout_s=STATUS_S
        )
    except GitError:
        return ()
    return tuple(line[3:] for line in status.text.split("\0") if len(line) > 3)
