"""Owners and claims: one holder at a time, and nothing waits for a dead one."""

from __future__ import annotations

from runtime.store.contract import BATCH_MAX, Ack, Event, Snapshot

from .kit import SCHEDULER, A, B, Desk, accept, ids, ok, send

C = "acme/counter:c"


async def other(store, owner="o2", name="host-2", lease_s=10.0):
    return await Desk(store, owner, name).register(lease_s)


async def test_a_claim_raises_the_epoch_by_one_and_fences_the_last_holder(store, desk, clock):
    """Two hosts could write for one agent."""
    await desk.give("m")
    [first] = await desk.take()
    clock.advance(11)
    late = await other(store)
    [second] = await late.take()
    assert (first.epoch, second.epoch) == (1, 2)
    assert await desk.refused(acks=(Ack("m"),)) == "stale_epoch"
    assert await late.commit(acks=(Ack("m"),))


async def test_an_activation_is_all_that_is_needed(store, desk, clock):
    """A host would start an agent with a wrong state or without its messages."""
    await desk.take(A)
    await desk.give("m1", "m2", "m3")
    await desk.commit(A, 0, events=(Event("a", b"1"),), acks=(Ack("m1"),))
    await desk.commit(A, 1, events=(Event("b", b"2"),), snapshot=Snapshot(b"state 2", 4))
    await desk.commit(A, 2, events=(Event("c", b"3"),), acks=(Ack("m2"),))
    await store.release("o1", [A])
    [found] = await desk.take(A)
    assert (found.agent, found.epoch, found.version) == (A, 2, 3)
    assert (found.snapshot_version, found.snapshot) == (2, Snapshot(b"state 2", 4))
    assert list(found.events) == await store.journal(A, 2, 10)
    assert [(event.name, event.cause) for event in found.events] == [("c", "m2")]
    assert list(found.inbox) == await store.inbox(A, 0, 10)
    assert ids(found.inbox) == ["m3"]


async def test_a_snapshot_covers_the_events_of_its_own_commit(store, desk):
    """The last events would be applied twice when the agent comes back."""
    await desk.take(A)
    await desk.commit(A, 0, events=(Event("a", b"1"),), snapshot=Snapshot(b"one"))
    await desk.commit(A, 1, snapshot=Snapshot(b"one again"))
    await store.release("o1", [A])
    [found] = await desk.take(A)
    assert (found.snapshot_version, found.snapshot, found.events) == (1, Snapshot(b"one again"), ())


async def test_a_new_agent_has_nothing(store, desk):
    """A first activation would fail."""
    [found] = await desk.take(A)
    assert (found.epoch, found.version, found.snapshot_version) == (1, 0, 0)
    assert (found.snapshot, found.events, found.inbox) == (None, (), ())


async def test_ready_agents_are_claimed_longest_waiting_first(store, desk):
    """An agent could starve."""
    await desk.give("m1", to=B)
    await desk.give("m2", to=C)
    await desk.give("m3", to=A)
    await desk.give("m4", to=B)
    assert [one.agent for one in await store.claim("o1", 2)] == [B, C]
    assert [one.agent for one in await store.claim("o1", 2)] == [A]
    assert await store.claim("o1", 2) == []


async def test_waiting_is_counted_from_the_oldest_message_that_is_left(store, desk):
    """An agent that has just been served would go before one that waits."""
    await desk.give("m1", to=A)
    await desk.take(A)
    await desk.give("m2", to=B)
    await desk.give("m3", to=A)
    await desk.commit(acks=(Ack("m1"),))
    await store.release("o1", [A])
    assert [one.agent for one in await store.claim("o1", 10)] == [B, A]


async def test_an_agent_without_messages_is_not_ready(store, desk):
    """Hosts would fill with agents that have nothing to do."""
    await desk.take(A)
    await desk.give("m")
    await desk.commit(acks=(Ack("m"),))
    await store.release("o1", [A])
    assert await store.claim("o1", 10) == []


async def test_held_agents_are_left_to_a_live_owner(store, desk):
    """Agents would be torn between hosts."""
    await desk.give("m")
    await desk.take()
    rival = await other(store)
    assert await rival.take() == []
    assert await rival.take(A) == []
    assert await desk.take() == []
    assert await desk.take(A) == []


async def test_agents_of_a_lapsed_owner_can_be_taken(store, desk, clock):
    """The agents of a dead host would never answer again."""
    await desk.give("m")
    await desk.take(A, B)
    clock.advance(9.999)
    rival = await other(store)
    assert await rival.take(A, B) == []
    clock.advance(0.001)
    assert [one.agent for one in await rival.take()] == [A]
    assert [one.agent for one in await rival.take(A, B)] == [B]


async def test_a_lease_can_lapse_again_after_the_clock_was_set_back(store, desk, clock):
    """The agents of a host that died then would never answer again."""
    await desk.take(A)
    clock.advance(11)
    rival = await other(store, lease_s=10_000.0)
    assert await rival.take() == [], "somebody has looked"
    clock.advance(-6)
    await desk.give("m")
    clock.advance(3_600)
    assert (await store.poll("o2", 0, 10, 0)).ready == 1
    assert [one.agent for one in await rival.take()] == [A]


