"""The command line of bubblewrap: what a sandbox contains and what it does not.

Inside are /usr and a few files of /etc (read-only), the interpreter Troupe
itself runs on, a fresh /proc, /dev and /tmp, and the workspace at /workspace.
Nothing of the workspace decides what is bound.  As root the command runs under
a user of its own, whom the workspace belongs to, without any capability; else
it runs as the user Troupe runs as, in a user namespace.  Starting it is
`process`' business.
"""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actors.errors import SandboxError, SandboxMissingError, SandboxRefusedError
from actors.sandbox.limits import Limits

WORKSPACE = "/workspace"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
USER = "agent"
INNER_UID = 1000
"""Seen inside when not root; outside it is the user Troupe runs as."""
UID_BASE = 50_000
UIDS = 10_000
"""The users of jobs when root: between the people's and the system's."""

ETC = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "mime.types",
    "protocols", "services", "ssl/certs", "ssl/openssl.cnf", "ca-certificates", "pki/tls/certs",
)  # fmt: skip
ENVIRONMENT = {
    "HOME": "/tmp/home",  # noqa: S108 - inside the sandbox, its own
    "TMPDIR": "/tmp",  # noqa: S108
    "USER": USER,
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "PAGER": "cat",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
}
GATE = 'read -r _ || exit 125; exec "$@"'
_LIBRARY_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True)
class Programs:
    """What a sandbox is made with, each from an absolute path of the system."""

    bwrap: str
    setpriv: str

    @classmethod
    def find(cls, path: str = SYSTEM_PATH) -> Programs:
        """Look them up.

        Raises:
            SandboxMissingError: there is no bubblewrap.
            SandboxRefusedError: util-linux is not installed.
        """
        bwrap, setpriv = (shutil.which(name, path=path) for name in ("bwrap", "setpriv"))
        if bwrap is None:
            raise SandboxMissingError()
        if setpriv is None:
            raise SandboxRefusedError("setpriv: `apt-get install util-linux`")
        return cls(bwrap, setpriv)


@dataclass(frozen=True)
class Toolchain:
    """The interpreter seen inside: the one Troupe runs on, with its packages."""

    python: str
    prefixes: tuple[Path, ...]
    """Bound read-only at their own paths; none that lies in /usr."""
    bin: tuple[str, ...]
    """In front of the system's PATH."""

    @classmethod
    def current(cls) -> Toolchain:
        prefixes = tuple(
            prefix
            for prefix in dict.fromkeys((Path(sys.base_prefix).resolve(), Path(sys.prefix)))
            if not prefix.is_relative_to("/usr") and len(prefix.parts) > 2
        )
        python = str(Path(sys.executable).resolve())
        return cls(python, prefixes, tuple(f"{prefix}/bin" for prefix in reversed(prefixes)))


@dataclass(frozen=True)
class Box:
    """What one run needs of its sandbox."""

    workspace: Path
    read_only: bool
    env: Mapping[str, str] = field(default_factory=dict)
    ro_binds: Mapping[str, Path] = field(default_factory=dict)
    """Path inside to path outside."""
    binds: Mapping[str, Path] = field(default_factory=dict)
    """The same, to be written to; inside, the place is there already."""


@dataclass(frozen=True)
class Descriptors:
    """Numbers of open files that bubblewrap reads or holds."""

    seccomp: int
    passwd: int
    group: int
    status: int
    block: int
    hold: int | None = None
    """Held open by the sandbox's first process, never by the command."""


def owner_of_job(job_id: str) -> int | None:
    """The user that a job's files and commands belong to; None: the user Troupe runs as."""
    if os.geteuid() != 0:
        return None
    return UID_BASE + zlib.crc32(job_id.encode()) % UIDS


def owner_of(workspace: Path) -> int | None:
    """The user a workspace was made for; None when not root.

    Raises:
        SandboxError: it belongs to nobody's job, so a command could not be told apart.
    """
    if os.geteuid() != 0:
        return None
    owner = workspace.stat(follow_symlinks=False).st_uid
    if not UID_BASE <= owner < UID_BASE + UIDS:
        raise SandboxError(f"{workspace.name} belongs to user {owner}, not to a job")
    return owner


