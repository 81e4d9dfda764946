"""Every error is a problem document, and every answer carries the guarding headers."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter

from runtime.client import AskTimeoutError
from runtime.clock import ManualClock
from runtime.console.app import create_app
from runtime.console.headers import SECURITY
from runtime.console.settings import ConsoleSettings
from runtime.errors import CommitRefusedError, StoreUnavailableError
from runtime.ids import HOME
from runtime.jobs.seat import LEASE_S
from runtime.keys import Role
from runtime.store import rules
from runtime.store.memory import MemoryStore
from tests.http import HttpTroupe, populate
from tests.troupe import LocalTroupe, eventually

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"type", "title", "status", "detail", "code", "instance"}


def check(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The answer is a whole problem document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert FIELDS <= problem.keys() <= FIELDS | {"errors"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:troupe:problem:{code}"
    assert problem["title"] and problem["detail"]
    for name, value in SECURITY.items():
        assert answer.headers[name] == value
    return problem


class Stuck(MemoryStore):
    """A store that can be made to hang."""

    stuck = False

    async def get(self, collection: str, key: str) -> Any:
        while self.stuck:
            await asyncio.sleep(3600)
        return await super().get(collection, key)


async def test_what_is_not_there_is_a_problem() -> None:
    """Would answer a client that reads problems with something else."""
    api = HttpTroupe()
    async with await api.client() as ann:
        assert check(await ann.get("/api/made/up"), 404, "not_found")["instance"] == "/api/made/up"
        problem = check(await ann.get("/api/jobs/job_0"), 404, "not_found")
        assert problem["instance"] == "/api/jobs/:job_id"
        for path in ("/api/jobs/", "/", "/api", "//api/jobs", "/api/jobs/../jobs/x"):
            check(await ann.get(path), 404, "not_found")


async def test_a_method_that_is_not_there_names_those_that_are() -> None:
    """Would name the methods of one route only, where two share a path."""
    api = HttpTroupe()
    async with await api.client() as ann:
        answer = await ann.delete("/api/issues")
        check(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, POST"
        answer = await ann.put("/api/registry/services/x", json={})
        check(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "DELETE, GET, PATCH"


async def test_each_kind_of_refusal_is_a_problem() -> None:
    """Would leave one of them in the framework's own form."""
    api = HttpTroupe()
    world = await populate(api)
    async with api.with_token(None) as nobody:
        check(await nobody.get("/api/jobs"), 401, "unauthorized")
    async with await api.client(Role.VIEWER) as viewer:
        check(await viewer.post(f"/api/jobs/{world.job.id}/cancel"), 403, "forbidden")
    async with await api.client() as ann:
        bad = {"Content-Type": "application/json"}
        check(await ann.post("/api/issues", content=b"{", headers=bad), 400, "malformed_json")
        check(await ann.post("/api/issues", content=b" " * 2_000_000), 413, "body_too_large")
        check(await ann.post("/api/issues", content=b"x"), 415, "unsupported_media_type")
        problem = check(await ann.post("/api/issues", json={}), 422, "invalid_request")
        assert {error["path"] for error in problem["errors"]} == {"body.source", "body.title"}
        assert all(error.keys() == {"path", "message", "code"} for error in problem["errors"])


async def test_a_fault_of_ours_tells_an_incident_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Would show a stack trace to a stranger, or leave the operator without one."""
    router = APIRouter()

    @router.get("/api/fault")
    async def fault() -> None:
        raise RuntimeError("the database password is swordfish")

    api = HttpTroupe()
    api.app = create_app(api.store, api.clock, api.ids, [router])
    caplog.set_level(logging.ERROR)
    async with await api.client() as ann:
        answer = await ann.get("/api/fault")
    problem = check(answer, 500, "internal_error")
    assert "swordfish" not in answer.text
    [record] = [r for r in caplog.records if getattr(r, "action", "") == "http.failed"]
    assert record.incident == problem["instance"]  # type: ignore[attr-defined]
    assert record.exc_info and "swordfish" in str(record.exc_info[1])


@pytest.mark.parametrize("error", [CommitRefusedError("stale_epoch"), AskTimeoutError("m")])
async def test_an_unforeseen_error_of_the_runtime_is_a_fault(error: Exception) -> None:
    """Would leave it to the server, which knows no problem documents."""
    router = APIRouter()

    @router.get("/api/fault")
    async def fault() -> None:
        raise error

    api = HttpTroupe()
    api.app = create_app(api.store, api.clock, api.ids, [router])
    async with await api.client() as ann:
        check(await ann.get("/api/fault"), 500, "internal_error")


async def test_a_store_that_is_out_is_said_at_once() -> None:
    """Would hang, or take work that nobody keeps."""
    api = HttpTroupe()
    async with await api.client() as ann:
        assert (await ann.get("/api/jobs")).status_code == 200
        await api.store.close()
        for answer in (
            await ann.get("/api/jobs"),
            await ann.post("/api/issues", json={"source": "manual", "title": "t"}),
            await ann.get("/api/events"),
        ):
            check(answer, 503, "store_unavailable")
            assert int(answer.headers["retry-after"]) >= 1


async def test_a_store_without_room_refuses_and_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would look like a store that is away: clients would retry what only room can mend."""
    api = HttpTroupe()
    world = await populate(api)
    monkeypatch.setattr(rules, "PENDING_MAX", 1)  # one message waits already
    async with await api.client() as ann:
        before = (await api.store.health()).commits
        answer = await ann.post("/api/issues", json={"source": "manual", "title": "t"})
        check(answer, 507, "store_full")
        assert int(answer.headers["retry-after"]) > 1
        assert (await api.store.health()).commits == before
        assert (await ann.get(f"/api/jobs/{world.job.id}")).status_code == 200
        assert (await ann.get("/api/ready")).status_code == 200
        monkeypatch.setattr(rules, "PENDING_MAX", 9)
        answer = await ann.post("/api/issues", json={"source": "manual", "title": "t"})
        assert answer.status_code == 202


