"""The way out of a setup: the named hosts, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.settings import DepartmentSettings
from actors.setup import egress
from actors.setup.egress import Egress, check_host
from runtime.errors import SettingsError

WITHIN_S = 10.0


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers what it was sent; with all that it was sent."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            heard.append(chunk)
            writer.write(chunk)
            if chunk.startswith(b"GET"):
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], heard
    server.close()


async def ask(way: Path, *parts: bytes) -> bytes:
    """All that comes back."""
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await asyncio.open_unix_connection(way)
        for part in parts:
            writer.write(part)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer


async def test_an_allowed_host_is_reached_both_ways_and_both_manners() -> None:
    """Packages could not be loaded over https, or not over http."""
    async with echo() as (port, heard):
        out = Egress([f"127.0.0.1:{port}"])
        async with out.opened() as way:
            connect = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode()
            answer = await ask(way, connect, b"\x16\x03 anything")
            assert answer.endswith(b"\r\n\r\n\x16\x03 anything") and b" 200 " in answer
            get = f"GET http://127.0.0.1:{port}/a?b=c HTTP/1.1\r\n"
            headers = "Host: x\r\nProxy-Authorization: secret\r\nConnection: keep-alive\r\n\r\n"
            await ask(way, (get + headers).encode())
            assert heard[-1] == b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert out.refused == []


@pytest.mark.parametrize(
    "request_line",
    ["CONNECT example.org:443 HTTP/1.1", "GET http://example.org/ HTTP/1.1",
     "CONNECT allowed.test:22 HTTP/1.1", "CONNECT allowed.test.example.org:443 HTTP/1.1",
     "CONNECT notallowed.test:443 HTTP/1.1"],
)  # fmt: skip
async def test_another_host_is_refused_and_remembered(request_line: str) -> None:
    """A setup would carry the repository's content to anywhere."""
    out = Egress(["allowed.test", "*.wide.test"])
    async with out.opened() as way:
        answer = await ask(way, f"{request_line}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert len(out.refused) == 1


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET / HTTP/1.1\r\n\r\n", b"GET ftp://allowed.test/ HTTP/1.1\r\n\r\n", b"\r\n\r\n",
     b"CONNECT :443 HTTP/1.1\r\n\r\n", b"\xff\xfe \r\n\r\n", b"CONNECT allowed.test:x H\r\n\r\n",
     b"a" * (egress.HEAD_BYTES_MAX * 3), b"CONNECT"],
)  # fmt: skip
async def test_what_is_no_request_ends_the_connection_alone(request_bytes: bytes) -> None:
    """One bad client would end the setup's whole network, or the host."""
    out = Egress(["allowed.test"])
    async with out.opened() as way:
        assert await ask(way, request_bytes) == b""
        assert b" 403 " in await ask(way, b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")


async def test_the_way_is_closed_with_the_setup() -> None:
    """Something left behind could go on reaching out."""
    async with echo() as (port, _), asyncio.timeout(WITHIN_S):
        async with Egress([f"127.0.0.1:{port}"]).opened() as way:
            reader, writer = await asyncio.open_unix_connection(way)
            writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        assert not way.exists()


async def test_an_unreachable_host_is_said_so() -> None:
    """A setup would wait for a host that is down until its time is over."""
    async with echo() as (port, _):
        pass
    async with Egress([f"127.0.0.1:{port}"]).opened() as way:
        assert b" 502 " in await ask(way, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())


def test_hosts_are_exact_with_port_or_all_below_a_domain() -> None:
    """A name that only looks like an allowed one would be reached."""
    out = Egress(["pypi.org", "*.npmjs.org", "nexus.corp:8081"])
    for host, port in (("pypi.org", 443), ("pypi.org", 80), ("registry.npmjs.org", 443),
                       ("nexus.corp", 8081)):  # fmt: skip
        assert out.allows(host, port), host
    for host, port in (("pypi.org", 8080), ("xpypi.org", 443), ("pypi.org.evil.test", 443),
                       ("npmjs.org", 443), ("evilnpmjs.org", 80), ("nexus.corp", 443)):  # fmt: skip
        assert not out.allows(host, port), host


def test_settings_take_hosts_and_refuse_what_is_none() -> None:
    """A slip of the operator would allow nothing, or everything."""
    env = {"TROUPE_SETUP_HOSTS": "PyPI.org, files.pythonhosted.org,*.npmjs.org"}
    assert DepartmentSettings.from_env(env).setup_hosts == (
        "pypi.org", "files.pythonhosted.org", "*.npmjs.org",
    )  # fmt: skip
    assert DepartmentSettings.from_env({}).setup_hosts == ()
    for wrong in ("*", "https://pypi.org", "a/b", "user@host", "*.", "a b", "host:", "ho*st"):
        with pytest.raises(SettingsError, match="TROUPE_SETUP_HOSTS"):
            DepartmentSettings.from_env({"TROUPE_SETUP_HOSTS": wrong})
        with pytest.raises(ValueError, match="host"):
            check_host(wrong)
