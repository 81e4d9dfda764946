"""Purging: nothing of an organization is left, and nobody else notices."""

from __future__ import annotations

import pytest

from runtime.store.contract import (
    ABSENT,
    Ack,
    Commit,
    Event,
    Intent,
    Put,
    Refused,
    Remind,
    Result,
    Send,
    Snapshot,
    Swept,
)

from .kit import (
    BETA,
    LONG_S,
    SCHEDULER,
    A,
    B,
    Desk,
    accept,
    everything,
    ids,
    ok,
    one,
    publish,
    put,
    send,
    soon,
    started,
)


async def purge(store, organization="acme", limit=3):
    """Remove all of it; how many calls that took."""
    calls = 0
    while True:
        calls += 1
        if not (await store.purge(organization, limit)).more:
            return calls


def told_scheduler(id, sender="acme/counter:a", organization="acme"):
    return accept(Send(id, sender, SCHEDULER, b"{}"), organization=organization)


@pytest.fixture
async def lived(forgetting, desk):
    """A store in which two organizations and the system have done all there is to do."""
    await desk.take(A, B, BETA, SCHEDULER)
    await desk.give("in-1", "again-1")
    await desk.commit(A, **everything(0))
    await desk.give("waits", to=B)
    await ok(forgetting, Commit("acme", puts=(put("k"), put("k", None), put("d"), put("d", None))))
    beta = put("theirs", organization="beta", terms=("status=running",))
    await desk.give("theirs", to=BETA)
    await desk.commit(
        BETA,
        0,
        events=(Event("e", b""),),
        intents=(Intent("job_2", "s", "pure", b"ask"),),
        results=(Result("job_2", "s", b"told"),),
        reminders=(Remind("wake", 4_000_000_000_000),),
        puts=(beta,),
        feed=(publish("job:started", "beta"),),
    )
    await ok(forgetting, told_scheduler("done"))
    await ok(forgetting, told_scheduler("open"))
    await ok(forgetting, told_scheduler("of beta", "beta/client:x", "beta"))
    await desk.commit(SCHEDULER, acks=(Ack("done"),))
    return forgetting


async def seen_of_beta(store):
    return [
        await store.inbox(BETA, 0, 10),
        await store.history(BETA, 0, 10),
        await store.journal(BETA, 0, 10),
        await store.steps("job_2"),
        await store.list_documents("job", "beta"),
        await store.count("job", "beta", ("status=running",)),
        (await store.tail(0, 100, 0, "beta")).entries,
    ]


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_nothing_of_an_organization_is_left(lived, limit):
    """A customer that has left would still be there."""
    await purge(lived, limit=limit)
    for agent in (A, B):
        for read in (lived.inbox, lived.history, lived.journal):
            assert await read(agent, 0, 10) == []
    assert await lived.steps("job_1") == []
    assert await lived.list_documents("job", "acme") == []
    assert [one.key for one in await lived.list_documents("job")] == ["theirs"]
    assert await lived.count("job", "acme", ("status=running",)) == 0
    feed = await lived.tail(0, 100, 0)
    assert [entry.organization for entry in feed.entries] == ["beta"]
    for agent in (A, B):
        assert await lived.outcome(agent, "in-1", 0) is None
    assert await lived.get("job", "job_1") is None
    assert ids(await lived.history(SCHEDULER, 0, 10)) == ["of beta"]


@pytest.mark.parametrize("limit", [1, 2])
async def test_steps_of_which_a_part_was_forgotten_go_too(forgetting, desk, limit):
    """What a customer's jobs had asked for would stay when the customer has left."""
    await desk.take(A)
    await desk.commit(intents=tuple(Intent("job_1", key, "pure", b"ask") for key in "abc"))
    assert await forgetting.prune(0, limit, ["job_1"]) == Swept(limit, True)
    await purge(forgetting)
    assert await forgetting.steps("job_1") == []


async def test_the_others_notice_nothing(lived, desk):
    """One customer's end would be felt by another."""
    before = await seen_of_beta(lived)
    await purge(lived)
    assert await seen_of_beta(lived) == before
    assert ids(await lived.inbox(SCHEDULER, 0, 10)) == ["of beta"]
    await desk.commit(SCHEDULER, acks=(Ack("of beta"),))
    assert (await desk.commit(BETA, 1, acks=(Ack("theirs"),), events=(Event("f", b""),))).version
    assert await lived.renew("o1", 10) is True


async def test_its_ids_look_as_if_they_had_never_existed(opened, lived, desk):
    """Whoever takes the name next would meet what was there before."""
    await purge(lived)
    store = await opened.reopen() if opened.durable else lived
    answer = await ok(store, Commit("acme", sends=(send("in-1"),), puts=(put("k", expect=ABSENT),)))
    assert answer.seqs > (0,)
    assert (await store.get("job", "k")).revision == 1
    new = await Desk(store, "o9", "host-9").register()
    [found] = await new.take()
    assert (found.agent, found.version, found.snapshot, found.events) == (A, 0, None, ())
    assert ids(found.inbox) == ["in-1"]
    begun = (Intent("job_1", "s-1", "pure", b"anew"),)
    assert await new.commit(A, intents=begun)
    assert [step.attempts for step in await store.steps("job_1")] == [1]


async def test_a_live_activation_is_fenced(lived, desk):
    """A host that still has the agent in memory would write it back."""
    old = desk.epochs[A]
    await lived.purge("acme", 1)
    await purge(lived)
    assert await desk.refused(A, acks=(Ack("again-1"),)) == "stale_epoch"
    assert await desk.refused(A, 1, events=(Event("e", b""),)) == "stale_epoch"
    await desk.give("new")
    assert await desk.refused(A) == "stale_epoch"
    new = await Desk(lived, "o9", "host-9").register()
    [found] = await new.take(A)
    assert found.epoch > old, "an epoch came twice"
    assert await desk.refused(A) == "stale_epoch"
    assert await new.commit(A, acks=(Ack("new"),))


