"""Every way a model server can fail, against the real client over a real socket."""

from __future__ import annotations

import asyncio

import pytest

from actors.models.client import RETRY_LATER_S
from actors.models.errors import (
    BudgetSpentError,
    ModelAnswerError,
    ModelLimitError,
    ModelRequestError,
    ModelUnavailableError,
)
from actors.models.request import STOP_REASONS
from actors.models.retry import ATTEMPTS_MAX, UNUSABLE_MAX
from actors.models.scripted_reply import PACED_CHARS, events
from tests.scripted import model_client, model_request, one_scene, scripted_server, settings_for

CALL = {
    "text": "I write the file, and this sentence is long enough for several events.",
    "tools": [{"name": "write", "input": {"path": "a.py", "content": "x = 1\n" * 20}}],
}
SCRIPT = one_scene(CALL, tokensPerSecond=1_000_000)
"""Paced, so that there are many events; too fast to wait for."""
ANY_SECONDS = 3_600.0


@pytest.fixture
async def server():
    async with scripted_server(SCRIPT) as running:
        yield running


@pytest.fixture
async def rig(server):
    async with model_client(settings_for(server.url)) as made:
        yield made


@pytest.fixture
async def undisturbed(server, rig):
    """The answer without a fault."""
    return await rig.client.complete(model_request())


async def counted(server):
    calls = await server.calls()
    return {key: calls[key] for key in ("total", "complete", "cut", "refused")}


def of(total=0, complete=0, cut=0, refused=0):
    return {"total": total, "complete": complete, "cut": cut, "refused": refused}


@pytest.mark.parametrize("status", [408, 409, 500, 503, 529])
async def test_a_server_in_trouble_is_asked_again(server, rig, status):
    """A moment of overload would end the run."""
    await server.faults({"kind": "status", "status": status, "errorType": "t", "times": 2})
    answer = await rig.client.complete(model_request())
    assert answer.stop_reason == "tool_use"
    assert [(a.reason, a.waited_s, a.cost_usd) for a in answer.attempts] == [
        ("t", 0.25, 0.0),
        ("t", 0.5, 0.0),
    ]
    assert rig.waits.seconds == [0.25, 0.5]
    assert await counted(server) == of(total=3, complete=1, refused=2)


async def test_a_server_that_stays_in_trouble_is_left_to_the_caller(server, rig):
    """A run would hold its slot for as long as the provider is down."""
    await server.faults({"kind": "status", "status": 529, "times": None})
    with pytest.raises(ModelUnavailableError) as caught:
        await rig.client.complete(model_request())
    assert caught.value.reason == "overloaded_error"
    wait_s = (caught.value.retry_at_ms - rig.clock.now_ms()) / 1000
    assert RETRY_LATER_S / 2 <= wait_s <= RETRY_LATER_S
    assert rig.waits.seconds == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert (await counted(server))["total"] == ATTEMPTS_MAX


async def test_a_short_retry_after_is_waited_for_in_place(server, rig):
    """The provider would be called before the time it named."""
    await server.faults({"kind": "status", "status": 429, "retryAfter": "3"})
    answer = await rig.client.complete(model_request())
    assert rig.waits.seconds == [3.0]
    assert answer.attempts[0].waited_s == 3.0


async def test_a_long_retry_after_becomes_the_callers_wait_and_everybodys(server, rig):
    """An hour would be slept in a slot, and every other agent would ask to hear it too."""
    await server.faults({"kind": "status", "status": 429, "retryAfter": "3600"})
    until_ms = rig.clock.now_ms() + 3_600_000
    for reason in ("overloaded_error", "circuit_open"):
        with pytest.raises(ModelUnavailableError) as caught:
            await rig.client.complete(model_request())
        assert (caught.value.reason, caught.value.retry_at_ms) == (reason, until_ms)
    assert rig.waits.seconds == []
    assert (await counted(server))["total"] == 1
    rig.clock.advance(ANY_SECONDS)
    assert (await rig.client.complete(model_request())).attempts == ()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 429, "errorType": "rate_limit_error"}, "rate_limited"),
        (
            {"status": 429, "errorCode": "enforced_spend_limit_reached", "retryAfter": "1"},
            "enforced_spend_limit_reached",
        ),
        (
            {"status": 402, "errorCode": "linked_organization_spend_limit_reached"},
            "linked_organization_spend_limit_reached",
        ),
    ],
)
async def test_a_limit_that_time_does_not_lift_goes_to_a_person(server, rig, fault, reason):
    """A run would beat against a spend limit for ever."""
    await server.faults({"kind": "status", "times": None, **fault})
    with pytest.raises(ModelLimitError) as caught:
        await rig.client.complete(model_request())
    assert caught.value.reason == reason
    assert (await counted(server))["total"] == 1
    assert rig.waits.seconds == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refused_request_is_not_sent_again(server, rig, status):
    """A request that can't succeed would be sent six times."""
    kind = {"kind": "status", "status": status, "errorType": "some_error", "times": None}
    await server.faults(kind)
    with pytest.raises(ModelRequestError) as caught:
        await rig.client.complete(model_request())
    assert (caught.value.status, caught.value.type) == (status, "some_error")
    assert f"scripted fault: {status}" in caught.value.message
    assert (await counted(server))["total"] == 1


