"""The redis-server of a chaos run: its own, on a Unix socket, killed and started again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from runtime.errors import NotRunningError

SETTINGS: Final = {
    "port": "0", "save": "", "appendonly": "yes", "appendfsync": "always",
    "maxmemory-policy": "noeviction", "logfile": "redis.log",
}  # fmt: skip


class RedisProcess:
    """Everything it accepts is on the disk before it says so."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start it on what is there.

        Raises:
            NotRunningError: it is not installed.
        """
        program = shutil.which("redis-server")
        if program is None:
            raise NotRunningError("redis-server is not installed")
        self._directory.mkdir(exist_ok=True, mode=0o700)
        self._socket.unlink(missing_ok=True)
        words = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
        place = ["--unixsocket", str(self._socket), "--dir", str(self._directory)]
        self._process = subprocess.Popen(
            [program, *place, *words], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """SIGKILL, and a new one on the same file."""
        self.kill()
        self.start()
