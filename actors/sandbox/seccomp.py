"""The system call filter of the sandbox: a BPF program, assembled here.

Everything is allowed except what a test suite never needs and an escape does:
tracing others, mounting, new namespaces, kernel modules and keyrings, handles
to files by number, io_uring and BPF, clocks, sockets outside the machine's own
loopback and unix families, and pushing characters into a terminal.  The
program is data for `bwrap --seccomp`; it is installed after the sandbox is
built and holds for every process in it.

Source: seccomp(2), struct seccomp_data; numbers from the kernel's tables.
"""

from __future__ import annotations

import errno
import struct

from actors.errors import SandboxRefusedError

_LOAD, _JUMP_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCH_AT, _FIRST_AT, _SECOND_AT, _THIRD_AT = 0, 4, 16, 24, 32
_X32_BIT = 0x40000000

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
SOCKET_FAMILIES = (1, 2, 10)
"""unix, IPv4, IPv6 (both only loopback, by the network namespace). No vsock: its addresses
are the machine's, whatever the network namespace."""
NETLINK = 16
"""Only its protocol 0, which libraries ask for the machine's addresses."""
TERMINAL_REQUESTS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: (x86_64, aarch64); None where the architecture has no such call
DENIED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "reboot": (169, 142),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "lookup_dcookie": (212, 18),
    "fanotify_init": (300, 262),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
}
_CLONE, _CLONE3, _SOCKET, _IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)


def program(machine: str) -> bytes:
    """The filter for an architecture as `os.uname().machine` names it.

    Raises:
        SandboxRefusedError: its system call numbers are not known here.
    """
    if machine not in ARCHITECTURES:
        raise SandboxRefusedError(f"no system call filter for {machine}; use x86_64 or aarch64")
    column = list(ARCHITECTURES).index(machine)
    code = [
        _word(_LOAD, _ARCH_AT),
        _word(_JUMP_EQUAL, ARCHITECTURES[machine], 1, 0),
        _word(_RETURN, _KILL),
        _word(_LOAD, _NUMBER_AT),
        *_refuse(_JUMP_BITS, _X32_BIT, errno.EPERM),
        *_refuse(_JUMP_EQUAL, _CLONE3[column], errno.ENOSYS),
    ]
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            code += _refuse(_JUMP_EQUAL, number, errno.EPERM)
    code += _unless(_CLONE[column], _FIRST_AT, _refuse(_JUMP_BITS, NAMESPACE_FLAGS, errno.EPERM))
    requests: list[bytes] = []
    for request in TERMINAL_REQUESTS:
        requests += _refuse(_JUMP_EQUAL, request, errno.EPERM)
    code += _unless(_IOCTL[column], _SECOND_AT, requests)
    code += _unless(_SOCKET[column], _FIRST_AT, _sockets())
    code.append(_word(_RETURN, _ALLOW))
    return b"".join(code)


def _sockets() -> list[bytes]:
    allow, refuse = _word(_RETURN, _ALLOW), _word(_RETURN, _ERRNO | errno.EAFNOSUPPORT)
    code: list[bytes] = []
    for family in SOCKET_FAMILIES:
        code += [_word(_JUMP_EQUAL, family, 0, 1), allow]
    code += [_word(_JUMP_EQUAL, NETLINK, 1, 0), refuse]
    return [*code, _word(_LOAD, _THIRD_AT), _word(_JUMP_EQUAL, 0, 0, 1), allow, refuse]


def _word(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)


def _refuse(test: int, value: int, error: int) -> list[bytes]:
    """Answer `error` if the loaded word passes the test, else go on."""
    return [_word(test, value, 0, 1), _word(_RETURN, _ERRNO | error)]


def _unless(number: int, argument_at: int, body: list[bytes]) -> list[bytes]:
    """Run `body` on an argument of call `number`; leaves the call's number loaded."""
    reload = _word(_LOAD, _NUMBER_AT)
    return [
        _word(_JUMP_EQUAL, number, 0, len(body) + 2),
        _word(_LOAD, argument_at),
        *body,
        reload,
    ]
