"""What a disk may hold after a power cut, from a record of what was written and synced.

What was written before the last sync of its file is there.  What was written
after it is there, or not, or only some of its 512-byte sectors are, each write
for itself and in any combination: a disk may keep the later one and lose the
earlier.  Names of files are durable at once, and so are removals.

Source: Zheng et al., "Torturing Databases for Fun and Profit" (OSDI 2014).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

SECTOR: Final = 512
_HEAD: Final = struct.Struct("=qqq")

Kind = Literal["W", "T", "S", "U"]
_KINDS: Final[Mapping[int, Kind]] = {ord("W"): "W", ord("T"): "T", ord("S"): "S", ord("U"): "U"}


@dataclass(frozen=True)
class Operation:
    """One thing done to a file: write, truncate, sync, unlink."""

    kind: Kind
    name: str
    offset: int
    """Of a write; the new size of a truncation."""
    data: bytes


def read_log(log: bytes) -> Iterator[Operation]:
    """The operations of a record that `recorder.c` has made, in order."""
    at = 0
    while at < len(log):
        kind = _KINDS[log[at]]
        name_size, offset, size = _HEAD.unpack_from(log, at + 1)
        start = at + 1 + _HEAD.size
        name = log[start : start + name_size].decode()
        at = start + name_size + size
        yield Operation(kind, name, offset, log[at - size : at])


@dataclass
class File:
    """A file as it is durable, and what has been done to it since its last sync."""

    durable: bytes = b""
    pending: list[Operation] = field(default_factory=list)

    def sync(self) -> None:
        content = bytearray(self.durable)
        for one in self.pending:
            apply(content, one)
        self.durable, self.pending = bytes(content), []


def apply(content: bytearray, one: Operation) -> None:
    """Do a write or truncation to the content of a file."""
    if one.kind == "T":
        del content[one.offset :]
        content.extend(bytes(one.offset - len(content)))
        return
    end = one.offset + len(one.data)
    content.extend(bytes(max(0, end - len(content))))
    content[one.offset : end] = one.data


class Disk:
    """Goes along the operations, and answers what a cut at this moment may leave."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}

    def do(self, one: Operation) -> None:
        if one.kind == "U":
            self.files.pop(one.name, None)
            return
        file = self.files.setdefault(one.name, File())
        if one.kind == "S":
            file.sync()
        else:
            file.pending.append(one)

    def cut(self, source: random.Random) -> dict[str, bytes]:
        """The contents of all files after a power cut now, as `source` draws it."""
        keep = source.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        tear = source.choice((0.0, 0.3, 1.0))
        return {name: _left(file, keep, tear, source) for name, file in self.files.items()}


def _left(file: File, keep: float, tear: float, source: random.Random) -> bytes:
    content = bytearray(file.durable)
    for one in file.pending:
        if source.random() >= keep:
            continue
        if one.kind == "W" and source.random() < tear:
            for torn in _sectors(one, source):
                apply(content, torn)
        else:
            apply(content, one)
    return bytes(content)


def _sectors(one: Operation, source: random.Random) -> Iterator[Operation]:
    """Some of a write's sectors."""
    at = one.offset
    end = one.offset + len(one.data)
    while at < end:
        next_at = min(end, (at // SECTOR + 1) * SECTOR)
        if source.random() < 1 / 2:
            data = one.data[at - one.offset : next_at - one.offset]
            yield Operation("W", one.name, at, data)
        at = next_at
