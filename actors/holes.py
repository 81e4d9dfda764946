"""Holes: what a working tree can hold that a git tree can't, found before it is lost.

git silently leaves out pipes, sockets and everything in a directory that looks
like another repository, so a snapshot with one of them would not come back as
it was.  Ignored paths are scratch, and scratch may hold anything.  Files that
are too large to be carried in a step's result are found by what git makes of
them: content beyond the threshold goes into a pack, so a pack is the sign.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from actors.errors import (
    FileTooLargeError,
    NestedRepositoryError,
    SnapshotRefusedError,
    SpecialFileError,
)
from actors.git import Git, decode, encode
from actors.names import Names, Suspects
from actors.room import remove_empty_inside, remove_inside, tool

FILE_BYTES_MAX = 50 << 20
NAMED_MAX = 3
COMPLAINT_CHARS_MAX = 300
UNREAD = "could not open directory"


async def suspects(names: Names) -> Suspects:
    """Look at every name in a tree; links are not followed."""
    try:
        return await asyncio.to_thread(names.suspects)
    except OSError:  # a path too long for the system, which `find` takes in parts
        return await _found(names.root)


async def _found(files: Path) -> Suspects:
    printed = await tool(
        "find", str(files),
        "(", "-name", ".git", "-printf", "r%P\\0", "-prune", ")", "-o",
        "(", "-not", "(", "-type", "f", "-o", "-type", "d", "-o", "-type", "l", ")",
        "-printf", "s%P\\0", ")",
    )  # fmt: skip
    found = Suspects()
    for entry in decode(printed).split("\0")[:-1]:
        (found.repositories if entry[0] == "r" else found.special).append(entry[1:])
    return found


async def refuse_kinds(git: Git, found: Suspects) -> None:
    """Refuse repositories and special files that are not ignored.

    Raises:
        NestedRepositoryError, SpecialFileError: naming the first few.
    """
    holders = {path.rpartition("/")[0]: path for path in found.repositories}
    ignored = await _ignored(git, [*filter(None, holders), *found.special])
    if nested := [path for holder, path in holders.items() if holder not in ignored]:
        raise NestedRepositoryError(*_named(nested))
    if special := [path for path in found.special if path not in ignored]:
        raise SpecialFileError(*_named(special))


def refuse_unread(complaints: bytes) -> None:
    """Refuse a directory that git skipped with a warning: too deep, or closed to us.

    Raises:
        SnapshotRefusedError: with git's words.
    """
    for line in decode(complaints).splitlines():
        if UNREAD in line:
            raise SnapshotRefusedError(line.removeprefix("warning: ")[:COMPLAINT_CHARS_MAX])


def packs(git_dir: Path) -> set[str]:
    """The packs of a git dir."""
    return {path.stem for path in (git_dir / "objects/pack").glob("pack-*.pack")}


async def refuse_large(git: Git, files: Path, before: set[str]) -> None:
    """Refuse if git has made a pack since `before`, and remove it.

    Raises:
        FileTooLargeError: naming the first few large files.
    """
    made = packs(git.git_dir) - before
    if not made:
        return
    for path in (git.git_dir / "objects/pack").iterdir():
        if path.stem in made:
            path.unlink()
    size = f"+{FILE_BYTES_MAX}c"
    printed = await tool("find", str(files), "-type", "f", "-size", size, "-printf", "%P\\0")
    names = decode(printed).split("\0")[:-1]
    raise FileTooLargeError(*_named(names), f"more than {FILE_BYTES_MAX >> 20} MB")


async def remove_untracked(git: Git, files: Path) -> None:
    """Remove what the index does not have: files, directories and repositories.

    Ignored files stay, except below a directory that goes. `git clean` would do the
    same, but takes minutes over directories some hundred levels deep.
    """
    look = ("ls-files", "-z", "--others", "--exclude-standard", "--directory")
    untracked = await git.run(*look)
    if not untracked.stdout:
        return
    filled = await git.run(*look, "--no-empty-directory")
    if UNREAD in decode(filled.stderr):  # git takes what it can't open for empty
        filled = untracked
    names = decode(filled.stdout).split("\0")[:-1]
    await remove_inside(files, names)
    rest = set(decode(untracked.stdout).split("\0")[:-1]).difference(names)
    await remove_empty_inside(files, sorted(rest))


def refuse_filled_submodules(files: Path, submodules: Sequence[str]) -> None:
    """Refuse files in a submodule's directory, which git would leave out.

    Raises:
        SnapshotRefusedError: naming the first.
    """
    for path in submodules:
        place = files / path
        if place.is_dir() and not place.is_symlink() and any(place.iterdir()):
            raise SnapshotRefusedError("files lie in a submodule's directory; remove them", path)


async def _ignored(git: Git, paths: list[str]) -> set[str]:
    if not paths:
        return set()
    # The command takes no literal pathspecs; behind `./` every name is one anyway.
    answer = await git.run(
        "check-ignore", "-z", "--stdin",
        stdin=b"".join(b"./" + encode(path) + b"\0" for path in paths),
        env={"GIT_LITERAL_PATHSPECS": "0"},
        codes=(0, 1),
    )  # fmt: skip
    return {path.removeprefix("./") for path in decode(answer.stdout).split("\0")}


def _named(paths: list[str]) -> list[str]:
    more = len(paths) - NAMED_MAX
    return [*(os.fsencode(path).decode(errors="backslashreplace") for path in paths[:NAMED_MAX]),
            *([f"and {more} more"] if more > 0 else [])]  # fmt: skip
