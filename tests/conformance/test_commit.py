"""One writing verb: whole or not at all, in order, durable when answered."""

from __future__ import annotations

import pytest

from runtime.store.contract import (
    ABSENT,
    BATCH_MAX,
    Ack,
    Bury,
    Commit,
    Committed,
    Event,
    Fence,
    Intent,
    Refused,
    Remind,
    Result,
    Retry,
    Snapshot,
)

from .kit import BETA, SCHEDULER, A, B, accept, everything, ids, ok, one, picture, put, reason, send


async def test_a_commit_is_in_every_read_after_it(store, desk, clock):
    """A part of an accepted commit would be missing."""
    await desk.take(A)
    await desk.give("in-1", "again-1")
    answer = await desk.commit(**everything(0))
    assert answer == Committed(1, (3, 4), 1)
    [event] = await store.journal(A, 0, 10)
    assert (event.version, event.name, event.body) == (1, "counted", b'{"by":1}')
    assert (event.at_ms, event.cause) == (clock.now_ms(), "in-1")
    assert ids(await store.inbox(A, 0, 10)) == ["again-1", "self-1"]
    assert ids(await store.inbox(B, 0, 10)) == ["out-1"]
    assert [step.result for step in await store.steps("job_1")] == [b"told"]
    assert (await store.get("job", "job_1")).body == b"x"
    assert [entry.event for entry in (await store.tail(0, 10, 0)).entries] == ["job:started"]


BROKEN = {
    "stale_incarnation": {"fence": Fence("another", 1)},
    "stale_epoch": {"fence": "next"},
    "version_conflict": {"version": 1},
    "revision_conflict": {"puts": (put("new"), put("there", expect=ABSENT))},
    "duplicate": {"sends": (send("fresh", A, A), send("in-1", A, A))},
    "not_pending": {"acks": (Ack("in-1"), Ack("never sent"))},
    "step_conflict": {"results": (Result("job_1", "never begun", b""),)},
    "foreign_organization": {"sends": (send("out-1", B, A), send("x", BETA, A))},
    "foreign_organization of a document": {"puts": (put("new"), put("x", organization="beta"))},
}


@pytest.mark.parametrize("why", BROKEN)
async def test_a_refusal_changes_nothing(store, desk, why):
    """The first parts of a refused commit would stay written."""
    await desk.take(A)
    await desk.give("in-1", "again-1")
    await ok(store, Commit("acme", puts=(put("there"),)))
    before = await picture(store)
    parts = everything(0) | BROKEN[why]
    fence = parts.pop("fence", Fence(desk.incarnation, 1))
    if fence == "next":
        fence = Fence(desk.incarnation, 2)
    commit = Commit("acme", A, fence, parts.pop("version"), **parts)
    why = why.removesuffix(" of a document")
    assert await reason(store, commit) == why
    assert await picture(store) == before
    assert (await store.health()).refused == {why: 1}
    assert await desk.commit(**everything(0))


async def test_a_later_commit_sees_the_earlier_ones_of_its_call(store, desk):
    """A turn after another in one group commit would be refused, or would overwrite it."""
    await desk.take(A)
    first = desk.turn(A, 0, events=(Event("one", b""),), sends=(send("m", A, A),))
    second = desk.turn(A, 1, events=(Event("two", b""),), acks=(Ack("m"),))
    assert await store.commit([accept(send("c")), first, second, accept(send("d"))]) == [
        Committed(0, (1,), 0),
        Committed(1, (2,), 0),
        Committed(2, (), 0),
        Committed(0, (3,), 0),
    ]


async def test_a_refused_commit_leaves_its_neighbours_alone(store, desk):
    """One stale host would undo the turns of others that share its group commit."""
    await desk.take(A)
    good = desk.turn(A, 0, events=(Event("one", b""),))
    bad = desk.turn(A, 0, events=(Event("twin", b""),), sends=(send("lost", B, A),))
    after = desk.turn(A, 1, events=(Event("two", b""),))
    answers = await store.commit([good, bad, after])
    assert [type(answer) for answer in answers] == [Committed, Refused, Committed]
    assert [event.name for event in await store.journal(A, 0, 10)] == ["one", "two"]
    assert await store.history(B, 0, 10) == []


async def test_the_fence_is_compared_for_equality(store, desk):
    """After data was lost an epoch can be issued twice: a newer one is as wrong as an older."""
    await desk.take(A)
    await store.release("o1", [A])
    await desk.take(A)
    for epoch, verdict in ((1, "stale_epoch"), (3, "stale_epoch"), (0, "stale_epoch")):
        fence = Fence(desk.incarnation, epoch)
        assert await reason(store, Commit("acme", A, fence)) == verdict
    assert await reason(store, Commit("acme", A, Fence("other", 2))) == "stale_incarnation"
    assert await desk.commit(A) == Committed(0, (), 0)


async def test_an_agent_that_was_never_claimed_has_no_fence(store, desk):
    """Whoever knows the incarnation could write for an agent that only has messages."""
    await desk.give("m")
    assert await reason(store, Commit("acme", A, Fence(desk.incarnation, 0))) == "stale_epoch"
    assert await reason(store, Commit("acme", B, Fence(desk.incarnation, 0))) == "stale_epoch"


