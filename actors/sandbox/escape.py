"""The escape self-test: a program that runs inside the sandbox and tries to get out.

Each attempt is one function, named by what it attacks, that returns True when
the sandbox held.  It prints one JSON object and nothing else.  It runs under a
bare interpreter, so it imports the standard library only; who judges the
answer is `probe`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

VSOCK_FAMILY = 40
SYSTEM_CALLS = {
    # number of (ptrace, unshare, mount, keyctl, io_uring_setup, bpf), with harmless arguments
    "x86_64": (101, 272, 165, 250, 425, 321),
    "aarch64": (117, 97, 40, 219, 425, 280),
}
OWN_VARIABLES = {
    "PATH", "HOME", "TMPDIR", "USER", "LC_ALL", "TERM", "NO_COLOR", "PAGER", "PWD",
    "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "LC_CTYPE", "SHLVL", "OLDPWD", "_",
}  # fmt: skip
PROCESSES_MAX = 4
DAEMON_S = 5.0


def network(asked: dict[str, Any]) -> bool:
    """Neither the machine's loopback nor anything beyond it answers."""
    places = [("127.0.0.1", asked["port"]), ("1.1.1.1", 53), ("169.254.169.254", 80)]
    return all(_refused(socket.AF_INET, place) for place in places)


def abstract_socket(asked: dict[str, Any]) -> bool:
    """A socket of the machine without a path can't be reached."""
    return _refused(socket.AF_UNIX, "\0" + asked["abstract"])


def virtual_machine_socket(asked: dict[str, Any]) -> bool:
    """The hypervisor can't be spoken to."""
    try:
        socket.socket(VSOCK_FAMILY, socket.SOCK_STREAM).close()
    except OSError:
        return True
    return False


def interfaces(asked: dict[str, Any]) -> bool:
    """There is only the sandbox's own loopback."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return {line.split(":")[0].strip() for line in lines} == {"lo"}


def files(asked: dict[str, Any]) -> bool:
    """A secret beside the workspace and the machine's password file can't be read."""
    return not any(os.access(path, os.R_OK) for path in (asked["canary"], "/etc/shadow"))


def environment(asked: dict[str, Any]) -> bool:
    """No process shows a variable that the sandbox did not set."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            names = {entry.partition(b"=")[0].decode() for entry in path.read_bytes().split(b"\0")}
        except OSError:
            continue
        if names - OWN_VARIABLES - {""}:
            return False
    return True


def descriptors(asked: dict[str, Any]) -> bool:
    """No file of ours was left open."""
    links = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own is closed again
            links[entry.name] = str(entry.readlink())
    return {name for name, link in links.items() if not link.startswith("/proc/")} <= set("012")


def user(asked: dict[str, Any]) -> bool:
    """The command is the job's own user and in no group but its own."""
    ids = {*os.getresuid(), *os.getresgid(), *os.getgroups()} - {65534}
    return ids == {asked["uid"]}


def rights(asked: dict[str, Any]) -> bool:
    """No capability, none to be gained, and the filter is on."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    none = all(int(status[name], 16) == 0 for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"))
    return none and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"


def system_calls(asked: dict[str, Any]) -> bool:
    """The calls an escape begins with are refused."""
    library = ctypes.CDLL(None, use_errno=True)
    for number in SYSTEM_CALLS[os.uname().machine]:
        ctypes.set_errno(0)
        # As arguments, 16 and 1 ask to trace the first process, and are nonsense elsewhere.
        if library.syscall(number, 16, 1, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM:
            return False
    return True


def processes(asked: dict[str, Any]) -> bool:
    """The machine's processes can't be seen."""
    return sum(entry.name.isdecimal() for entry in Path("/proc").iterdir()) <= PROCESSES_MAX


def system_files(asked: dict[str, Any]) -> bool:
    """Nothing outside the workspace and the scratch space can be written."""
    places = ("/x", "/usr/x", "/usr/bin/x", "/etc/passwd", "/dev/x", "/proc/sys/kernel/hostname")
    return not any(_writable(place) for place in places)


def workspace(asked: dict[str, Any]) -> bool:
    """The workspace and the scratch space can be."""
    return all(_writable(place) for place in ("/workspace/x", "/tmp/x", "/dev/shm/x"))  # noqa: S108


def leave_behind() -> None:
    """Start a daemon that goes on writing, and wait until it does; the run's end must stop it."""
    begun, begin = os.pipe()
    if os.fork():
        os.close(begin)
        os.read(begun, 1)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    out = os.open("/workspace/daemon", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(out, b".")
    for fd in (0, 1, 2, begun, begin):
        os.close(fd)
    end = time.monotonic() + DAEMON_S  # where nothing stops it, it must not go on for ever
    while time.monotonic() < end:
        os.write(out, b".")
    os._exit(0)


ATTEMPTS = (
    network, abstract_socket, virtual_machine_socket, interfaces, files, environment, descriptors,
    user, rights, system_calls, processes, system_files, workspace,
)  # fmt: skip


def main() -> None:
    asked = json.loads(sys.argv[1])
    held = {}
    for attempt in ATTEMPTS:
        try:
            held[attempt.__name__] = attempt(asked)
        except Exception as error:  # a check that can't be made has not held
            held[attempt.__name__] = False
            held[f"{attempt.__name__}: {error!r}"] = False
    leave_behind()
    sys.stdout.write(json.dumps(held))


def _refused(family: int, place: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(1.0)
        # No answer at all would mean that a packet left.
        return attempt.connect_ex(place) not in (0, errno.EINPROGRESS, errno.EAGAIN)


def _writable(place: str) -> bool:
    try:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT))
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
