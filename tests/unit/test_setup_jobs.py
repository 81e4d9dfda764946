"""A job whose repository names a setup: installed once, seen everywhere, part of no change."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest

from actors.assignment import ReviewOpinion
from actors.research import ResearchAgent
from actors.review import ReviewAgent
from actors.workspace import Workspace
from runtime.errors import JobFailedError
from tests.agents import CART, FINISH, FIX, SOLVED, assignment, case, use
from tests.jobs import new_job
from tests.unit.test_rounds_killed import left_behind
from tests.workshop import commit, names, needs_sandbox, put

pytestmark = needs_sandbox

SETUP = (
    "mkdir -p .deps/bin && echo 'exec python3 -m unittest -q' > .deps/bin/check && "
    "echo 1.2 > version.txt && echo kept > ~/kept && echo made"
)
TEST = "test -s version.txt && test -s ~/kept && sh .deps/bin/check"
ALL = use("bash", command="cat .deps/bin/check version.txt ~/kept")


def policy(setup: str = SETUP, test: str = TEST) -> str:
    return f"commands:\n  setup: {setup!r}\n  test: {test!r}\n"


def files(**fields: str) -> dict[str, str]:
    return {**CART, ".troupe.yaml": policy(), **fields}


def entries(work: Any) -> list[str]:
    """What the cache holds."""
    return [name for name in names(work.services.workspaces / "dependencies") if "." not in name]


async def test_what_a_setup_makes_is_there_for_the_agent_and_in_no_change(tmp_path):
    """Else the tests of a repository with dependencies fail, or the change contains them."""
    look = use("bash", command="ls -A; cat .deps/bin/check version.txt ~/kept; id -un")
    read = use("read", path=".deps/bin/check")
    async with case(tmp_path, look, read, *SOLVED, files=files()) as work:
        result = await work.run()
        assert result.outcome == "finished"
        seen = work.durable.result("round-1/tool-1")["output"]
        assert "unittest" in seen and "1.2" in seen and "kept" in seen
        assert "unittest" in work.durable.result("round-2/tool-1")["output"]
        assert work.durable.result("round-5/tool-1")["data"]["passed"]
        patch = work.durable.content[result.data["work"]["artifactHash"]].decode()
        assert patch.count("diff --git") == 1 and "cart.py" in patch
        task = work.durable.result("task")["task"]
        assert (
            "made by the setup command and no part of your change: `.deps/`, `version.txt`" in task
        )
        assert [line.message for line in work.durable.record.logs][:2] == [
            "Installing dependencies", "Dependencies installed",
        ]  # fmt: skip
        assert work.workspaces == []


async def test_a_second_job_finds_what_the_first_one_installed(tmp_path):
    """Else every job waits for the same downloads again."""
    setup = "mkdir .deps && date +%s%N > .deps/when"
    look = use("bash", command="cat .deps/when")
    async with case(
        tmp_path, look, *SOLVED, files=files(**{".troupe.yaml": policy(setup, "true")})
    ) as work:
        said = []
        for number in (1, 2):
            work.durable = new_job("code", assignment(work.repository), id=f"job_{number}")
            await work.run()
            said.append(work.durable.result("round-1/tool-1")["output"])
        assert said[0] == said[1]
        assert "Dependencies found in the cache" in [
            line.message for line in work.durable.record.logs
        ]
        assert len(entries(work)) == 1


async def test_no_job_can_change_what_another_will_use(tmp_path):
    """Else one hostile change makes the tests of every later one pass."""
    spoil = use("bash", command="echo 'exit 0' > .deps/bin/check; echo x > ~/kept; rm version.txt")
    turns = (ALL, spoil, use("bash", command="cat .deps/bin/check ~/kept"), FIX, FINISH, FINISH)
    async with case(tmp_path, *turns, files=files()) as work:
        for number in (1, 2):
            work.durable = new_job("code", assignment(work.repository), id=f"job_{number}")
            await work.run()
            assert "unittest" in work.durable.result("round-1/tool-1")["output"]
            assert "1.2" in work.durable.result("round-1/tool-1")["output"]
            assert "exit 0\nx\n" in work.durable.result("round-3/tool-1")["output"]
        assert len(entries(work)) == 1


async def test_the_gates_and_the_reviewer_have_the_same_dependencies(tmp_path):
    """Else work that is right is refused because its tests can't run."""
    approve = use("review", verdict="approve", blocking=[], test_gaps=[])
    async with case(tmp_path, *SOLVED, review=[ALL, approve], files=files()) as work:
        job = work.next(ReviewAgent, await work.run())
        reviewed = await job.run()
        opinion = ReviewOpinion.model_validate(reviewed.data)
        assert opinion.gates.verdict == "passed", opinion.gates
        assert job.durable.result("tests-final")["exitCode"] == 0
        assert "kept" in job.durable.result("round-1/tool-1")["output"]
        assert len(entries(work)) == 1


async def test_a_setup_that_fails_ends_the_job_with_the_end_of_its_output(tmp_path):
    """Else a broken install costs a whole conversation, and nobody sees why."""
    setup = "seq 5000; echo 'no such package: shop'; exit 3"
    async with case(tmp_path, *SOLVED, files=files(**{".troupe.yaml": policy(setup)})) as work:
        result = await work.run()
        assert result.outcome == "setup_failed"
        for part in ("exit code 3", "no such package: shop", "TROUPE_SETUP_HOSTS", "4999"):
            assert part in result.summary
        assert len(result.summary) < 2_500
        assert await work.calls() == 0
        assert entries(work) == [] and work.workspaces == []
        assert work.durable.result("setup")["error"], "recorded: it is not run again"
        assert await work.run() == result


