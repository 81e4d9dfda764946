"""Every route with every kind of caller: who may, who may not, and what a stranger sees.

The table is written by hand and compared with the routes served, with OpenAPI
and with docs/api.md, so no route can exist that is not tested here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from runtime.console.auth import AuthMiddleware
from runtime.console.letters import letter_id
from runtime.console.problems import ProblemError
from runtime.console.settings import ConsoleSettings
from runtime.ids import HOME
from runtime.keys import Keys, Role
from runtime.schedule.record import DEFAULT_NAME, SCHEDULES, schedule_key
from runtime.scheduler import Scheduler
from runtime.store.memory import MemoryStore
from tests.http import ORGANIZATION, QUICK, HttpTroupe, World, populate
from tests.troupe import LocalTroupe

DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"
ISSUE = {"source": "manual", "title": "It fails"}
V, OP, A = Role.VIEWER, Role.OPERATOR, Role.ADMIN


@dataclass(frozen=True)
class Case:
    """One route: who may call it, with what, and what becomes of it."""

    route: str
    """`METHOD /path/{id}`"""
    role: Role | None
    """The least role; None: open to everybody."""
    status: int
    body: Any = None
    foreign: int = 404
    """What an admin of another organization gets for this organization's ids."""
    home: bool = False
    """Only for the organization that runs the installation."""
    writes: bool = False


