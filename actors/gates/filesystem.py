"""Gate `files`: nothing but plain text files with plain names.

Links, submodules, executables and binary content are what a reader of a diff
can't judge at sight; a link out of the repository, or a name that means
something else to another file system, is refused.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from actors.gates.candidate import SUBMODULE, SYMLINK, Candidate, Change, Objection, object_to
from actors.gates.verdicts import result
from actors.records import GateResult

PATH_BYTES_MAX: Final = 1_024

_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f\x80-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\udc80-\udcff]"
)
"""Control, zero-width and direction characters, and bytes that are not UTF-8."""
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def plain_files(candidate: Candidate) -> GateResult:
    """Whether every changed path is a plain file with a plain name."""
    found: list[Objection] = []
    for change in candidate.changes:
        found += _name(change)
        found += _kind(candidate, change)
    found += _collisions(candidate)
    return result("files", found, "plain files with plain names")


def _name(change: Change) -> Iterator[Objection]:
    if change.status.startswith("D"):
        return
    path = change.path
    shown = path.encode("unicode_escape").decode()
    parts = path.split("/")
    if _UNSEEN.search(path):
        yield object_to("failed", "invisible or control characters in the name", shown)
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts):
        yield object_to("failed", "not a plain relative path", shown)
    if any(_means_git(part) for part in parts):
        yield object_to("failed", "git keeps its own files under this name", shown)
    if len(path.encode("utf-8", "surrogateescape")) > PATH_BYTES_MAX:
        yield object_to("failed", f"a path of over {PATH_BYTES_MAX} bytes", shown[:100])
    if any(_RESERVED.fullmatch(part) or part.endswith((" ", ".")) for part in parts):
        yield object_to("needs_human", "not a file name everywhere", shown)


def _means_git(part: str) -> bool:
    """Whether some file system takes the name for `.git`."""
    folded = unicodedata.normalize("NFKC", _UNSEEN.sub("", part)).casefold()
    folded = folded.partition(":")[0].rstrip(" .")
    return folded in (".git", "git~1")


def _kind(candidate: Candidate, change: Change) -> Iterator[Objection]:
    old, new = change.old_mode, change.new_mode
    if SUBMODULE in (old, new):
        yield object_to("needs_human", "a submodule: its content is not in the diff", change.path)
    elif new == SYMLINK:
        yield _link(candidate, change)
    elif old == SYMLINK and new != "000000":
        yield object_to("needs_human", "a link became a file", change.path)
    elif new == "100755" and old != "100755":
        yield object_to("needs_human", "became executable", change.path)
    elif old == "100755" and new == "100644":
        yield object_to("needs_human", "is no longer executable", change.path)
    elif new not in ("100644", "100755", "000000"):
        yield object_to("needs_human", f"an unusual mode {new}", change.path)
    if change.binary and not change.status.startswith("D"):
        yield object_to("needs_human", "binary content can't be read in a diff", change.path)


def _link(candidate: Candidate, change: Change) -> Objection:
    target = (candidate.text_after(change) or "").rstrip("\n")
    where = posixpath.normpath(posixpath.join(posixpath.dirname(change.path), target))
    if target.startswith("/") or where.split("/")[0] == ".." or _UNSEEN.search(target):
        return object_to("failed", "a link that leaves the repository", change.path)
    return object_to("needs_human", f"a link to {where}", change.path)


def _collisions(candidate: Candidate) -> Iterator[Objection]:
    """New names that are one name where case or normal form do not count."""
    present = set(candidate.final_names) | {
        change.path for change in candidate.changes if not change.status.startswith("D")
    }
    by_fold: dict[str, list[str]] = {}
    for path in present:
        by_fold.setdefault(_folded(path), []).append(path)
    for change in candidate.changes:
        if change.status[:1] in ("A", "R", "C"):
            others = [path for path in by_fold[_folded(change.path)] if path != change.path]
            if others:
                why = f"the same name as {min(others)} on some file systems"
                yield object_to("failed", why, change.path)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
