"""The second node of a chaos run: a raylet of this machine, started again when it is gone.

It has its own mark, so that its processes are told from the head's.  It joins
whatever Ray the deployment has now: a head that has begun anew has another
address.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runtime.cluster.port import free_port
from runtime.cluster.processes import end_all
from runtime.cluster.settings import MARKER, DataDir, State

LOOK_S: Final = 1.0
OBJECT_STORE_BYTES: Final = 80_000_000


class Node:
    """A worker node of a deployment."""

    def __init__(
        self, deployment: DataDir, root: Path, env: Mapping[str, str], labels: str = ""
    ) -> None:
        """
        Args:
            env: what the deployment was started with.
            labels: the node's, as Ray takes them.
        """
        self.root = root
        self._labels = ["--labels", labels] if labels else []
        self._deployment = deployment
        self._env = {
            **env,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(deployment.ray_token),
            "RAY_worker_niceness": "0",
            MARKER: str(root),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    async def keep(self) -> None:
        """Have it joined to the deployment's Ray, for ever."""
        while True:
            state = State.read(self._deployment.state)
            if state is not None and state.phase == "ready":
                gone = self._process is None or self._process.poll() is not None
                if gone or state.ray_address != self._address:
                    await asyncio.to_thread(self._start, state.ray_address)
            await asyncio.sleep(LOOK_S)

    def end(self) -> None:
        """End everything of it."""
        end_all(self.root)
        if self._process is not None:
            self._process.wait()

    def _start(self, address: str) -> None:
        self.end()
        self._address = address
        with (self.root / "ray.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "ray"), "start", f"--address={address}",
                    "--block", "--num-cpus=2", f"--object-store-memory={OBJECT_STORE_BYTES}",
                    f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats",
                    *self._labels,
                ],
                env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
