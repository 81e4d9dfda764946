"""What tests of the agents share: repositories, services on a scripted model, assignments."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from actors.assignment import Assignment
from actors.code import CodeAgent
from actors.models.client import ModelClient
from actors.models.prices import SCRIPTED_MODEL
from actors.models.settings import ModelSettings
from actors.records import AgentIssue
from actors.services import Services
from actors.settings import SAMPLE_DEFAULT, DepartmentSettings
from actors.working import WorkingAgent
from runtime.clock import ManualClock
from runtime.ids import AgentId
from runtime.job import JobResult
from tests.jobs import Durable, new_job, run
from tests.scripted import Scripted, Waits, one_scene, scripted_server
from tests.workshop import SANDBOX

AT = "2026-11-21T08:00:00.000Z"
POLICY = "commands:\n  test: python3 -m unittest -q\n"
CART = {
    ".troupe.yaml": POLICY,
    ".gitignore": "__pycache__/\n",
    "cart.py": "def total(prices):\n    return sum(prices) - 1\n",
    "test_cart.py": (
        "import unittest\n\nfrom cart import total\n\n\n"
        "class CartTest(unittest.TestCase):\n"
        "    def test_total(self):\n        self.assertEqual(total([1, 2]), 3)\n"
    ),
}
"""A repository with one bug and the test that shows it."""


def git(directory: Path, *args: str) -> str:
    """Run git in a repository of the test's own."""
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ("git", "-C", str(directory), *identity, *args), check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def repository(directory: Path, files: Mapping[str, str] = CART) -> Path:
    """A git repository with one commit of `files`."""
    directory.mkdir(parents=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return committed(directory)


def sample_repository(directory: Path) -> Path:
    """The shipped sample, copied out and made a repository, as the demo does."""
    shutil.copytree(SAMPLE_DEFAULT, directory, ignore=shutil.ignore_patterns("__pycache__"))
    return committed(directory)


def committed(directory: Path) -> Path:
    git(directory, "init", "--quiet", "--initial-branch=main")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message=All of it")
    return directory


def issue(**fields: Any) -> AgentIssue:
    values: dict[str, Any] = {
        "id": "issue_1",
        "source": "manual",
        "type": "bug",
        "priority": "high",
        "title": "Totals are wrong",
        "description": "The sum is one too low.",
        "context": {},
        "organization_id": "acme",
        "created_at": AT,
        "updated_at": AT,
        "status": "queued",
    }
    return AgentIssue.model_validate({**values, **fields})


def assignment(place: Path, **fields: Any) -> dict[str, Any]:
    """A job's payload."""
    about = issue(**fields.pop("issue", {}))
    return Assignment(issue=about, repository=str(place), **fields).to_wire()


@contextlib.asynccontextmanager
async def services(
    root: Path, model: ModelSettings | Scripted | None, **settings: Any
) -> AsyncIterator[Services]:
    """Services with a clock that stands still; repositories below `root` are allowed.

    Args:
        model: settings, or a scripted server to be used as any compatible one.
    """
    clock = ManualClock()
    chosen = replace(
        DepartmentSettings(
            data_dir=root / "data", repository_roots=(root,), model=compatible(model)
        ),
        **settings,
    )
    client = ModelClient(chosen.model, clock, lambda: 0.5, Waits(clock))
    try:
        yield Services(chosen, clock, client, SANDBOX, _Ticks())
    finally:
        await client.aclose()


def compatible(model: ModelSettings | Scripted | None) -> ModelSettings:
    if isinstance(model, Scripted):
        environment = {"ANTHROPIC_BASE_URL": model.url, "TROUPE_MODEL": SCRIPTED_MODEL}
        return ModelSettings.from_env(environment)
    return model or ModelSettings()


class _Ticks:
    """A stopwatch on which everything takes one millisecond."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += 0.001
        return self._now_s


def use(name: str, **arguments: Any) -> dict[str, Any]:
    """A scripted turn that calls one tool."""
    return {"tools": [{"name": name, "input": arguments}]}


FIX = use("edit", path="cart.py", old_string="sum(prices) - 1", new_string="sum(prices)")
FINISH = use("finish", summary="Adds it up.", confidence="high", tests_run=["unittest"])
SOLVED = (use("run_tests"), FIX, use("run_tests"), FINISH, FINISH)
"""A script that solves CART."""


@dataclass
class Case:
    """One job of an agent on a repository, with a script for its model."""

    server: Scripted
    services: Services
    durable: Durable
    agent: type[WorkingAgent]
    repository: Path

    async def run(self, crash_at: int | None = None) -> JobResult | None:
        """Run process_task once, as a fresh host would."""
        agent_id = AgentId(self.durable.record.agent)
        return await run(self.agent(agent_id, self.services), self.durable, crash_at)

    async def outcome(self) -> str:
        result = await self.run()
        assert result is not None
        return result.outcome

    async def calls(self) -> int:
        """Model calls the server has seen."""
        return int((await self.server.calls())["total"])

    def next(self, agent: type[WorkingAgent], result: JobResult, **payload: Any) -> Case:
        """The job of the next agent, about the work that `result` brought."""
        about = {**assignment(self.repository), "work": result.data["work"], **payload}
        durable = new_job(agent.kind, about, id="job_02NEXT")
        durable.content.update(self.durable.content)
        return Case(self.server, self.services, durable, agent, self.repository)

    @property
    def workspaces(self) -> list[Path]:
        """What is left of jobs on the disk."""
        return list((self.services.workspaces / "jobs").glob("[!.]*"))


@contextlib.asynccontextmanager
async def case(
    root: Path,
    *turns: Any,
    agent: type[WorkingAgent] = CodeAgent,
    files: Mapping[str, str] = CART,
    payload: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    scene: Mapping[str, Any] | None = None,
    review: Sequence[Any] = (),
    again: Sequence[Any] = (),
    **settings: Any,
) -> AsyncIterator[Case]:
    """A code job (or another agent's) whose model plays `turns`.

    Args:
        review: what the model plays for the review agent.
        again: what it plays for the code agent when the work came back.
        payload: fields of the assignment.
        config: what the job may use.
        scene: more of the script's scene, `repeat_last` for one.
    """
    scripts = [one_scene(*turns, role=f"role: {agent.agent}", **(scene or {}))]
    if again:
        match = {"system": ["role: code"], "user": ["You go on from your earlier change"]}
        scripts.insert(0, one_scene(*again, match=match))
    if review:
        scripts.append(one_scene(*review, role="role: review"))
    place = repository(root / "repository", files)
    async with scripted_server(*scripts) as server, services(root, server, **settings) as made:
        job_config = msgspec.structs.replace(made.settings.job_config(), **(config or {}))
        durable = new_job(agent.kind, assignment(place, **(payload or {})), config=job_config)
        yield Case(server, made, durable, agent, place)