async def test_expected_version_is_checked_without_events_too(store, desk):
    """A host that missed a change would acknowledge on top of it."""
    await desk.take(A)
    await desk.commit(A, 0, events=(Event("one", b""),))
    assert await desk.refused(A, 0) == "version_conflict"
    assert await desk.commit(A, 1) == Committed(1, (), 0)
    assert await desk.commit(A, None) == Committed(1, (), 0)


async def test_the_organization_is_judged_first(store, desk):
    """The answer would tell a stranger which ids another tenant has."""
    await desk.give("m", to=BETA)
    assert await reason(store, accept(send("m", BETA))) == "foreign_organization"
    parts = {"sends": (send("m", BETA, A),), "acks": (Ack("?"),), "version": 7}
    assert await desk.refused(A, **parts) == "foreign_organization"


@pytest.mark.parametrize(
    ("organization", "sender", "recipient", "allowed"),
    [
        ("acme", A, B, True),
        ("acme", A, SCHEDULER, True),
        ("system", SCHEDULER, BETA, True),
        ("system", A, B, True),
        ("acme", A, BETA, False),
        ("acme", BETA, B, False),
        ("acme", SCHEDULER, B, False),
        ("acme", "acme2/counter:a", B, False),
        ("acme", A, "acme2/counter:a", False),
        ("acme", A, "systematic/counter:a", False),
    ],
)
async def test_a_send_stays_in_its_organization(store, organization, sender, recipient, allowed):
    """Tenants could write to each other, or in each other's name."""
    answer = await one(store, Commit(organization, sends=(send("m", recipient, sender),)))
    assert isinstance(answer, Committed) is allowed
    if not allowed:
        assert answer.reason == "foreign_organization"


async def test_reasons_come_in_the_order_of_the_contract(store, desk):
    """A retried commit could not be told from a stale one."""
    await desk.take(A)
    await desk.give("m")
    await ok(store, Commit("acme", puts=(put("there"),)))
    parts = {
        "puts": (put("there", expect=ABSENT),),
        "sends": (send("m", A, A),),
        "acks": (Ack("?"),),
        "results": (Result("job_1", "?", b""),),
    }
    stale = Commit("acme", A, Fence("other", 9), 9, **parts)
    assert await reason(store, stale) == "stale_incarnation"
    assert await reason(store, Commit("acme", A, Fence(desk.incarnation, 9), 9, **parts)) == (
        "stale_epoch"
    )
    assert await desk.refused(A, 9, **parts) == "version_conflict"
    for name, why in (
        ("puts", "revision_conflict"),
        ("sends", "duplicate"),
        ("acks", "not_pending"),
        ("results", "step_conflict"),
    ):
        assert await desk.refused(A, 0, **parts) == why
        del parts[name]
    assert await desk.commit(A, 0, **parts)


FENCE = Fence("i", 1)


@pytest.mark.parametrize(
    "commits",
    [
        [],
        [accept(send(str(number))) for number in range(BATCH_MAX + 1)],
        [Commit("acme", A)],
        [Commit("acme", A, FENCE, events=(Event("e", b""),))],
        [Commit("acme", fence=FENCE)],
        [Commit("acme", expected_version=0)],
        [Commit("acme", acks=(Ack("m"),))],
        [Commit("acme", retries=(Retry("m", 0, ""),))],
        [Commit("acme", buries=(Bury("m", ""),))],
        [Commit("acme", events=(Event("e", b""),))],
        [Commit("acme", snapshot=Snapshot(b""))],
        [Commit("acme", reminders=(Remind("r", 1),))],
        [Commit("acme", intents=(Intent("j", "s", "pure", b""),))],
        [Commit("acme", results=(Result("j", "s", b""),))],
        [Commit("acme", puts=(put("k", terms=("",)),))],
        [accept(send("good")), Commit("acme", A)],
    ],
)
async def test_a_call_without_meaning_is_the_callers_error(store, commits):
    """A bug of the caller would be written, or look like a refusal that can be retried."""
    with pytest.raises(ValueError):
        await store.commit(commits)
    assert (await store.health()).commits == 0
    assert await store.history(A, 0, 10) == []


async def test_a_full_call_is_taken(store):
    """The bound of a call would be off by one."""
    answers = await store.commit([accept(send(f"m{number}")) for number in range(BATCH_MAX)])
    assert [answer.seqs[0] for answer in answers] == list(range(1, BATCH_MAX + 1))


async def test_health_counts_what_was_accepted_and_refused(store, desk):
    """Operators could not see a stale writer being refused."""
    await desk.give("m")
    await one(store, accept(send("m")))
    await one(store, accept(send("m")))
    await one(store, accept(send("m", BETA)))
    health = await store.health()
    assert health.commits == 1
    assert health.refused == {"duplicate": 2, "foreign_organization": 1}
    assert health.incarnation == desk.incarnation
