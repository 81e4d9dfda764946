"""Every way a conversation can stop has its name, and costs no more than it must."""

from __future__ import annotations

from typing import Any

import pytest

from actors.endings import OUTCOMES
from actors.modelcall import TRIES_MAX
from actors.models.prices import SCRIPTED_MODEL
from actors.models.settings import ModelSettings
from actors.rounds import CALLS_MAX, NUDGES_MAX
from runtime.errors import JobFailedError, JobWaiting
from tests.agents import (
    CART,
    FINISH,
    FIX,
    SOLVED,
    case,
    compatible,
    new_job,
    run,
    sample_repository,
    services,
    use,
)
from tests.scripted import settings_for
from tests.workshop import needs_sandbox

pytestmark = needs_sandbox

ALWAYS = {"repeat_last": True}
LOOK = use("read", path="cart.py")


async def test_work_that_is_finished_names_everything_needed_to_review_and_deliver(tmp_path):
    """Else review and delivery can't make the final tree again."""
    async with case(tmp_path, *SOLVED) as work:
        result = await work.run()
        assert result.outcome == "finished"
        proposed = result.data["work"]
        patch = work.durable.content[proposed["artifactHash"]].decode()
        assert "-    return sum(prices) - 1\n+    return sum(prices)\n" in patch
        assert proposed["delta"] in work.durable.content
        assert proposed["baseTree"] != proposed["finalTree"]
        assert proposed["summary"] == "Adds it up."
        assert result.artifacts[0].sha256 == proposed["artifactHash"]
        assert work.durable.record.cost_usd > 0
        assert work.workspaces == []


async def test_finish_is_believed_only_after_the_agent_has_seen_its_change(tmp_path):
    """Else the cheapest review there is does not happen."""
    async with case(tmp_path, FIX, {"tools": FINISH["tools"] * 2}, FINISH) as work:
        assert await work.outcome() == "finished"
        shown = work.durable.result("round-2/tool-1")
        assert "+    return sum(prices)" in shown
        assert "round-3/model" in work.durable.steps, "twice in one answer is once"


async def test_an_agent_that_changes_nothing_says_so(tmp_path):
    """Else an empty patch goes to review."""
    async with case(tmp_path, LOOK, FINISH) as work:
        assert await work.outcome() == "no_change"


@pytest.mark.parametrize(
    ("config", "outcome"),
    [
        ({"rounds_max": 2}, "budget_rounds"),
        ({"tokens_max": 1}, "budget_tokens"),
        ({"cost_usd_max": 0.00001}, "budget_cost"),
        ({"timeout_s": 0.001}, "budget_wall"),
    ],
)
async def test_no_budget_is_exceeded(tmp_path, config: dict[str, Any], outcome: str):
    """Else a job spends what nobody allowed."""
    async with case(tmp_path, FIX, LOOK, scene=ALWAYS, config=config) as work:
        assert await work.outcome() == outcome
        assert work.durable.record.cost_usd <= config.get("cost_usd_max", 2.0)
        assert await work.calls() <= config.get("rounds_max", 1)


async def test_a_repositorys_policy_can_only_lower_a_budget(tmp_path):
    """Else a repository decides over the operator's money."""
    policy = CART[".troupe.yaml"] + "budgets:\n  rounds: 1\n  costUsd: 9999\n"
    files = {**CART, ".troupe.yaml": policy}
    async with case(tmp_path, LOOK, scene=ALWAYS, files=files) as work:
        assert await work.outcome() == "budget_rounds"
        assert await work.calls() == 1


async def test_work_that_runs_out_of_budget_is_kept(tmp_path):
    """Else what was paid for is thrown away."""
    async with case(tmp_path, FIX, LOOK, scene=ALWAYS, config={"rounds_max": 2}) as work:
        result = await work.run()
        assert result.outcome == "budget_rounds"
        assert b"return sum(prices)\n" in work.durable.content[result.artifacts[0].sha256]


