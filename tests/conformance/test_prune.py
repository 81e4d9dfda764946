"""Forgetting: what nobody needs goes, in pieces and in order; what somebody may need stays."""

from __future__ import annotations

import pytest

from runtime.clock import ManualClock
from runtime.ids import Ids
from runtime.store.contract import (
    BATCH_MAX,
    DEAD_LETTERS,
    Ack,
    Bury,
    Commit,
    Event,
    FeedEvent,
    Intent,
    Put,
    Refused,
    Remind,
    Result,
    Retry,
    Snapshot,
    Swept,
)

from .kit import A, B, accept, ids, ok, one, put, send

EVERYTHING_S = 60.0
"""Younger than this is nothing in these tests."""


async def prune(store, clock, limit=BATCH_MAX, ended=()):
    """Forget all that is older than now; the rows of all calls."""
    rows = 0
    while True:
        swept = await store.prune(clock.now_ms(), limit, ended)
        rows += swept.rows
        if not swept.more:
            return rows


async def handled(desk, *given, to=A):
    await desk.give(*given, to=to)
    await desk.commit(to, acks=tuple(Ack(id) for id in given))


# messages


async def test_a_processed_message_is_forgotten_with_its_id(forgetting, desk, clock):
    """The inboxes would grow for ever."""
    await desk.take(A)
    await handled(desk, "old")
    clock.advance(1)
    before_ms = clock.now_ms()
    await handled(desk, "young")
    assert await forgetting.prune(before_ms, 10) == Swept(1, False)
    assert ids(await forgetting.history(A, 0, 10)) == ["young"]
    assert await forgetting.outcome(A, "old", 0) is None
    assert await one(forgetting, accept(send("young"))) == Refused("duplicate", "young")
    assert (await ok(forgetting, accept(send("old")))).seqs == (3,)


async def test_what_is_pending_is_never_forgotten(forgetting, desk, clock):
    """Accepted work would be lost because it has waited for long."""
    await desk.take(A, B)
    await handled(desk, "before")
    await desk.give("waits", "fails")
    await desk.commit(retries=(Retry("fails", 5, "busy"),))
    await handled(desk, "behind")
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock) == 2
    waiting = await forgetting.inbox(A, 0, 10)
    assert [(one.message_id, one.attempts) for one in waiting] == [("waits", 0), ("fails", 1)]
    await desk.commit(acks=(Ack("waits"), Ack("fails")))
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock) == 2, "once they are done they go like the others"


async def test_a_message_that_was_long_under_way_is_as_old_as_its_end(forgetting, desk, clock):
    """The outcome of a long job would be gone before anybody could ask for it."""
    await desk.take(A)
    await desk.give("long")
    clock.advance(EVERYTHING_S)
    before_ms = clock.now_ms()
    await desk.commit(acks=(Ack("long", b"1"),))
    assert await forgetting.prune(before_ms, 10) == Swept(0, False)
    assert (await forgetting.outcome(A, "long", 0)).reply == b"1"


async def test_a_dead_message_stays_as_long_as_its_letter(forgetting, desk, clock):
    """A dead letter could not be redelivered: its message would be gone."""
    await desk.take(A)
    await desk.give("m", "n")
    letter = Put(DEAD_LETTERS, f"{A}/m", "acme", b"{}")
    await desk.commit(buries=(Bury("m", "why"), Bury("n", "why")), puts=(letter,))
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock) == 1
    assert (await forgetting.outcome(A, "m", 0)).status == "dead"
    await ok(forgetting, Commit("acme", puts=(Put(DEAD_LETTERS, f"{A}/m", "acme", None),)))
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock) == 2, "the message, and what was left of the letter"
    assert await forgetting.outcome(A, "m", 0) is None


