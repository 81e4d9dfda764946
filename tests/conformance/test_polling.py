"""Polls: a host learns of its messages at once and never of another's."""

from __future__ import annotations

import asyncio

import pytest

from runtime.errors import StoreUnavailableError
from runtime.store import parking
from runtime.store.contract import Ack, Remind

from .kit import LONG_S, SCHEDULER, A, B, Desk, accept, ids, ok, send, soon, started


async def quick(store, after=0, limit=100, owner="o1"):
    return await store.poll(owner, after, limit, 0)


async def test_a_poll_answers_the_messages_of_held_agents_only(store, desk):
    """A host would be told of messages that are not its own."""
    await desk.take(A)
    await desk.give("mine")
    await desk.give("nobody's", to=B)
    poll = await quick(store)
    assert ids(poll.messages) == ["mine"]
    assert list(poll.messages) == await store.inbox(A, 0, 10)
    assert (await quick(store, owner="o2")).messages == ()


async def test_a_poll_goes_on_from_its_cursor(store, desk):
    """Messages would be skipped or told for ever."""
    await desk.take(A, B)
    await desk.give("a1", "a2")
    await desk.give("b1", to=B)
    await desk.give("a3")
    first = await quick(store, limit=3)
    assert ids(first.messages) == ["a1", "a2", "b1"]
    second = await quick(store, first.cursor, limit=3)
    assert ids(second.messages) == ["a3"]
    assert (await quick(store, second.cursor)).messages == ()
    assert ids((await quick(store)).messages) == ["a1", "a2", "b1", "a3"]


async def test_a_poll_leaves_out_what_is_finished(store, desk):
    """A host would handle a message again."""
    await desk.take(A)
    await desk.give("m", "n")
    await desk.commit(acks=(Ack("m"),))
    assert ids((await quick(store)).messages) == ["n"]


async def test_a_poll_without_room_skips_nothing(store, desk):
    """A host that asks for no messages would lose them."""
    await desk.take(A)
    await desk.give("m")
    none = await quick(store, limit=0)
    assert none.messages == ()
    assert ids((await quick(store, none.cursor)).messages) == ["m"]


async def test_a_parked_poll_wakes_when_a_message_comes(store, desk):
    """Every message would be as slow as the longest wait."""
    await desk.take(A)
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    await desk.give("m")
    assert ids((await soon(waiting)).messages) == ["m"]


async def test_a_parked_poll_wakes_when_a_turn_of_its_own_sends(store, desk):
    """Messages between agents of one host would wait."""
    await desk.take(A, B)
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    await desk.commit(A, sends=(send("m", B, A),))
    assert ids((await soon(waiting)).messages) == ["m"]


async def test_every_owner_wakes_for_its_own(store, desk):
    """One host's message would wake, or be told to, another."""
    rival = await Desk(store, "o2", "host-2").register()
    await desk.take(A)
    await rival.take(B)
    mine = await started(store, store.poll("o1", 0, 10, 0.05))
    theirs = await started(store, store.poll("o2", 0, 10, LONG_S))
    await desk.give("m", to=B)
    assert ids((await soon(theirs)).messages) == ["m"]
    assert (await soon(mine)).messages == ()


async def test_a_poll_ends_empty_after_its_wait(store, desk):
    """A host could not tell a quiet store from a dead one."""
    assert await soon(await started(store, store.poll("o1", 0, 10, 0.01))) is not None


async def test_a_poll_counts_the_agents_that_are_ready(store, desk, clock):
    """Agents nobody holds would wait for ever, or hosts chase agents they can't have."""
    assert (await quick(store)).ready == 0
    await desk.give("m", to=A)
    await desk.give("n", to=A)
    await desk.give("m", to=B)
    assert (await quick(store)).ready == 2
    await desk.take(A)
    assert (await quick(store)).ready == 1
    rival = await Desk(store, "o2", "host-2").register(lease_s=20)
    await rival.take(B)
    assert (await quick(store)).ready == 0
    clock.advance(11)
    assert (await quick(store, owner="o2")).ready == 1
    assert (await quick(store)).ready == 0, "an owner without a lease can claim nothing"


async def test_agents_of_system_are_never_ready(store, desk):
    """Hosts would chase the scheduler's inbox."""
    await ok(store, accept(send("m", SCHEDULER, A)))
    poll = await store.poll("o1", 0, 10, 0.01)
    assert (poll.messages, poll.ready) == ((), 0)
    await desk.take(SCHEDULER)
    assert ids((await quick(store)).messages) == ["m"]


async def test_a_parked_poll_wakes_when_an_agent_becomes_ready(store, desk):
    """A message to a sleeping agent would wait for the next poll."""
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    await desk.give("m")
    assert (await soon(waiting)).ready == 1