async def test_an_agent_in_a_circle_is_told_once_and_then_stopped(tmp_path):
    """Else it goes round until its budget is spent."""
    async with case(tmp_path, LOOK, scene=ALWAYS) as work:
        assert await work.outcome() == "stuck"
        assert await work.calls() == 6


async def test_talk_without_work_is_nudged_and_then_stopped(tmp_path):
    """Else an agent that only talks is paid for talking."""
    async with case(tmp_path, {"text": "I think about it."}, scene=ALWAYS) as work:
        assert await work.outcome() == "no_tool_calls"
        assert await work.calls() == NUDGES_MAX + 1


async def test_an_empty_answer_is_nudged_and_the_work_goes_on(tmp_path):
    """Else one hiccup ends the work, or an empty message is sent back and refused."""
    async with case(tmp_path, *SOLVED) as work:
        await work.server.faults({"kind": "empty_end_turn", "nth": 2})
        assert await work.outcome() == "finished"


async def test_a_pause_of_the_model_is_sent_back_as_it_is(tmp_path):
    """Else a long turn of the model is lost."""
    turns = [{"text": "So far."}, *SOLVED]
    async with case(tmp_path, *turns) as work:
        await work.server.faults({"kind": "pause_turn"})
        assert await work.outcome() == "finished"


async def test_a_refusal_ends_the_work(tmp_path):
    """Else a refused task is asked again and again."""
    async with case(tmp_path, *SOLVED) as work:
        await work.server.faults({"kind": "refusal"})
        assert await work.outcome() == "refused_by_model"
        assert await work.calls() == 1


async def test_a_cut_tool_call_is_never_run_and_asked_for_with_twice_the_room(tmp_path):
    """Else a file is written half."""
    write = use("write", path="new.py", content="x = 1\n" * 40)
    async with case(tmp_path, write, FIX, FINISH, FINISH) as work:
        await work.server.faults({"kind": "truncated_tool"})
        assert await work.outcome() == "finished"
        recent = (await work.server.calls())["recent"]
        assert [call["maxTokens"] for call in recent[:3]] == [16_000, 32_000, 16_000]
        assert work.durable.result("round-1/model")["answer"]["raw"]["stop_reason"] == "max_tokens"
        assert work.durable.result("round-1/model-longer")["costUsd"] > 0


async def test_an_answer_that_never_fits_ends_the_work(tmp_path):
    """Else the room is doubled without end."""
    async with case(tmp_path, *SOLVED) as work:
        await work.server.faults({"kind": "truncated_tool", "times": None})
        assert await work.outcome() == "answer_too_long"
        assert await work.calls() == 2


async def test_an_unknown_stop_reason_counts_as_no_answer(tmp_path):
    """Else tools of an answer that is not whole are run."""
    async with case(tmp_path, *SOLVED) as work:
        await work.server.faults({"kind": "unknown_stop", "times": None})
        assert await work.outcome() == "answer_incomplete"
        assert not any("tool" in key for key in work.durable.steps)


async def test_a_request_the_provider_refuses_ends_the_work(tmp_path):
    """Else the same refused request is sent for ever."""
    async with case(tmp_path, *SOLVED, payload={}) as work:
        await work.server.faults({"kind": "status", "status": 400, "errorType": "invalid"})
        assert await work.outcome() == "model_request_refused"


async def test_a_script_without_a_scene_says_so(tmp_path):
    """Else a user who has no model does not learn why nothing happens."""
    async with case(tmp_path, LOOK) as work:
        result = await work.run()
        assert result.outcome == "model_request_refused"
        assert "has only 1 turns" in result.summary


async def test_answers_that_can_not_be_used_end_the_work(tmp_path):
    """Else two calls with one id are answered with one result."""
    async with case(tmp_path, {"tools": [LOOK["tools"][0], FIX["tools"][0]]}) as work:
        await work.server.faults({"kind": "duplicate_tool_ids", "times": None})
        assert await work.outcome() == "model_answer_unusable"


