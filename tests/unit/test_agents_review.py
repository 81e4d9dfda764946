"""The ReviewAgent: gates first, then an opinion, and a person where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from actors.assignment import ReviewOpinion
from actors.code import CodeAgent
from actors.review import ReviewAgent
from runtime.errors import JobFailedError
from tests.agents import CART, FINISH, SOLVED, case, use
from tests.workshop import needs_sandbox

pytestmark = needs_sandbox
LOOK = use("read", path="cart.py")
APPROVE = use("review", verdict="approve", blocking=[], test_gaps=[])


def opinion(result: Any) -> ReviewOpinion:
    return ReviewOpinion.model_validate(result.data)


async def test_good_work_passes_the_gates_and_gets_an_opinion(tmp_path):
    """Else nothing reaches a person, or it does unseen."""
    async with case(tmp_path, *SOLVED, review=[LOOK, APPROVE]) as work:
        result = await work.run()
        job = work.next(ReviewAgent, result)
        reviewed = await job.run()
        assert reviewed.outcome == "reviewed"
        assert opinion(reviewed).gates.verdict == "passed"
        assert opinion(reviewed).automated.verdict == "approve"
        assert job.durable.result("tests-base")["exitCode"] == 1, "the bug was real"
        assert job.durable.result("tests-final")["exitCode"] == 0
        assert "- 1" not in job.durable.result("round-1/tool-1")["output"]
        assert job.workspaces == []


async def test_what_a_gate_fails_reaches_no_model(tmp_path):
    """Else money is spent on an opinion that can't count."""
    weakened = use("write", path="test_cart.py", content="import unittest\n")
    turns = [use("read", path="test_cart.py"), weakened, FINISH, FINISH]
    async with case(tmp_path, *turns, review=[APPROVE]) as work:
        result = await work.run()
        calls = await work.calls()
        reviewed = await work.next(ReviewAgent, result).run()
        assert reviewed.outcome == "refused_by_gate"
        assert opinion(reviewed).automated is None
        assert "no_weakened_tests" in reviewed.summary
        assert await work.calls() == calls


async def test_tests_that_still_fail_are_refused(tmp_path):
    """Else broken work is put before a person."""
    worse = use("edit", path="cart.py", old_string="- 1", new_string="- 2")
    async with case(tmp_path, worse, FINISH, FINISH, review=[APPROVE]) as work:
        reviewed = await work.next(ReviewAgent, await work.run()).run()
        assert reviewed.outcome == "refused_by_gate"
        assert "tests" in reviewed.summary


async def test_a_repository_that_wants_no_opinion_gets_gates_and_a_person(tmp_path):
    """Else switching the reviewer off sends all work back, or strands it."""
    policy = CART[".troupe.yaml"] + "agents:\n  review:\n    enabled: false\n"
    async with case(tmp_path, *SOLVED, files={**CART, ".troupe.yaml": policy}) as work:
        calls = await work.run() and await work.calls()
        reviewed = await work.next(ReviewAgent, await work.run()).run()
        assert reviewed.outcome == "reviewed"
        assert opinion(reviewed).gates.verdict == "passed"
        assert opinion(reviewed).automated is None
        assert await work.calls() == calls


async def test_a_reviewer_without_an_opinion_leaves_it_to_a_person(tmp_path):
    """Else a review that was cut short counts as a yes."""
    async with case(tmp_path, *SOLVED, review=[LOOK]) as work:
        result = await work.run()
        await work.server.faults({"kind": "refusal", "match": {"system": "role: review"}})
        reviewed = await work.next(ReviewAgent, result).run()
        assert opinion(reviewed).automated.verdict == "escalate"
        assert "refuses" in opinion(reviewed).automated.summary


async def test_objections_come_with_their_places(tmp_path):
    """Else the author does not know what to change."""
    blocking = [{"path": "cart.py", "line": 2, "why": "An empty cart."}]
    verdict = use("review", verdict="request_changes", blocking=blocking, test_gaps=["empty"])
    async with case(tmp_path, *SOLVED, review=[verdict]) as work:
        automated = opinion(await work.next(ReviewAgent, await work.run()).run()).automated
        assert automated.verdict == "request_changes"
        assert (automated.blocking[0].path, automated.blocking[0].line) == ("cart.py", 2)
        assert automated.test_gaps == ("empty",)


async def test_the_reviewer_can_change_nothing(tmp_path):
    """Else what is approved is not what was made."""
    tries = [
        use("bash", command="echo changed > cart.py"),
        use("edit", path="cart.py", old_string="def", new_string="def "),
        APPROVE,
    ]
    async with case(tmp_path, *SOLVED, review=tries) as work:
        result = await work.run()
        job = work.next(ReviewAgent, result)
        await job.run()
        assert "Read-only" in job.durable.result("round-1/tool-1")["output"]
        assert "round-2/tool-1" not in job.durable.steps, "edit is no tool of a reviewer"
        assert all(step.kind != "workspace" for key, step in job.durable.steps.items()
                   if key.startswith("round-"))  # fmt: skip


async def test_a_review_killed_in_its_tests_ends_the_same(tmp_path):
    """Else what tests leave behind is judged as the author's."""
    async with case(tmp_path, *SOLVED, review=[LOOK, APPROVE]) as work:
        result = await work.run()
        job = work.next(ReviewAgent, result)
        for boundary in (5, 6, 2, 3, 4):
            assert await job.run(crash_at=boundary) is None
        reviewed = await job.run()
        assert opinion(reviewed).gates.verdict == "passed"


async def test_a_patch_that_is_not_what_the_trees_say_is_never_reviewed(tmp_path):
    """Else a person approves one change and another is delivered."""
    async with case(tmp_path, *SOLVED, review=[APPROVE]) as work:
        job = work.next(ReviewAgent, await work.run())
        proposed = job.durable.record.payload["work"]
        job.durable.content[proposed["artifactHash"]] = b"another patch"
        with pytest.raises(JobFailedError, match="not what the trees say"):
            await job.run()


async def test_bounced_work_goes_on_from_the_earlier_change(tmp_path):
    """Else an author begins from nothing, and the reviewer's notes make no sense."""
    again = use("edit", path="cart.py", old_string="sum(prices)", new_string="sum(prices, 0)")
    async with case(tmp_path, *SOLVED, again=[again, FINISH, FINISH]) as work:
        result = await work.run()
        notes = [{"source": "reviewer", "text": "Name the start."}]
        job = work.next(CodeAgent, result, notes=notes)
        second = await job.run()
        assert second.outcome == "finished"
        assert "Name the start." in job.durable.result("task")["task"]
        patch = job.durable.content[second.data["work"]["artifactHash"]].decode()
        assert "-    return sum(prices) - 1\n+    return sum(prices, 0)\n" in patch