async def test_a_late_repetition_is_refused_where_its_id_tells_its_time(forgetting, desk, clock):
    """A send that is repeated after its id was forgotten would be handled a second time."""
    await desk.take(A)
    old = Ids(clock).ulid()
    clock.advance(1)
    await handled(desk, old)
    clock.advance(1)
    young = Ids(clock).ulid()
    await handled(desk, "of another form")
    assert await prune(forgetting, clock, 1) == 1
    assert await one(forgetting, accept(send(old))) == Refused("expired", old)
    assert await one(forgetting, accept(send(old, B))) == Refused("expired", old)
    assert (await ok(forgetting, accept(send(young)))).seqs == (3,)
    assert await one(forgetting, accept(send(young), send(old))) == Refused("duplicate", young)


@pytest.mark.parametrize("limit", [1, 10])
async def test_an_id_that_is_sent_anew_is_polled_where_it_is_now(forgetting, desk, clock, limit):
    """A poll would find it at its old place too: told twice, or for ever instead of what is new."""
    await desk.take(A)
    await handled(desk, "again")
    clock.advance(1)
    assert await prune(forgetting, clock) == 1
    await desk.give("first", "again")
    found, cursor = [], 0
    while len(found) < 2:
        poll = await forgetting.poll("o1", cursor, limit, 0)
        assert poll.cursor > cursor
        found, cursor = [*found, *poll.messages], poll.cursor
    assert [(one.seq, one.message_id) for one in found] == [(2, "first"), (3, "again")]


async def test_a_forgotten_time_is_known_after_reopening(opened, forgetting, desk, clock):
    """A restart would open the door for late repetitions."""
    if not opened.durable:
        pytest.skip("it keeps nothing")
    await desk.take(A)
    old = Ids(ManualClock(clock.now_ms() - 1)).ulid()
    await handled(desk, "m")
    clock.advance(1)
    assert await prune(forgetting, clock) == 1
    assert await one(await opened.reopen(), accept(send(old))) == Refused("expired", old)


# the feed


def published(event, at_ms):
    return FeedEvent("acme", event, ("monitoring",), at_ms, b"{}")


async def test_the_feed_is_forgotten_from_its_beginning(forgetting):
    """The feed would grow for ever, or lack an event in its middle."""
    await ok(forgetting, Commit("acme", feed=tuple(published(str(at), at) for at in (1, 2, 9, 3))))
    assert await forgetting.prune(5, 10) == Swept(2, False)
    feed = await forgetting.tail(2, 10, 0)
    assert ([entry.cursor for entry in feed.entries], feed.reset) == ([3, 4], False)


async def test_a_cursor_before_what_is_kept_is_reset(forgetting):
    """A subscriber that was away for long would miss events in silence."""
    await ok(forgetting, Commit("acme", feed=tuple(published(str(at), at) for at in (1, 2, 3))))
    assert await forgetting.prune(3, 10) == Swept(2, False)
    for after, reset in ((0, True), (1, True), (2, False), (3, False), (-1, False)):
        for organization in (None, "acme", "beta"):
            feed = await forgetting.tail(after, 10, 0, organization)
            assert feed.reset is reset, (after, organization)
    assert [entry.cursor for entry in (await forgetting.tail(0, 10, 0)).entries] == [3]


async def test_cursors_and_seqs_go_on_when_all_is_forgotten(opened, forgetting, desk, clock):
    """A number would be given twice: a subscriber would skip what is new."""
    await desk.take(A)
    await handled(desk, "m1", "m2")
    await ok(forgetting, Commit("acme", feed=(published("a", 1), published("b", 1))))
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock) == 4
    store = await opened.reopen() if opened.durable else forgetting
    answer = await ok(store, Commit("acme", sends=(send("m3"),), feed=(published("c", 1),)))
    assert (answer.seqs, answer.cursor) == ((3,), 3)
    assert (await store.tail(2, 10, 0)).reset is False
    assert (await store.tail(1, 10, 0)).reset is True


# journals