async def test_a_model_without_a_price_is_not_used(tmp_path):
    """Else a budget in dollars holds nothing."""
    async with case(tmp_path, *SOLVED) as work:
        settings = compatible(work.server)
        unpriced = ModelSettings("compatible", settings.base_url, model="unknown", prices={})
        async with services(tmp_path, unpriced) as other:
            result = await run(work.agent("code:job_01TEST", other), work.durable)
        assert result.outcome == "model_unpriced"
        assert await work.calls() == 0


async def test_an_absent_model_is_waited_for_without_a_slot(tmp_path):
    """Else an outage of the provider fails the work, or holds a slot for its length."""
    async with case(tmp_path, *SOLVED) as work:
        await work.server.faults({"kind": "status", "status": 529, "retryAfter": "3600"})
        with pytest.raises(JobWaiting) as waiting:
            await work.run()
        now_ms = work.services.clock.now_ms()
        assert waiting.value.reason == "overloaded_error"
        assert waiting.value.resume_at_ms == now_ms + 3_600_000
        assert work.workspaces == []
        with pytest.raises(JobWaiting):
            await work.run()
        assert await work.calls() == 1, "woken too early it waits again, and asks nobody"
        work.services.clock.advance(3_600)
        assert await work.outcome() == "finished"


async def test_a_model_that_stays_away_ends_the_work(tmp_path):
    """Else an issue waits for ever."""
    async with case(tmp_path, *SOLVED) as work:
        await work.server.faults({"kind": "status", "status": 529, "times": None})
        for _ in range(TRIES_MAX - 1):
            with pytest.raises(JobWaiting):
                await work.run()
            work.services.clock.advance(3_600)
        with pytest.raises(JobWaiting):
            await work.run()
        work.services.clock.advance(3_600)
        assert await work.outcome() == "model_unavailable"


async def test_the_providers_limit_is_waited_for(tmp_path):
    """Else a limit that a person can raise throws the work away."""
    async with case(tmp_path, *SOLVED) as work:
        limit = "enforced_spend_limit_reached"
        await work.server.faults({"kind": "status", "status": 402, "errorCode": limit})
        with pytest.raises(JobWaiting) as waiting:
            await work.run()
        assert waiting.value.reason == limit
        work.services.clock.advance(3_600)
        assert await work.outcome() == "finished"


async def test_a_full_window_begins_one_new_segment_and_then_ends(tmp_path):
    """Else a long conversation ends for want of room that a summary would have given."""
    full = {"kind": "status", "status": 413, "errorType": "request_too_large"}
    async with case(tmp_path, FIX, FIX, FINISH, FINISH) as work:
        await work.server.faults({**full, "nth": 2})
        # The new segment counts its turns from the first again: FIX no longer fits.
        assert await work.outcome() == "finished"
        assert "segment-2/change" in work.durable.steps
        assert "+    return sum(prices)" in work.durable.result("segment-2/change")
    async with case(tmp_path / "again", FIX, LOOK, scene=ALWAYS) as work:
        await work.server.faults({**full, "nth": 2, "times": None})
        assert await work.outcome() == "context_full"


async def test_another_model_goes_on_in_a_new_segment(tmp_path):
    """Else a job begun with one model is refused by the next one, or pays for a foreign history."""
    async with case(tmp_path, *SOLVED) as work:
        await work.server.faults({"kind": "status", "status": 529, "retryAfter": "60", "nth": 3})
        with pytest.raises(JobWaiting):
            await work.run()
        prices = {"other": work.services.settings.model.prices[SCRIPTED_MODEL]}
        url = work.server.url
        other = ModelSettings("compatible", url, model="other", prices=prices)
        async with services(tmp_path, other) as later:
            later.clock.advance(60)
            result = await run(work.agent("code:job_01TEST", later), work.durable)
        assert result is not None
        recent = (await work.server.calls())["recent"]
        assert [call["model"] for call in recent][:4] == [SCRIPTED_MODEL] * 3 + ["other"]
        assert len(recent[3]["messages"]) == 1, "it begins with the task"