async def test_renewing_keeps_what_is_held(store, desk, clock):
    """A live host would lose its agents."""
    await desk.give("m")
    await desk.take()
    clock.advance(9)
    assert await store.renew("o1", 10) is True
    clock.advance(9)
    rival = await other(store)
    assert await rival.take() == []


async def test_a_lapsed_owner_that_renews_holds_what_nobody_took(store, desk, clock):
    """A host that was paused for a moment would drop all its agents."""
    await desk.take(A)
    await desk.give("m")
    clock.advance(11)
    assert await store.renew("o1", 10) is True
    rival = await other(store)
    assert await rival.take() == []
    assert await desk.commit(acks=(Ack("m"),))


async def test_an_owner_without_a_live_lease_gets_nothing(store, desk, clock):
    """A host that nobody trusts would take agents from those that live."""
    await desk.give("m")
    assert await store.claim("nobody", 10) == []
    assert await store.claim("nobody", 10, [B]) == []
    clock.advance(11)
    assert await desk.take() == []
    assert await desk.take(B) == []


async def test_renew_does_not_know_a_stranger(store, desk):
    """A host would believe in a lease that the store has forgotten."""
    assert await store.renew("nobody", 10) is False


async def test_registering_again_is_idempotent(store, desk, clock):
    """A retried register would cost a host its agents."""
    await desk.give("m")
    await desk.take()
    clock.advance(9)
    assert await store.register("o1", "host-1", 10) == desk.incarnation
    clock.advance(9)
    rival = await other(store)
    assert await rival.take() == []
    assert await store.renew("o1", 10) is True


async def test_a_new_owner_of_a_name_supersedes_the_old_one(store, desk):
    """After a host's restart its agents would wait for the lease of the dead process."""
    await desk.give("m")
    await desk.take(A, B)
    again = await other(store, "o1-again", "host-1")
    assert await store.renew("o1", 10) is False
    assert await desk.commit(A, retries=()), "its fences live until its agents are claimed"
    assert [one.agent for one in await again.take()] == [A]
    assert await desk.refused(A) == "stale_epoch"
    assert await desk.commit(B)
    assert await desk.take(C) == []
    assert [one.agent for one in await again.take(A, B)] == [B]


async def test_superseding_touches_no_other_name(store, desk):
    """A restart of one host would take the leases of all."""
    await desk.give("m")
    await desk.take()
    await other(store, "o3", "host-3")
    assert await store.renew("o1", 10) is True


async def test_release_gives_up_only_what_is_held(store, desk):
    """A late release of a former holder would take the agent from its new one."""
    await desk.take(A)
    rival = await other(store)
    await store.release("o2", [A, B, "acme/no:body"])
    assert await rival.take(A) == []
    await store.release("o1", [A])
    await store.release("o1", [A])
    assert [one.epoch for one in await rival.take(A)] == [2]
    await store.release("o1", [A])
    await store.release("nobody", [A])
    assert await rival.take(A) == [] and await desk.take(A) == []


async def test_agents_of_system_are_claimed_only_by_name(store, desk):
    """Any host would take the scheduler."""
    await ok(store, accept(send("m", SCHEDULER, A)))
    assert await desk.take() == []
    [found] = await desk.take(SCHEDULER)
    assert ids(found.inbox) == ["m"]


async def test_a_claim_takes_at_most_its_limit(store, desk):
    """A host would get more than it has room for."""
    for name in "abcde":
        await desk.give(f"m{name}", to=f"acme/counter:{name}")
    assert await store.claim("o1", 0) == []
    assert len(await store.claim("o1", 2)) == 2
    assert len(await store.claim("o1", 1, ["acme/x:1", "acme/x:2"])) == 1
    assert len(await store.claim("o1", 10)) == 3


async def test_an_agent_named_twice_is_claimed_once(store, desk):
    """One activation would fence the other of the same call."""
    assert [one.epoch for one in await desk.take(A, A)] == [1]


async def test_an_activation_has_at_most_a_page_of_messages(store, desk):
    """A flooded agent would make its claim unbounded."""
    await store.commit([accept(send(f"m{number}")) for number in range(BATCH_MAX)])
    await desk.give("last")
    [found] = await desk.take()
    assert len(found.inbox) == BATCH_MAX
    assert ids(await store.inbox(A, found.inbox[-1].seq, 10)) == ["last"]


async def test_health_names_the_owners_whose_lease_is_live(store, desk, clock):
    """Nobody could tell whether there is a host that work could go to."""
    await other(store, lease_s=20.0)
    assert (await store.health()).owners == ("o1", "o2")
    clock.advance(11)
    assert (await store.health()).owners == ("o2",)
    assert await store.renew("o1", 10.0)
    await other(store, "o3")  # of the same name as o2
    assert (await store.health()).owners == ("o1", "o3")


async def test_a_claim_says_whether_its_last_holder_had_left_the_agent(store, desk, clock):
    """A message that kills its host would look like any other that waits."""
    await desk.give("m")
    [first] = await desk.take(A)
    await store.release("o1", [A])
    [given_up] = await desk.take(A)
    clock.advance(11)
    [left] = await (await other(store)).take(A)
    [taken_over] = await (await other(store, "o3", "host-2")).take(A)
    await store.release("o3", [A])
    [at_last] = await (await other(store, "o4", "host-4")).take(A)
    told = [one.abandoned for one in (first, given_up, left, taken_over, at_last)]
    assert told == [False, False, True, True, False]