async def test_events_that_a_snapshot_covers_are_forgotten(opened, forgetting, desk, clock):
    """Journals would grow for ever; or an agent would lose its state or its version."""
    await desk.take(A, B)
    await desk.commit(A, 0, events=(Event("a", b"1"), Event("b", b"2")), snapshot=Snapshot(b"two"))
    await desk.commit(A, 2, events=(Event("c", b"3"),))
    await desk.commit(B, 0, events=(Event("never saved", b""),))
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock) == 2
    assert [event.version for event in await forgetting.journal(A, 0, 10)] == [3]
    assert [event.version for event in await forgetting.journal(A, 2, 10)] == [3]
    assert len(await forgetting.journal(B, 0, 10)) == 1
    await desk.commit(A, 3, snapshot=Snapshot(b"three"))
    assert await prune(forgetting, clock) == 1
    assert await forgetting.journal(A, 0, 10) == []
    desk.store = store = await opened.reopen() if opened.durable else forgetting
    await desk.register()
    await store.release("o1", [A])
    [found] = await desk.take(A)
    assert (found.version, found.snapshot_version, found.snapshot.body) == (3, 3, b"three")
    assert found.events == ()
    assert await desk.refused(A, 2, events=(Event("d", b""),)) == "version_conflict"
    assert (await desk.commit(A, 3, events=(Event("d", b""),))).version == 4
    assert [event.version for event in await store.journal(A, 0, 10)] == [4]


async def test_young_events_stay_though_a_snapshot_covers_them(forgetting, desk, clock):
    """History would reach back only to the last snapshot."""
    await desk.take(A)
    await desk.commit(A, 0, events=(Event("old", b""),))
    clock.advance(1)
    before_ms = clock.now_ms()
    await desk.commit(A, 1, events=(Event("young", b""),), snapshot=Snapshot(b"two"))
    assert await forgetting.prune(before_ms, 10) == Swept(1, False)
    assert [event.name for event in await forgetting.journal(A, 0, 10)] == ["young"]


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_a_journal_has_no_gap_whatever_the_pieces(forgetting, desk, clock, limit):
    """A reader of the history would take two changes for one."""
    await desk.take(A, B)
    for version in range(4):
        for agent in (A, B):
            await desk.commit(agent, version, events=(Event("e", b""),))
    await desk.commit(A, 4, snapshot=Snapshot(b"four"))
    clock.advance(EVERYTHING_S)
    before_ms = clock.now_ms()
    more, calls = True, 0
    while more:
        more = (await forgetting.prune(before_ms, limit)).more
        calls += 1
        if calls == 1:
            await desk.commit(B, 4, snapshot=Snapshot(b"four"))
        for agent in (A, B):
            versions = [event.version for event in await forgetting.journal(agent, 0, 10)]
            assert versions == list(range(5 - len(versions), 5)), (agent, calls)


# documents and steps


async def test_what_is_left_of_deleted_documents_is_forgotten(forgetting, clock):
    """Every idempotency key there ever was would leave a row for ever."""
    await ok(forgetting, Commit("acme", puts=(put("k"), put("stays"))))
    await ok(forgetting, Commit("acme", puts=(put("k", None),)))
    clock.advance(1)
    before_ms = clock.now_ms()
    await ok(forgetting, Commit("acme", puts=(put("young"), put("young", None))))
    assert await forgetting.prune(before_ms, 10) == Swept(1, False)
    await ok(forgetting, Commit("acme", puts=(put("k"), put("young"))))
    revisions = [one.revision for one in await forgetting.list_documents("job", descending=False)]
    assert revisions == [1, 1, 3]


async def test_documents_that_are_there_and_reminders_stay(forgetting, desk, clock):
    """Retention would take the records themselves, or forget to wake somebody."""
    await desk.take(A)
    wake = Remind("wake", clock.now_ms() + 90_000, b"{}")
    await desk.commit(A, 0, events=(Event("e", b""),), reminders=(wake,), puts=(put("k"),))
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock) == 0
    assert (await forgetting.get("job", "k")).revision == 1
    clock.advance(EVERYTHING_S)
    await forgetting.renew("o1", 10)
    assert len((await forgetting.poll("o1", 0, 10, 0)).messages) == 1


