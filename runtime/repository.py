"""Which repository is meant: one has several spellings.

A schedule says `https://github.com/acme/api`, GitHub tells of pushes to
`https://github.com/acme/api.git`, and an issue was filed for `git@github.com:acme/api.git`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>[^@/:]+):(?P<path>[^/].*)")
"""`git@host:path`, as ssh takes it."""


@lru_cache(maxsize=4_096)
def repository_name(location: str) -> str:
    """What a location is compared by: `//host/path`, or a path of this machine.

    Neither the protocol counts, nor the user, `.git` or `/` at the end, or the host's case.
    The path's case does, and so does a port, but for ssh's. A location that can't be read
    is compared by its letters, and a name is its own name.
    """
    if scp := _SCP.fullmatch(location):
        return f"//{scp['host'].lower()}/{_bare(scp['path'])}"
    try:
        parts = urlsplit(location)
        host, port = parts.hostname, parts.port
    except ValueError:
        return location
    if not host:
        return _bare(parts.path if parts.scheme == "file" else location)
    beside = f":{port}" if port and "ssh" not in parts.scheme else ""
    return f"//{host}{beside}/{_bare(parts.path).lstrip('/')}"


def _bare(path: str) -> str:
    return path.rstrip("/").removesuffix(".git") or path