async def test_an_agent_with_a_full_inbox_is_told_to_be_tried_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flood of one agent would be accepted until nobody has room."""
    api = HttpTroupe()
    monkeypatch.setattr(rules, "INBOX_MAX", 1)
    async with await api.client() as ann:
        body = {"messageType": "note", "content": {}}
        assert (await ann.post("/api/agents/clerk:a/messages", json=body)).status_code == 202
        answer = await ann.post("/api/agents/clerk:a/messages", json=body)
        check(answer, 429, "inbox_full")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_store_that_hangs_is_given_up() -> None:
    """Would hold every request until the store comes back."""
    store = Stuck(HttpTroupe().clock)
    api = HttpTroupe(store, settings=ConsoleSettings(store_wait_s=0.05))
    async with await api.client() as ann:
        store.stuck = True
        async with asyncio.timeout(10):
            check(await ann.get("/api/jobs/job_0"), 503, "store_unavailable")
        store.stuck = False

        async def answered() -> Any:
            answer = await ann.get("/api/jobs/job_0")
            return answer if answer.status_code != 503 else None

        check(await eventually(answered), 404, "not_found")
    assert ConsoleSettings().store_wait_s < 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("agents/clerk:a/messages?wait=5", {"content": 1}),
        ("issues/{issue}/messages", {"text": "look"}),
        ("jobs/{job}/pause", {}),
    ],
)
async def test_a_store_that_goes_after_something_was_accepted_does_not_take_it_back(
    path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller without an Idempotency-Key would ask for it a second time."""
    api = HttpTroupe()
    world = await populate(api)

    async def lost(*given: object) -> Any:
        raise StoreUnavailableError("it is gone")

    monkeypatch.setattr(api.store, "outcome", lost)
    async with await api.client() as ann:
        url = path.format(issue=world.issue.id, job=world.job.id)
        answer = await ann.post(f"/api/{url}", json=body)
    assert (answer.status_code, answer.json()["accepted"]) == (202, True)


@pytest.mark.parametrize(
    "since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-01", "x", ""]
)
async def test_a_time_that_none_can_be_is_refused(since: str) -> None:
    """A year that no calendar here has would be a fault of ours."""
    api = HttpTroupe()
    async with await api.client(Role.ADMIN) as ann:
        check(await ann.get("/api/audit", params={"since": since}), 422, "invalid_request")
        for edge in (
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "2026-11-01T05:00+05:00",
        ):
            assert (await ann.get("/api/audit", params={"since": edge})).status_code == 200


