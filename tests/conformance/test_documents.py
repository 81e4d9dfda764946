"""Documents: one writer wins, and what is listed is exactly what carries the terms."""

from __future__ import annotations

import pytest

from runtime.store.contract import ABSENT, ANY, MANY_MAX, Commit, Committed, Refused

from .kit import ok, one, put


async def write(store, *puts):
    return await one(store, Commit("acme", puts=puts))


async def keys(store, *args, **kwargs):
    return [document.key for document in await store.list_documents("job", *args, **kwargs)]


async def test_what_is_put_is_what_is_got(store, clock):
    """A record would change on its way."""
    await write(store, put("k", b"\x00body", terms=("b=2", "a=1")))
    document = await store.get("job", "k")
    assert (document.key, document.organization, document.revision) == ("k", "acme", 1)
    assert (document.body, document.terms) == (b"\x00body", ("b=2", "a=1"))
    assert document.updated_ms == clock.now_ms()
    assert await store.get("job", "other") is None
    assert await store.get("other", "k") is None


async def test_many_are_got_in_one_call(store):
    """A reader of many records would miss one, or be answered what was deleted."""
    await write(store, put("a"), put("b", b"2"), put("c"), put("a", b"3"))
    await write(store, put("c", None))
    found = await store.get_many("job", ["b", "a", "c", "other", "a"])
    assert {one.key: (one.revision, one.body) for one in found} == {"a": (2, b"3"), "b": (1, b"2")}
    assert len(found) == 2
    assert found[0] == await store.get("job", found[0].key)
    assert await store.get_many("other", ["a"]) == []
    for wrong in ([], [f"k{number}" for number in range(MANY_MAX + 1)]):
        with pytest.raises(ValueError):
            await store.get_many("job", wrong)


async def test_absent_is_granted_once(store):
    """Two requests with one idempotency key would both be accepted."""
    assert isinstance(await write(store, put("k", expect=ABSENT)), Committed)
    assert await write(store, put("k", b"y", expect=ABSENT)) == Refused(
        "revision_conflict", "job/k"
    )
    assert (await store.get("job", "k")).body == b"x"


async def test_an_expected_revision_is_compared(store):
    """An update would overwrite another that it has not seen."""
    assert await write(store, put("k", expect=1)) == Refused("revision_conflict", "job/k")
    await write(store, put("k"))
    assert isinstance(await write(store, put("k", b"2", expect=1)), Committed)
    assert await write(store, put("k", b"3", expect=1)) == Refused("revision_conflict", "job/k")
    assert (await store.get("job", "k")).revision == 2
    assert isinstance(await write(store, put("k", b"3", expect=ANY)), Committed)
    assert (await store.get("job", "k")).revision == 3


async def test_deleting_removes_it_from_every_read(store):
    """A deleted record would still be listed."""
    await write(store, put("k", terms=("a=1",)))
    assert isinstance(await write(store, put("k", None, expect=1)), Committed)
    assert await store.get("job", "k") is None
    assert await keys(store) == [] and await keys(store, "acme", ["a=1"]) == []
    assert await store.count("job") == 0 and await store.count("job", "acme", ["a=1"]) == 0


async def test_a_revision_never_comes_twice(store):
    """A writer that read the first document would overwrite a second one of the same key."""
    await write(store, put("k", b"first"))
    await write(store, put("k", None))
    assert await write(store, put("k", expect=2)) == Refused("revision_conflict", "job/k")
    assert isinstance(await write(store, put("k", b"second", expect=ABSENT)), Committed)
    assert (await store.get("job", "k")).revision == 3
    assert await write(store, put("k", b"stale", expect=1)) == Refused("revision_conflict", "job/k")


async def test_deleting_what_is_absent_changes_nothing(store):
    """A retried deletion would be refused, or count as a revision."""
    assert isinstance(await write(store, put("k", None)), Committed)
    assert isinstance(await write(store, put("k", None, expect=ABSENT)), Committed)
    await write(store, put("k"))
    assert (await store.get("job", "k")).revision == 1


async def test_puts_of_one_commit_see_each_other(store):
    """Two puts of one key would be judged against the same revision."""
    answer = await write(store, put("k", b"1", expect=ABSENT), put("k", b"2", expect=1))
    assert isinstance(answer, Committed)
    document = await store.get("job", "k")
    assert (document.revision, document.body) == (2, b"2")
    refused = await write(store, put("k", b"3", expect=2), put("k", b"4", expect=2))
    assert refused == Refused("revision_conflict", "job/k")
    await write(store, put("k", None), put("k", b"5", expect=ABSENT))
    assert (await store.get("job", "k")).body == b"5"


async def test_puts_of_one_commit_know_what_was_deleted(store):
    """A document made again begins where its deletion ended, within its first commit, too."""
    await write(store, put("k", b"1"), put("k", None))
    wrong = await write(store, put("k", b"3", expect=ABSENT), put("k", b"4", expect=1))
    assert wrong == Refused("revision_conflict", "job/k")
    right = await write(store, put("k", b"3", expect=ABSENT), put("k", b"4", expect=3))
    assert isinstance(right, Committed)
    assert (await store.get("job", "k")).revision == 4