async def test_the_servers_own_word_on_retrying_is_obeyed(server, rig):
    """A 500 that must not be repeated would be, and a 400 that may be would not."""
    await server.faults({"kind": "status", "status": 500, "shouldRetry": False, "times": None})
    with pytest.raises(ModelRequestError):
        await rig.client.complete(model_request())
    await server.faults({"kind": "status", "status": 400, "shouldRetry": True})
    assert len((await rig.client.complete(model_request())).attempts) == 1
    assert (await counted(server))["total"] == 3


async def test_a_request_outside_the_script_is_refused_by_name(server, rig):
    """The run would not know that it waits for a model and not for a repair."""
    with pytest.raises(ModelRequestError, match="not a model") as caught:
        await rig.client.complete(model_request(system="role: somebody else"))
    assert caught.value.type == "script_no_match"


@pytest.mark.parametrize("abrupt", [False, True])
async def test_a_stream_cut_after_any_event_is_never_an_answer(server, rig, undisturbed, abrupt):
    """Half an answer would be taken for the whole, or the connection's end for a crash."""
    count = len(events(undisturbed.raw, PACED_CHARS))
    costs = []
    for after in range(count):
        await server.faults({"kind": "cut", "afterEvent": after, "abrupt": abrupt})
        answer = await rig.client.complete(model_request())
        assert [a.reason for a in answer.attempts] == ["truncated_stream"], after
        assert answer.raw == undisturbed.raw
        paid = answer.attempts[0].cost_usd
        assert (paid > 0) == (after >= 1), "message_start tells what the prompt cost"
        assert answer.cost_usd == pytest.approx(undisturbed.cost_usd + paid)
        costs.append(paid)
    # Before message_delta the server has not counted the output: what came is estimated.
    output_usd = undisturbed.cost_usd - costs[1]
    assert costs[-3] > costs[1] + 0.5 * output_usd
    calls = await counted(server)
    assert calls == of(total=1 + 2 * count, complete=1 + count, cut=count)
    await server.faults({"kind": "cut", "afterEvent": count - 1, "times": None})
    with pytest.raises(ModelUnavailableError) as caught:
        await rig.client.complete(model_request())
    assert caught.value.spent_usd > 0


async def test_a_connection_that_breaks_after_the_last_event_takes_nothing_away(
    server, rig, undisturbed
):
    """A paid and whole answer would be thrown away and bought again."""
    count = len(events(undisturbed.raw, PACED_CHARS))
    await server.faults({"kind": "cut", "afterEvent": count, "abrupt": True})
    assert (await rig.client.complete(model_request())).attempts == ()


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "timeout_error"])
async def test_an_error_in_mid_stream_is_tried_again(server, rig, undisturbed, kind):
    """The SDK reports it with status 200, and the run would end over a moment of overload."""
    await server.faults({"kind": "error_event", "errorType": kind, "afterEvent": 5})
    answer = await rig.client.complete(model_request())
    assert answer.raw == undisturbed.raw
    assert [a.reason for a in answer.attempts] == [kind]
    assert answer.attempts[0].cost_usd > 0