DECISION = {"artifactHash": "HASH"}
CRON = {"cron": "0 9 * * *"}
CASES = [
    Case("POST /api/issues", OP, 202, ISSUE, foreign=202, writes=True),
    Case("GET /api/issues", V, 200, foreign=200),
    Case("GET /api/issues/{issue_id}", V, 200),
    Case("POST /api/issues/{issue_id}/cancel", OP, 202, writes=True),
    Case("POST /api/issues/{issue_id}/messages", OP, 202, {"text": "hello"}, writes=True),
    Case("GET /api/reviews", V, 200, foreign=200),
    Case("GET /api/reviews/{review_id}", V, 200),
    Case("POST /api/reviews/{review_id}/approve", OP, 200, DECISION, writes=True),
    Case("POST /api/reviews/{review_id}/reject", OP, 200, DECISION, writes=True),
    Case("GET /api/scheduler/status", V, 200, foreign=200),
    Case("GET /api/agents/scheduler/status", V, 200, foreign=200),
    Case("POST /api/scheduler/pause", A, 200, foreign=403, home=True, writes=True),
    Case("POST /api/scheduler/resume", A, 200, foreign=403, home=True, writes=True),
    Case("POST /api/scheduler/drain", A, 200, foreign=403, home=True, writes=True),
    Case("GET /api/agents", V, 200, foreign=200),
    Case("GET /api/agents/{agent_id}", V, 200),
    Case("GET /api/agents/{agent_id}/history", V, 200),
    Case("GET /api/agents/{agent_id}/messages", V, 200),
    Case("GET /api/agents/{agent_id}/sessions", V, 200),
    # an agent comes to life with its first message: the stranger writes to its own
    Case("POST /api/agents/{agent_id}/messages", OP, 202, {"content": 1}, foreign=202, writes=True),
    Case("POST /api/agents/{agent_id}/pause", OP, 200, writes=True),
    Case("POST /api/agents/{agent_id}/resume", OP, 200, writes=True),
    Case("GET /api/schedules", V, 200, foreign=200),
    Case("POST /api/schedules/events", OP, 200, {"event": "push"}, foreign=200, writes=True),
    Case("GET /api/agents/{agent_id}/schedule", V, 200),
    # as with messages: the stranger schedules an agent of its own
    Case("POST /api/agents/{agent_id}/schedule", OP, 200, CRON, foreign=201, writes=True),
    Case("PATCH /api/agents/{agent_id}/schedule", OP, 200, CRON, writes=True),
    # what is not there is gone, as was asked, whosever it is
    Case("DELETE /api/agents/{agent_id}/schedule", OP, 204, foreign=204, writes=True),
    Case("POST /api/agents/{agent_id}/schedule/pause", A, 200, writes=True),
    Case("POST /api/agents/{agent_id}/schedule/resume", A, 409, writes=True),
    Case("POST /api/agents/{agent_id}/schedule/trigger", OP, 200, writes=True),
    Case("GET /api/agents/{agent_id}/schedule/occurrences", V, 200),
    Case("GET /api/agents/{agent_id}/schedule/revisions", V, 200),
    Case("GET /api/occurrences/{occurrence_id}", V, 200),
    Case("GET /api/jobs", V, 200, foreign=200),
    Case("GET /api/jobs/{job_id}", V, 200),
    Case("GET /api/jobs/{job_id}/journal", V, 200),
    Case("GET /api/jobs/{job_id}/artifacts", V, 200),
    Case("GET /api/jobs/{job_id}/artifacts/{sha256}", V, 200),
    Case("GET /api/jobs/{job_id}/diff", V, 200),
    Case("POST /api/jobs/{job_id}/pause", OP, 200, writes=True),
    Case("POST /api/jobs/{job_id}/resume", OP, 409, writes=True),
    Case("POST /api/jobs/{job_id}/cancel", OP, 200, writes=True),
    Case("POST /api/jobs/{job_id}/retry", OP, 409, writes=True),
    Case("GET /api/registry/services", V, 200, foreign=200),
    Case("POST /api/registry/services", OP, 201, {"serviceId": "new"}, foreign=201, writes=True),
    Case("GET /api/registry/services/{service_id}", V, 200),
    Case("PATCH /api/registry/services/{service_id}", OP, 200, {}, writes=True),
    Case("DELETE /api/registry/services/{service_id}", OP, 204, foreign=204, writes=True),
    Case("POST /api/registry/discover", V, 200, {"criteria": {"kind": "erp"}}, foreign=200),
    Case("GET /api/dead-letters", V, 200, foreign=200),
    Case("GET /api/dead-letters/{letter_id}", V, 200),
    Case("POST /api/dead-letters/{letter_id}/redeliver", OP, 202, writes=True),
    Case("GET /api/audit", A, 200, foreign=200),
    Case("GET /api/events", V, 200, foreign=200),
    # it asks for a signature of the body instead, which nobody here gives
    Case("POST /api/webhooks/github", None, 401, foreign=401),
    Case("GET /api/health", None, 200, foreign=200),
    Case("GET /api/ready", None, 200, foreign=200),
    Case("GET /docs", None, 200, foreign=200),
    Case("GET /openapi.json", None, 200, foreign=200),
]
by_route = pytest.mark.parametrize("case", CASES, ids=lambda case: case.route)
with_ids = pytest.mark.parametrize(
    "case", [c for c in CASES if c.foreign in (204, 404)], ids=lambda case: case.route
)