@pytest.fixture
async def shelf(store):
    puts = [
        put("k1", terms=("status=open", "kind=code")),
        put("k2", terms=("status=open", "kind=review")),
        put("k3", terms=("status=done", "kind=code")),
        put("k4", terms=("status=open", "kind=code", "status=open")),
        put("k5"),
        put("k1", collection="issue", terms=("status=open",)),
        put("k6", organization="beta", terms=("status=open",)),
    ]
    await ok(store, Commit("system", puts=tuple(puts)))
    return store


async def test_listing_finds_exactly_what_carries_all_the_terms(shelf):
    """A queue would miss a job, or run one that is done."""
    assert await keys(shelf, terms=["status=open"]) == ["k6", "k4", "k2", "k1"]
    assert await keys(shelf, "acme", ["status=open"]) == ["k4", "k2", "k1"]
    assert await keys(shelf, "acme", ["status=open", "kind=code"]) == ["k4", "k1"]
    assert await keys(shelf, None, ["kind=code", "status=open"]) == ["k4", "k1"]
    assert await keys(shelf, "acme", ["status=none"]) == []
    assert await keys(shelf, "acme", ["status"]) == []
    assert await keys(shelf, "acme") == ["k5", "k4", "k3", "k2", "k1"]
    assert await keys(shelf) == ["k6", "k5", "k4", "k3", "k2", "k1"]
    assert await keys(shelf, "gamma") == []


async def test_counting_agrees_with_listing(shelf):
    """The console would show a number that no list bears out."""
    for organization in (None, "acme", "beta", "gamma"):
        for terms in ([], ["status=open"], ["status=open", "kind=code"], ["x=y"]):
            found = await keys(shelf, organization, terms)
            assert await shelf.count("job", organization, terms) == len(found)
    assert await shelf.count("issue") == 1


async def test_listing_goes_on_strictly_beyond_after(shelf):
    """A page would repeat its last row, or skip one."""
    assert await keys(shelf, limit=2) == ["k6", "k5"]
    assert await keys(shelf, after="k5", limit=2) == ["k4", "k3"]
    assert await keys(shelf, after="k45", limit=9) == ["k4", "k3", "k2", "k1"]
    assert await keys(shelf, after="k1") == []
    assert await keys(shelf, descending=False, limit=2) == ["k1", "k2"]
    assert await keys(shelf, descending=False, after="k2", limit=2) == ["k3", "k4"]
    found = await keys(shelf, "acme", ["status=open"], after="k2", descending=False)
    assert found == ["k4"]
    assert await keys(shelf, limit=0) == []


async def test_terms_follow_the_document(shelf):
    """A job would stay in the list of a status it has left."""
    await write(shelf, put("k1", terms=("status=done",)))
    assert "k1" not in await keys(shelf, terms=["status=open"])
    assert "k1" not in await keys(shelf, terms=["kind=code"])
    assert await keys(shelf, "acme", ["status=done"]) == ["k3", "k1"]
    await write(shelf, put("k1", None))
    await ok(shelf, Commit("beta", puts=(put("k1", organization="beta", terms=("status=done",)),)))
    assert await keys(shelf, "acme", ["status=done"]) == ["k3"]
    assert await keys(shelf, "beta", ["status=done"]) == ["k1"]
    assert (await keys(shelf, "beta"))[-1] == "k1" and "k1" not in await keys(shelf, "acme")


@pytest.mark.parametrize(
    ("writer", "named", "allowed"),
    [
        ("acme", "acme", True),
        ("system", "acme", True),
        ("beta", "beta", False),
        ("beta", "acme", False),
        ("acme", "beta", False),
        ("system", "beta", False),
    ],
)
@pytest.mark.parametrize("body", [b"taken", None])
async def test_a_document_stays_its_organizations(store, writer, named, allowed, body):
    """Who names another tenant's key would overwrite its record, take it over or delete it."""
    await write(store, put("k", b"own", terms=("a=1",)))
    before = await store.get("job", "k")
    answer = await one(store, Commit(writer, puts=(put("k", body, organization=named),)))
    if allowed:
        assert isinstance(answer, Committed)
        return
    assert answer == Refused("foreign_organization", "job/k")
    assert await store.get("job", "k") == before
    assert await keys(store, "acme", ["a=1"]) == ["k"] and await keys(store, "beta") == []


async def test_a_document_is_its_organizations_within_one_commit_too(store):
    """Whose a document is would be asked of the table alone, which has not seen it yet."""
    beta = put("k", b"taken", organization="beta")
    answer = await one(store, Commit("system", puts=(put("k", b"own"), beta)))
    assert answer == Refused("foreign_organization", "job/k")
    assert await store.get("job", "k") is None
    answers = await store.commit(
        [Commit("acme", puts=(put("k", b"own"),)), Commit("beta", puts=(beta,))]
    )
    assert answers[1] == Refused("foreign_organization", "job/k")
    await ok(store, Commit("system", puts=(put("k", None), beta)))
    document = await store.get("job", "k")
    assert (document.organization, document.revision) == ("beta", 3)


async def test_a_document_of_another_is_not_written_even_where_there_is_none(store):
    """A tenant could lay records into another's lists."""
    answer = await one(store, Commit("acme", puts=(put("new", organization="beta"),)))
    assert answer == Refused("foreign_organization", "job/new")
    assert await keys(store) == []
