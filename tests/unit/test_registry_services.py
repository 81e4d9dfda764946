"""Services are found by what they say of themselves, while they are there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import registry as module
from runtime.clock import ManualClock
from runtime.keys import Role
from runtime.registry import (
    BadCriteriaError,
    Registry,
    RegistryFullError,
    Service,
    UnknownServiceError,
    matches,
)
from runtime.store.memory import MemoryStore
from tests.http import HttpTroupe, Yielding


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return Yielding(clock)


@pytest.fixture
def registry(store: MemoryStore, clock: ManualClock) -> Registry:
    return Registry(store, clock, "acme")


def service(**metadata: Any) -> Service:
    return Service(
        service_id="billing-1", organization_id="acme", metadata=metadata, endpoints={},
        registered_at="", updated_at="",
    )  # fmt: skip


async def found(registry: Registry, criteria: dict[str, Any] | None = None) -> list[str]:
    return [one.service_id for one in await registry.list_services(criteria)]


async def test_the_five_verbs(registry: Registry) -> None:
    """Would break what the source documents call the service registry."""
    made = await registry.register_service("billing", {"kind": "erp"}, {"agent": "billing:main"})
    assert (made.service_id, made.organization_id) == ("billing", "acme")
    assert [one.endpoints for one in await registry.discover_service({"kind": "erp"})] == [
        {"agent": "billing:main"}
    ]
    await registry.update_service("billing", metadata={"kind": "crm"})
    assert await registry.discover_service({"kind": "erp"}) == []
    [changed] = await registry.list_services()
    assert (changed.metadata, changed.endpoints) == ({"kind": "crm"}, {"agent": "billing:main"})
    await registry.update_service("billing", endpoints={})
    [changed] = await registry.list_services({"kind": "crm"})
    assert changed.endpoints == {}
    await registry.deregister_service("billing")
    assert await registry.list_services() == []


@pytest.mark.parametrize(
    ("criteria", "meets"),
    [
        ({}, True),
        ({"kind": "erp"}, True),
        ({"kind": "crm"}, False),
        ({"kind": "er"}, False),
        ({"absent": None}, False),
        ({"none": None}, True),
        ({"tags": "a"}, True),
        ({"tags": ["a", "b"]}, True),
        ({"tags": ["a", "z"]}, False),
        ({"tags": []}, True),
        ({"kind": ["erp"]}, True),
        ({"kind": ["erp", "crm"]}, False),
        ({"region": {"zone": "eu"}}, True),
        ({"region": {"zone": "us"}}, False),
        ({"region": {}}, True),
        ({"region": "eu"}, False),
        ({"kind": {"zone": "eu"}}, False),
        ({"regions": {"zone": "eu"}}, False),
        ({"live": True}, True),
        ({"live": 1}, False),
        ({"count": 1}, True),
        ({"count": True}, False),
        ({"count": 1.0}, True),
        ({"serviceId": "billing-1"}, True),
        ({"serviceId": "billing-2"}, False),
        ({"kind": "erp", "tags": "z"}, False),
    ],
)
def test_criteria_are_equality_and_containment(criteria: dict[str, Any], meets: bool) -> None:
    """Would find services that don't do what was asked for."""
    one = service(
        kind="erp", tags=["a", "b"], region={"zone": "eu"}, regions=[{"zone": "eu"}],
        live=True, count=1, none=None, serviceId="forged",
    )  # fmt: skip
    assert matches(one, criteria) is meets


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.one_of(st.booleans(), st.integers(0, 2), st.text("xy", max_size=2))


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES))
def test_more_criteria_never_find_more(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Would widen a search by narrowing it."""
    candidate = service(a=1, b="x", c=[True, "y"])
    if matches(candidate, {**one, **other}) and not set(one) & set(other):
        assert matches(candidate, one) and matches(candidate, other)


async def test_a_service_lapses_at_once_and_a_heartbeat_keeps_it(
    registry: Registry, store: MemoryStore, clock: ManualClock
) -> None:
    """Would send work to a service that is gone, or forget one that is there."""
    await registry.register_service("beating", {}, {}, ttl_s=10)
    await registry.register_service("silent", {}, {}, ttl_s=10)
    await registry.register_service("eternal", {}, {})
    clock.advance(9.999)
    assert await found(registry) == ["beating", "eternal", "silent"]
    await registry.update_service("beating")
    clock.advance(0.001)
    assert await found(registry) == ["beating", "eternal"]
    assert await registry.find("silent") is None
    for verb in (registry.update_service, registry.deregister_service):
        with pytest.raises(UnknownServiceError):
            await verb("silent")
    assert await store.count("service") == 3
    assert await registry.sweep() == 1
    assert await store.count("service") == 2
    clock.advance(9.998)
    assert await found(registry) == ["beating", "eternal"]


async def test_a_service_that_comes_back_is_there_again(
    registry: Registry, clock: ManualClock
) -> None:
    """Would refuse the restart of a service that had died."""
    await registry.register_service("billing", {"v": 1}, {}, ttl_s=1)
    clock.advance(5)
    await registry.register_service("billing", {"v": 2}, {}, ttl_s=1)
    assert await found(registry, {"v": 2}) == ["billing"]
    await registry.register_service("billing", {"v": 3}, {})
    assert await found(registry, {"v": 3}) == ["billing"]


async def test_a_sweep_leaves_what_was_renewed_meanwhile(
    registry: Registry, store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would delete a service that came back between the look and the delete."""
    await registry.register_service("billing", {}, {}, ttl_s=1)
    clock.advance(2)
    really = registry._write

    async def late(*args: Any) -> bool:
        monkeypatch.setattr(registry, "_write", really)
        await registry.register_service("billing", {}, {}, ttl_s=1)
        return await really(*args)

    monkeypatch.setattr(registry, "_write", late)
    assert await registry.sweep() == 0
    assert await found(registry) == ["billing"]


async def test_two_who_change_different_things_both_do(registry: Registry) -> None:
    """Would undo one update with what the other had read before it."""
    await registry.register_service("billing", {"n": 0}, {"n": "0"})
    await asyncio.gather(
        registry.update_service("billing", metadata={"n": 1}),
        registry.update_service("billing", endpoints={"n": "1"}),
    )
    [one] = await registry.list_services()
    assert (one.metadata, one.endpoints) == ({"n": 1}, {"n": "1"})


async def test_organizations_do_not_meet(store: MemoryStore, clock: ManualClock) -> None:
    """Would let one organization find, change or remove another's services."""
    acme, globex = Registry(store, clock, "acme"), Registry(store, clock, "globex")
    await acme.register_service("billing", {"of": "acme"}, {})
    await globex.register_service("billing", {"of": "globex"}, {})
    await globex.deregister_service("billing")
    with pytest.raises(UnknownServiceError):
        await globex.update_service("billing", {})
    [one] = await acme.list_services()
    assert one.metadata == {"of": "acme"}


async def test_everything_is_bounded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would let one service, or one search, fill the memory."""
    monkeypatch.setattr(module, "SERVICES_MAX", 2)
    await registry.register_service("a", {}, {})
    await registry.register_service("b", {}, {})
    await registry.register_service("b", {"again": True}, {})
    with pytest.raises(RegistryFullError):
        await registry.register_service("c", {}, {})
    deep: Any = "x"
    for _ in range(6):
        deep = {"a": deep}
    for criteria in ({f"f{n}": n for n in range(21)}, {"tags": list(range(21))}, deep):
        with pytest.raises(BadCriteriaError):
            await registry.discover_service(criteria)
    with pytest.raises(ValueError, match="metadata"):
        await registry.register_service("a", {"x": "y" * 20_000}, {})


async def test_the_registry_over_http() -> None:
    """Would leave services that are not in Python without a registry."""
    clock = ManualClock()
    api = HttpTroupe(clock=clock)
    async with await api.client(Role.OPERATOR) as ann:
        url = "/api/registry/services"
        body = {
            "serviceId": "billing",
            "metadata": {"capabilities": ["invoices"]},
            "endpoints": {"http": "https://billing.example"},
            "ttlS": 10,
        }
        made = await ann.post(url, json=body)
        assert (made.status_code, made.json()["metadata"]) == (201, body["metadata"])
        assert (await ann.get(f"{url}/billing")).json() == made.json()
        wanted = {"criteria": {"capabilities": "invoices"}}
        assert (await ann.post("/api/registry/discover", json=wanted)).json()["items"]
        clock.advance(9)
        assert (await ann.patch(f"{url}/billing", json={})).status_code == 200
        clock.advance(9)
        assert (await ann.get(url)).json()["items"][0]["serviceId"] == "billing"
        clock.advance(1)
        assert (await ann.get(url)).json()["items"] == []
        for answer in (
            await ann.get(f"{url}/billing"),
            await ann.patch(f"{url}/billing", json={}),
        ):
            assert answer.status_code == 404
        for wrong in (
            {"serviceId": "a/b"}, {"serviceId": ""}, {"serviceId": "-a"}, {"serviceId": "x" * 201},
            {"serviceId": "a", "ttlS": 0}, {"serviceId": "a", "ttlS": -1},
            {"serviceId": "a", "endpoints": {"http": 1}}, {"serviceId": "a", "metadata": []},
            {"serviceId": "a", "endpoints": {str(n): "x" for n in range(33)}},
            {"serviceId": "a", "metadata": {"x": "y" * 20_000}},
        ):  # fmt: skip
            assert (await ann.post(url, json=wrong)).status_code == 422
        many = {"criteria": {f"f{n}": n for n in range(21)}}
        answer = await ann.post("/api/registry/discover", json=many)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_criteria")


async def test_lists_of_services_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would show a lapsed service on a later page, or lose one between two."""
    clock = ManualClock()
    api = HttpTroupe(clock=clock)
    registry = Registry(api.store, clock, "acme")
    for number in range(9):
        await registry.register_service(f"s{number}", {}, {}, ttl_s=1 if number % 3 == 0 else None)
    clock.advance(2)
    seen: list[str] = []
    async with await api.client() as ann:
        cursor: str | None = ""
        while cursor is not None:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await ann.get("/api/registry/services", params=params)).json()
            seen += [one["serviceId"] for one in page["items"]]
            cursor = page["nextCursor"]
    assert seen == ["s1", "s2", "s4", "s5", "s7", "s8"]