async def test_an_error_in_mid_stream_that_is_our_fault_is_not(server, rig):
    """A wrong request, or a limit, would be paid for six times."""
    await server.faults({"kind": "error_event", "errorType": "invalid_request_error"})
    with pytest.raises(ModelRequestError) as caught:
        await rig.client.complete(model_request())
    assert (caught.value.status, caught.value.type) == (200, "invalid_request_error")
    await server.faults({"kind": "error_event", "errorType": "rate_limit_error"})
    with pytest.raises(ModelLimitError):
        await rig.client.complete(model_request())
    assert (await counted(server))["total"] == 2


async def test_a_tool_call_torn_by_max_tokens_is_marked_and_not_to_be_run(server, rig):
    """A file would be overwritten with the half that the model had typed so far."""
    await server.faults({"kind": "truncated_tool"})
    answer = await rig.client.complete(model_request())
    torn = answer.content[-1]
    assert answer.stop_reason == "max_tokens"
    assert (torn["type"], torn["input"]) == ("tool_use", {})
    assert answer.broken_tools == (torn["id"],)
    assert answer.tool_calls == []


async def test_an_unknown_block_is_kept_as_it_came(server, rig, undisturbed):
    """The SDK takes it for a text; sent back so, the history would be refused."""
    await server.faults({"kind": "unknown_block"})
    answer = await rig.client.complete(model_request())
    block = {"type": "block_of_tomorrow", "payload": {"kept": [1, 2, 3]}, "text": "not a text"}
    assert answer.content == [block, *undisturbed.content]
    assert answer.text == undisturbed.text


async def test_an_unknown_stop_reason_is_told_and_runs_no_tools(server, rig):
    """Tools would be run for a reason that nobody knows."""
    await server.faults({"kind": "unknown_stop"})
    answer = await rig.client.complete(model_request())
    assert answer.stop_reason not in STOP_REASONS
    assert answer.tool_calls == []


async def test_a_slow_drip_ends_at_the_deadline_and_is_not_repeated_in_place(server):
    """A byte now and then would keep a slot busy for days."""
    await server.faults({"kind": "drip", "pauseMs": 5_000, "times": None})
    async with model_client(settings_for(server.url), call_timeout_s=2.0) as rig:
        with pytest.raises(ModelUnavailableError) as caught:
            await rig.client.complete(model_request())
        assert caught.value.reason == "timeout"
        assert caught.value.spent_usd > 0
        assert rig.waits.seconds == []
    assert (await server.calls())["total"] == 1


async def test_duplicate_tool_ids_are_asked_for_anew_once(server, rig, undisturbed):
    """The history would be refused for ever, or a broken server be paid six times."""
    await server.faults({"kind": "duplicate_tool_ids"})
    answer = await rig.client.complete(model_request())
    assert answer.raw == undisturbed.raw
    assert [a.reason for a in answer.attempts] == ["duplicate_tool_ids"]
    await server.faults({"kind": "duplicate_tool_ids", "times": None})
    with pytest.raises(ModelAnswerError) as caught:
        await rig.client.complete(model_request())
    assert caught.value.reason == "duplicate_tool_ids"
    assert caught.value.spent_usd >= 2 * undisturbed.cost_usd
    assert (await counted(server))["total"] == 1 + 2 + UNUSABLE_MAX


@pytest.mark.parametrize(
    ("kind", "stop_reason"),
    [
        ("empty_end_turn", "end_turn"),
        ("refusal", "refusal"),
        ("pause_turn", "pause_turn"),
        ("nonsense", "end_turn"),
    ],
)
async def test_a_whole_answer_is_returned_whatever_it_says(server, rig, kind, stop_reason):
    """What to do about it is the agent's business; a retry here would only pay twice."""
    await server.faults({"kind": kind, "times": None})
    answer = await rig.client.complete(model_request())
    assert answer.stop_reason == stop_reason
    assert (answer.tool_calls, answer.attempts) == ([], ())
    assert answer.cost_usd > 0
    assert (answer.raw.get("stop_details") is not None) == (kind == "refusal")


async def test_a_content_length_that_lies_makes_no_half_answer(server, rig, undisturbed):
    """The end of the answer would be lost, or the next answer begin with its rest."""
    await server.faults({"kind": "content_length", "lengthDelta": -30})
    short = await rig.client.complete(model_request())
    assert short.raw == undisturbed.raw
    assert [a.reason for a in short.attempts] == ["truncated_stream"]
    await server.faults({"kind": "content_length", "lengthDelta": 30})
    long = await rig.client.complete(model_request())
    assert (long.raw, long.attempts) == (undisturbed.raw, ())


