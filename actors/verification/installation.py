"""A deployment of its own to look at from outside: the department, a model, one delivered issue.

Everything is in a folder that is removed afterwards.  The model is the shipped
script behind an address of its own, so that it is asked with a key, as a
bought one would be.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from actors.commands.demo import SAMPLE_ISSUE, make_repository
from actors.commands.deployment import deployment, environment
from actors.commands.output import Output
from runtime.cluster import ClusterSettings, Running, down, up
from runtime.cluster.port import free_port
from runtime.cluster.processes import end_all
from runtime.verify.report import TooLittleError

WALK_S: Final = 240.0
LOOK_S: Final = 0.5
PORT_S: Final = 20.0


@dataclass(frozen=True)
class Installation:
    """One that runs, and has done some work."""

    settings: ClusterSettings
    running: Running
    repository: Path
    http: httpx2.AsyncClient
    """With the operator's key."""

    @property
    def data(self) -> Path:
        return self.settings.directory.root

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.http.get(path, params=params)
        answer.raise_for_status()
        return answer.json()


@asynccontextmanager
async def installed(secrets: Mapping[str, str]) -> AsyncIterator[Installation]:
    """Start it.

    Args:
        secrets: of the environment it is started in; with `ANTHROPIC_API_KEY`.
    """
    root = Path(tempfile.mkdtemp(prefix="troupe-verify-"))
    data = root / "data"
    model, url = await asyncio.to_thread(_model, root)
    unset = ("TROUPE_", "RAY_", "ANTHROPIC_", "REDIS_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    env |= {**secrets, "ANTHROPIC_BASE_URL": url, "TROUPE_REPOSITORY_ROOTS": str(root)}
    settings = deployment(data, free_port(), 2, env)
    try:
        running = await asyncio.to_thread(up, settings, env=environment(data, env))
        key = running.key_file.read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(
            base_url=running.url, headers=headers, timeout=20.0, trust_env=False
        ) as http:
            repository = await make_repository(root / "repositories", Output(as_json=True))
            made = Installation(settings, running, repository, http)
            yield made
    finally:
        model.kill()
        model.wait()
        await asyncio.to_thread(down, data)
        end_all(data)
        shutil.rmtree(root, ignore_errors=True)


async def deliver(troupe: Installation, **context: Any) -> str:
    """Have the sample issue done and approved; its id.

    Raises:
        TooLittleError: it did not come to its end, so nothing would be shown.
    """
    body = json.loads(SAMPLE_ISSUE.read_text())
    body["context"] = {**body.get("context", {}), "repository": str(troupe.repository), **context}
    answer = await troupe.http.post("/api/issues", json=body)
    answer.raise_for_status()
    issue = str(answer.json()["id"])
    approved = False
    deadline = time.monotonic() + WALK_S
    while time.monotonic() < deadline:
        record = await troupe.get(f"/api/issues/{issue}")
        if record["status"] == "completed":
            return issue
        if record["status"] == "review" and not approved:
            approved = await _approve(troupe, issue)
        if record["status"] == "failed":
            raise TooLittleError(f"the sample issue failed: {record}")
        await asyncio.sleep(LOOK_S)
    raise TooLittleError(f"the sample issue took longer than {WALK_S:.0f} s")


async def _approve(troupe: Installation, issue: str) -> bool:
    for review in (await troupe.get("/api/reviews"))["items"]:
        if review["issueId"] == issue and review["status"] == "pending":
            body = {"artifactHash": review["artifactHash"]}
            path = f"/api/reviews/{review['id']}/approve"
            return bool((await troupe.http.post(path, json=body)).is_success)
    return False


def _model(root: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The scripted model as a server of its own, and its address."""
    file = root / "model.port"
    argv = [sys.executable, "-m", "actors.models.scripted", "--port", "0", "--port-file", str(file)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PORT_S
    while not (file.exists() and file.read_text().strip()):
        if time.monotonic() > deadline or process.poll() is not None:
            raise TooLittleError("the scripted model did not start")
        time.sleep(0.05)
    return process, f"http://127.0.0.1:{file.read_text().strip()}"