async def test_steps_go_with_the_jobs_that_the_caller_names(forgetting, desk, clock):
    """Steps would grow for ever; or a job that goes on would pay for its calls again."""
    await desk.take(A)
    for job in ("job_1", "job_2", "job_3"):
        intents = tuple(Intent(job, key, "external", b"ask") for key in "xy")
        await desk.commit(intents=intents, results=(Result(job, "x", b"told"),))
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock) == 0
    ended = ("job_1", "job_3", "job_1", "job_unknown")
    assert await prune(forgetting, clock, 3, ended) == 4
    assert await forgetting.steps("job_1") == await forgetting.steps("job_3") == []
    assert [step.result for step in await forgetting.steps("job_2")] == [b"told", None]


# pieces


async def test_no_call_removes_more_than_its_limit(forgetting, desk, clock):
    """One call would hold up every commit behind it."""
    await desk.take(A)
    await handled(desk, *(f"m{number}" for number in range(5)))
    for version in range(3):
        save = Snapshot(b"all")
        await desk.commit(A, version, events=(Event("e", b""),), snapshot=save, puts=(put("k"),))
    await ok(forgetting, Commit("acme", feed=tuple(published("e", 1) for _ in range(4))))
    await ok(forgetting, Commit("acme", puts=(put("k", None),)))
    clock.advance(EVERYTHING_S)
    found = []
    while not found or found[-1].more:
        found.append(await forgetting.prune(clock.now_ms(), 2))
        assert len(await forgetting.history(A, 0, 10)) == max(0, 5 - 2 * len(found)), (
            "messages first, the oldest of them before the others"
        )
    assert max(swept.rows for swept in found) == 2
    assert sum(swept.rows for swept in found) == 5 + 3 + 4 + 1
    assert await forgetting.prune(clock.now_ms(), 2) == Swept(0, False)


async def test_what_may_not_go_does_not_keep_the_rest(forgetting, desk, clock):
    """A few dead letters at the old end would stop all forgetting."""
    await desk.take(A)
    await desk.give("d1", "d2", "d3")
    letters = tuple(Put(DEAD_LETTERS, f"{A}/d{number}", "acme", b"{}") for number in (1, 2, 3))
    await desk.commit(buries=tuple(Bury(f"d{number}", "") for number in (1, 2, 3)), puts=letters)
    await handled(desk, "m1", "m2")
    await ok(forgetting, Commit("acme", feed=(published("e", 1),)))
    clock.advance(EVERYTHING_S)
    assert await prune(forgetting, clock, 1) == 3
    assert ids(await forgetting.history(A, 0, 10)) == ["d1", "d2", "d3"]


@pytest.mark.parametrize("limit", [1, 3, BATCH_MAX])
@pytest.mark.parametrize("ahead", [1, 4])
async def test_a_clock_that_was_ahead_does_not_keep_the_rest(forgetting, desk, clock, limit, ahead):
    """One message that ended then would stop all forgetting until that date."""
    await desk.take(A)
    clock.advance(365 * 86_400)
    for number in range(ahead):
        await handled(desk, f"ahead-{number}")
    clock.advance(-365 * 86_400)
    for number in range(6):
        await handled(desk, f"m{number}")
    clock.advance(EVERYTHING_S)
    before_ms = clock.now_ms()
    await handled(desk, "young")
    rows, more = 0, True
    while more:
        swept = await forgetting.prune(before_ms, limit)
        assert swept.rows <= limit
        rows, more = rows + swept.rows, swept.more
    kept = [*(f"ahead-{number}" for number in range(ahead)), "young"]
    assert (rows, ids(await forgetting.history(A, 0, 20))) == (6, kept)
    clock.advance(400 * 86_400)
    assert await prune(forgetting, clock, limit) == ahead + 1, "their time has come"


@pytest.mark.parametrize("limit", [0, -1, BATCH_MAX + 1])
async def test_a_limit_that_is_none_is_refused(forgetting, limit):
    """A caller's mistake would stop the store, or loop for ever."""
    with pytest.raises(ValueError):
        await forgetting.prune(0, limit)
    with pytest.raises(ValueError):
        await forgetting.purge("acme", limit)
    with pytest.raises(ValueError):
        await forgetting.prune(0, 1, ["job"] * (BATCH_MAX + 1))
