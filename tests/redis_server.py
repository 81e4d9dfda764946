"""A real redis-server of the test's own: started on a Unix socket, killed, started again."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from redis.connection import UnixDomainSocketConnection
from redis.exceptions import RedisError

START_S = 20.0
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
"""A test run that is killed leaves no server behind."""


class RedisServer:
    """Starts the process, waits until it serves; `settings` are redis.conf's."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self._settings = {
            "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction",
        } | {name.replace("_", "-"): value for name, value in settings.items()}  # fmt: skip

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> RedisServer:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        settings = [word for name, value in self._settings.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [*DIE_WITH_PARENT, "redis-server", "--port", "0", "--unixsocket", str(self.socket),
             "--save", "", "--dir", str(self.directory), "--logfile", "redis.log", *settings],
        )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not self._serves():
            assert self._process.poll() is None, (self.directory / "redis.log").read_text()
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)
        return self

    def _serves(self) -> bool:
        try:
            return self.ask("PING") == b"PONG"
        except (RedisError, OSError):
            return False

    def ask(self, *words: str | bytes) -> Any:
        """The server's answer, as it comes: bytes, an int, a list."""
        connection = UnixDomainSocketConnection(str(self.socket), protocol=2, socket_timeout=10)
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            connection.disconnect()

    def text(self, *words: str | bytes) -> str:
        """The same of an answer that is text."""
        answer: bytes = self.ask(*words)
        return answer.decode()

    def kill(self) -> None:
        """SIGKILL: nothing is flushed."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_shared: RedisServer | None = None


def shared_server() -> RedisServer:
    """One server for all tests of this process that do not harm it."""
    global _shared  # noqa: PLW0603 - one for the process is the point
    if _shared is None:
        directory = Path(tempfile.mkdtemp(prefix="redis-"))
        _shared = RedisServer(directory).start()
        atexit.register(_end, _shared)
    return _shared


def _end(server: RedisServer) -> None:
    server.kill()
    shutil.rmtree(server.directory, ignore_errors=True)