async def test_every_host_hears_of_a_ready_agent(store, desk):
    """If the host that was told is full, nobody else would take the agent."""
    await Desk(store, "o2", "host-2").register()
    polls = [await started(store, store.poll(owner, 0, 10, LONG_S)) for owner in ("o1", "o2")]
    await desk.give("m")
    assert [(await soon(poll)).ready for poll in polls] == [1, 1]


async def test_a_parked_poll_wakes_when_agents_are_released(store, desk):
    """The agents of a draining host would wait."""
    await desk.take(A)
    await desk.give("m")
    await Desk(store, "o2", "host-2").register()
    waiting = await started(store, store.poll("o2", 0, 10, LONG_S))
    await store.release("o1", [A])
    assert (await soon(waiting)).ready == 1


async def test_a_parked_poll_wakes_when_an_owner_is_superseded(store, desk):
    """The agents of a restarted host would wait for its old lease."""
    await desk.take(A)
    await desk.give("m")
    await Desk(store, "o2", "host-2").register()
    waiting = await started(store, store.poll("o2", 0, 10, LONG_S))
    await store.register("o1-again", "host-1", 10)
    assert (await soon(waiting)).ready == 1


async def test_a_parked_poll_wakes_when_a_lease_lapses(store, desk, clock):
    """The agents of a dead host would wait for the next message."""
    rival = await Desk(store, "o2", "host-2").register(lease_s=0.2)
    await rival.take(A)
    await desk.give("m")
    await desk.give("told before", to=B)
    assert (await store.poll("o1", 0, 10, LONG_S)).ready == 1
    await rival.take(B)
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    clock.advance(0.3)
    assert (await soon(waiting)).ready == 2


async def test_a_parked_poll_wakes_when_a_lease_lapses_again(store, desk, clock):
    """After the clock was set back the agents of a dead host would wait for the next message."""
    rival = await Desk(store, "o2", "host-2").register(lease_s=0.2)
    await rival.take(A)
    clock.advance(0.3)
    assert (await quick(store)).ready == 0
    clock.advance(-0.3)
    await desk.give("m")
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    clock.advance(0.3)
    assert (await soon(waiting)).ready == 1


async def test_a_parked_poll_wakes_when_a_lease_is_given_up(store, desk):
    """The agents of a host whose process is known to be gone would wait for its lease."""
    await desk.take(A)
    await desk.give("m")
    rival = await Desk(store, "o2", "host-2").register()
    waiting = await started(store, store.poll("o2", 0, 10, LONG_S))
    assert await store.renew(desk.owner, 0.0)
    assert (await soon(waiting)).ready == 1
    await rival.take(A)
    assert await store.renew(desk.owner, 10.0), "it is still known, and may hold others"


async def test_ready_agents_end_a_poll_once(store, desk):
    """A host that is full would spin."""
    await desk.give("m")
    assert (await soon(await started(store, store.poll("o1", 0, 10, LONG_S)))).ready == 1
    again = await store.poll("o1", 1, 10, 0.05)
    assert (again.messages, again.ready) == ((), 1)
    waiting = await started(store, store.poll("o1", 1, 10, LONG_S))
    await desk.give("n", to=B)
    assert (await soon(waiting)).ready == 2


@pytest.mark.parametrize("verb", ["claim", "release"])
async def test_what_is_ready_is_told_again_after_a_claim_or_a_release(store, desk, verb):
    """A host that took a part, or has room again, would not come back for the rest."""
    await desk.take("acme/counter:held")
    await desk.give("m", to=A)
    await desk.give("m", to=B)
    assert (await store.poll("o1", 0, 10, LONG_S)).ready == 2
    if verb == "claim":
        await store.claim("o1", 1)
    else:
        await store.release("o1", ["acme/counter:held"])
    assert (await soon(await started(store, store.poll("o1", 2, 10, LONG_S)))).ready > 0


async def test_closing_ends_the_calls_that_wait(opened, desk):
    """A host would hang on a store that is gone."""
    store = opened.store
    await desk.give("m")
    calls = [
        store.poll("o1", 9, 10, LONG_S),
        store.outcome(A, "m", LONG_S),
        store.tail(0, 10, LONG_S),
    ]
    await store.poll("o1", 0, 10, 0)
    waiting = [await started(store, call) for call in calls]
    await store.close()
    for task in waiting:
        with pytest.raises(StoreUnavailableError):
            await soon(task)
    with pytest.raises(StoreUnavailableError):
        await store.commit([accept(send("n"))])
    with pytest.raises(StoreUnavailableError):
        await store.inbox(A, 0, 10)
    await store.close()


