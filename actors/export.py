"""Commits for the outside: who made them, and a message nobody can smuggle lines into.

Names, trailers and subjects come from agents and issues; a line break or a
control character in them would forge a trailer or a terminal's screen.  When
and where a commit is published is delivery's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MESSAGE_CHARS_MAX = 20_000
LINE_CHARS_MAX = 500
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_TRAILER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


@dataclass(frozen=True)
class Person:
    """An author or a committer."""

    name: str
    email: str


def commit_environment(author: Person, committer: Person, at_ms: int) -> Mapping[str, str]:
    """What `git commit-tree` takes from its environment; the zone is UTC."""
    when = f"@{at_ms // 1000} +0000"
    return {
        "GIT_AUTHOR_NAME": _identity(author.name),
        "GIT_AUTHOR_EMAIL": _identity(author.email),
        "GIT_AUTHOR_DATE": when,
        "GIT_COMMITTER_NAME": _identity(committer.name),
        "GIT_COMMITTER_EMAIL": _identity(committer.email),
        "GIT_COMMITTER_DATE": when,
    }


def commit_message(message: str, trailers: Sequence[tuple[str, str]] = ()) -> str:
    """The message, then the trailers in a paragraph of their own.

    Raises:
        ValueError: the name of a trailer is not a word of letters, digits and `-`.
    """
    text = _CONTROL.sub("", message.replace("\r\n", "\n"))[:MESSAGE_CHARS_MAX].strip()
    lines = []
    for name, value in trailers:
        if not _TRAILER_NAME.fullmatch(name):
            raise ValueError(f"not the name of a trailer: {name!r}")
        lines.append(f"{name}: {one_line(value)}")
    return "\n\n".join(filter(None, (text, "\n".join(lines)))) + "\n"


def one_line(text: str) -> str:
    """Text without line breaks and control characters, of bounded length."""
    return " ".join(_CONTROL.sub(" ", text.replace("\n", " ")).split())[:LINE_CHARS_MAX]


def _identity(text: str) -> str:
    return one_line(text).translate({ord(char): None for char in "<>"}).strip() or "unknown"
