"""The command's HTTP client against a real local server that misbehaves."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from actors.cli import main
from actors.commands.failures import RefusedError, UnreachableError
from actors.commands.http import Api, connect
from tests.served import served

PROBLEM = "application/problem+json"


def said(event: str, cursor: str, **data: str) -> str:
    return json.dumps({"event": event, "cursor": cursor, "data": data})


class Flaky:
    """Answers each path as it is told to; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Response] = []
        self.asked: list[Request] = []
        self.streams: list[list[str]] = []
        self.subscribed: list[Any] = []

    async def answer(self, request: Request) -> Response:
        await request.body()
        self.asked.append(request)
        return self.answers.pop(0)

    async def events(self, socket: WebSocket) -> None:
        if not self.streams:
            await socket.close()  # as for a key that is none: HTTP 403
            return
        await socket.accept()
        self.subscribed.append(await socket.receive_json())
        for text in self.streams.pop(0):
            await socket.send_text(text)
        await socket.close(1012)

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                WebSocketRoute("/api/ws", self.events),
                Route("/{path:path}", self.answer, methods=["GET", "POST", "DELETE"]),
            ]
        )


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


async def test_a_busy_server_is_asked_again(flaky: Flaky) -> None:
    """A replica that restarts would fail every command that meets it."""
    flaky.answers = [
        Response("upstream", 500),
        Response(status_code=503),
        JSONResponse({"id": "issue_1"}),
    ]
    with served(flaky.app) as url:
        async with connect(url, "secret", local=True) as http:
            assert await Api(http).post("/api/issues", {}, "key-1") == {"id": "issue_1"}
    assert {request.headers["Idempotency-Key"] for request in flaky.asked} == {"key-1"}
    assert flaky.asked[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("status", "told"),
    [(204, "backend:a.b is off the schedule."), (202, "It is accepted, and not answered yet.")],
)
def test_what_was_only_accepted_is_not_told_as_done(status: int, told: str, flaky: Flaky) -> None:
    """An operator would go away while what was deleted still runs."""
    there = {"items": [{"name": "default"}], "nextCursor": None}
    flaky.answers = [JSONResponse(there), Response(status_code=503), Response(status_code=status)]
    with served(flaky.app) as url:
        words = ["schedule", "delete", "backend:a.b", "--url", url, "--token", "secret"]
        found = CliRunner().invoke(main, words)
    assert (found.exit_code, found.stdout.strip()) == (0, told), found.output
    assert [request.method for request in flaky.asked] == ["GET", "DELETE", "DELETE"]


async def test_a_refusal_is_told_with_its_fields(flaky: Flaky) -> None:
    """The user would not learn which field is wrong."""
    problem = {
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "Not as it must be: body.title.",
        "errors": [{"path": "body.title", "message": "is blank", "code": "blank"}],
    }
    flaky.answers = [JSONResponse(problem, 422, media_type=PROBLEM)]
    with served(flaky.app) as url:
        async with connect(url, None, local=True) as http:
            with pytest.raises(RefusedError) as refused:
                await Api(http).post("/api/issues", {})
    assert "body.title: is blank" in refused.value.message
    assert refused.value.problem == problem
    assert len(flaky.asked) == 1, "a refusal is final"


async def test_a_failure_of_troupe_itself_is_not_repeated(flaky: Flaky) -> None:
    """A command would hammer a server whose answer can't change."""
    flaky.answers = [JSONResponse({"title": "Internal Server Error"}, 500, media_type=PROBLEM)]
    with served(flaky.app) as url:
        async with connect(url, None, local=True) as http:
            with pytest.raises(RefusedError, match="Internal Server Error"):
                await Api(http).get("/api/issues")
    assert len(flaky.asked) == 1


async def test_a_store_without_room_is_said_with_what_to_do(flaky: Flaky) -> None:
    """A command would wait for a server that answers, and not say what only a person can do."""
    problem = {
        "title": "Insufficient Storage", "status": 507, "code": "store_full",
        "detail": "There is no room to keep this.",
    }  # fmt: skip
    answer = JSONResponse(problem, 507, {"Retry-After": "60"}, media_type=PROBLEM)
    flaky.answers = [answer]
    with served(flaky.app) as url:
        async with connect(url, None, local=True) as http:
            with pytest.raises(RefusedError, match="There is no room to keep this") as refused:
                await Api(http).post("/api/issues", {})
    assert "Make room" in str(refused.value.hint)
    assert len(flaky.asked) == 1