async def test_ten_megabytes_of_text_are_refused():
    """The journal would grow by an answer that no model can have given."""
    async with (
        scripted_server(one_scene(CALL)) as unpaced,
        model_client(settings_for(unpaced.url)) as rig,
    ):
        await unpaced.faults({"kind": "huge_text", "times": None})
        with pytest.raises(ModelAnswerError) as caught:
            await rig.client.complete(model_request())
        assert caught.value.reason == "answer_too_large"
        # What a torn answer may have cost is bounded by what was asked for.
        assert caught.value.spent_usd < UNUSABLE_MAX * rig.client.reserve_usd(model_request())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "not_a_stream"}, "not_an_event_stream"),
        ({"kind": "bad_event", "afterEvent": 4}, "event_not_json"),
    ],
)
async def test_something_else_than_an_answer_is_named(server, rig, fault, reason):
    """A sign-in page of a proxy would crash the run instead of being named."""
    await server.faults({**fault, "times": None})
    with pytest.raises(ModelAnswerError) as caught:
        await rig.client.complete(model_request())
    assert caught.value.reason == reason
    assert (await counted(server))["total"] == UNUSABLE_MAX


async def test_an_answer_without_counts_is_booked_at_its_reserve(server, rig):
    """A server that counts nothing would seem to cost nothing, and no budget would ever end."""
    await server.faults({"kind": "no_usage"})
    answer = await rig.client.complete(model_request())
    assert answer.cost_usd == rig.client.reserve_usd(model_request()) > 0


async def test_failed_tries_use_up_the_budget(server, rig, undisturbed):
    """A stream that is cut again and again would cost more than the run may spend."""
    count = len(events(undisturbed.raw, PACED_CHARS))
    await server.faults({"kind": "cut", "afterEvent": count - 1, "times": None})
    budget_usd = rig.client.reserve_usd(model_request()) + 0.5 * undisturbed.cost_usd
    with pytest.raises(BudgetSpentError) as caught:
        await rig.client.complete(model_request(), budget_usd)
    error = caught.value
    assert error.spent_usd + error.left_usd == pytest.approx(budget_usd)
    assert error.left_usd < error.reserve_usd
    assert (await counted(server)) == of(total=2, complete=1, cut=1)


async def test_a_server_that_is_not_there_is_unavailable():
    """A local server that is being restarted would end the run."""
    async with scripted_server(SCRIPT) as gone:
        url = gone.url
    async with model_client(settings_for(url)) as rig:
        with pytest.raises(ModelUnavailableError) as caught:
            await rig.client.complete(model_request())
        assert caught.value.reason == "connection"
        assert len(rig.waits.seconds) == ATTEMPTS_MAX - 1


async def test_a_cancelled_call_ends_at_once_and_is_seen_as_cut(server, rig):
    """Cancel would wait for the model, or swallow the cancellation as one more failure."""
    await server.faults({"kind": "hold", "afterEvent": 3})
    task = asyncio.ensure_future(rig.client.complete(model_request()))
    await server.until_held()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        while (await counted(server)) != of(total=1, cut=1):
            await asyncio.sleep(0)


async def test_a_held_answer_goes_on_when_it_is_released(server, rig, undisturbed):
    """Tests that kill something in the middle of a call could not let the others go on."""
    await server.faults({"kind": "hold", "afterEvent": 3})
    task = asyncio.ensure_future(rig.client.complete(model_request()))
    await server.until_held()
    assert not task.done()
    await server.release()
    assert (await task).raw == undisturbed.raw


async def test_faults_hit_the_chosen_call_only(server, rig):
    """A test would fail another agent's call than the one it means."""
    await server.faults(
        {"kind": "refusal", "match": {"system": "review"}},
        {"kind": "pause_turn", "match": {"digest": model_request().digest()}, "nth": 2},
    )
    ask = rig.client.complete
    assert (await ask(model_request())).stop_reason == "tool_use"
    assert (await ask(model_request(max_tokens=2_000))).stop_reason == "tool_use"
    assert (await ask(model_request())).stop_reason == "pause_turn"
    assert (await ask(model_request(system="role: code and review"))).stop_reason == "refusal"
    assert (await ask(model_request())).stop_reason == "tool_use"
