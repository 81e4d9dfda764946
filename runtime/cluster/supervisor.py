"""The supervisor: the one process that `troupe up` leaves behind on a machine.

    python -m runtime.cluster.supervisor SETTINGS_FILE

It holds the data directory's lock, starts a private Ray head and the companion
processes as its children, deploys the actors and the HTTP application, and from
then on looks after them: an actor that is gone is created anew, a companion
that died is started again, and when the Ray head dies the supervisor replaces
itself by a fresh one, as often as it takes.  It holds no truth: killed at any point, `troupe up`
clears what is left by its mark and begins again from the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from runtime import logs
from runtime.cluster.operator import ensure_admin_key
from runtime.cluster.port import Port, PortTakenError, free_port
from runtime.cluster.processes import end_all, held
from runtime.cluster.settings import (
    MARKER,
    NAMESPACE,
    ClusterError,
    ClusterSettings,
    State,
)
from runtime.cluster.stores import local_client
from runtime.errors import StoreError

logger = logging.getLogger(__name__)

WATCH_S = 1.0
HEAD_WAIT_S = 60.0
COMPANION_WAIT_S = 20.0
STOP_WAIT_S = 10.0
RESTART_S_MAX = 30.0
RESTARTS = "TROUPE_RESTARTS"
"""Environment variable by which a supervisor that replaces itself says how often it has."""
OBJECT_STORE_BYTES = 100_000_000
RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",
    "RAY_metric_cardinality_level": "recommended",
    "RAY_DEDUP_LOGS": "0",
}


class StoreOutError(ClusterError):
    """The store can't be used as it is."""


