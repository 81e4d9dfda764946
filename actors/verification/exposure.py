"""`troupe verify exposure`: what a neighbour on the machine or the network can reach.

A deployment of its own is started, and then tried from outside: who listens
where and what guards it, Ray without its token, the store's file by a second
opener, the modes of the files that hold secrets.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx2

from actors.verification.installation import Installation, installed
from runtime.clock import SystemClock
from runtime.cluster.exposure import listeners
from runtime.errors import StoreLockedError
from runtime.store.sqlite import SqliteStore
from runtime.verify.report import Outcome

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
RAY_WAIT_S: Final = 60
METRICS: Final = "none: metrics"
"""Ray's own metrics ask for no token; `troupe status` says so."""
CONNECT: Final = (
    "import ray, sys\n"
    "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n"
    "print('connected', len(ray.nodes()))\n"
)


def exposure() -> Outcome:
    """Start one, try it, end it."""
    return asyncio.run(_exposure())


async def _exposure() -> Outcome:
    async with installed({"ANTHROPIC_API_KEY": "not-a-key"}) as troupe:
        opened = listeners(troupe.data, troupe.settings.port)
        outside = [one for one in opened if not one.loopback]
        bare = [one for one in outside if one.guard.startswith("none") and one.guard != METRICS]
        wrong = [f"{one.process} listens on {one.address}:{one.port}, {one.guard}" for one in bare]
        tries = 0
        for trial in (_ray_http, _ray_driver, _second_opener, _second_reader, _modes, _no_key):
            tries += 1
            wrong += await trial(troupe)
    figure = {
        "verification": "exposure", "listeners": len(opened), "notLoopback": len(outside),
        "behindRaysToken": sum(one.guard == "Ray's token" for one in outside),
        "metricsWithoutToken": sum(one.guard == METRICS for one in outside),
        "unguarded": len(bare), "tries": tries, "wrong": len(wrong),
    }  # fmt: skip
    told = (
        f"{len(opened)} listening sockets, {len(outside)} of them on other addresses than loopback "
        f"(all Ray's, {figure['metricsWithoutToken']} with metrics for everybody): "
    )
    told += f"{len(wrong)} WRONG, the first: {wrong[0]}." if wrong else "nothing else lets one in."
    return Outcome(figure, told, not wrong, wrong)


async def _ray_http(troupe: Installation) -> list[str]:
    """Ray's dashboard starts any program for whoever it lets in."""
    async with httpx2.AsyncClient(base_url=troupe.running.dashboard_url, trust_env=False) as http:
        answer = await http.post("/api/jobs/", json={"entrypoint": "true"})
        guess = {"Authorization": f"Bearer {'0' * 64}"}
        guessed = await http.post("/api/jobs/", json={"entrypoint": "true"}, headers=guess)
    refused = (UNAUTHORIZED, FORBIDDEN)
    return [
        f"Ray's dashboard answers {one.status_code} to a job without its token"
        for one in (answer, guessed)
        if one.status_code not in refused
    ]


async def _ray_driver(troupe: Installation) -> list[str]:
    """A program that has another token, or none, is no driver."""
    found = []
    for mode in ("disabled", "token"):
        env = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "0" * 64,
               "RAY_gcs_server_request_timeout_seconds": "5"}  # fmt: skip
        argv = [sys.executable, "-c", CONNECT, troupe.running.ray_address]
        try:
            done = await asyncio.to_thread(
                subprocess.run, argv, env=env, capture_output=True, timeout=RAY_WAIT_S
            )
        except subprocess.TimeoutExpired:
            continue
        if b"connected" in done.stdout:
            found.append(f"Ray lets a driver in with authentication {mode}")
    return found


async def _second_opener(troupe: Installation) -> list[str]:
    try:
        store = await SqliteStore.open(troupe.settings.directory.database, SystemClock())
    except StoreLockedError:
        return []
    await store.close()
    return ["the store's file can be opened a second time"]


async def _second_reader(troupe: Installation) -> list[str]:
    """A shell on the live file would bring back the WAL-reset bug of older SQLites."""
    try:
        with sqlite3.connect(troupe.settings.directory.database, timeout=0.2) as other:
            other.execute("SELECT count(*) FROM message").fetchone()
    except sqlite3.OperationalError:
        return []
    return ["another process can read the store's file while it is open"]


async def _modes(troupe: Installation) -> list[str]:
    """What holds secrets is its owner's alone."""
    directory = troupe.settings.directory
    private = {
        directory.root: 0o700, directory.scratch: 0o700, directory.admin_key: 0o600,
        directory.ray_token: 0o600, directory.socket: 0o600, directory.settings: 0o600,
    }  # fmt: skip
    return [
        f"{path.name} has mode {_mode(path):o}, more than {most:o}"
        for path, most in private.items()
        if _mode(path) & ~most
    ]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def _no_key(troupe: Installation) -> list[str]:
    async with httpx2.AsyncClient(base_url=troupe.running.url, trust_env=False) as http:
        answer = await http.get("/api/jobs")
    return [] if answer.status_code == UNAUTHORIZED else ["the API answers without a key"]
