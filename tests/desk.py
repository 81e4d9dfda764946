"""A small Troupe for tests of the command: true HTTP, scheduler, hosts and IssueAgent, no Ray.

Only triage, code, review and delivery are played: by the issue's title the code
agent solves it, fails, waits, or goes on until it is cancelled.  The real walk
with sandbox, git and model is `tests/acceptance`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.intake.routes import routes
from actors.intake.settings import IntakeSettings
from actors.issue import IssueAgent
from actors.settings import DepartmentSettings
from runtime.agent import AgentState, BaseAgent
from runtime.cluster.processes import held
from runtime.cluster.settings import DataDir, State
from runtime.console.app import create_app
from runtime.console.settings import ConsoleSettings
from runtime.errors import JobFailedError, JobWaiting
from runtime.ids import HOME
from runtime.job import Job, JobResult
from runtime.keys import Keys, Role
from runtime.message import Message
from runtime.store.server import StoreServer
from tests.served import served_by
from tests.troupe import LocalTroupe

PATCH = b"""diff --git a/export.py b/export.py
--- a/export.py
+++ b/export.py
@@ -1 +1 @@
-pages = lines // 50
+pages = -(-lines // 50)  # caf\xe9 \x1b[31m
"""
HASH = hashlib.sha256(PATCH).hexdigest()


class Triage(BaseAgent):
    kind = "triage"

    async def receive_message(self, message: Message) -> None:
        issue = message.content["issue"]
        unsure = "unsure" in issue["title"]
        classification = {
            "type": "bug",
            "priority": issue["priority"],
            "complexity": "simple",
            "agentType": "triage" if unsure else "code",
            "confidence": 0.9,
            "classifier": "rules@1",
            **({"abstained": True, "abstainReason": "no_signal"} if unsure else {}),
        }
        content = {"asked": message.content["asked"], "classification": classification}
        await self.send_message(message.sender, content, "triage.classified")


class Code(BaseAgent):
    kind = "code"
    role = "code"

    async def process_task(self, job: Job) -> JobResult:
        title = job.record.payload["issue"]["title"]
        await job.progress(10, "Reading", "looked at export.py")
        job.spend(0.03, 1_200)
        if "model" in title:
            raise JobWaiting("model_not_configured")
        if "fails" in title:
            raise JobFailedError("the work can't be done")
        if "endless" in title:
            await asyncio.Event().wait()
        await job.progress(60, "Testing", "ran 12 tests")
        patch = await job.artifact("code_change", "change.patch", PATCH, "text/x-diff")
        tree = "1" * 40
        work = {
            "jobId": job.record.id, "repository": "/srv", "baseCommit": tree, "baseTree": tree,
            "finalTree": tree, "artifactHash": HASH, "patchBytes": len(PATCH),
            "summary": "Rounded up.",
        }  # fmt: skip
        return JobResult(
            outcome="finished", summary="Rounded up.", artifacts=(patch,), data={"work": work}
        )


class Reviewer(BaseAgent):
    kind = "review"

    async def process_task(self, job: Job) -> JobResult:
        finding = {"path": "export.py", "line": 1, "why": "a comment has odd bytes"}
        results = [
            {"gate": "tests", "verdict": "passed", "message": "12 tests pass"},
            {"gate": "size", "verdict": "needs_human", "message": "look", "findings": [finding]},
        ]
        gates = {"verdict": "needs_human", "results": results}
        opinion = {"gates": gates, "automated": {"verdict": "approve", "summary": "Good."}}
        return JobResult(outcome="reviewed", summary="reviewed", data=opinion)


class Delivery(BaseAgent):
    kind = "delivery"

    async def process_task(self, job: Job) -> JobResult:
        data = {"branch": "troupe/1-export", "commit": "2" * 40, "patchPath": "/data/1.patch"}
        return JobResult(outcome="delivered", summary="Delivered a branch.", data=data)


class Counter(BaseAgent):
    kind = "counter"

    class State(AgentState):
        total: int = 0

    async def receive_message(self, message: Message) -> int:
        self.state.total += message.content["by"]
        return int(self.state.total)


@dataclass(frozen=True)
class Desk:
    """Where the command is pointed to."""

    url: str
    token: str
    viewer: str
    root: str
    """An admin of `default`."""

    @property
    def env(self) -> dict[str, str]:
        return {"TROUPE_URL": self.url, "TROUPE_TOKEN": self.token}


@contextmanager
def desk(root: Path, data: Path | None = None) -> Iterator[Desk]:
    """A running one that allows repositories below `root`.

    With `data` it is also the machine's own: the command finds it by itself.
    """
    tokens: list[str] = []

    @asynccontextmanager
    async def made() -> AsyncIterator[Any]:
        settings = DepartmentSettings(repository_roots=(root,))
        troupe = LocalTroupe(
            {
                "issue": lambda agent: IssueAgent(agent, settings),
                "triage": Triage,
                "code": Code,
                "review": Reviewer,
                "delivery": Delivery,
                "counter": Counter,
            }
        )
        await troupe.start()
        keys = Keys(troupe.store, troupe.clock)
        for organization, role, name in (
            ("acme", Role.ADMIN, "ann"), ("acme", Role.VIEWER, "guest"), (HOME, Role.ADMIN, "root"),
        ):  # fmt: skip
            tokens.append((await keys.create(organization, role, name))[0])
        server = StoreServer(troupe.store, DataDir(data).socket) if data else None
        if server:
            await server.start()
        yield create_app(
            troupe.store,
            troupe.clock,
            troupe.ids,
            routes(IntakeSettings(repository_roots=(root,))),
            ConsoleSettings(command_wait_s=3.0),
        )
        if server:
            await server.close()
        await troupe.stop()

    with served_by(made) as url, _announced(data, url, tokens[0]):
        yield Desk(url, *tokens)


@contextmanager
def _announced(data: Path | None, url: str, token: str) -> Iterator[None]:
    """The data directory says what a supervisor's would."""
    if data is None:
        yield
        return
    directory = DataDir(data)
    directory.admin_key.write_text(token)
    State("ready", "", os.getpid(), url, "http://127.0.0.1:8265", "", "scripted").write(
        directory.state
    )
    with held(directory.lock):
        yield
