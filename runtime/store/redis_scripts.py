"""The Redis store's scripts, read from the `.lua` files beside this module.

A script names in its last line of comment the parts it is made with; they are
put in front of it, and the whole is known to the server by its hash.  The first
line, `#!lua` and its flags, stays first: it is what lets the server refuse a
script before it starts when memory is used up or the disk is full.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_WITH: Final = re.compile(r"^-- with (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    name: str
    source: str
    digest: str
    """SHA-1 of the source, as EVALSHA wants it."""


def _read(name: str) -> tuple[str, str]:
    """First line and the rest of a file."""
    first, _, rest = Path(__file__).with_name(name).read_text().partition("\n")
    return first, rest


def _load(name: str) -> Script:
    first, body = _read(f"redis_{name}.lua")
    found = _WITH.search(body)
    parts = [_read(part)[1] for part in found[1].split()] if found else []
    source = "\n".join([first, *parts, body])
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


GREET: Final = _load("greet")
DRAW: Final = _load("draw")
COMMIT: Final = _load("commit")
REGISTER: Final = _load("register")
RENEW: Final = _load("renew")
CLAIM: Final = _load("claim")
RELEASE: Final = _load("release")
POLL: Final = _load("poll")
MESSAGES: Final = _load("messages")
OUTCOME: Final = _load("outcome")
JOURNAL: Final = _load("journal")
STEPS: Final = _load("steps")
GET: Final = _load("get")
LIST: Final = _load("list")
TAIL: Final = _load("tail")
PRUNE: Final = _load("prune")
PURGE: Final = _load("purge")
