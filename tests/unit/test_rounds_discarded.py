"""What a killed step had changed and nobody recorded: put back, and kept for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.bench import DISCARDED_BYTES_MAX
from actors.review import ReviewAgent
from actors.workspace import Workspace
from tests.agents import FINISH, FIX, Case, case, use
from tests.unit.test_rounds_killed import left_behind
from tests.workshop import git, needs_sandbox, put

pytestmark = needs_sandbox
TURNS = (FIX, use("bash", command="true"), FINISH, FINISH)


async def killed_after(work: Case, key: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Kill the job where a step's result is recorded; the tree that is left."""
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "close", left_behind)
        for boundary in range(1, 200):
            assert await work.run(crash_at=boundary) is None
            step = work.durable.steps.get(key)
            if step is not None and step.result is not None:
                break
    [files] = work.services.workspaces.glob("jobs/*/room-*/files")
    return files


def kept(work: Case) -> list[Any]:
    return [one for one in work.durable.artifacts.values() if one.name.startswith("discarded-")]


def told(work: Case) -> list[str]:
    return [line.message for line in work.durable.record.logs if "Put back" in line.message
            or "put back" in line.message]  # fmt: skip


async def test_the_difference_of_a_killed_step_is_kept_and_can_be_applied(tmp_path, monkeypatch):
    """Else what an agent had done when its host died can't be looked at by anybody."""
    async with case(tmp_path, *TURNS) as work:
        files = await killed_after(work, "round-1/tool-1", monkeypatch)
        put(files, {"half.py": "half\n", "cart.py": "spoilt\n"})
        result = await work.run()
        assert result.outcome == "finished"
        patch = work.durable.content[result.data["work"]["artifactHash"]]
        assert b"half" not in patch and b"spoilt" not in patch
        [artifact] = kept(work)
        assert (artifact.type, artifact.media_type) == ("analysis", "text/x-diff")
        assert told(work) == [
            f"Put back 2 files that a killed step had changed; kept in {artifact.name}"
        ]
        found = work.durable.content[artifact.sha256]
        git(work.repository, "apply", "-", stdin=patch)
        git(work.repository, "apply", "-", stdin=found)
        assert (work.repository / "half.py").read_text() == "half\n"
        assert (work.repository / "cart.py").read_text() == "spoilt\n"


async def test_a_tree_as_it_is_recorded_leaves_nothing(tmp_path, monkeypatch):
    """Else every restart of a host tells people of a loss that was none."""
    async with case(tmp_path, *TURNS) as work:
        await killed_after(work, "round-1/tool-1", monkeypatch)
        await killed_after(work, "round-2/tool-1", monkeypatch)
        assert (await work.run()).outcome == "finished"
        assert kept(work) == [] and told(work) == []


async def test_an_older_recorded_tree_leaves_nothing(tmp_path, monkeypatch):
    """Else a job that went on elsewhere and came back calls its own past a loss."""
    async with case(tmp_path, *TURNS) as work:
        files = await killed_after(work, "round-1/tool-1", monkeypatch)
        git(work.repository, "checkout", "--quiet", "HEAD")
        (files / "cart.py").write_bytes((work.repository / "cart.py").read_bytes())
        assert (await work.run()).outcome == "finished"
        assert kept(work) == []


async def test_a_large_difference_is_kept_up_to_a_bound(tmp_path, monkeypatch):
    """Else one runaway file of a killed step fills the store."""
    async with case(tmp_path, *TURNS) as work:
        files = await killed_after(work, "round-1/tool-1", monkeypatch)
        put(files, {"large.txt": "line of text\n" * 200_000})
        assert (await work.run()).outcome == "finished"
        [artifact] = kept(work)
        assert DISCARDED_BYTES_MAX < artifact.size_bytes < DISCARDED_BYTES_MAX + 100
        assert work.durable.content[artifact.sha256].endswith(b" more bytes were not kept]\n")


async def test_a_difference_that_can_not_be_kept_is_said_and_stops_nobody(tmp_path, monkeypatch):
    """Else a job whose step made a repository of its own could never go on."""
    async with case(tmp_path, *TURNS) as work:
        files = await killed_after(work, "round-1/tool-1", monkeypatch)
        git(files, "init", "--quiet", "inner")
        assert (await work.run()).outcome == "finished"
        assert kept(work) == []
        [line] = told(work)
        assert "can't be kept" in line and "git repository was made inside" in line


async def test_what_tests_leave_in_a_review_is_nobodys_work(tmp_path, monkeypatch):
    """Else every resumed review shows the reversed change as a loss."""
    async with case(tmp_path, *TURNS) as work:
        job = work.next(ReviewAgent, await work.run())
        files = await killed_after(job, "tests-base", monkeypatch)
        put(files, {"left.txt": "by a test\n"})
        await job.run()
        assert kept(job) == []


async def test_what_is_put_back_under_the_agents_eyes_is_no_loss(tmp_path):
    """Else people are told of what the agent itself was told and has answered for."""
    nested = use("bash", command="mkdir -p inner/.git && echo x > inner/.git/HEAD")
    async with case(tmp_path, nested, *TURNS) as work:
        assert (await work.run()).outcome == "finished"
        assert "put back" in work.durable.result("round-1/tool-1")["output"]
        assert kept(work) == [] and told(work) == []
