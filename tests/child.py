"""A Python module run as a process of its own, to be killed or measured from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent
START_S = 60.0


class Child:
    """Starts `python -m MODULE ARGUMENTS`, waits until it says READY, kills it."""

    def __init__(self, module: str, *arguments: str, ready: str = "serving") -> None:
        self._words = (sys.executable, "-m", module, *arguments)
        self._ready = f"{ready}\n".encode()

    async def start(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._words, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        ready = await asyncio.wait_for(self._process.stdout.readline(), START_S)
        assert ready == self._ready, "it did not start"
        return self

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def cpu_s(self) -> float:
        """Processor time it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def died(self) -> int:
        """Wait until it is gone by itself; how it went."""
        return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed, nobody is told."""
        if self.alive:
            os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()


def say(word: str) -> None:
    """What `start` waits for, said by the process itself."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()
