"""The whole department in one process, without Ray: what is left is as in production.

SQLite behind its socket, the HTTP application over the same socket, hosts and
scheduler as the cluster makes them, agents made from an environment, git, the
sandbox.  Opening it again on the same folder is a restart of everything.

    async with department(root, {"ANTHROPIC_BASE_URL": server.url}) as troupe:
        issue = await troupe.submit({...})
        await troupe.until(issue, lambda found: found["status"] == "review")
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from actors.department import kinds_with
from actors.services import Services
from actors.settings import DepartmentSettings
from runtime.clock import Clock, SystemClock
from runtime.job import AgentJob
from runtime.store.contract import BATCH_MAX, Step, Store
from runtime.store.remote import RemoteStore
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore
from tests.http import ORGANIZATION, HttpTroupe
from tests.troupe import LocalTroupe
from tests.workshop import SANDBOX

Json = dict[str, Any]
T = TypeVar("T")

WITHIN_S = 50.0
"""An issue that takes longer has not got there."""
TAIL_S = 1.0
"""Between two looks when nothing was told."""
ENDED = ("completed", "failed")
LET_GO = {f"job:{how}" for how in ("completed", "failed", "cancelled", "waiting", "paused")}
"""Events with which a job gives its slot back."""


@dataclass
class Department:
    """A running one, seen through its API; and its store, where the API shows too little."""

    troupe: LocalTroupe
    api: httpx2.AsyncClient
    store: Store
    settings: DepartmentSettings

    async def get(self, path: str) -> Json:
        return _answer(await self.api.get(path))

    async def post(self, path: str, body: Any = None) -> Json:
        return _answer(await self.api.post(path, json=body))

    async def submit(self, submission: Json) -> str:
        """File an issue; its id."""
        return str((await self.post("/api/issues", submission))["id"])

    async def until(self, issue: str, there: Callable[[Json], bool]) -> Json:
        """Follow an issue's events until it is as wanted, and return it."""

        async def look() -> tuple[bool, Json]:
            found = await self.get(f"/api/issues/{issue}")
            return there(found), found

        return await self.follow(look)

    async def follow(self, look: Callable[[], Awaitable[tuple[bool, T]]]) -> T:
        """Look after each event until what there is will do, and return it."""
        cursor = (await self.store.tail(-1, 1, 0.0)).cursor
        clock = asyncio.get_running_loop().time
        deadline = clock() + WITHIN_S
        while True:
            enough, found = await look()
            if enough:
                return found
            assert clock() < deadline, f"after {WITHIN_S} s there is only {found}"
            cursor = (await self.store.tail(cursor, BATCH_MAX, TAIL_S)).cursor

    async def side_by_side(self) -> int:
        """How many jobs have run at once at most, as the feed tells it."""
        after, most = 0, 0
        running: set[str] = set()
        while entries := (await self.store.tail(after, BATCH_MAX, 0.0)).entries:
            for entry in entries:
                job = json.loads(entry.body).get("jobId")
                if entry.event == "job:started":
                    running.add(job)
                elif entry.event in LET_GO:
                    running.discard(job)
                most = max(most, len(running))
            after = entries[-1].cursor
        return most

    async def review(self, issue: str) -> Json:
        """The issue's pending review, once there is one."""

        async def look() -> tuple[bool, list[Json]]:
            found = await self.get(f"/api/reviews?status=pending&issue={issue}")
            return bool(found["items"]), found["items"]

        [review] = await self.follow(look)
        return review

    async def decide(self, issue: str, verb: str, comment: str) -> None:
        """Approve or reject what the issue's review shows."""
        review = await self.review(issue)
        body = {"artifactHash": review["artifactHash"], "comment": comment}
        await self.post(f"/api/reviews/{review['id']}/{verb}", body)

    async def jobs(self, issue: str) -> list[AgentJob]:
        """The issue's jobs in order, without triage's."""
        ids = (await self.get(f"/api/issues/{issue}")).get("jobIds", ())
        return [await self.job(job) for job in ids]

    async def job(self, job: str) -> AgentJob:
        document = await self.store.get("job", job)
        assert document is not None, job
        return AgentJob.from_json(document.body)

    async def steps(self, job: str) -> list[Step]:
        """What the journal has of a job."""
        return await self.store.steps(job)

    async def content(self, digest: str) -> bytes:
        document = await self.store.get("content", f"{ORGANIZATION}/{digest}")
        assert document is not None, digest
        return document.body


def _answer(response: httpx2.Response) -> Json:
    assert response.is_success, f"{response.status_code} {response.text}"
    return dict(response.json())


@asynccontextmanager
async def department(
    root: Path,
    environment: Mapping[str, str],
    *,
    hosts: int = 2,
    clock: Clock | None = None,
) -> AsyncIterator[Department]:
    """Start everything on `root/data`; stopped, but not removed, at the end.

    Args:
        environment: what the agents' settings are read from, beside the folders.
    """
    clock = clock or SystemClock()
    folders = {"TROUPE_DATA": str(root / "data"), "TROUPE_REPOSITORY_ROOTS": str(root)}
    made = DepartmentSettings.from_env({**folders, **environment})
    services = Services(made, clock, sandbox=SANDBOX)
    async with _served(root / "data", clock) as socket:
        # As in production, hosts and API have a connection each.
        troupe = LocalTroupe(kinds_with(services), RemoteStore(socket), clock)
        http = HttpTroupe(RemoteStore(socket), clock, roots=[root])
        async with await http.client() as api:
            await troupe.start(hosts)
            try:
                yield Department(troupe, api, http.store, made)
            finally:
                await troupe.stop()
                await http.store.close()
                await services.model.aclose()


@asynccontextmanager
async def _served(data: Path, clock: Clock) -> AsyncIterator[Path]:
    data.mkdir(parents=True, exist_ok=True)
    store = await SqliteStore.open(data / "troupe.db", clock)
    server = StoreServer(store, data / "store.sock")
    await server.start()
    try:
        yield data / "store.sock"
    finally:
        await server.close()
        await store.close()