class Here:
    """An application with a scheduler and one organization's things."""

    def __init__(self, troupe: LocalTroupe, api: HttpTroupe, world: World) -> None:
        self.troupe, self.api, self.world = troupe, api, world

    def url(self, case: Case, strange: bool = False) -> str:
        """The case's path with ids that exist, or with ids that exist nowhere."""
        world = self.world
        ids = {
            "issue_id": world.issue.id,
            "review_id": world.review.id,
            "job_id": world.job.id,
            "agent_id": world.agent,
            "sha256": world.artifact.sha256,
            "service_id": world.service,
            "letter_id": letter_id(world.letter),
            "occurrence_id": world.occurrence,
        }
        if strange:
            ids = {
                "issue_id": "issue_0", "review_id": "review_0", "job_id": "job_0",
                "agent_id": "code:job_0", "sha256": "0" * 64, "service_id": "none",
                "letter_id": letter_id("acme/code:job_0/m"),
                "occurrence_id": "occ_0000000000000_0_1",
            }  # fmt: skip
        return case.route.split(" ")[1].format(**ids)

    def body(self, case: Case) -> Any:
        return {"artifactHash": self.world.artifact.sha256} if case.body is DECISION else case.body

    async def call(
        self, client: httpx2.AsyncClient, case: Case, strange: bool = False
    ) -> httpx2.Response:
        method = case.route.split(" ")[0]
        if case.route == "GET /api/events":
            return await self._stream(client, self.url(case))
        if case.status == 202:  # no host is here to answer: it is not waited for
            state = self.api.app.state
            state.console = replace(state.console, settings=QUICK)
        body = self.body(case)
        content = {} if body is None else {"json": body}
        return await client.request(method, self.url(case, strange), **content)

    async def _stream(self, client: httpx2.AsyncClient, url: str) -> httpx2.Response:
        token = client.headers.get("authorization", "").removeprefix("Bearer ")
        async with self.api.stream(url, token) as stream:
            return httpx2.Response(stream.status, headers=stream.headers)

    async def written(self) -> int:
        """Commits so far."""
        return (await self.api.store.health()).commits


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    troupe = LocalTroupe({})
    assert isinstance(troupe.store, MemoryStore)
    api = HttpTroupe(troupe.store, troupe.clock, ConsoleSettings())
    world = await populate(api)
    await _journal(troupe, world)
    troupe.start_scheduler()
    await troupe.client(HOME).ask("scheduler:main", {}, "scheduler.status")  # it has written
    try:
        yield Here(troupe, api, world)
    finally:
        await troupe.kill_scheduler()
        await troupe.store.close()


async def _journal(troupe: LocalTroupe, world: World) -> None:
    """Give the agent a journal, as its host would."""
    from runtime.journal import encode
    from runtime.store.contract import Commit, Event, Fence

    address = f"acme/{world.agent}"
    incarnation = await troupe.store.register("h", "h", 5)
    [claimed] = await troupe.store.claim("h", 1, [address])
    fence = Fence(incarnation, claimed.epoch)
    event = Event("changed", encode([["set", ["total"], 1]]))
    await troupe.store.commit([Commit("acme", address, fence, 0, events=(event,))])


def served(api: HttpTroupe) -> set[str]:
    return {
        f"{method} {route.path}"
        for route in iter_route_contexts(api.app.routes)
        for method in (route.methods or ())
        if method != "HEAD"
    }


async def test_the_table_has_every_route_and_so_has_openapi_and_the_manual() -> None:
    """Would let a route be served that nobody tested, described or knows of."""
    api = HttpTroupe()
    table = {case.route for case in CASES}
    assert len(table) == len(CASES)
    assert served(api) == table
    async with api.with_token(None) as nobody:
        paths = (await nobody.get("/openapi.json")).json()["paths"]
    assert {f"{m.upper()} {path}" for path, item in paths.items() for m in item} == table