def accounts(owner: int | None) -> tuple[bytes, bytes]:
    """The /etc/passwd and /etc/group seen inside."""
    number = INNER_UID if owner is None else owner
    passwd = (
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
        f"{USER}:x:{number}:{number}:{USER}:/tmp/home:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    group = f"root:x:0:\n{USER}:x:{number}:\nnogroup:x:65534:\n"
    return passwd.encode(), group.encode()


def options(
    box: Box, owner: int | None, toolchain: Toolchain, limits: Limits, files: Descriptors
) -> list[str]:
    """bubblewrap's options, without the command."""
    return [
        *_namespaces(owner),
        *_system(toolchain),
        *("--perms", "0644", "--file", str(files.passwd), "/etc/passwd"),
        *("--perms", "0644", "--file", str(files.group), "/etc/group"),
        *_scratch(limits),
        *_workspace(box, toolchain),
        *_environment(box, toolchain),
        *("--seccomp", str(files.seccomp)),
        *("--json-status-fd", str(files.status)),
        *("--block-fd", str(files.block)),
        *(("--sync-fd", str(files.hold)) if files.hold is not None else ()),
    ]


def inner(
    argv: Sequence[str], owner: int | None, programs: Programs, interactive: bool
) -> list[str]:
    """The command with what drops its rights in front.

    Before all, a gate: a line must come in on standard input, else the command is not
    run. It comes only from a host that is alive then, because bubblewrap does not see
    the death of a host that dies while the sandbox is made.
    """
    gate = GATE if interactive else f"{GATE} </dev/null"
    drop = []
    if owner is not None:
        drop = [
            programs.setpriv, f"--reuid={owner}", f"--regid={owner}", "--clear-groups",
            "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--",
        ]  # fmt: skip
    return ["/bin/sh", "-c", gate, "sh", *drop, *argv]


def _namespaces(owner: int | None) -> list[str]:
    shared = [
        "--die-with-parent", "--new-session", "--unshare-ipc", "--unshare-pid", "--unshare-net",
        "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox", "--clearenv",
        "--cap-drop", "ALL",
    ]  # fmt: skip
    if owner is None:
        return [*shared, "--unshare-user", "--uid", str(INNER_UID), "--gid", str(INNER_UID)]
    # Kept only until setpriv, which needs them to become the job's user without any.
    kept = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
    return [*shared, *(word for name in kept for word in ("--cap-add", name))]


def _system(toolchain: Toolchain) -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in _LIBRARY_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for name in ETC:
        words += _bind("--ro-bind-try", Path("/etc", name), f"/etc/{name}")
    return words


def _scratch(limits: Limits) -> list[str]:
    return [
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", "/dev/shm"),  # noqa: S108
        *("--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp"),  # noqa: S108
        *("--perms", "1777", "--dir", ENVIRONMENT["HOME"]),
        *("--dir", "/var", "--symlink", "/tmp", "/var/tmp", "--dir", "/run"),  # noqa: S108
    ]


def _workspace(box: Box, toolchain: Toolchain) -> list[str]:
    words = []
    for prefix in toolchain.prefixes:
        words += _bind("--ro-bind", prefix, str(prefix))
    words += _bind("--ro-bind" if box.read_only else "--bind", box.workspace, WORKSPACE)
    for inside, outside in box.ro_binds.items():
        words += _bind("--ro-bind", outside, inside)
    for inside, outside in box.binds.items():
        words += ["--bind", str(outside), inside]
    # In a user namespace the command owns the root directory; here nobody writes to it.
    return [*words, "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", WORKSPACE]


def _bind(how: str, outside: Path, inside: str) -> list[str]:
    words = []
    for parent in list(Path(inside).parents)[-2::-1]:  # bubblewrap alone makes them 0700
        words += ["--perms", "0755", "--dir", str(parent)]
    return [*words, how, str(outside), inside]


def _environment(box: Box, toolchain: Toolchain) -> list[str]:
    path = ":".join((*toolchain.bin, SYSTEM_PATH))
    values = {"PATH": path, **ENVIRONMENT, **box.env}
    return [word for name, value in values.items() for word in ("--setenv", name, value)]
