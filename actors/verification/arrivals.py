"""What arrives in a bare repository, read with plain git: the effects of a chaos run.

Every ref that is new or points elsewhere is an arrival, whoever wrote it and
however it is called.  A change is named by the SHA-256 of its diff from the
commit that the repository began with, which is what a person approves.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

DIFF: Final = (
    "diff", "--find-renames", "--binary", "--full-index", "--no-color", "--no-ext-diff",
    "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip
GONE: Final = "gone"


class Arrival(NamedTuple):
    at_ns: int
    """When the ref was written, by its file; when it was seen, if it has none."""
    ref: str
    commit: str
    """`gone`: the ref was removed."""
    sha256: str
    """Of the change."""


class Arrivals:
    """Those of one repository since it was made."""

    def __init__(self, repository: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.seen: list[Arrival] = []
        self._repository = repository
        self._now_ns = now_ns
        self._refs = self._read()
        [self._base] = set(self._refs.values())

    def look(self) -> None:
        """Take note of every ref that has changed since the last look."""
        refs = self._read()
        for ref in sorted(refs.keys() | self._refs.keys()):
            commit = refs.get(ref, GONE)
            if commit != self._refs.get(ref, GONE):
                self.seen.append(Arrival(self._written_ns(ref), ref, commit, self._change(commit)))
        self._refs = refs

    def _read(self) -> Mapping[str, str]:
        lines = git(self._repository, "for-each-ref", "--format=%(refname) %(objectname)")
        return dict(line.split(" ") for line in lines.decode().splitlines())

    def _written_ns(self, ref: str) -> int:
        try:
            return (self._repository / ref).stat().st_mtime_ns
        except OSError:
            return self._now_ns()

    def _change(self, commit: str) -> str:
        if commit == GONE:
            return GONE
        return hashlib.sha256(git(self._repository, *DIFF, self._base, commit)).hexdigest()


def make_repository(path: Path, files: Mapping[str, str]) -> Path:
    """A bare repository with one commit of `files` on `main`."""
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)],
        env=ENVIRONMENT, check=True,
    )  # fmt: skip
    stream = "commit refs/heads/main\ncommitter Ada <ada@example.org> 1700000000 +0000\n"
    stream += _data("All of it") + "".join(
        f"M 100644 inline {name}\n{_data(content)}" for name, content in files.items()
    )
    git(path, "fast-import", "--quiet", stdin=stream.encode())
    return path


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"


def git(repository: Path, *words: str, stdin: bytes = b"") -> bytes:
    """What git prints of a bare repository, under no configuration but the repository's."""
    argv: Sequence[str] = ("git", f"--git-dir={repository}", *words)
    return subprocess.run(
        argv, env=ENVIRONMENT, input=stdin, check=True, stdout=subprocess.PIPE
    ).stdout