async def test_the_manual_names_every_route_with_its_role() -> None:
    """Would send an operator to a route that is not there, or with a role that is refused."""
    rows = re.findall(r"^\| `(\w+) (/\S+)` \| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    manual = {f"{method} {path}": role for method, path, role in rows}
    assert manual == {
        re.sub(r"\{\w+\}", lambda m: ":" + m[0][1:-1], case.route): (case.role or "none")
        for case in CASES
    }


@by_route
async def test_nobody_comes_in_without_a_good_key(here: Here, case: Case) -> None:
    """Would answer, or change something, for somebody without a valid key."""
    token, key = await here.api.key(A, name="gone")
    await here.api.keys.revoke(key.id)
    good, _ = await here.api.key(A)
    before = await here.written()
    answers = []
    for header in (None, token, "troupe_" + "f" * 64, "x", good[:-1], f"{good} {good}"):
        async with here.api.with_token(header) as client:
            answers.append(await here.call(client, case))
    anonymous, *others = answers
    assert anonymous.status_code == (401 if case.role else case.status)
    assert {answer.status_code for answer in others} == {401}
    assert len({answer.content for answer in others}) == 1
    assert others[0].headers["www-authenticate"] == "Bearer"
    assert await here.written() == before


@by_route
async def test_a_role_that_is_too_low_changes_nothing(here: Here, case: Case) -> None:
    """Would let a viewer act, or an operator stop the scheduler."""
    for role in Role:
        if case.role is None or role.covers(case.role):
            continue
        async with await here.api.client(role) as client:
            before = await here.written()
            answer = await here.call(client, case)
            assert (answer.status_code, answer.status_code == 403 or answer.text) == (403, True)
            if "json" in answer.headers.get("content-type", ""):
                assert answer.json()["code"] == "forbidden"
            assert await here.written() == before


@pytest.mark.parametrize("role", list(Role))
@by_route
async def test_a_role_that_suffices_is_served(here: Here, case: Case, role: Role) -> None:
    """Would lock out those who may."""
    if case.role is not None and not role.covers(case.role):
        return
    async with await here.api.client(role, HOME if case.home else ORGANIZATION) as client:
        before = await here.written()
        answer = await here.call(client, case)
        assert answer.status_code == case.status, answer.text
        assert (await here.written() > before) == case.writes


async def test_only_home_stops_what_is_everybodys(here: Here) -> None:
    """Would let any organization's admin stop the work of all the others."""
    for case in (case for case in CASES if case.home):
        async with await here.api.client(A, "acme", "eve") as eve:
            before = await here.written()
            answer = await here.call(eve, case)
            assert (answer.status_code, answer.json()["code"]) == (403, "not_yours")
            assert HOME in answer.json()["detail"]
            assert await here.written() == before
        verb = case.route.rpartition("/")[2]
        door = here.troupe.client("acme")  # past HTTP, as an agent of another organization would
        said = await door.ask("scheduler:main", {"by": "eve"}, f"scheduler.{verb}")
        assert (said["ok"], said["code"]) == (False, "not_yours")
    status = await here.troupe.client(HOME).ask("scheduler:main", {}, "scheduler.status")
    assert (status["state"], status["changedBy"]) == ("IDLE", "")


@by_route
async def test_a_stranger_sees_and_changes_nothing_of_ours(here: Here, case: Case) -> None:
    """Would show or change one organization's things to the admin of another."""
    async with await here.api.client(A, "globex", "eve") as eve:
        answer = await here.call(eve, case)
    assert answer.status_code == case.foreign, answer.text
    text = answer.text if case.route != "GET /openapi.json" and case.route != "GET /docs" else ""
    for secret in (here.world.issue.title, here.world.artifact.sha256, here.world.job.id):
        assert secret not in text or case.route.startswith("POST /api/agents")
    history = await here.api.store.history(f"acme/{here.world.agent}", 0, 100)
    assert len(history) == 1
    for collection, key in (
        ("issue", here.world.issue.id),
        ("job", here.world.job.id),
        ("review", here.world.review.id),
        ("service", "acme/billing"),
        ("dead_letter", here.world.letter),
    ):
        document = await here.api.store.get(collection, key)
        assert document is not None
        assert (document.revision, document.organization) == (1, "acme")
    planned = schedule_key("acme", here.world.agent, DEFAULT_NAME)
    assert await here.api.store.get(SCHEDULES, planned) is not None


@with_ids
async def test_a_strangers_404_is_that_of_an_id_that_never_was(here: Here, case: Case) -> None:
    """Would tell another organization which ids exist here."""
    async with await here.api.client(A, "globex", "eve") as eve:
        ours = await here.call(eve, case)
        nothing = await here.call(eve, case, strange=True)
    assert ours.status_code == nothing.status_code == case.foreign
    assert ours.content == nothing.content
    assert ours.headers.multi_items() == nothing.headers.multi_items()


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Basic TOKEN")],
        [("Authorization", "TOKEN")],
        [("Authorization", "Bearer  TOKEN")],
        [("Authorization", "Bearer TOKEN"), ("Authorization", "Bearer TOKEN")],
        [("Authorization", "Bearer TOKEN, Bearer TOKEN")],
        [("X-Api-Key", "TOKEN")],
        [("Cookie", "Authorization=Bearer TOKEN")],
    ],
)
async def test_a_key_counts_in_one_place_only(headers: list[tuple[str, str]]) -> None:
    """Would take keys from where logs, browsers or proxies would leak or add them."""
    api = HttpTroupe()
    token, _ = await api.key(A)
    sent = [(name, value.replace("TOKEN", token)) for name, value in headers]
    async with api.with_token(None) as client:
        assert (await client.get("/api/jobs", headers=sent)).status_code == 401
        for name in ("token", "key", "access_token", "authorization"):
            assert (await client.get("/api/jobs", params={name: token})).status_code == 401


