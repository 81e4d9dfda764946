"""Streams: reads what a run prints without ever holding more than a bound of it.

The first and the last bytes are kept and the middle is counted.  Reading never
stops before the end, so a run can't hang on a full pipe; who prints far too
much is reported to `on_flood` once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

CHUNK_BYTES = 1 << 16


class HeadTail:
    """The first and the last `bytes_max / 2` bytes of a stream."""

    def __init__(self, bytes_max: int) -> None:
        self._head_max = bytes_max // 2
        self._tail_max = bytes_max - self._head_max
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = self._head_max - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        self._tail += chunk
        if len(self._tail) > 2 * self._tail_max + CHUNK_BYTES:
            del self._tail[: -self._tail_max or None]

    @property
    def elided(self) -> int:
        """Bytes of the middle that were not kept."""
        return max(0, self.total - self._head_max - self._tail_max)

    def content(self) -> bytes:
        """What was kept; a line in the middle says how much was not."""
        if not self.elided:
            return bytes(self._head + self._tail)
        note = f"\n[... {self.elided} bytes not kept ...]\n".encode()
        return bytes(self._head) + note + bytes(self._tail[-self._tail_max :])


class Reader:
    """Drains a pipe into a HeadTail; `done` is set at its end."""

    def __init__(
        self, fd: int, kept: HeadTail, flood_bytes: int, on_flood: Callable[[], None]
    ) -> None:
        self._fd = fd
        self._kept = kept
        self._flood_bytes = flood_bytes
        self._on_flood = on_flood
        self._loop = asyncio.get_running_loop()
        self.done = asyncio.Event()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        try:
            chunk = os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self.close()
            return
        before, self._flood_bytes = self._flood_bytes, self._flood_bytes - len(chunk)
        self._kept.add(chunk)
        if before > 0 >= self._flood_bytes:
            self._on_flood()

    def close(self) -> None:
        if not self.done.is_set():
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.done.set()


class Writer:
    """Feeds bytes into a pipe and closes it; a reader that goes away is no error."""

    def __init__(self, fd: int, content: bytes) -> None:
        self._fd = fd
        self._rest = memoryview(content)
        self._loop = asyncio.get_running_loop()
        self._open = True
        os.set_blocking(fd, False)
        self._loop.add_writer(fd, self._writable)

    def _writable(self) -> None:
        try:
            self._rest = self._rest[os.write(self._fd, self._rest[:CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not self._rest:
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
