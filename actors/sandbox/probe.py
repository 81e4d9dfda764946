"""The probe: makes a sandbox, lets `escape` try to get out, and judges.

A report exists only where everything held; where something did not, the
refusal names it and what usually helps.  `missing` lists what is held less
tightly than it could be, which the operator may want to know.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.errors import SandboxRefusedError
from actors.sandbox import escape
from actors.sandbox.command import INNER_UID, Toolchain, owner_of_job

INSIDE = "/run/escape.py"
SETTLE_S = 0.02
HELP = (
    "run Troupe as root or where unprivileged user namespaces are allowed"
    " (kernel.unprivileged_userns_clone, AppArmor's profile for bwrap, a container with"
    " CAP_SYS_ADMIN), with bubblewrap 0.7 or newer"
)
GROUPS_MISSING = (
    "no writable control group: the memory limit holds per process, not for all of a run"
)


@dataclass(frozen=True)
class SandboxReport:
    """What was shown to hold; goes into health, the job's record and the pull request."""

    level: str
    """`A`: namespaces, a user of its own, a system call filter and limits."""
    checks: Mapping[str, bool]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """An escape about to be tried."""

    workspace: Path
    argv: tuple[str, ...]
    binds: Mapping[str, Path]


@asynccontextmanager
async def question(toolchain: Toolchain) -> AsyncIterator[Question]:
    """A throw-away workspace with a secret beside it, and two open doors on this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="troupe-probe-") as name,
        socket.create_server(("127.0.0.1", 0)) as door,
        socket.socket(socket.AF_UNIX) as unnamed,
    ):
        root = Path(name)
        workspace = root / "workspace"
        workspace.mkdir()
        owner = owner_of_job(root.name)
        if owner is not None:
            os.chown(workspace, owner, owner)
        canary = root / "canary"
        canary.write_text(secrets.token_hex())
        abstract = f"troupe-probe-{secrets.token_hex(8)}"
        unnamed.bind("\0" + abstract)
        unnamed.listen()
        asked = {
            "port": door.getsockname()[1],
            "abstract": abstract,
            "canary": str(canary),
            "uid": INNER_UID if owner is None else owner,
        }
        argv = (toolchain.python, "-I", "-S", INSIDE, json.dumps(asked))
        yield Question(workspace, argv, {INSIDE: Path(escape.__file__)})


async def judge(asked: Question, stdout: bytes, stderr: bytes, grouped: bool) -> SandboxReport:
    """The report on what the escape answered.

    Raises:
        SandboxRefusedError: it got out somewhere, or could not even be tried.
    """
    try:
        answer: dict[str, Any] = json.loads(stdout)
    except ValueError as error:
        said = stderr.decode(errors="replace").strip()[-500:]
        raise SandboxRefusedError(said or "the self-test did not run", HELP) from error
    checks = {name: held is True for name, held in answer.items()}
    checks["leftovers"] = not await _grows(asked.workspace / "daemon")
    failed = [name for name, held in checks.items() if not held]
    tried = {attempt.__name__ for attempt in escape.ATTEMPTS}
    failed += sorted(tried - checks.keys())
    if failed:
        raise SandboxRefusedError(f"not held: {', '.join(failed)}", HELP)
    return SandboxReport("A", checks, () if grouped else (GROUPS_MISSING,))


async def _grows(file: Path) -> bool:
    """Whether somebody is still writing to it; true as well if nobody ever did."""
    before = _size(file)
    await asyncio.sleep(SETTLE_S)
    return before in (None, 0) or _size(file) != before


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.exists() else None