async def test_without_a_key_it_is_not_told_which_routes_exist() -> None:
    """Would let a stranger map the API."""
    async with HttpTroupe().with_token(None) as nobody:
        real = await nobody.get("/api/jobs")
        made_up = await nobody.get("/api/made-up")
    assert real.status_code == made_up.status_code == 401
    assert real.text.replace("/api/jobs", "") == made_up.text.replace("/api/made-up", "")


async def test_a_revoked_key_stops_within_its_bound() -> None:
    """Would serve a revoked key for as long as the process lives."""
    from runtime.clock import ManualClock
    from runtime.keys import CACHE_TTL_S

    clock = ManualClock()
    api = HttpTroupe(clock=clock)
    token, key = await api.key(V)
    async with api.with_token(token) as client:
        assert (await client.get("/api/jobs")).status_code == 200
        await api.keys.revoke(key.id)
        clock.advance(CACHE_TTL_S)
        assert (await client.get("/api/jobs")).status_code == 401


async def test_a_websocket_is_asked_for_its_key_too() -> None:
    """Would leave the second protocol open, as middleware for HTTP only does."""
    reached = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["principal"])

    api = HttpTroupe()
    token, _ = await api.key(V)
    guarded = AuthMiddleware(app, Keys(api.store, api.clock))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/api/health", "headers": []}
    bad = [(b"authorization", b"Bearer troupe_" + b"0" * 64)]
    for refused in ({**scope, "path": "/api/x"}, {**scope, "headers": bad}):
        with pytest.raises(ProblemError) as problem:
            await guarded(refused, None, send)  # type: ignore[arg-type]
        assert problem.value.status == 401
    assert sent == reached == []
    good = [(b"authorization", f"Bearer {token}".encode())]
    await guarded({**scope, "headers": good}, None, send)  # type: ignore[arg-type]
    assert reached[0].organization == "acme"


async def test_no_route_writes_to_the_schedulers_or_a_roles_inbox(here: Here) -> None:
    """Would let an operator command the scheduler past the routes that check whose job it is."""
    async with await here.api.client(A) as ann:
        for agent in ("scheduler:main", "role:developer", "client:http", "registry:main", "x", ":"):
            body = {"content": {"jobId": here.world.job.id}}
            answer = await ann.post(f"/api/agents/{agent}/messages", json=body)
            assert (agent, answer.status_code) == (agent, 404)
            for path in ("", "/history", "/messages", "/sessions"):
                assert (await ann.get(f"/api/agents/{agent}{path}")).status_code == 404
    assert await here.api.store.history("acme/role:developer", 0, 1) == []


@pytest.mark.parametrize("kind", ["review.decided", "job.run", "issue.cancel", "reply", "reminder"])
async def test_the_protocols_own_messages_cannot_be_written_by_hand(here: Here, kind: str) -> None:
    """Would let anybody approve a review by writing the message that says so."""
    async with await here.api.client(A) as ann:
        body = {"content": {"approved": True}, "messageType": kind}
        answer = await ann.post(f"/api/agents/issue:{here.world.issue.id}/messages", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "body.messageType"


def test_a_scheduler_is_what_answers_here() -> None:
    """Would test commands against something that only looks like the scheduler."""
    assert LocalTroupe.start_scheduler.__globals__["Scheduler"] is Scheduler
