"""`up`, `down`, `running`: how the command line speaks to the supervisor.

Nothing here imports ray, so that every command starts fast.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.cluster.processes import end_all, environment_of, is_held, marked
from runtime.cluster.settings import MARKER, ClusterError, ClusterSettings, DataDir, State
from runtime.cluster.stores import local_client
from runtime.errors import NotRunningError
from runtime.store.contract import Store

UP_WAIT_S = 120.0
DOWN_WAIT_S = 40.0
POLL_S = 0.1
REPLACE_S = 1.0
LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class Running:
    """A deployment that answers."""

    url: str
    dashboard_url: str
    data: Path
    pid: int
    """Of the supervisor."""
    model_provider: str
    ray_address: str

    @property
    def console_url(self) -> str:
        """Where a person may look: the API's own pages."""
        return f"{self.url}/docs"

    @property
    def key_file(self) -> Path:
        return DataDir(self.data).admin_key


def running(data: Path) -> Running | None:
    """The deployment over `data`, if it is up and ready."""
    directory = DataDir(data)
    state = State.read(directory.state)
    if state is None or state.phase != "ready" or not is_held(directory.lock):
        return None
    return _running(data, state)


def starting(data: Path) -> bool:
    """Whether the deployment over `data` is coming up just now."""
    directory = DataDir(data)
    state = State.read(directory.state)
    return is_held(directory.lock) and (state is None or state.phase == "starting")


def up(
    settings: ClusterSettings,
    *,
    env: Mapping[str, str] | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Running:
    """Start a deployment in the background and return when it is ready.

    Idempotent: one that runs already is returned as it is, one that is just
    starting is waited for.

    Raises:
        ClusterError: it did not come up; the sentence says why, or has the end of the log.
    """
    directory = settings.directory
    already = running(directory.root)
    if already is not None:
        return already
    directory.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.logs.mkdir(exist_ok=True, mode=0o700)
    if is_held(directory.lock):
        time.sleep(REPLACE_S)  # one that is just replacing itself lets go for a moment
    process = None if is_held(directory.lock) else _spawn(settings, env)
    return _await_ready(directory, process, on_progress)


def started_with(found: Running) -> dict[str, str]:
    """The environment by which a deployment would be started as it runs.

    Empty where it can't be read: it is another user's, or has just ended.
    """
    try:
        env = environment_of(found.pid)
        settings = ClusterSettings.read(DataDir(found.data))
    except OSError:
        return {}
    given = {"PORT": settings.port, "TROUPE_HOSTS": settings.hosts, "REDIS_URL": settings.store}
    return {**env, **{name: str(value) for name, value in given.items()}}


def _spawn(settings: ClusterSettings, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    directory = settings.directory
    directory.state.unlink(missing_ok=True)
    file = settings.write()
    with (directory.logs / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "runtime.cluster.supervisor", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory.root,
            env={**(os.environ if env is None else env), MARKER: str(directory.root)},
            start_new_session=True,
        )


def _await_ready(
    directory: DataDir,
    process: subprocess.Popen[bytes] | None,
    on_progress: Callable[[str], None],
) -> Running:
    said = ""
    deadline = time.monotonic() + UP_WAIT_S
    while time.monotonic() < deadline:
        state = State.read(directory.state)
        failed = state is not None and state.phase == "failed"
        if state is not None and state.message != said:
            said = state.message
            if not failed:
                on_progress(said)
        if state is not None and state.phase == "ready":
            return _running(directory.root, state)
        ended = process.poll() is not None if process else not is_held(directory.lock)
        if ended and state is not None and failed and state.told:
            raise ClusterError(said)
        if ended:
            raise ClusterError(said or "the supervisor ended", _log_tail(directory))
        time.sleep(POLL_S)
    raise ClusterError(f"not ready within {UP_WAIT_S:.0f} s: {said}", _log_tail(directory))


def _running(data: Path, state: State) -> Running:
    return Running(
        state.url, state.dashboard_url, data, state.pid, state.model_provider, state.ray_address
    )


def _log_tail(directory: DataDir) -> str:
    log = directory.logs / "supervisor.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"the end of {log}:", *lines[-LOG_TAIL_LINES:]])


def down(data: Path, *, on_progress: Callable[[str], None] = lambda message: None) -> bool:
    """Stop the deployment over `data` and whatever it has left; False if nothing ran.

    Accepted work stays in the store and goes on with the next `up`.
    """
    directory = DataDir(data)
    state = State.read(directory.state)
    if not is_held(directory.lock):
        left = end_all(data)
        shutil.rmtree(directory.scratch, ignore_errors=True)
        return left > 0
    if state is not None:
        on_progress("Draining the hosts and stopping")
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_WAIT_S
    while is_held(directory.lock) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    end_all(data)
    shutil.rmtree(directory.scratch, ignore_errors=True)
    directory.state.unlink(missing_ok=True)
    return True


def processes(data: Path) -> list[int]:
    """Pids of everything that belongs to the deployment."""
    return marked(data)


@asynccontextmanager
async def local_store(data: Path) -> AsyncIterator[Store]:
    """The store of a running deployment.

    Raises:
        NotRunningError: nothing serves it.
    """
    if running(data) is None:
        raise NotRunningError(str(data))
    store = local_client(ClusterSettings.read(DataDir(data)))
    try:
        yield store
    finally:
        await store.close()