async def test_of_many_who_change_a_service_at_once_some_are_told_to_try_again() -> None:
    """A conflict of two callers would be a fault of ours."""
    api = HttpTroupe()
    await populate(api)
    async with await api.client() as ann:
        url = "/api/registry/services/billing"
        answers = await asyncio.gather(*(ann.patch(url, json={}) for _ in range(20)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 20
    for answer in refused:
        check(answer, 409, "conflict")


async def test_health_stays_up_while_the_store_is_out() -> None:
    """Would have the process restarted, again and again, for what no restart helps."""
    api = HttpTroupe()
    async with api.with_token(None) as nobody, await api.client() as ann:
        assert (await nobody.get("/api/health")).json() == {"status": "ok"}
        known = (await ann.get("/api/health")).json()
        assert known["store"]["backend"] == "memory"
        assert known["store"]["durability"] == "none"
        await api.store.close()
        answer = await nobody.get("/api/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "degraded"})


async def test_ready_says_what_there_is_to_work_with() -> None:
    """Would send work away while it can be accepted, or hide that nobody is at it."""
    clock = ManualClock()
    troupe = LocalTroupe({}, MemoryStore(clock))
    api = HttpTroupe(troupe.store, clock)

    async def parts(status: int = 200) -> list[str]:
        async with api.with_token(None) as nobody:
            answer = await nobody.get("/api/ready")
        assert answer.status_code == status
        return [answer.json()["parts"][name] for name in ("store", "scheduler", "hosts")]

    assert await parts() == ["up", "down", "down"]
    troupe.start_scheduler()
    await troupe.client(HOME).ask("scheduler:main", {}, "scheduler.status")
    assert await parts() == ["up", "up", "down"]
    await troupe.start_host("host-0")
    assert await parts() == ["up", "up", "up"]
    await troupe.kill_scheduler()
    await troupe.kill_host("host-0")
    clock.advance(LEASE_S)
    assert await parts() == ["up", "down", "down"]
    async with await api.client() as ann:
        assert (await ann.get("/api/scheduler/status")).json()["state"] == "ERROR"
    await troupe.store.close()
    assert await parts(503) == ["down", "unknown", "unknown"]
    async with api.with_token(None) as nobody:
        answer = await nobody.get("/api/ready")
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["code"], "retry-after" in answer.headers) == ("store_unavailable", True)


async def test_every_good_answer_is_guarded_too() -> None:
    """Would let a browser sniff, frame, run or keep what an agent wrote."""
    api = HttpTroupe()
    world = await populate(api)
    job = f"/api/jobs/{world.job.id}"
    async with await api.client() as ann:
        for path in ("/api/jobs", "/api/health", f"{job}/diff", f"{job}/artifacts"):
            answer = await ann.get(path)
            assert answer.status_code == 200
            for name, value in SECURITY.items():
                assert answer.headers[name] == value
        docs = await ann.get("/docs")
    assert "script" not in docs.headers["content-security-policy"]
    assert "access-control-allow-origin" not in docs.headers


async def test_the_page_needs_nothing_from_elsewhere_and_describes_every_route() -> None:
    """Would be blank on a machine without a network."""
    api = HttpTroupe()
    async with api.with_token(None) as nobody:
        page = (await nobody.get("/docs")).text
        spec = (await nobody.get("/openapi.json")).json()
    assert not re.findall(r"<script|<link|<img|@import|https?://(?!github\.com/acme)", page)
    for path in spec["paths"]:
        assert f"<code>{path}</code>" in page
    assert "brief-123" in page
    refs = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(spec)))
    assert refs <= spec["components"]["schemas"].keys()
    assert "HTTPValidationError" not in spec["components"]["schemas"]


def codes_of_the_source() -> set[str]:
    """Every code that an answer can have, read from the source."""
    found: set[str] = set()
    for folder in ("runtime/console", "actors/intake"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            found |= set(re.findall(r'ProblemError\(\s*\d+,\s*"(\w+)"', text))
            found |= set(re.findall(r'unavailable\(\s*"(\w+)"', text))
            found |= set(re.findall(r'invalid\(\s*[^,()]+,\s*"(\w+)"', text))
    deciding = ("scheduler.py", "jobs/*.py", "plans/*.py")
    for path in (path for names in deciding for path in (ROOT / "runtime").glob(names)):
        found |= set(re.findall(r'refused?\(\s*"(\w+)"', path.read_text()))
    return found | {"not_found", "method_not_allowed"}


def test_the_manual_has_every_code() -> None:
    """Would leave a client with a code that nobody explains, or explain one there is not."""
    table = (ROOT / "docs" / "api.md").read_text().partition("## Errors")[2]
    rows = re.findall(r"^\| \d+ \| (.*) \|$", table, re.MULTILINE)
    manual = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    assert manual == codes_of_the_source()


def test_every_setting_of_the_environment_is_in_the_manual() -> None:
    """Would leave a variable that only the source knows."""
    manual = (ROOT / "docs" / "api.md").read_text()
    text = (ROOT / "actors" / "intake" / "settings.py").read_text()
    for name in re.findall(r"`([A-Z][A-Z_]+)`", text):
        assert name in manual


async def test_a_lost_store_never_looks_like_a_refused_key() -> None:
    """Would make clients throw a good key away."""
    api = HttpTroupe()
    token, _ = await api.key()
    await api.store.close()
    async with api.with_token(token) as ann:
        check(await ann.get("/api/jobs"), 503, "store_unavailable")
    assert issubclass(StoreUnavailableError, Exception)