async def test_a_cancelled_poll_leaves_nothing_behind(store, desk):
    """A host that gives up a poll would take the answer of the next."""
    await desk.take(A)
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    again = await started(store, store.poll("o1", 0, 10, LONG_S))
    await desk.give("m")
    assert ids((await soon(again)).messages) == ["m"]


async def test_a_due_reminder_enters_the_inbox(store, desk, clock):
    """A durable wake-up would be lost, early, or come twice."""
    await desk.take(A)
    due_ms = clock.now_ms() + 5_000
    await desk.commit(reminders=(Remind("wake", due_ms, b"body"),))
    clock.advance(4.999)
    assert (await quick(store)).messages == ()
    clock.advance(0.001)
    [message] = (await quick(store)).messages
    assert message.message_id == f"reminder:wake:{due_ms}"
    assert (message.sender, message.recipient, message.body) == (A, A, b"body")
    assert message.accepted_ms == clock.now_ms()
    clock.advance(1000)
    assert len((await quick(store)).messages) == 1
    assert await desk.commit(acks=(Ack(message.message_id),))


async def test_a_due_reminder_wakes_a_parked_poll(store, desk, clock):
    """Reminders would be as late as the longest wait."""
    await desk.take(A)
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    await desk.commit(reminders=(Remind("wake", clock.now_ms() + 100),))
    clock.advance(0.2)
    assert ids((await soon(waiting)).messages) == [f"reminder:wake:{clock.now_ms() - 100}"]


async def test_a_lapse_that_nobody_saw_hides_no_reminder(store, desk, clock):
    """Once a host had died while nobody polled, reminders would be as late as the longest wait."""
    await Desk(store, "o2", "host-2").register(lease_s=0.0)
    await asyncio.sleep(20 * parking.NAP_S_MIN)  # an alarm for the lapse has come to nothing
    await desk.take(A)
    await desk.commit(reminders=(Remind("wake", clock.now_ms() + 100),))
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    clock.advance(0.2)
    assert ids((await soon(waiting)).messages) == [f"reminder:wake:{clock.now_ms() - 100}"]


async def test_a_due_reminder_makes_a_sleeping_agent_ready(store, desk, clock):
    """An agent that nobody holds would sleep through its reminder."""
    await desk.take(A)
    await desk.commit(reminders=(Remind("wake", clock.now_ms() + 1000),))
    await store.release("o1", [A])
    assert await desk.take() == []
    clock.advance(1)
    [found] = await desk.take()
    assert ids(found.inbox) == [f"reminder:wake:{clock.now_ms()}"]


async def test_a_reminder_is_replaced_and_cancelled_by_its_key(store, desk, clock):
    """An old plan would still go off."""
    await desk.take(A, B)
    now_ms = clock.now_ms()
    await desk.commit(A, reminders=(Remind("x", now_ms + 1), Remind("y", now_ms + 2)))
    await desk.commit(B, reminders=(Remind("x", now_ms + 3),))
    await desk.commit(A, reminders=(Remind("x", now_ms + 50_000), Remind("y", None)))
    await desk.commit(A, reminders=(Remind("unknown", None),))
    clock.advance(1)
    assert [message.recipient for message in (await quick(store)).messages] == [B]
    clock.advance(50)
    assert ids((await quick(store)).messages)[1:] == [f"reminder:x:{now_ms + 50_000}"]


async def test_due_reminders_come_in_the_order_of_their_times(store, desk, clock):
    """After an outage the later of two would be handled first."""
    await desk.take(A, B)
    now_ms = clock.now_ms()
    await desk.commit(B, reminders=(Remind("late", now_ms + 20),))
    await desk.commit(A, reminders=(Remind("last", now_ms + 30), Remind("soon", now_ms + 10)))
    clock.advance(60)
    keys = [id.split(":")[1] for id in ids((await quick(store)).messages)]
    assert keys == ["soon", "late", "last"]


async def test_a_reminder_for_a_time_that_was_told_is_not_told_again(store, desk, clock):
    """A turn that sets the same reminder again would handle one moment twice."""
    await desk.take(A)
    due_ms = clock.now_ms()
    await desk.commit(reminders=(Remind("x", due_ms),))
    assert len((await quick(store)).messages) == 1
    await desk.commit(reminders=(Remind("x", due_ms),))
    assert len((await quick(store)).messages) == 1
    await desk.commit(acks=(Ack(f"reminder:x:{due_ms}"),))
    await desk.commit(reminders=(Remind("x", due_ms), Remind("y", due_ms)))
    assert ids((await quick(store)).messages) == [f"reminder:y:{due_ms}"]
