"""Names: what lies in a working tree, read again only where a directory has changed.

A directory's status time changes with its entries, and only the kernel sets it:
one whose status time is what it was holds the names it held.  A change in the
instant of the look could leave the time as it is, so a directory that has just
changed is not remembered.  Which names are a problem is `holes`' business.

Looking at 5,000 files in 100 directories takes 0.4 ms, `find` takes 8.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SETTLED_NS: Final = 50_000_000
"""Status times have steps of up to 10 ms; a directory older than this can't change unseen."""


@dataclass
class Suspects:
    """Paths from the tree's root that git may leave out."""

    repositories: list[str] = field(default_factory=list)
    """Each ends in `.git`."""
    special: list[str] = field(default_factory=list)
    """Pipes, sockets, devices."""


@dataclass(frozen=True)
class _Directory:
    """What one directory held, by name."""

    stamp: tuple[int, int]
    """Its inode and status time."""
    directories: tuple[str, ...]
    repositories: tuple[str, ...]
    special: tuple[str, ...]


class Names:
    """Of one tree; remembers what it has seen."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, _Directory] = {}

    def suspects(self) -> Suspects:
        """Look at every name that may have changed; links are not followed.

        Raises:
            OSError: a directory can't be read, or its path is too long for the system.
        """
        found = Suspects()
        settled_before_ns = time.time_ns() - SETTLED_NS
        remembered: dict[str, _Directory] = {}
        for path, directory in self._walk():
            found.repositories += [path + name for name in directory.repositories]
            found.special += [path + name for name in directory.special]
            if directory.stamp[1] < settled_before_ns:
                remembered[path] = directory
        self._known = remembered
        return found

    def _walk(self) -> Iterator[tuple[str, _Directory]]:
        """Each directory with its path, which is empty or ends in a slash."""
        waiting = [""]
        while waiting:
            path = waiting.pop()
            status = os.lstat(f"{self.root}/{path}.")
            stamp = (status.st_ino, status.st_ctime_ns)
            directory = self._known.get(path)
            if directory is None or directory.stamp != stamp:
                directory = _read(f"{self.root}/{path}", stamp)
            yield path, directory
            waiting += [f"{path}{name}/" for name in directory.directories]


def _read(path: str, stamp: tuple[int, int]) -> _Directory:
    directories, repositories, special = [], [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name == ".git":
                repositories.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            elif not (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                special.append(entry.name)
    return _Directory(stamp, tuple(directories), tuple(repositories), tuple(special))
