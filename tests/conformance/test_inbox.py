"""The inbox: durable, in order, each message id once as long as it is kept."""

from __future__ import annotations

import asyncio

import pytest

from runtime.store import redis, rules
from runtime.store.contract import Ack, Bury, Committed, Event, Refused, Retry, Send

from .kit import LONG_S, A, B, accept, ids, one, send, soon, started


async def test_an_acknowledged_message_leaves_the_inbox_and_keeps_its_outcome(store, desk, clock):
    """A message would be handled twice, or its reply be lost."""
    await desk.take(A)
    await desk.give("m")
    clock.advance(1)
    await desk.commit(acks=(Ack("m", b'"hi"'),))
    assert await store.inbox(A, 0, 10) == []
    message = await store.outcome(A, "m", 0)
    assert (message.status, message.reply, message.error) == ("processed", b'"hi"', None)
    assert message.finished_ms == message.accepted_ms + 1000
    assert await store.history(A, 0, 10) == [message]


async def test_a_retried_message_stays_first_in_line(store, desk):
    """A failing message would be overtaken, or its failures be forgotten."""
    await desk.take(A)
    await desk.give("m", "n")
    for attempts in (1, 2):
        await desk.commit(retries=(Retry("m", 7_000 + attempts, f"boom {attempts}"),))
        first, second = await store.inbox(A, 0, 10)
        assert (first.message_id, first.attempts, first.error) == (
            "m",
            attempts,
            f"boom {attempts}",
        )
        assert (first.status, first.not_before_ms) == ("pending", 7_000 + attempts)
        assert (second.message_id, second.attempts) == ("n", 0)
    await desk.commit(acks=(Ack("m"),))
    message = await store.outcome(A, "m", 0)
    assert (message.attempts, message.status, message.error) == (2, "processed", None)


async def test_a_buried_message_is_dead_with_its_reason(store, desk, clock):
    """A message would be given up on without a trace."""
    await desk.take(A)
    await desk.give("m")
    await desk.commit(retries=(Retry("m", 5, "first"),))
    await desk.commit(buries=(Bury("m", "no use"),))
    assert await store.inbox(A, 0, 10) == []
    message = await store.outcome(A, "m", 0)
    assert (message.status, message.error, message.attempts) == ("dead", "no use", 1)
    assert (message.finished_ms, message.reply) == (clock.now_ms(), None)


async def test_what_was_sent_is_what_is_read(store, clock):
    """An envelope would change on its way."""
    sent = Send("m", "acme/client:web", A, b"\x00\xff body", "m-before")
    await one(store, accept(sent))
    [message] = await store.inbox(A, 0, 1)
    assert (message.message_id, message.sender, message.recipient) == ("m", "acme/client:web", A)
    assert (message.body, message.reply_to) == (b"\x00\xff body", "m-before")
    assert message.accepted_ms == clock.now_ms()


@pytest.mark.parametrize("ending", ["pending", "processed", "dead"])
async def test_a_message_id_is_accepted_once(store, desk, ending):
    """A retried send would change the agent's state a second time."""
    await desk.take(A)
    await desk.give("m")
    if ending == "processed":
        await desk.commit(acks=(Ack("m"),))
    if ending == "dead":
        await desk.commit(buries=(Bury("m", "why"),))
    assert await one(store, accept(send("m"))) == Refused("duplicate", "m")
    assert len(await store.history(A, 0, 10)) == 1


async def test_the_same_id_may_go_to_two_recipients(store):
    """A broadcast could reach only its first recipient."""
    answer = await one(store, accept(send("m", A), send("m", B)))
    assert answer == Committed(0, (1, 2), 0)


async def test_the_same_id_twice_in_one_commit_is_a_duplicate(store):
    """A commit could put a message into an inbox twice."""
    assert await one(store, accept(send("m"), send("m"))) == Refused("duplicate", "m")
    [first, second] = await store.commit([accept(send("n")), accept(send("n"))])
    assert (type(first), second) == (Committed, Refused("duplicate", "n"))


@pytest.mark.parametrize(
    "parts",
    [
        {"acks": (Ack("unknown"),)},
        {"retries": (Retry("unknown", 0, ""),)},
        {"buries": (Bury("unknown", ""),)},
        {"acks": (Ack("done"),)},
        {"acks": (Ack("of b"),)},
        {"acks": (Ack("m"), Ack("m"))},
        {"acks": (Ack("m"),), "buries": (Bury("m", ""),)},
        {"acks": (Ack("m"),), "retries": (Retry("m", 0, ""),)},
    ],
)
async def test_only_a_pending_message_of_its_own_can_be_finished(store, desk, parts):
    """A message would get two outcomes, or an agent finish another's message."""
    await desk.take(A)
    await desk.give("m", "done")
    await desk.give("of b", to=B)
    await desk.commit(acks=(Ack("done"),))
    assert await desk.refused(**parts) == "not_pending"
    assert ids(await store.inbox(A, 0, 10)) == ["m"]


async def test_a_message_can_be_accepted_and_handled_in_one_commit(store, desk, clock):
    """An ask would cost two commits, or its message leave no trace."""
    await desk.take(A)
    answer = await desk.commit(
        version=0, acks=(Ack("m", b"1"),), events=(Event("e", b"{}"),),
        sends=(send("m"), send("out", B, A), send("self", A, A)),
    )  # fmt: skip
    assert answer.seqs == (1, 2, 3)
    assert ids(await store.inbox(A, 0, 10)) == ["self"]
    handled, waiting = await store.history(A, 0, 10)
    assert (handled.message_id, handled.status, handled.reply) == ("m", "processed", b"1")
    assert handled.finished_ms == handled.accepted_ms == clock.now_ms()
    assert (waiting.message_id, waiting.status) == ("self", "pending")
    assert await store.outcome(A, "m", 0) == handled
    assert [event.cause for event in await store.journal(A, 0, 10)] == ["m"]
    assert await one(store, accept(send("m"))) == Refused("duplicate", "m")
    poll = await store.poll("o1", 0, 10, 0)
    assert (ids(poll.messages), poll.cursor) == (["self"], 3)


