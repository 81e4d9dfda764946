"""Keys open what they should, for as long as they should, and are kept nowhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import ManualClock
from runtime.errors import InvalidIdError, StoreUnavailableError
from runtime.ids import SYSTEM
from runtime.keys import CACHE_MAX, CACHE_TTL_S, Keys, Role, UnknownKeyError
from runtime.store.contract import BATCH_MAX
from runtime.store.memory import MemoryStore


class Counting(MemoryStore):
    """Counts the reads that a key costs."""

    reads = 0

    async def list_documents(self, *args: object, **kwargs: object) -> list:  # type: ignore[override]
        self.reads += 1
        return await super().list_documents(*args, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Counting:
    return Counting(clock)


@pytest.fixture
def keys(store: Counting, clock: ManualClock) -> Keys:
    return Keys(store, clock)


async def test_a_key_says_who_asks(keys: Keys) -> None:
    """Would let nobody in, or everybody as somebody else."""
    token, key = await keys.create("acme", Role.OPERATOR, "ann")
    principal = await keys.authenticate(token)
    assert principal is not None
    assert (principal.organization, principal.role, principal.name) == ("acme", "operator", "ann")
    assert principal.key_id == key.id
    assert token.startswith("troupe_") and len(token) == len("troupe_") + 64


async def test_nobody_is_given_a_key_of_troupe_itself(keys: Keys) -> None:
    """Would let its holder write to every organization."""
    with pytest.raises(InvalidIdError):
        await keys.create(SYSTEM, Role.VIEWER, "eve")
    assert await keys.list() == []


async def test_a_key_is_kept_nowhere(keys: Keys, store: Counting) -> None:
    """Would give every key to whoever reads the database or a list of keys."""
    token, _ = await keys.create("acme", Role.ADMIN, "ann")
    documents = await store.list_documents("key", limit=BATCH_MAX)
    assert [document.organization for document in documents] == [SYSTEM]
    secret = token.removeprefix("troupe_")
    assert secret.encode() not in documents[0].body
    [listed] = await keys.list()
    assert set(listed.to_wire()) == {"id", "organizationId", "role", "name", "createdAt"}
    assert secret[16:] not in repr(listed)


async def test_only_the_very_key_opens(keys: Keys) -> None:
    """Would open for a key with the right beginning, or for what is no key."""
    token, _ = await keys.create("acme", Role.ADMIN, "ann")
    last = "0" if token[-1] != "0" else "1"
    wrong = [
        "", "troupe_", token[:-1], token + "0", token[:-1] + last, token.upper(),
        token.removeprefix("troupe_"), f" {token}", f"{token}\n", "troupe_" + "é" * 64,
        "troupe_" + "0" * 64,
    ]  # fmt: skip
    assert [await keys.authenticate(one) for one in wrong] == [None] * len(wrong)


@given(st.text(max_size=120))
async def test_nothing_made_up_opens(text: str) -> None:
    """Would fail, or open, on a header somebody typed."""
    clock = ManualClock()
    assert await Keys(MemoryStore(clock), clock).authenticate(text) is None


async def test_a_revoked_key_is_refused_here_at_once_and_elsewhere_soon(
    keys: Keys, store: Counting, clock: ManualClock
) -> None:
    """Would leave a stolen key working after it was revoked."""
    token, key = await keys.create("acme", Role.ADMIN, "ann")
    elsewhere = Keys(store, clock)
    principal = await elsewhere.authenticate(token)
    assert principal is not None and await elsewhere.is_active(principal)
    revoked = await keys.revoke(key.id)
    assert revoked.revoked_at is not None
    assert await keys.authenticate(token) is None
    clock.advance(CACHE_TTL_S)
    assert await elsewhere.authenticate(token) is None
    assert not await elsewhere.is_active(principal)
    assert CACHE_TTL_S <= 5


async def test_a_key_is_remembered_for_a_moment_only(
    keys: Keys, store: Counting, clock: ManualClock
) -> None:
    """Would read the store for every request, or never again."""
    token, _ = await keys.create("acme", Role.VIEWER, "ann")
    for _ in range(3):
        assert await keys.authenticate(token)
    assert store.reads == 1
    clock.advance(CACHE_TTL_S)
    assert await keys.authenticate(token)
    assert store.reads == 2


async def test_a_clock_set_back_does_not_prolong_a_key(
    keys: Keys, store: Counting, clock: ManualClock
) -> None:
    """Would keep a revoked key alive for as long as the clock was wrong."""
    token, _ = await keys.create("acme", Role.VIEWER, "ann")
    await keys.authenticate(token)
    clock.advance(-3_600)
    await keys.authenticate(token)
    assert store.reads == 2


async def test_what_is_remembered_is_bounded(keys: Keys) -> None:
    """Would grow for ever under a flood of keys."""
    for _ in range(CACHE_MAX + 10):
        token, _ = await keys.create("acme", Role.VIEWER, "bot")
        assert await keys.authenticate(token)
    assert len(keys._cache) == CACHE_MAX


async def test_revoking_is_idempotent_and_keeps_to_the_organization(keys: Keys) -> None:
    """Would let one organization revoke the keys of another."""
    token, key = await keys.create("acme", Role.ADMIN, "ann")
    with pytest.raises(UnknownKeyError):
        await keys.revoke(key.id, "globex")
    assert await keys.authenticate(token)
    with pytest.raises(UnknownKeyError):
        await keys.revoke("key_none")
    first = await keys.revoke(key.id, "acme")
    assert await keys.revoke(key.id) == first


async def test_keys_are_listed_by_organization(keys: Keys) -> None:
    """Would show one organization the keys of another."""
    await keys.create("acme", Role.ADMIN, "ann")
    await keys.create("globex", Role.VIEWER, "bob")
    assert [key.name for key in await keys.list("acme")] == ["ann"]
    assert {key.name for key in await keys.list()} == {"ann", "bob"}


async def test_a_bad_name_or_organization_makes_no_key(keys: Keys, store: Counting) -> None:
    """Would make keys whose organization is no address, or whose name breaks a log line."""
    with pytest.raises(InvalidIdError):
        await keys.create("a/b", Role.VIEWER, "ann")
    with pytest.raises(ValueError, match="name"):
        await keys.create("acme", Role.VIEWER, "a\nb")
    assert await store.count("key") == 0


async def test_agents_are_known_by_their_keys_name(keys: Keys) -> None:
    """Would take an agent for a person who may approve."""
    token, _ = await keys.create("acme", Role.ADMIN, "agent:code")
    principal = await keys.authenticate(token)
    assert principal is not None and principal.is_agent


def test_each_role_covers_those_before_it() -> None:
    """Would give a viewer an operator's rights."""
    covered = {role: [other for other in Role if role.covers(other)] for role in Role}
    assert covered == {
        Role.VIEWER: [Role.VIEWER],
        Role.OPERATOR: [Role.VIEWER, Role.OPERATOR],
        Role.ADMIN: [Role.VIEWER, Role.OPERATOR, Role.ADMIN],
    }


async def test_a_store_that_is_out_is_no_refusal(keys: Keys, store: Counting) -> None:
    """Would tell the owner of a good key that it is bad while the store restarts."""
    token, _ = await keys.create("acme", Role.VIEWER, "ann")
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await keys.authenticate(token)