async def test_a_new_release_goes_on_with_the_words_the_job_began_with(tmp_path, monkeypatch):
    """Else an upgrade fails every job at work, because its history reads differently."""
    talk = {"text": "I think about it."}
    async with case(tmp_path, talk, FIX, FINISH, FINISH) as work:
        await work.server.faults({"kind": "status", "status": 529, "retryAfter": "60", "nth": 4})
        with pytest.raises(JobWaiting):
            await work.run()
        work.services.clock.advance(60)
        monkeypatch.setattr("actors.prompts.words", lambda name: "Other words: $change")
        assert await work.outcome() == "finished"


async def test_a_policy_can_forbid_an_agent(tmp_path):
    """Else an owner's no is not heard."""
    policy = CART[".troupe.yaml"] + "agents:\n  code:\n    enabled: false\n"
    async with case(tmp_path, *SOLVED, files={**CART, ".troupe.yaml": policy}) as work:
        assert await work.outcome() == "not_allowed"
        assert await work.calls() == 0


async def test_without_a_model_a_job_waits_and_goes_on_by_itself(tmp_path):
    """Else an issue filed before there was a key is lost."""
    async with case(tmp_path, *SOLVED) as work:
        async with services(tmp_path, None) as without:
            with pytest.raises(JobWaiting) as waiting:
                await run(work.agent("code:job_01TEST", without), work.durable)
            assert waiting.value.reason == "model_not_configured"
            assert waiting.value.resume_at_ms == without.clock.now_ms() + 30_000
        assert await work.outcome() == "finished"


async def test_the_script_serves_the_sample_and_nothing_else(tmp_path):
    """Else a script edits somebody's own code."""
    async with case(tmp_path, LOOK) as work:
        scripted = settings_for(work.server.url)
        async with services(tmp_path, scripted) as only_script:
            with pytest.raises(JobWaiting) as waiting:
                await run(work.agent("code:job_01TEST", only_script), work.durable)
            assert waiting.value.reason == "model_not_configured"
            assert await work.calls() == 0
            payload = {**work.durable.record.payload}
            payload["repository"] = str(sample_repository(tmp_path / "sample"))
            sample = new_job("code", payload)
            await run(work.agent("code:job_01TEST", only_script), sample)
            assert await work.calls() > 0


async def test_what_can_not_be_worked_on_fails_for_good_with_a_sentence(tmp_path):
    """Else a hopeless job is tried again and again, and nobody is told why."""
    async with case(tmp_path, *SOLVED) as work:
        for place, sentence in (
            (tmp_path / "nowhere", "no such repository"),
            (tmp_path, "not a git repository"),
            (tmp_path.parent, "does not allow this repository"),
        ):
            payload = {**work.durable.record.payload, "repository": str(place)}
            with pytest.raises(JobFailedError, match=sentence):
                await run(work.agent("code:job_01TEST", work.services), new_job("code", payload))


async def test_more_calls_than_a_round_may_have_are_told_to_come_again(tmp_path):
    """Else fifty calls in one answer are fifty processes."""
    many = {"tools": [use("glob", pattern=f"*{n}")["tools"][0] for n in range(CALLS_MAX + 5)]}
    async with case(tmp_path, many, FIX, FINISH, FINISH) as work:
        assert await work.outcome() == "finished"
        ran = [key for key in work.durable.steps if key.startswith("round-1/tool")]
        assert len(ran) == CALLS_MAX


async def test_unknown_tools_and_wrong_arguments_are_answered_in_words(tmp_path):
    """Else a slip of the model ends the work."""
    wrong = {"tools": [
        {"name": "push", "input": {}}, {"name": "report", "input": {}},
        {"name": "read", "input": {"path": 3}}, {"name": "finish", "input": {"summary": "x"}},
    ]}  # fmt: skip
    async with case(tmp_path, wrong, *SOLVED) as work:
        assert await work.outcome() == "finished"
        assert not any(key.startswith("round-1/tool") for key in work.durable.steps)


def test_every_outcome_has_a_sentence():
    """Else a person reads a code."""
    assert all(sentence.endswith(".") for sentence in OUTCOMES.values())