async def test_no_message_is_handled_before_one_that_waits(store, desk):
    """A sender's second message would overtake its first."""
    await desk.take(A)
    await desk.give("first")
    parts = {"acks": (Ack("second"),), "sends": (send("second"),)}
    assert await one(store, desk.turn(**parts)) == Refused("overtaking", "second")
    assert ids(await store.history(A, 0, 10)) == ["first"]
    await desk.commit(acks=(Ack("first"),))
    await desk.commit(**parts)


async def test_only_the_first_send_of_a_commit_can_be_handled_at_once(store, desk):
    """What a handler sends to itself would be done before anybody handled it."""
    await desk.take(A)
    sends = (send("out", B, A), send("m"))
    assert await desk.refused(acks=(Ack("m"),), sends=sends) == "not_pending"
    assert await desk.refused(acks=(Ack("m"),), sends=(send("m", B),)) == "not_pending"
    assert await desk.refused(acks=(Ack("x"), Ack("m")), sends=(send("m"),)) == "not_pending"


async def test_an_inbox_that_is_full_takes_nothing_from_outside(store, desk, monkeypatch):
    """One flooded agent would use up the room of all."""
    for module in (rules, redis):
        monkeypatch.setattr(module, "INBOX_MAX", 2)
    await desk.take(A, B)
    await desk.give("m", "n")
    assert await one(store, accept(send("o"))) == Refused("inbox_full", A)
    assert await one(store, accept(send("o"), send("o", B))) == Refused("inbox_full", A)
    assert await one(store, accept(send("n"))) == Refused("duplicate", "n")
    await desk.commit(B, sends=(send("from b", A, B),))  # agents can't wait for each other
    await desk.commit(acks=(Ack("m"), Ack("n")))
    await one(store, accept(send("o")))
    assert ids(await store.inbox(A, 0, 10)) == ["from b", "o"]


async def test_seqs_are_the_order_of_acceptance(store, desk):
    """Messages of one sender would overtake each other."""
    given = [seq for id in "abcde" for seq in await desk.give(id)]
    assert given == sorted(set(given))
    assert [message.seq for message in await store.inbox(A, 0, 10)] == given
    assert ids(await store.history(A, 0, 10)) == list("abcde")


async def test_the_inbox_is_read_in_pages(store, desk):
    """A page would repeat or skip messages."""
    await desk.take(A)
    seqs = await desk.give(*"abcde")
    await desk.commit(acks=(Ack("b"),))
    assert ids(await store.inbox(A, 0, 2)) == ["a", "c"]
    assert ids(await store.inbox(A, seqs[2], 2)) == ["d", "e"]
    assert await store.inbox(A, seqs[4], 2) == []
    assert ids(await store.history(A, seqs[0], 2)) == ["b", "c"]
    assert await store.inbox("acme/no:body", 0, 2) == []
    assert await store.history("acme/no:body", 0, 2) == []


async def test_the_journal_is_dense_and_read_in_pages(store, desk):
    """A version would be missing, or a page repeat one."""
    await desk.take(A)
    for version in (0, 2):
        events = (Event(f"e{version + 1}", b"", 3), Event(f"e{version + 2}", b""))
        await desk.commit(A, version, events=events)
    events = await store.journal(A, 0, 10)
    assert [(event.version, event.name) for event in events] == [
        (1, "e1"), (2, "e2"), (3, "e3"), (4, "e4"),
    ]  # fmt: skip
    assert [event.schema for event in events] == [3, 1, 3, 1]
    assert [event.cause for event in events] == [None] * 4
    assert await store.journal(A, 1, 2) == events[1:3]
    assert await store.journal(A, 4, 2) == []
    assert await store.journal(B, 0, 2) == []


async def test_outcome_of_an_unknown_message_is_none_at_once(store, desk):
    """Asking for what was never accepted would hang."""
    await desk.give("m")
    assert await store.outcome(A, "other", LONG_S) is None
    assert await store.outcome(B, "m", LONG_S) is None


async def test_outcome_answers_a_pending_message_after_the_wait(store, desk):
    """A caller could not tell accepted from unknown."""
    await desk.give("m")
    message = await store.outcome(A, "m", 0.01)
    assert (message.message_id, message.status) == ("m", "pending")


@pytest.mark.parametrize("ending", [{"acks": (Ack("m", b"1"),)}, {"buries": (Bury("m", "x"),)}])
async def test_outcome_wakes_when_the_message_is_finished(store, desk, ending):
    """An `ask` would be as slow as its longest wait."""
    await desk.take(A)
    await desk.give("m", "other")
    waiting = await started(store, store.outcome(A, "m", LONG_S))
    await desk.commit(acks=(Ack("other"),))
    await desk.commit(**ending)
    assert (await soon(waiting)).status in ("processed", "dead")


async def test_many_can_wait_for_one_outcome(store, desk):
    """Only one of several askers would get the reply."""
    await desk.take(A)
    await desk.give("m")
    waiting = [await started(store, store.outcome(A, "m", LONG_S)) for _ in range(3)]
    waiting[0].cancel()
    await desk.commit(acks=(Ack("m", b"1"),))
    replies = await asyncio.wait_for(asyncio.gather(*waiting[1:]), 5)
    assert [message.reply for message in replies] == [b"1", b"1"]
