"""A job killed anywhere ends as it would have: the same tree, and no recorded call made again."""

from __future__ import annotations

import random
import shutil

import pytest

from actors.bench import INLINE_BYTES_MAX
from actors.workspace import Workspace
from runtime.errors import JobCancelled, JobWaiting
from tests.agents import FINISH, FIX, SOLVED, case, use
from tests.workshop import needs_sandbox

pytestmark = needs_sandbox

BOUNDARIES = 4
"""Of a step: before its intent, before its call, before its result, after it."""
KILLS_MAX = 200
AFTER_FIRST_CALL = 9
"""Of a new job: `start` and `task` have three boundaries each, the intent is durable at once."""


async def left_behind(workspace: Workspace) -> None:
    """What is left of a killed process: its lock is free, its files are there."""
    workspace.release()


def dirty(work) -> None:
    """A step was half done when its process died, and a stranger has been there."""
    for files in work.services.workspaces.glob("jobs/*/room-*/files"):
        (files / "cart.py").write_text("half a li")
        (files / "stranger.txt").write_text("was here")


def elsewhere(work) -> None:
    """The job goes on on a machine that has nothing of it."""
    if work.services.workspaces.exists():
        shutil.rmtree(work.services.workspaces)


def here(work) -> None:
    """The job goes on where it was."""


async def killed_everywhere(work, monkeypatch) -> int:
    """Kill the job at each boundary of each step in turn, until it ends; how many kills."""
    treatments = (here, dirty, elsewhere)
    boundary, recorded = 1, 0
    for kills in range(KILLS_MAX):
        with monkeypatch.context() as patch:
            patch.setattr(Workspace, "close", left_behind)
            result = await work.run(crash_at=boundary)
        if result is not None:
            assert result.outcome == "finished"
            return kills
        treatments[kills % len(treatments)](work)
        now = sum(step.result is not None for step in work.durable.steps.values())
        boundary = 1 if now > recorded else boundary + 1
        recorded = now
    raise AssertionError("the job makes no progress")


async def test_a_job_killed_at_every_boundary_makes_the_same_tree(tmp_path, monkeypatch):
    """Without this, a crash loses work, does it twice, or pays for it twice."""
    async with case(tmp_path / "undisturbed", *SOLVED) as work:
        wanted = (await work.run()).data["work"]
        calls = await work.calls()
    async with case(tmp_path / "killed", *SOLVED) as work:
        kills = await killed_everywhere(work, monkeypatch)
        last = await work.run()
        assert kills > BOUNDARIES * calls
        got = last.data["work"]
        for name in ("baseTree", "finalTree", "artifactHash"):
            assert got[name] == wanted[name]
        made = (await work.server.calls())["byDigest"]
        assert len(made) == calls
        assert max(each["total"] for each in made.values()) == 2, "once more, where it was killed"
        intents = [s.intents for key, s in work.durable.steps.items() if key.endswith("/model")]
        assert intents == [BOUNDARIES - 1] * calls, "never again once the answer is recorded"


async def test_a_call_that_may_have_been_paid_twice_is_said_so(tmp_path):
    """Else a dollar can be spent that no record knows."""
    async with case(tmp_path, *SOLVED) as work:
        assert await work.run(crash_at=AFTER_FIRST_CALL) is None
        assert work.durable.steps["round-1/model"].result is None
        assert await work.calls() == 1
        await work.run()
        said = work.durable.result("round-1/model")
        assert said["possibleDuplicateUsd"] > said["costUsd"] > 0


async def test_a_large_change_is_carried_to_another_machine_as_an_artifact(tmp_path, monkeypatch):
    """Else a job with a large file can only go on where it began."""
    noise = random.Random(7).randbytes(2 * INLINE_BYTES_MAX).hex()
    big = use("write", path="noise.txt", content=noise)
    async with case(tmp_path, big, FIX, FINISH, FINISH) as work:
        with monkeypatch.context() as patch:
            patch.setattr(Workspace, "close", left_behind)
            while "round-2/model" not in work.durable.steps:
                await work.run(crash_at=8)
        delta = work.durable.result("round-1/tool-1")["delta"]
        assert delta["inline"] is None
        assert len(work.durable.content[delta["sha256"]]) > INLINE_BYTES_MAX
        elsewhere(work)
        result = await work.run()
        assert noise.encode() in work.durable.content[result.data["work"]["artifactHash"]]


async def test_a_finished_job_run_again_calls_nothing(tmp_path):
    """Else a host that takes a job over after its end does it again."""
    async with case(tmp_path, *SOLVED) as work:
        first = await work.run()
        calls = await work.calls()
        await work.server.faults({"kind": "status", "status": 500, "times": None})
        elsewhere(work)
        assert await work.run() == first
        assert await work.calls() == calls
        assert not work.services.workspaces.exists(), "not even a workspace is opened"


async def test_cancel_leaves_nothing_behind(tmp_path):
    """Else cancelled work fills the disk."""
    async with case(tmp_path, *SOLVED) as work:
        await work.run(crash_at=12)
        work.durable.cancelled = True
        with pytest.raises(JobCancelled):
            await work.run()
        assert work.workspaces == []


async def test_an_answer_is_waited_for_and_heard_once(tmp_path):
    """Else a question costs a slot, or its answer is lost."""
    ask = use("ask_human", question="Round up\u202e or down?", options=["up", "down"])
    async with case(tmp_path, ask, *SOLVED) as work:
        with pytest.raises(JobWaiting) as waiting:
            await work.run()
        assert (waiting.value.reason, waiting.value.resume_at_ms) == ("question", None)
        [(event, data)] = work.durable.feed
        assert event == "job:question"
        assert data["question"] == "Round up\\u202e or down?\n- up\n- down"
        work.durable.signals["message-1"] = {"text": "Up.", "by": "ann"}
        result = await work.run()
        assert result.outcome == "finished"
        assert work.durable.result("round-1/tool-1")["text"] == "Up."
        heard = [work.durable.result(f"round-{n}/model")["heard"] for n in range(1, 7)]
        assert heard == [[]] * 6, "the answer is not heard a second time as steering"


async def test_a_persons_words_are_heard_before_the_next_call_and_stay(tmp_path):
    """Else steering reaches nobody, or the history changes under a resumed job."""
    async with case(tmp_path, *SOLVED) as work:
        assert await work.run(crash_at=14) is None
        work.durable.signals["message-1"] = {"text": "Mind the tests.", "by": "ann"}
        assert await work.run(crash_at=9) is None
        result = await work.run()
        assert result.outcome == "finished"
        models = [key for key in work.durable.steps if key.endswith("/model")]
        heard = [work.durable.result(key)["heard"] for key in models]
        assert [texts for texts in heard if texts] == [["Mind the tests."]]


async def test_a_resumed_job_does_not_tell_its_progress_again(tmp_path):
    """Else every restart fills the log and the feed with what people have read already."""
    async with case(tmp_path, *SOLVED) as work:
        await work.run()
        told = work.durable.record.logs
        assert [line.message for line in told] == [
            "Running the tests", "Editing cart.py", "Running the tests", "Reviewing its own change",
        ]  # fmt: skip
        await work.run()
        assert work.durable.record.logs == told
