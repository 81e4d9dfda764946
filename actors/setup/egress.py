"""The way out of a setup: a proxy that reaches the hosts the operator named, and no others.

The sandbox keeps its own empty network; all it finds is a socket of this
process, which speaks the protocol that package managers know (`CONNECT` and
`GET http://...`).  So a setup can reach neither this machine's services nor a
host that nobody allowed, and what it asked for in vain can be said to a person.
The inner end is `sandbox.relay`.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

HEAD_BYTES_MAX: Final = 16 << 10
CHUNK_BYTES: Final = 1 << 16
CONNECTIONS_MAX: Final = 64
CONNECT_TIMEOUT_S: Final = 20.0
IDLE_S: Final = 120.0
"""A connection on which nothing comes for so long is given up."""
REFUSED_MAX: Final = 20
"""Refused hosts that are remembered."""
PORTS: Final = (443, 80)
"""Of a host named without a port."""
_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")
_HOP_HEADERS = (b"proxy-", b"connection:", b"keep-alive:")


def check_host(text: str) -> str:
    """`host`, `host:port` or `*.domain` in lower case.

    Raises:
        ValueError: it is none of them.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a host: {text!r}")
    return name


class Egress:
    """One setup's way out."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = tuple(check_host(host) for host in hosts)
        self._refused: dict[str, None] = {}
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self._open: set[asyncio.Task[None]] = set()

    @property
    def refused(self) -> list[str]:
        """Hosts that were asked for and are not allowed, in the order of the first time."""
        return list(self._refused)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Path]:
        """The socket, for as long as the block runs; every connection ends with it."""
        with tempfile.TemporaryDirectory(prefix="troupe-setup-") as directory:
            path = Path(directory) / "egress"
            server = await asyncio.start_unix_server(self._accept, path, limit=HEAD_BYTES_MAX)
            path.chmod(0o666)  # the job's user connects; the directory is ours alone
            try:
                yield path
            finally:
                server.close()
                for task in self._open:
                    task.cancel()
                await asyncio.gather(*self._open, return_exceptions=True)

    def allows(self, host: str, port: int) -> bool:
        """Whether a host may be reached on a port."""
        for entry in self._hosts:
            name, _, wanted = entry.partition(":")
            named = host.endswith(name[1:]) if name.startswith("*.") else host == name
            if named and (port == int(wanted) if wanted else port in PORTS):
                return True
        return False

    # Connections

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._free:
                await self._answer(reader, writer)
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
            pass  # whoever asked sees the connection end
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(IDLE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        method, target, *_ = head.split(b"\r\n")[0].decode("ascii").split(" ")
        host, port = _place(method, target)
        if not self.allows(host, port):
            return await self._refuse(writer, host, port)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:  # a timeout is one, too
            return await _say(writer, "502 Bad Gateway", f"{host} can't be reached.")
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                far_writer.write(_forwarded(method, target, head))
            await _both_ways(reader, writer, far_reader, far_writer)
        finally:
            far_writer.close()

    async def _refuse(self, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        if len(self._refused) < REFUSED_MAX:
            self._refused[host if port in PORTS else f"{host}:{port}"] = None
        await _say(writer, "403 Forbidden", f"The operator of Troupe does not allow {host}.")


def _place(method: str, target: str) -> tuple[str, int]:
    """Host and port that a request is for.

    Raises:
        ValueError: it names none.
    """
    parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
    if not parts.hostname or (method != "CONNECT" and parts.scheme != "http"):
        raise ValueError(target)
    return parts.hostname.rstrip("."), parts.port or (443 if method == "CONNECT" else 80)


def _forwarded(method: str, target: str, head: bytes) -> bytes:
    """The request as its host expects it, the only one of its connection."""
    parts = urlsplit(target)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = [line for line in head.split(b"\r\n")[1:-2] if not line.lower().startswith(_HOP_HEADERS)]
    first = f"{method} {path} HTTP/1.1".encode("ascii")
    return b"\r\n".join([first, *kept, b"Connection: close", b"", b""])


async def _say(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def _both_ways(
    near_reader: asyncio.StreamReader,
    near_writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Carry bytes until the far side has said all; the near one may end earlier."""
    sending = asyncio.ensure_future(_carry(near_reader, far_writer))
    try:
        await _carry(far_reader, near_writer)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        async with asyncio.timeout(IDLE_S):
            chunk = await reader.read(CHUNK_BYTES)
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