class Supervisor:
    """Starts, watches and stops one deployment."""

    def __init__(self, settings: ClusterSettings, restarts: int = 0) -> None:
        """
        Args:
            restarts: how often it has begun anew since Troupe last ran.
        """
        self._settings = settings
        self.restarts = restarts
        """0 until it has been ready once: whoever typed `troupe up` is told what is wrong.
        What has run is started again, as often as it takes."""
        self._directory = settings.directory
        self._state = State(
            "starting", "", os.getpid(), f"http://127.0.0.1:{settings.port}",
            model_provider=settings.model_provider,
        )  # fmt: skip
        self._head: subprocess.Popen[bytes] | None = None
        self._companions: dict[str, subprocess.Popen[bytes]] = {}
        self._port = Port(settings.port, self._directory.port)
        self._stopping = asyncio.Event()
        self._environment = self._environ()

    async def run(self) -> None:
        """Start everything, then watch until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            await self._start()
            await self._watch()
        except Exception as error:  # the end of the process: whoever waits for it is told why
            logger.exception("the supervisor gives up", extra={"action": "supervisor.ended"})
            phase = "starting" if self.restarts else "failed"
            self._state.told = isinstance(error, (PortTakenError, StoreOutError))
            name = "" if self._state.told else f"{type(error).__name__}: "
            self._say(phase, f"{name}{error}")
            raise
        finally:
            await self._stop()

    # Starting

    async def _start(self) -> None:
        left = await asyncio.to_thread(end_all, self._directory.root)
        if left:
            self._say("starting", f"Cleared {left} processes that a crash had left")
        self._prepare_folders()
        self._port.open()
        for companion in self._settings.companions:
            self._say("starting", f"Starting {companion.name}")
            await self._start_companion(companion.name)
        if self._settings.store:
            self._say("starting", "Looking at the store")
            await self._look_at_store()
        self._say("starting", "Starting Ray")
        await self._start_head()
        await asyncio.to_thread(self._deploy)
        await ensure_admin_key(self._settings)
        self._say("ready", "Troupe is running")
        self.restarts = 1

    async def _look_at_store(self) -> None:
        """Find out now, and say, if a shared store can't be used: it is not ours to start."""
        store = local_client(self._settings)
        try:
            await store.health()
        except StoreError as error:
            raise StoreOutError(str(error)) from error
        finally:
            await store.close()

    def _prepare_folders(self) -> None:
        scratch = self._directory.scratch
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(mode=0o700)
        except FileExistsError as error:
            raise ClusterError(f"{scratch} is somebody else's, or can't be removed") from error
        for folder in (self._directory.logs, self._directory.ray_temp):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        token = self._directory.ray_token
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))

    def _environ(self) -> dict[str, str]:
        return {
            **os.environ,
            **RAY_ENVIRONMENT,
            "RAY_AUTH_TOKEN_PATH": str(self._directory.ray_token),
            "TROUPE_DATA": str(self._directory.root),
            "TROUPE_SETTINGS": self._settings.to_json().decode(),
            MARKER: str(self._directory.root),
        }

    async def _start_companion(self, name: str) -> None:
        companion = next(one for one in self._settings.companions if one.name == name)
        before = self._state.companions.get(name, "")
        port = before.rpartition(":")[2] or "0"
        port_file = self._directory.root / f"{name}.port"
        port_file.unlink(missing_ok=True)
        argv = [*companion.argv, "--port", port, "--port-file", str(port_file)]
        self._companions[name] = self._spawn(argv, f"{name}.log")
        answer = await self._appears(port_file, name, self._companions[name], COMPANION_WAIT_S)
        url = f"http://127.0.0.1:{answer}"
        self._state.companions[name] = url
        self._environment[companion.url_env] = url

    async def _appears(
        self, file: Path, name: str, process: subprocess.Popen[bytes], wait_s: float
    ) -> str:
        """The content of a file that a child writes when it is ready."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        log = self._directory.logs / f"{name}.log"
        while loop.time() < deadline:
            if process.poll() is not None:
                raise ClusterError(f"{name} ended with {process.returncode}; see {log}")
            if content := _content(file):
                return content
            await asyncio.sleep(0.05)
        raise ClusterError(f"{name} was not ready within {wait_s:.0f} s; see {log}")

    async def _start_head(self) -> None:
        cpus = self._settings.cpus or max(2, os.cpu_count() or 2)
        dashboard_port = free_port(8265)
        argv = [
            str(Path(sys.executable).parent / "ray"), "start", "--head", "--block",
            "--port=0",
            f"--ray-client-server-port={free_port()}",
            f"--dashboard-port={dashboard_port}",
            f"--dashboard-agent-listen-port={free_port()}",
            f"--temp-dir={self._directory.ray_temp}",
            f"--num-cpus={cpus}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            *([f"--metrics-export-port={port}"] if (port := self._settings.metrics_port) else ()),
            "--disable-usage-stats", "--log-style=record", "--log-color=false",
        ]  # fmt: skip
        self._head = self._spawn(argv, "ray.log")
        self._state.dashboard_url = f"http://127.0.0.1:{dashboard_port}"
        address_file = self._directory.ray_temp / "ray_current_cluster"
        self._state.ray_address = await self._appears(address_file, "ray", self._head, HEAD_WAIT_S)

    def _spawn(self, argv: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self._directory.logs / log).open("ab") as output:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self._environment, cwd=self._directory.root,
            )  # fmt: skip

    def _deploy(self) -> None:
        """Connect, create the actors, deploy the HTTP application."""
        os.environ.update(self._environment)
        import ray  # noqa: PLC0415 - its environment must be complete before it is imported

        self._say("starting", "Connecting to Ray")
        ray.init(
            address=self._state.ray_address,
            namespace=NAMESPACE,
            log_to_driver=False,
            _temp_dir=str(self._directory.ray_temp),
        )
        from runtime.cluster import http, placement  # noqa: PLC0415 - they import ray

        self._say("starting", "Starting the store, the scheduler, the registry and the hosts")
        placement.ensure(self._settings)
        self._say("starting", "Starting the HTTP API")
        http.deploy(self._settings)

    # Watching

    async def _watch(self) -> None:
        from runtime.cluster import placement  # noqa: PLC0415 - imports ray

        while not self._stopping.is_set():
            if self._head is None or self._head.poll() is not None:
                self._replace_self()
            for name, process in list(self._companions.items()):
                if process.poll() is not None:
                    logger.warning(
                        "%s died; it is started again",
                        name,
                        extra={"action": "companion.restarted"},
                    )
                    await self._start_companion(name)
            looking = asyncio.ensure_future(asyncio.to_thread(placement.ensure, self._settings))
            try:
                await self._finished(looking)
            except Exception:  # Ray is in trouble: the head's own end will tell
                logger.warning(
                    "looking after the actors failed",
                    exc_info=True,
                    extra={"action": "actor.unseen"},
                )
            try:
                await asyncio.wait_for(self._stopping.wait(), WATCH_S)
            except TimeoutError:
                continue

    async def _finished(self, looking: asyncio.Future[None]) -> None:
        """Wait for a look at the actors, which hangs when the head dies under it.

        Raises:
            Exception: what the look raised; TimeoutError: it takes too long.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HEAD_WAIT_S
        while not looking.done() and loop.time() < deadline:
            await asyncio.wait((looking,), timeout=WATCH_S)
            if self._head is None or self._head.poll() is not None:
                return
        if not looking.done():
            raise TimeoutError
        looking.result()

    def _replace_self(self) -> None:
        """The Ray head is gone: begin again with a fresh process, same pid, same lock."""
        logger.error("the Ray head died; starting over", extra={"action": "cluster.restarted"})
        self._say("starting", "The Ray head died; starting over")
        for process in self._companions.values():
            process.kill()
        begin_anew(1)

    # Stopping

    async def _stop(self) -> None:
        self._say_if_ready("stopping", "Stopping")
        if self._head is not None and self._head.poll() is None and self._state.ray_address:
            try:
                await asyncio.wait_for(asyncio.to_thread(self._undeploy), STOP_WAIT_S)
            except Exception:  # the processes are ended below in any case
                logger.warning(
                    "a graceful stop failed",
                    exc_info=True,
                    extra={"action": "supervisor.unstopped"},
                )
        for process in [*([self._head] if self._head else []), *self._companions.values()]:
            process.terminate()
        await asyncio.to_thread(end_all, self._directory.root)
        self._port.close()
        shutil.rmtree(self._directory.scratch, ignore_errors=True)

    def _undeploy(self) -> None:
        import ray  # noqa: PLC0415

        if not ray.is_initialized():
            return
        from ray import serve  # noqa: PLC0415

        from runtime.cluster import placement  # noqa: PLC0415

        placement.stop(self._settings)
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()

    def _say(self, phase: str, message: str) -> None:
        self._state.phase, self._state.message = phase, message
        self._state.write(self._directory.state)
        logger.info(message, extra={"action": f"cluster.{phase}"})

    def _say_if_ready(self, phase: str, message: str) -> None:
        if self._state.phase != "failed":
            self._say(phase, message)


def _content(file: Path) -> str:
    """What a small file says; empty while it is not there."""
    return file.read_text().strip() if file.exists() else ""


def begin_anew(restarts: int) -> NoReturn:
    """Replace this process by a fresh one."""
    os.environ[RESTARTS] = str(restarts)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def main(arguments: list[str]) -> Any:
    """Entry point: `SETTINGS_FILE`."""
    settings = ClusterSettings.from_json(Path(arguments[0]).read_bytes())
    restarts = int(os.environ.get(RESTARTS, "0"))
    logs.configure(settings.log_level)
    with held(settings.directory.lock) as free:
        if not free:
            return 3
        supervisor = Supervisor(settings, restarts)
        try:
            asyncio.run(supervisor.run())
        except Exception:  # whatever it was, it is in the log, and what has run is to run again
            if not supervisor.restarts:
                raise
            time.sleep(min(RESTART_S_MAX, 2.0**supervisor.restarts))
            begin_anew(supervisor.restarts + 1)
    settings.directory.state.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
