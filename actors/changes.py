"""Changes: what differs between two trees, as records.

Reads the `-z` output of `git diff-tree --raw --numstat`, in which names are
exact whatever bytes they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from actors.git import decode


@dataclass(frozen=True)
class Change:
    """One path that differs."""

    status: str
    """A added, M modified, D deleted, R renamed, T type changed."""
    path: str
    """The new name; of a deletion the old one."""
    old_path: str | None
    """Of a rename."""
    old_mode: str
    """Six octal digits as git writes them: 100644, 100755, 120000 a link, 160000 a submodule."""
    new_mode: str
    """`000000` of a deletion."""
    added: int = 0
    """Lines."""
    deleted: int = 0
    binary: bool = False


def parse(raw: bytes) -> list[Change]:
    """The changes in the order git printed them, which is by path."""
    words = iter(raw.split(b"\0"))
    changes: list[Change] = []
    by_path: dict[str, int] = {}
    for word in words:
        if word.startswith(b":"):
            change = _raw(word, words)
            by_path[change.path] = len(changes)
            changes.append(change)
        elif word:
            path, added, deleted = _numbers(word, words)
            place = by_path[path]
            changes[place] = replace(
                changes[place],
                added=int(added) if added.isdigit() else 0,
                deleted=int(deleted) if deleted.isdigit() else 0,
                binary=added == b"-",
            )
    return changes


def _raw(word: bytes, words: Iterator[bytes]) -> Change:
    """`:100644 100755 <id> <id> R086`, then one name, or two of a rename."""
    old_mode, new_mode, _, _, status = decode(word[1:]).split(" ")
    first = decode(next(words))
    renamed = status[0] == "R"
    return Change(
        status[0], decode(next(words)) if renamed else first, first if renamed else None,
        old_mode, new_mode,
    )  # fmt: skip


def _numbers(word: bytes, words: Iterator[bytes]) -> tuple[str, bytes, bytes]:
    """`<added> TAB <deleted> TAB <name>`; of a rename the name is empty and two names follow."""
    added, deleted, name = word.split(b"\t", 2)
    if not name:
        next(words)
        name = next(words)
    return decode(name), added, deleted