async def test_a_page_that_is_not_troupes_is_said_to_be_none(flaky: Flaky) -> None:
    """A wrong TROUPE_URL would end in a traceback."""
    flaky.answers = [PlainTextResponse("<html>welcome</html>")]
    with served(flaky.app) as url:
        async with connect(url, None, local=True) as http:
            with pytest.raises(RefusedError, match="is it a Troupe"):
                await Api(http).get("/api/issues")


async def test_lists_go_on_to_the_limit(flaky: Flaky) -> None:
    """`--limit 150` would answer one page."""
    flaky.answers = [
        JSONResponse({"items": list(range(100)), "nextCursor": "c1"}),
        JSONResponse({"items": list(range(100, 200)), "nextCursor": "c2"}),
    ]
    with served(flaky.app) as url:
        async with connect(url, None, local=True) as http:
            assert len(await Api(http).items("/api/jobs", 150, status=None)) == 150
    assert [dict(request.query_params) for request in flaky.asked] == [
        {"limit": "100"},
        {"limit": "50", "cursor": "c1"},
    ]


async def test_a_broken_stream_goes_on_behind_its_last_event(flaky: Flaky) -> None:
    """A killed replica would lose log lines, or show them twice."""
    flaky.streams = [
        [said("subscribed", "i:0"), said("agent:progress", "i:1"), said("alive", "i:4")],
        [],
        [said("subscribed", "i:4"), said("agent:progress", "i:5")],
        [said("subscribed", "i:5"), said("reset", "j:9"), said("agent:progress", "j:10")],
    ]
    seen = []
    with served(flaky.app) as url:
        async with connect(url, None, local=True) as http:
            with pytest.raises(RefusedError, match="refused the connection"):
                async with aclosing(Api(http).events(["job:a", "issue:b"])) as events:
                    async for one in events:
                        seen.append((one.name, one.cursor))
    assert seen == [
        ("opened", "i:0"),
        ("agent:progress", "i:1"),
        ("opened", "i:4"),
        ("agent:progress", "i:5"),
        ("opened", "i:5"),
        ("reset", "j:9"),
        ("agent:progress", "j:10"),
    ]
    assert [asked.get("cursor") for asked in flaky.subscribed] == [None, "i:4", "i:4", "i:5"]
    assert flaky.subscribed[0]["subscribe"] == ["job:a", "issue:b"]


async def test_nobody_at_the_address_is_unreachable() -> None:
    """A stopped Troupe would look like a bug of the command."""
    with served(Starlette()) as url:
        pass
    async with connect(url, None, local=True) as http:
        api = Api(http, patience_s=0.0)
        with pytest.raises(UnreachableError, match="does not answer"):
            await api.get("/api/issues")
        with pytest.raises(UnreachableError, match="does not answer"):
            async with aclosing(api.events(["monitoring"])) as events:
                await anext(events)


async def test_a_proxy_is_never_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop behind a proxy could not reach its own Troupe."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    app = Starlette(routes=[Route("/api/ready", lambda request: JSONResponse({"ok": True}))])
    with served(app) as url:
        async with connect(url, None, local=True) as http:
            assert await Api(http).get("/api/ready") == {"ok": True}
        async with connect(url, None, local=False) as http:
            with pytest.raises(httpx2.ConnectError):
                await http.get("/api/ready")


def test_the_status_of_a_troupe_without_its_store_is_that_it_is_degraded() -> None:
    """The command that says how it is would fail, and name itself as the way to find out."""

    async def out(request: Request) -> Response:
        problem = {"status": 503, "code": "store_unavailable", "title": "Service Unavailable"}
        return JSONResponse(problem, 503, {"Retry-After": "60"}, PROBLEM)

    with served(Starlette(routes=[Route("/{path:path}", out)])) as url:
        said = CliRunner().invoke(main, ["status", "--url", url])
        told = CliRunner().invoke(main, ["status", "--url", url, "--json"])
    assert (said.exit_code, told.exit_code) == (1, 1)
    assert "degraded" in said.stdout
    assert "nothing that was is lost" in said.stdout
    assert json.loads(told.stdout)["health"] == {"status": "degraded"}


async def test_what_is_sent_away_for_want_of_room_says_what_to_do(flaky: Flaky) -> None:
    """A program would hand it in again at once, and a person not know when."""
    problem = {"status": 429, "code": "too_many_issues", "detail": "1000 issues are waiting."}
    flaky.answers = [JSONResponse(problem, 429, {"Retry-After": "30"}, PROBLEM)]
    with served(flaky.app) as url, pytest.raises(RefusedError) as refused:
        async with connect(url, None, local=True) as http:
            await Api(http).post("/api/issues", {}, "k")
    assert "troupe issues list --status queued" in (refused.value.hint or "")
