"""Steps: an intent before, one result after, none under a lost epoch."""

from __future__ import annotations

import pytest

from runtime.store.contract import Intent, Result, Step

from .kit import A, B


def intent(key="s", job="job_1", kind="external", body=b"ask"):
    return Intent(job, key, kind, body)


def result(key="s", job="job_1", body=b"told"):
    return Result(job, key, body)


@pytest.fixture
async def holder(desk):
    await desk.take(A, B)
    return desk


async def test_an_intent_then_its_result(store, holder, clock):
    """What was asked, or what it answered, would be lost."""
    await holder.commit(intents=(intent(kind="workspace"),))
    begun_ms = clock.now_ms()
    assert await store.steps("job_1") == [Step("s", "workspace", b"ask", 1, 1, None, begun_ms)]
    clock.advance(2)
    await holder.commit(results=(result(),))
    ended_ms = begun_ms + 2000
    assert await store.steps("job_1") == [Step("s", "workspace", b"ask", 1, 1, b"told", ended_ms)]
    assert await store.steps("job_2") == []


async def test_both_may_come_in_one_commit(store, holder):
    """A pure step would cost two commits."""
    await holder.commit(intents=(intent(),), results=(result(),))
    assert [step.result for step in await store.steps("job_1")] == [b"told"]


async def test_steps_come_in_the_order_of_their_first_intent(store, holder):
    """A job's history would be shuffled by a repeated step."""
    await holder.commit(intents=(intent("z"), intent("a", "job_2")))
    await holder.commit(intents=(intent("b"),))
    await holder.commit(intents=(intent("z"), intent("a")))
    assert [step.key for step in await store.steps("job_1")] == ["z", "b", "a"]
    assert [step.key for step in await store.steps("job_2")] == ["a"]


async def test_a_repeated_intent_counts_and_keeps_the_first_request(store, holder, clock):
    """A call would go out again with another request under the same key."""
    await holder.commit(intents=(intent(body=b"first"),))
    await store.release("o1", [A])
    await holder.take(A)
    clock.advance(3)
    await holder.commit(intents=(intent(body=b"second", kind="pure"),))
    [step] = await store.steps("job_1")
    assert (step.intent, step.kind, step.attempts, step.epoch) == (b"first", "external", 2, 2)
    assert (step.result, step.at_ms) == (None, clock.now_ms())


async def test_no_intent_after_a_result(store, holder):
    """A recorded model call would be paid for again."""
    await holder.commit(intents=(intent(),), results=(result(),))
    assert await holder.refused(intents=(intent(),)) == "step_conflict"
    assert await holder.refused(intents=(intent("new"), intent())) == "step_conflict"
    assert len(await store.steps("job_1")) == 1


async def test_no_result_without_an_intent(store, holder):
    """A call would have been made that nobody announced."""
    assert await holder.refused(results=(result(),)) == "step_conflict"
    await holder.commit(intents=(intent(),))
    assert await holder.refused(results=(result(job="job_2"),)) == "step_conflict"


async def test_the_first_result_stays(store, holder):
    """A second answer would replace the one that the job went on with."""
    await holder.commit(intents=(intent(),))
    twice = (result(body=b"1"), result(body=b"2"))
    assert await holder.refused(results=twice) == "step_conflict"
    await holder.commit(results=(result(body=b"1"),))
    assert await holder.refused(results=(result(body=b"2"),)) == "step_conflict"
    assert [step.result for step in await store.steps("job_1")] == [b"1"]


async def test_no_result_under_another_epoch_than_its_intent(store, holder):
    """The answer to a call of a lost activation would be taken for the new one's."""
    await holder.commit(intents=(intent(),))
    await store.release("o1", [A])
    await holder.take(A)
    assert await holder.refused(results=(result(),)) == "step_conflict"
    await holder.commit(intents=(intent(),))
    assert await holder.commit(results=(result(),))


async def test_no_result_for_another_agents_intent(store, holder):
    """Epochs of two agents can be equal: one would end the other's call."""
    await holder.commit(A, intents=(intent(),))
    assert await holder.refused(B, results=(result(),)) == "step_conflict"
    assert await holder.commit(A, results=(result(),))
