"""Answers are bounded in bytes: a long one is cut, and nothing of it is lost."""

from __future__ import annotations

import sys

import pytest

from runtime.hosting.inbox import whole
from runtime.store.contract import Ack, Commit, Event, FeedEvent

from .kit import A, B, accept, ids, ok, put, send

BODY = b"x" * 9_000
NUMBERS = range(1, 6)
"""Rows that are written; the fourth passes what an answer has."""


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Answers of 32 KB."""
    for name, module in list(sys.modules.items()):
        if name.startswith("runtime.") and hasattr(module, "ANSWER_BYTES_MAX"):
            monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 32_000)


async def inboxes(store, desk):
    for number in NUMBERS:
        await ok(store, accept(send(f"m{number}", body=BODY)))
    return messages(store.inbox)


async def histories(store, desk):
    """What is long is the replies."""
    await desk.take(A)
    for number in NUMBERS:
        await desk.give(f"m{number}")
        await desk.commit(acks=(Ack(f"m{number}", BODY),))
    return messages(store.history)


def messages(page_of):
    async def read(after):
        page = await page_of(A, after, 100)
        return [int(one.message_id[1:]) for one in page], page[-1].seq if page else after

    return read


async def journals(store, desk):
    await desk.take(A)
    for number in NUMBERS:
        await desk.commit(version=number - 1, events=(Event("e", BODY),))

    async def read(after):
        page = await store.journal(A, after, 100)
        return [one.version for one in page], page[-1].version if page else after

    return read


async def rising(store, desk):
    return await documents(store, False)


async def falling(store, desk):
    return await documents(store, True)


async def documents(store, descending):
    for number in NUMBERS:
        key = 6 - number if descending else number
        await ok(store, Commit("acme", puts=(put(f"job_{key}", BODY),)))

    async def read(after):
        page = await store.list_documents(
            "job", after=after or None, limit=100, descending=descending
        )
        keys = [int(one.key[4:]) for one in page]
        return [6 - key if descending else key for key in keys], page[-1].key if page else after

    return read


async def feeds(store, desk):
    """Those that differ by their names alone may be kept as one."""
    events = [FeedEvent("acme", f"e{number}", ("all",), 1, BODY) for number in NUMBERS]
    for some in (events[:3], events[3:]):
        await ok(store, Commit("acme", feed=tuple(some)))

    async def read(after):
        feed = await store.tail(after, 100, 0)
        return [int(one.event[1:]) for one in feed.entries], feed.cursor

    return read


PAGES = [inboxes, histories, journals, rising, falling, feeds]


@pytest.mark.parametrize("written", PAGES, ids=lambda one: one.__name__)
async def test_a_long_page_is_cut_and_the_next_goes_on(store, desk, written):
    """An answer would be longer than its frame, and every call of its host end with it."""
    read = await written(store, desk)
    first, after = await read(0)
    assert first == [1, 2, 3, 4]
    second, after = await read(after)
    assert second == [5]
    assert await read(after) == ([], after)


async def test_a_row_that_is_longer_than_an_answer_is_answered(store):
    """A reader would never get beyond it."""
    for id in ("long", "next"):
        await ok(store, accept(send(id, body=b"x" * 32_001)))
    [found] = await store.inbox(A, 0, 10)
    assert ids(await store.inbox(A, found.seq, 10)) == ["next"]


@pytest.mark.parametrize("named", [False, True])
async def test_a_claim_takes_no_more_agents_than_fit_an_answer(store, desk, named):
    """A host could claim nothing any more: each answer would end its connection."""
    agents = [f"acme/counter:{name}" for name in "abcd"]
    for agent in agents:
        await ok(store, accept(*(send(f"m{number}", agent, body=BODY) for number in (1, 2))))
    wanted = tuple(agents) if named else ()
    first = await desk.take(*wanted)
    assert [one.agent for one in first] == agents[:2]
    assert (await store.poll("o1", 100, 10, 0)).ready == 2
    assert [one.agent for one in await desk.take(*wanted)] == agents[2:]
    assert [one.epoch for one in first] == [1, 1]


async def test_what_a_claim_has_no_room_for_is_found(store, desk):
    """A message that comes later would be handled before one that no poll brings."""
    sent = [f"m{number:02}" for number in range(24)]
    body = b"x" * 2_000
    for at in range(0, 24, 8):
        await ok(store, accept(*(send(id, body=body) for id in sent[at : at + 8])))
    await desk.give("other", to=B)
    [found] = await desk.take(A)
    assert 0 < len(found.inbox) < len(sent)
    assert ids(await whole(A, found.inbox, store)) == sent
