"""What each process of a chaos run notes about the store, and how it is read again.

    Asked      a commit is handed over, under the id that its mark in the feed has
    Answered   what was said to it
    Did        a claim, a lease, a run: what else the rules need to know

One file a process, appended to with one system call a note, so what was noted
stays when the process is killed: the page cache is the machine's.  A note that
a kill has cut off is its file's last and is left out.  Times are the
machine's, in nanoseconds.
"""

from __future__ import annotations

import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from runtime.store.contract import Commit, Committed, Refused
from runtime.verify.history import Kind

_SIZE: Final = struct.Struct("<I")


class Asked(msgspec.Struct, array_like=True, frozen=True, tag_field="note", tag="asked"):
    id: str
    at_ns: int
    commit: Commit
    """With its mark."""


class Answered(msgspec.Struct, array_like=True, frozen=True, tag_field="note", tag="answered"):
    id: str
    at_ns: int
    answer: Committed | Refused


class Did(msgspec.Struct, array_like=True, frozen=True, tag_field="note", tag="did"):
    f: str
    """register, renew, release, claim, run"""
    type: Kind
    """`invoke` before a claim, whose answer may never come."""
    began_ns: int
    ended_ns: int
    agent: str = ""
    key: str = ""
    epoch: int = 0
    ver: int = 0
    value: Any = None


Note = Asked | Answered | Did


class Notes:
    """Where this process writes; `proc` is its name in the history."""

    def __init__(self, folder: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.now_ns = now_ns
        folder.mkdir(exist_ok=True, mode=0o700)
        self.proc = f"{os.getpid()}-{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(folder / self.proc, flags, 0o600)
        self._encode = msgspec.msgpack.Encoder().encode

    def write(self, note: Note) -> None:
        body = self._encode(note)
        os.write(self._file, _SIZE.pack(len(body)) + body)

    def did(self, f: str, type: Kind, began_ns: int, **fields: Any) -> None:
        self.write(Did(f, type, began_ns, self.now_ns(), **fields))


def read_notes(folder: Path) -> Iterator[tuple[str, Note]]:
    """(process, note) of every file, in the order of each."""
    decode = msgspec.msgpack.Decoder(Note).decode
    for file in sorted(folder.iterdir()):
        body = memoryview(file.read_bytes())
        at = 0
        while at + _SIZE.size <= len(body):
            [size] = _SIZE.unpack_from(body, at)
            at += _SIZE.size
            if at + size > len(body):
                break
            yield file.name, decode(body[at : at + size])
            at += size
