"""The system call filter, run by an interpreter of its own program on both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from actors.errors import SandboxRefusedError
from actors.sandbox import seccomp

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
MACHINES = ["x86_64", "aarch64"]


def decide(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the kernel would answer, after seccomp(2) and bpf(4)."""
    values = [*arguments, *[0] * (6 - len(arguments))]
    if architecture is None:
        architecture = seccomp.ARCHITECTURES[machine]
    data = struct.pack("IIQ6Q", number, architecture, 0, *values)
    code = seccomp.program(machine)
    word = at = 0
    while True:
        operation, if_true, if_false, value = struct.unpack_from("HBBI", code, at * 8)
        at += 1
        if operation == 0x20:
            (word,) = struct.unpack_from("I", data, value)
        elif operation == 0x15:
            at += if_true if word == value else if_false
        elif operation == 0x45:
            at += if_true if word & value else if_false
        else:
            assert operation == 0x06
            return value


def refused(error: int) -> int:
    return 0x00050000 | error


@pytest.mark.parametrize("machine", MACHINES)
def test_each_call_of_the_list_is_refused(machine: str) -> None:
    """A call that an escape begins with would be open."""
    column = MACHINES.index(machine)
    for name, numbers in seccomp.DENIED.items():
        if numbers[column] is not None:
            assert decide(machine, numbers[column]) == refused(errno.EPERM), name


@pytest.mark.parametrize(("machine", "numbers"), [
    ("x86_64", (0, 1, 2, 9, 57, 59, 61, 231, 257, 262, 302)),
    ("aarch64", (56, 57, 63, 64, 93, 94, 221, 222, 260, 261)),
])  # fmt: skip
def test_what_every_program_needs_is_allowed(machine: str, numbers: tuple[int, ...]) -> None:
    """No test suite would run."""
    assert {decide(machine, number) for number in numbers} == {ALLOWED}


@pytest.mark.parametrize(
    ("machine", "clone", "clone3"), [("x86_64", 56, 435), ("aarch64", 220, 435)]
)
def test_threads_may_be_made_but_no_namespaces(machine: str, clone: int, clone3: int) -> None:
    """A new user namespace gives every right inside it, and with it the kernel's weak spots."""
    thread = 0x003D0F00
    assert decide(machine, clone, thread) == ALLOWED
    for shift in range(17, 31):
        flag = 1 << shift
        if flag & seccomp.NAMESPACE_FLAGS:
            assert decide(machine, clone, thread | flag) == refused(errno.EPERM)
    # Its flags are behind a pointer; with this answer libraries fall back on clone.
    assert decide(machine, 435) == refused(errno.ENOSYS)


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 41), ("aarch64", 198)])
def test_only_harmless_socket_families_exist(machine: str, number: int) -> None:
    """vsock reaches the hypervisor, packet and others reach deep into the kernel."""
    open_families = [family for family in range(64) if decide(machine, number, family) == ALLOWED]
    assert open_families == [1, 2, 10, 16]
    assert decide(machine, number, 40) == refused(errno.EAFNOSUPPORT)
    for protocol in (2, 9, 12, 21):  # of netlink: only routes
        assert decide(machine, number, 16, 3, protocol) == refused(errno.EAFNOSUPPORT)


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 16), ("aarch64", 29)])
def test_a_terminal_can_not_be_typed_into(machine: str, number: int) -> None:
    """A command could type into the terminal of whoever started Troupe."""
    assert decide(machine, number, 0, 0x5412) == refused(errno.EPERM)
    assert decide(machine, number, 0, 0x541C) == refused(errno.EPERM)
    assert decide(machine, number, 0, 0x5413) == ALLOWED


def test_the_other_ways_to_number_calls_are_closed() -> None:
    """The list could be passed by with 32-bit or x32 numbers."""
    assert decide("x86_64", 101 | 0x40000000) == refused(errno.EPERM)
    assert decide("x86_64", 0, architecture=0x40000003) == KILLED
    assert decide("aarch64", 63, architecture=0x40000028) == KILLED


def test_an_architecture_without_a_list_is_refused() -> None:
    """A filter with the wrong numbers would allow what it should refuse."""
    with pytest.raises(SandboxRefusedError, match="riscv64"):
        seccomp.program("riscv64")
