"""Attacks over the network: a sandbox reaches nobody, not even its own machine."""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path

import pytest

from tests.workshop import SANDBOX, job_tree, needs_sandbox

pytestmark = needs_sandbox

TRY = """
import socket
def attempt():
    {code}
try:
    print("reached", attempt())
except OSError as error:
    print("refused", type(error).__name__)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return job_tree(tmp_path)


async def attempt(tree: Path, code: str) -> str:
    """`reached` or `refused`, as a program in the sandbox finds."""
    done = await SANDBOX.run(
        [SANDBOX.toolchain.python, "-c", TRY.format(code=code)], workspace=tree, timeout_s=30
    )
    return done.stdout.decode().split(" ")[0] or done.stderr.decode()


@pytest.mark.parametrize("place", ["1.1.1.1", "169.254.169.254", "10.0.0.1", "192.168.0.1"])
async def test_32_addresses_outside(tree: Path, place: str) -> None:
    """What an agent reads could be sent away, or a cloud's credentials fetched."""
    code = f"return socket.create_connection(({place!r}, 80), 3)"
    assert await attempt(tree, code) == "refused"


async def test_32_datagrams_and_names(tree: Path) -> None:
    """A question for a name would carry the secret in the name."""
    assert await attempt(tree, "return socket.getaddrinfo('example.org', 80)") == "refused"
    code = "return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))"
    assert await attempt(tree, code) == "refused"


async def test_32_six(tree: Path) -> None:
    """The other protocol would be forgotten."""
    code = "return socket.create_connection(('2606:4700:4700::1111', 80), 3)"
    assert await attempt(tree, code) == "refused"


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
async def test_32_the_machines_own_services(
    tree: Path, family: socket.AddressFamily, host: str
) -> None:
    """Ray, Redis and Troupe itself listen there, some without a password."""
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("the machine has no such address")
    with server:
        port = server.getsockname()[1]
        with socket.create_connection((host, port), 3):  # it is really there
            pass
        code = f"return socket.create_connection(({host!r}, {port}), 3)"
        assert await attempt(tree, code) == "refused"


async def test_32_a_socket_without_a_path(tree: Path) -> None:
    """Services of the desktop and of containers listen on such names."""
    name = f"\\0troupe-{secrets.token_hex(6)}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name.replace("\\0", "\0"))
        server.listen()
        code = f"s = socket.socket(socket.AF_UNIX); return s.connect('{name}')"
        assert await attempt(tree, code) == "refused"


async def test_32_a_socket_with_a_path(tree: Path, tmp_path: Path) -> None:
    """The store's, Docker's or an ssh agent's socket would open the machine."""
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as server:
        server.bind("door")
        server.listen()
        for place in (tmp_path / "door", "/run/docker.sock", "/var/run/docker.sock"):
            code = f"s = socket.socket(socket.AF_UNIX); return s.connect({str(place)!r})"
            assert await attempt(tree, code) == "refused"


@pytest.mark.parametrize(
    "made",
    ["socket.AF_PACKET, socket.SOCK_RAW", "socket.AF_INET, socket.SOCK_RAW, 1", "40, 1", "38, 5",
     "socket.AF_NETLINK, socket.SOCK_RAW, 9", "31, 3, 1", "44, 3"],
)  # fmt: skip
async def test_32_other_kinds_of_sockets(tree: Path, made: str) -> None:
    """vsock reaches the hypervisor; the others are the kernel's weak spots."""
    assert await attempt(tree, f"return socket.socket({made})") == "refused"


async def test_32_its_own_loopback_works(tree: Path) -> None:
    """Test suites that start a server could not be run."""
    code = (
        "s = socket.create_server(('127.0.0.1', 0));"
        " return socket.create_connection(s.getsockname(), 3)"
    )
    assert await attempt(tree, code) == "reached"
