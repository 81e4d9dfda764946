"""Without a model an issue is classified and waits, visibly; with one it goes on by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.modelcall import NOT_CONFIGURED, NOT_CONFIGURED_WAIT_S
from actors.models.prices import SCRIPTED_MODEL
from actors.models.script import Script
from actors.models.scripted import SCRIPTS
from runtime.clock import SystemClock
from runtime.ids import HOME
from runtime.store.contract import BATCH_MAX
from tests.acceptance.department import Department, department
from tests.agents import SOLVED, repository, use
from tests.http import ORGANIZATION
from tests.scripted import one_scene, scripted_server
from tests.workshop import needs_sandbox

pytestmark = needs_sandbox
Json = dict[str, Any]
LOOKS = 4
APPROVED = use("review", verdict="approve", blocking=[], test_gaps=[])


class Later(SystemClock):
    """The machine's clock, ahead of itself."""

    def __init__(self, seconds: float) -> None:
        self._ahead_ms = round(seconds * 1000)

    def now_ms(self) -> int:
        return super().now_ms() + self._ahead_ms

    def leap(self, seconds: float) -> None:
        self._ahead_ms += round(seconds * 1000)


@asynccontextmanager
async def without(root: Path, model: str, clock: Later) -> AsyncIterator[Department]:
    """A department that has no model, or only the shipped script."""
    async with scripted_server(Script.load(SCRIPTS / "sample.json")) as server:
        environment = {"TROUPE_SCRIPTED_URL": server.url} if model == "scripted" else {}
        async with department(root, environment, hosts=1, clock=clock) as troupe:
            assert troupe.settings.model.provider == model
            yield troupe
        assert (await server.calls())["total"] == 0, "the script is for the sample alone"


@pytest.mark.parametrize("model", ["none", "scripted"])
async def test_an_issue_waits_for_a_model_and_goes_on_by_itself(tmp_path: Path, model: str) -> None:
    """An issue filed before the model is set up would be lost, or have to be filed again."""
    place = repository(tmp_path / "repository")
    submission = {
        "source": "manual",
        "title": "Totals are wrong",
        "description": "Expected: 3\nActual: 2\nAn AssertionError in test_cart.py.",
        "context": {"repository": str(place)},
    }
    clock = Later(0)
    async with without(tmp_path, model, clock) as troupe:
        issue = await troupe.submit(submission)
        waiting = await troupe.until(issue, lambda found: found["status"] == "pending")
        await check_waiting(troupe, waiting)
        await check_quiet(troupe, waiting, clock)
    scripts = one_scene(*SOLVED), one_scene(APPROVED, role="role: review")
    async with scripted_server(*scripts) as server:
        environment = {"ANTHROPIC_BASE_URL": server.url, "TROUPE_MODEL": SCRIPTED_MODEL}
        clock.leap(NOT_CONFIGURED_WAIT_S)
        async with department(tmp_path, environment, clock=clock) as troupe:
            found = await troupe.until(issue, lambda found: found["status"] == "review")
            assert "reason" not in found
            assert found["jobIds"][0] == waiting["jobId"], "it is the same job"
            worked = await troupe.get(f"/api/jobs/{waiting['jobId']}")
            assert (worked["status"], worked["result"]["outcome"]) == ("completed", "finished")


async def check_waiting(troupe: Department, issue: Json) -> None:
    """It is classified, says what it waits for, and holds nothing."""
    classified = issue["classification"]
    assert (classified["type"], classified["agentType"]) == ("bug", "code")
    assert classified["classifier"].startswith("rules@")
    assert "+" not in classified["classifier"], "no model had a say"
    assert (issue["status"], issue["reason"]) == ("pending", NOT_CONFIGURED)
    job = await troupe.get(f"/api/jobs/{issue['jobId']}")
    assert (job["status"], job["reason"]) == ("waiting", NOT_CONFIGURED)
    assert troupe.troupe.scheduler is not None
    status = troupe.troupe.scheduler.status()
    assert (status["running"], status["waiting"]) == (0, 1)
    assert list(troupe.settings.data_dir.glob("workspaces/jobs/*")) == []


async def check_quiet(troupe: Department, issue: Json, clock: Later) -> None:
    """It looks again and again whether there is a model, and nothing is told or written of it."""
    job, agent = issue["jobId"], f"{ORGANIZATION}/issue:{issue['id']}"
    journal = await troupe.store.journal(agent, 0, BATCH_MAX)
    head = (await troupe.store.tail(-1, 1, 0.0)).cursor
    for _ in range(LOOKS):
        document = await troupe.store.get("job", job)
        assert document is not None
        clock.leap(NOT_CONFIGURED_WAIT_S)
        await handled(troupe)
        run = f"run:{job}:{document.revision}"
        looked = await troupe.store.outcome(f"{ORGANIZATION}/code:{job}", run, 20.0)
        assert looked is not None and looked.status == "processed"
        await handled(troupe)
    assert (await troupe.store.tail(head, BATCH_MAX, 0.0)).entries == ()
    assert await troupe.store.journal(agent, 0, BATCH_MAX) == journal
    assert await troupe.get(f"/api/issues/{issue['id']}") == issue
    assert (await troupe.job(job)).attempts == 0


async def handled(troupe: Department) -> None:
    """The scheduler has handled what came before, and done what was due."""
    for _ in range(2):
        await troupe.troupe.client(HOME).ask("scheduler:main", {}, "scheduler.status")