async def test_epochs_and_numbers_go_on_after_reopening(opened, lived, desk):
    """A restart would give numbers a second time that a live process still has."""
    if not opened.durable:
        pytest.skip("it keeps nothing")
    [head] = (await ok(lived, accept(send("last", to=A)))).seqs
    cursor = (await ok(lived, Commit("acme", feed=(publish("last"),)))).cursor
    await purge(lived)
    store = await opened.reopen()
    assert (await store.tail(cursor, 10, 0)).reset is False
    answer = await ok(store, Commit("acme", sends=(send("next"),), feed=(publish("next"),)))
    assert (answer.seqs, answer.cursor) == ((head + 1,), cursor + 1)
    new = await Desk(store, "o9", "host-9").register()
    [found] = await new.take(A)
    assert found.epoch > max(desk.epochs[A], desk.epochs[B])


async def test_between_two_calls_nothing_of_it_can_be_claimed_in_half(lived):
    """A host would start an agent without the journal that is gone already."""
    host = await Desk(lived, "o9", "host-9").register()
    await lived.release("o1", [A, B])
    more = True
    while more:
        more = (await lived.purge("acme", 1)).more
        poll = await lived.poll("o9", 0, 10, 0)
        assert poll.ready == len(await lived.claim("o9", 10)), "what is said to be ready is"
    found = await host.take(A)
    assert [(one.version, one.inbox) for one in found] in ([(0, ())], [])


async def test_who_waits_for_its_answer_is_told(lived):
    """A caller would wait for a message that is gone."""
    waiting = await started(lived, lived.outcome(B, "waits", LONG_S))
    await purge(lived)
    assert await soon(waiting) is None


async def test_what_arrives_meanwhile_comes_with_the_next_round(lived):
    """A message that was on its way would stay for ever."""
    await lived.purge("acme", 1)
    await ok(lived, accept(send("late", to="acme/counter:late")))
    await ok(lived, told_scheduler("late", "acme/counter:late"))
    await purge(lived)
    await purge(lived)
    assert await lived.history("acme/counter:late", 0, 10) == []
    assert ids(await lived.history(SCHEDULER, 0, 10)) == ["of beta"]


async def test_reminders_of_it_never_ring(lived, clock):
    """An agent that is gone would be woken into life."""
    await purge(lived)
    clock.advance(3_000_000_000)
    owner = await Desk(lived, "o9", "host-9").register()
    assert [one.agent for one in await owner.take()] == [BETA]


async def test_half_purged_it_is_not_woken_either(lived, clock):
    """A reminder that comes between two calls would wake what has no name any more."""
    had = {agent: ids(await lived.history(agent, 0, 10)) for agent in (A, B)}
    assert all(had.values())
    await lived.purge("acme", 1)
    clock.advance(3_000_000_000)
    owner = await Desk(lived, "o9", "host-9").register()
    woken = {one.agent for one in await owner.take()}
    assert woken <= {A, B, BETA}
    for agent in woken - {BETA}:  # one that is whole may be: which goes first is the store's affair
        assert set(had[agent]) <= set(ids(await lived.history(agent, 0, 10)))


async def test_a_name_that_only_begins_alike_is_another(forgetting, desk):
    """`acme-2` would go with `acme`."""
    for organization in ("acme", "acme-2", "acme.x", "acme0", "Acme"):
        sends = (Send("m", f"{organization}/client:x", f"{organization}/a:1", b""),)
        kept = (Put("c", organization, organization, b""),)
        feed = (publish("e", organization),)
        await ok(forgetting, Commit(organization, sends=sends, puts=kept, feed=feed))
    await purge(forgetting)
    assert await forgetting.count("c") == 4
    assert len((await forgetting.tail(0, 10, 0)).entries) == 4
    assert len(await desk.take()) == 4


@pytest.mark.parametrize("organization", ["system", "", "acme/counter:a", "~"])
async def test_only_an_organization_can_be_purged(forgetting, organization):
    """A slip would remove the scheduler, or everything."""
    with pytest.raises(ValueError):
        await forgetting.purge(organization, 10)


async def test_an_organization_that_is_not_there_is_no_error(forgetting):
    """A purge that was cut short could not be repeated to be sure."""
    swept = await forgetting.purge("nobody", 10)
    assert (swept.rows, swept.more) == (0, False)


async def test_a_large_agent_goes_in_pieces(forgetting, desk):
    """One call would hold up every commit behind it."""
    await desk.take(A)
    for version in range(20):
        parts = {"events": (Event("e", b""),), "snapshot": Snapshot(b"x")}
        await desk.commit(A, version, **parts)
    await desk.give(*(f"m{number}" for number in range(30)))
    found = []
    while not found or found[-1].more:
        found.append(await forgetting.purge("acme", 10))
    assert sum(swept.rows for swept in found) >= 50
    assert await one(forgetting, accept(send("m0"))) != Refused("duplicate", "m0")


async def test_events_that_are_alike_are_counted_each(forgetting):
    """What a purge says that it removed would be less than there was."""
    await ok(forgetting, Commit("acme", feed=(publish("a"), publish("b"), publish("c"))))
    found = [await forgetting.purge("acme", 10)]
    while found[-1].more:
        found.append(await forgetting.purge("acme", 10))
    assert sum(swept.rows for swept in found) == 3
    assert (await forgetting.tail(0, 10, 0)).entries == ()
