"""The feed: every event once, in order, and a plain word when a cursor is void."""

from __future__ import annotations

from runtime.store.contract import Commit, FeedEntry, FeedEvent

from .kit import LONG_S, ok, publish, soon, started


async def say(store, *events, organization="acme"):
    published = tuple(publish(event, organization) for event in events)
    return (await ok(store, Commit(organization, feed=published))).cursor


def events(feed):
    return [entry.event for entry in feed.entries]


async def test_what_is_published_is_what_is_read(store):
    """An event would change on its way."""
    event = FeedEvent("acme", "agent:progress", ("agent:a", "job:1"), 123, b"\xff")
    await ok(store, Commit("acme", feed=(event,)))
    feed = await store.tail(0, 10, 0)
    expected = FeedEntry(1, "acme", "agent:progress", ("agent:a", "job:1"), 123, b"\xff")
    assert (feed.entries, feed.cursor, feed.reset) == ((expected,), 1, False)


async def test_a_commit_answers_the_head(store):
    """A client could not wait for what it has just caused."""
    assert await say(store, "a", "b") == 2
    assert await say(store) == 2
    assert await say(store, "c") == 3


async def test_a_tail_goes_on_from_its_cursor(store):
    """Events would be skipped or told twice."""
    await say(store, *"abcde")
    first = await store.tail(0, 2, 0)
    second = await store.tail(first.cursor, 10, 0)
    assert (events(first), events(second)) == (["a", "b"], ["c", "d", "e"])
    assert events(await store.tail(second.cursor, 10, 0)) == []
    none = await store.tail(0, 0, 0)
    assert events(await store.tail(none.cursor, 1, 0)) == ["a"]


async def test_events_that_differ_by_a_name_have_a_cursor_each(store):
    """A client that was cut off between the two would miss one, or see one twice."""
    both = tuple(FeedEvent("acme", name, ("job:1",), 5, b"{}") for name in ("job:x", "agent:x"))
    other = FeedEvent("acme", "agent:x", ("job:2",), 5, b"{}")
    await ok(store, Commit("acme", feed=both))
    await ok(store, Commit("acme", feed=(other,)))
    feed = await store.tail(0, 10, 0)
    assert [(one.cursor, one.event, one.rooms) for one in feed.entries] == [
        (1, "job:x", ("job:1",)), (2, "agent:x", ("job:1",)), (3, "agent:x", ("job:2",)),
    ]  # fmt: skip
    for organization in (None, "acme"):
        for after in range(4):
            feed = await store.tail(after, 1, 0, organization)
            assert [one.cursor for one in feed.entries] == [after + 1][: 3 - after]
            assert feed.cursor == min(after + 1, 3)


async def test_a_tail_of_an_organization_sees_only_its_events(store):
    """A tenant would read another's events."""
    await say(store, "a1")
    await say(store, "b1", "b2", organization="beta")
    await say(store, "a2")
    feed = await store.tail(0, 10, 0, "acme")
    assert (events(feed), feed.cursor) == (["a1", "a2"], 4)
    feed = await store.tail(0, 1, 0, "beta")
    assert events(feed) == ["b1"]
    feed = await store.tail(feed.cursor, 10, 0, "beta")
    assert (events(feed), feed.cursor) == (["b2"], 4)


async def test_minus_one_is_the_head(store):
    """A new subscriber would get all that is old."""
    await say(store, "old")
    feed = await store.tail(-1, 10, 0)
    assert (feed.entries, feed.cursor, feed.reset) == ((), 1, False)
    waiting = await started(store, store.tail(-1, 10, LONG_S))
    await say(store, "new")
    assert events(await soon(waiting)) == ["new"]


async def test_a_parked_tail_wakes_for_its_organization(store):
    """The console would lag by the longest wait."""
    waiting = await started(store, store.tail(0, 10, LONG_S, "acme"))
    await say(store, "b1", organization="beta")
    await say(store, "a1")
    feed = await soon(waiting)
    assert (events(feed), feed.cursor) == (["a1"], 2)


async def test_a_tail_ends_empty_after_its_wait_and_moves_on(store):
    """A quiet organization would scan everybody's events again and again."""
    await say(store, "b1", "b2", organization="beta")
    feed = await store.tail(0, 10, 0.01, "acme")
    assert (feed.entries, feed.cursor, feed.reset) == ((), 2, False)


async def test_a_cursor_of_another_incarnation_is_reset(store, desk):
    """After data was lost a subscriber would skip new events, in silence."""
    await say(store, "a", "b", "c")
    feed = await store.tail(2, 10, 0, None, desk.incarnation)
    assert (events(feed), feed.reset) == (["c"], False)
    feed = await store.tail(2, 10, LONG_S, None, "another")
    assert (events(feed), feed.reset) == (["a", "b", "c"], True)
    assert (await store.tail(-1, 10, 0, None, "another")).reset is False


async def test_a_cursor_beyond_the_head_is_reset(store):
    """A subscriber of lost events would wait for ever."""
    assert (await store.tail(0, 10, 0)).reset is False
    feed = await store.tail(1, 10, LONG_S)
    assert (feed.entries, feed.cursor, feed.reset) == ((), 0, True)
    await say(store, "a")
    feed = await store.tail(2, 10, LONG_S)
    assert (events(feed), feed.cursor, feed.reset) == (["a"], 1, True)