async def test_research_ends_so_too_and_a_review_fails_with_the_words(tmp_path):
    """Else an agent without a result of that name breaks, or goes on without dependencies."""
    broken = files(**{".troupe.yaml": policy("echo gone; exit 1")})
    async with case(tmp_path / "a", ALL, agent=ResearchAgent, files=broken) as work:
        assert await work.outcome() == "setup_failed"
    async with case(tmp_path / "b", *SOLVED, files=files()) as work:
        job = work.next(ReviewAgent, await work.run())
        shutil.rmtree(work.services.workspaces)
        work.services.settings = replace(work.services.settings, setup_s=0.001)
        with pytest.raises(JobFailedError, match=r"killed after 0\.001 s"):
            await job.run()


async def test_a_job_with_a_setup_killed_anywhere_makes_the_same_tree(tmp_path, monkeypatch):
    """Else a crash leaves half of the dependencies, or puts them into the change."""
    turns = (ALL, FIX, FINISH, FINISH)
    async with case(tmp_path / "undisturbed", *turns, files=files()) as work:
        wanted = (await work.run()).data["work"]
    async with case(tmp_path / "killed", *turns, files=files()) as work:
        boundary = 1
        for kill in range(200):
            before = sum(step.result is not None for step in work.durable.steps.values())
            with monkeypatch.context() as patch:
                patch.setattr(Workspace, "close", left_behind)
                result = await work.run(crash_at=boundary)
            if result is not None:
                break
            if kill % 2 and work.services.workspaces.exists():
                shutil.rmtree(work.services.workspaces)
            now = sum(step.result is not None for step in work.durable.steps.values())
            boundary = 1 if now > before else boundary + 1
        assert result.data["work"]["finalTree"] == wanted["finalTree"]
        assert "unittest" in work.durable.result("round-1/tool-1")["output"]


async def test_a_gitignore_that_wants_the_setups_files_gets_none(tmp_path):
    """Else an agent's .gitignore carries generated files into the change."""
    want = use("bash", command="printf '!version.txt\\n!.deps\\n!.deps/**\\n' > .gitignore")
    async with case(tmp_path, want, FINISH, FINISH, files=files()) as work:
        result = await work.run()
        patch = work.durable.content[result.data["work"]["artifactHash"]].decode()
        assert [line for line in patch.splitlines() if line.startswith("diff")] == [
            "diff --git a/.gitignore b/.gitignore"
        ]


async def test_an_edit_of_what_the_setup_made_is_refused(tmp_path):
    """Else the model believes in a change that nobody will ever get."""
    tries = [
        use("write", path=".deps/new.py", content="x"),
        use("write", path="/workspace/.deps/../version.txt", content="x"),
        use("write", path="other.py", content="x"),
    ]
    async with case(tmp_path, *tries, FINISH, FINISH, files=files()) as work:
        result = await work.run()
        outputs = [work.durable.result(f"round-{n}/tool-1") for n in (1, 2, 3)]
        assert [output["isError"] for output in outputs] == [True, True, False]
        assert "setup command made this" in outputs[0]["output"]
        patch = work.durable.content[result.data["work"]["artifactHash"]].decode()
        assert patch.count("diff --git") == 1


async def test_another_branch_makes_dependencies_of_its_own(tmp_path):
    """Else whoever may push a branch decides what jobs on the main branch run."""
    async with case(tmp_path, ALL, FIX, FINISH, FINISH, files=files()) as work:
        await work.run()
        payload = assignment(work.repository, base_ref="main")
        work.durable = new_job("code", payload, id="job_2")
        await work.run()
        assert len(entries(work)) == 2


async def test_files_that_a_later_commit_tracks_are_not_covered_by_earlier_ones(tmp_path):
    """Else an agent works on what the setup made of an older commit, and its edits are lost."""
    setup = "mkdir -p gen; echo made > gen/made"
    look = use("bash", command="cat gen/*")
    made = files(**{".troupe.yaml": policy(setup, "true")})
    async with case(tmp_path, look, FIX, FINISH, FINISH, files=made) as work:
        await work.run()
        put(work.repository, {"gen/own": "tracked\n"})
        commit(work.repository)
        work.durable = new_job("code", assignment(work.repository), id="job_2")
        await work.run()
        assert "made\ntracked\n" in work.durable.result("round-1/tool-1")["output"]
        work.durable = new_job("code", assignment(work.repository), id="job_3")
        await work.run()
        assert "Dependencies found in the cache" in [
            line.message for line in work.durable.record.logs
        ]


async def test_an_agents_change_of_the_setup_is_never_run_by_it(tmp_path):
    """Else an agent gets a network, through the setup that a reviewer's machine runs."""
    script = "mkdir -p .deps/bin; echo ours > .deps/bin/who; echo 1 > version.txt"
    edit = use("edit", path="install.sh", old_string="ours", new_string="theirs")
    look = use("bash", command="cat .deps/bin/who install.sh")
    approve = use("review", verdict="approve", blocking=[], test_gaps=[])
    made = files(**{".troupe.yaml": policy("sh install.sh", "true"), "install.sh": script})
    async with case(
        tmp_path, edit, FIX, FINISH, FINISH, review=[look, approve], files=made
    ) as work:
        job = work.next(ReviewAgent, await work.run())
        shutil.rmtree(work.services.workspaces)
        await job.run()
        seen = job.durable.result("round-1/tool-1")["output"]
        assert "\nours\n" in seen and "echo theirs" in seen
