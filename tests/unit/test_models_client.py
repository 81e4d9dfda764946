"""The client where nothing fails: what is sent, what it may cost, what stays secret."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import httpx2
import pytest

from actors.models.errors import (
    BudgetSpentError,
    ModelNotConfiguredError,
    ModelRequestError,
    ModelUnavailableError,
    UnpricedModelError,
)
from actors.models.prices import SCRIPTED_MODEL
from actors.models.request import ModelAnswer
from actors.models.script import Script, answer
from actors.models.scripted_http import HttpServer
from actors.models.scripted_reply import Reply, answer_reply, json_reply
from actors.models.settings import ModelSettings
from actors.models.wire import from_wire
from tests.scripted import model_client, model_request, one_scene, scripted_server, settings_for

READ = {"text": "I look.", "tools": [{"name": "read", "input": {"z": 1, "path": "a.py"}}]}
SCRIPT = one_scene(READ, READ, {"text": "done"})
KEY = "sk-ant-canary-0123456789"
PROMPT = "prompt-canary-9876543210"


@contextlib.asynccontextmanager
async def listening(handle):
    """A bare HTTP server that keeps what it was sent; `handle` makes the reply."""
    seen = []

    def handler(request):
        seen.append(request)
        return handle(request), lambda _: None

    server = HttpServer(handler)
    port = await server.start()
    try:
        yield f"http://127.0.0.1:{port}", seen
    finally:
        await server.aclose()


def scripted_answer(request) -> Reply:
    body = json.loads(request.body)
    return answer_reply(answer((Script.model_validate(SCRIPT),), from_wire(body), body), True)


async def test_a_call_over_budget_is_not_made():
    """A run would find out that it overspent after it had."""
    async with scripted_server(SCRIPT) as server, model_client(settings_for(server.url)) as rig:
        reserve_usd = rig.client.reserve_usd(model_request())
        with pytest.raises(BudgetSpentError) as caught:
            await rig.client.complete(model_request(), reserve_usd * 0.99)
        assert caught.value.args == (reserve_usd, reserve_usd * 0.99, 0.0)
        assert (await server.calls())["total"] == 0
        answered = await rig.client.complete(model_request(), reserve_usd)
        assert 0 < answered.cost_usd <= reserve_usd


async def test_a_model_without_a_price_costs_none_and_is_refused_a_budget():
    """An unknown model would run for $0, and no limit would ever stop it."""
    unknown = model_request(model="claude-of-tomorrow")
    async with scripted_server(SCRIPT) as server, model_client(settings_for(server.url)) as rig:
        with pytest.raises(UnpricedModelError, match="claude-of-tomorrow"):
            await rig.client.complete(unknown, 1_000.0)
        assert (await server.calls())["total"] == 0
        await server.faults({"kind": "cut", "afterEvent": 3})
        answered = await rig.client.complete(unknown)
        assert answered.cost_usd is None
        assert [attempt.cost_usd for attempt in answered.attempts] == [None]
        assert answered.usage.total_tokens > 0


async def test_a_conversation_is_sent_append_only():
    """The provider's cache would miss, and history bound to its prefix be refused."""
    async with scripted_server(SCRIPT) as server, model_client(settings_for(server.url)) as rig:
        messages = [{"role": "user", "content": "Totals are wrong"}]
        answers = []
        for _ in range(3):
            answers.append(await rig.client.complete(model_request(*messages)))
            content = answers[-1].content
            results = [
                {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
                for block in answers[-1].tool_calls
            ]
            messages += [
                {"role": "assistant", "content": content},
                {"role": "user", "content": results},
            ]
        sent = [call["messages"] for call in (await server.calls())["recent"]]
    assert [len(history) for history in sent] == [1, 3, 5]
    assert sent[1][:1] == sent[0] and sent[2][:3] == sent[1]
    assert answers[2].usage.read_tokens > answers[1].usage.read_tokens > 0


async def test_the_server_counts_a_call_under_the_requests_own_digest():
    """A kill test could not tell a call paid twice from two calls."""
    async with scripted_server(SCRIPT) as server, model_client(settings_for(server.url)) as rig:
        request = model_request(output_format={"type": "object"})
        for _ in range(2):
            await rig.client.complete(request)
        calls = await server.calls()
    expected = {"total": 2, "complete": 2, "cut": 0, "refused": 0}
    assert calls["byDigest"] == {request.digest(): expected}


async def test_an_answer_comes_back_from_the_journal_as_it_was():
    """A resumed job would go on from another answer than the one it was given."""
    async with scripted_server(SCRIPT) as server, model_client(settings_for(server.url)) as rig:
        await server.faults({"kind": "status"}, {"kind": "truncated_tool", "nth": 2})
        answered = await rig.client.complete(model_request())
    assert answered.attempts and answered.broken_tools and answered.request_id.startswith("req_")
    assert ModelAnswer.from_json(json.loads(json.dumps(answered.to_json()))) == answered


async def test_without_a_model_a_call_says_so():
    """The job would fail instead of waiting for a model to be configured."""
    async with model_client(ModelSettings.from_env({})) as rig:
        with pytest.raises(ModelNotConfiguredError, match="ANTHROPIC_API_KEY"):
            await rig.client.complete(model_request())


async def test_neither_keys_nor_prompts_reach_the_logs(caplog, monkeypatch):
    """At DEBUG the SDK logs whole requests: a log file would hold the user's code and key."""
    monkeypatch.setenv("ANTHROPIC_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    async with scripted_server(SCRIPT) as server:
        env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.url}
        async with model_client(ModelSettings.from_env(env)) as rig:
            await server.faults({"kind": "status"}, {"kind": "cut", "nth": 2})
            await rig.client.complete(model_request({"role": "user", "content": PROMPT}))
            with pytest.raises(ModelRequestError):
                await rig.client.complete(model_request(system=PROMPT))
    assert [r.action for r in caplog.records if hasattr(r, "action")] == ["model.retried"] * 2
    logged = caplog.text + "".join(repr(record.__dict__) for record in caplog.records)
    assert KEY not in logged and PROMPT not in logged


async def test_key_and_url_are_ours_and_not_the_environments(monkeypatch):
    """A stray variable would send the prompts of a local model to somebody else."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "stray")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with listening(scripted_answer) as (url, seen):
        settings = ModelSettings.from_env({"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY})
        async with model_client(settings) as rig:
            await rig.client.complete(model_request())
        async with model_client(settings_for(url)) as rig:
            await rig.client.complete(model_request())
    compatible, scripted = (request.headers for request in seen)
    assert compatible["authorization"] == f"Bearer {KEY}"
    # Servers that copy the API know its older authentication only.
    assert (compatible["x-api-key"], compatible["anthropic-version"]) == (KEY, "2023-06-01")
    assert scripted["authorization"] == "Bearer no-key" and "x-api-key" not in scripted
    assert not any("traceparent" in request.headers for request in seen)


async def test_a_redirect_is_not_followed():
    """A server could have every prompt sent on to another host."""
    async with listening(scripted_answer) as (other, seen):

        def elsewhere(_):
            return Reply(status=307, headers={"location": f"{other}/v1/messages"}, writes=[b""])

        async with listening(elsewhere) as (url, _), model_client(settings_for(url)) as rig:
            with pytest.raises(ModelRequestError) as caught:
                await rig.client.complete(model_request())
            assert caught.value.status == 307
        assert seen == []


async def test_one_connection_serves_many_calls():
    """Every round would pay for a new connection, and for TLS with a real provider."""
    server = HttpServer(lambda request: (scripted_answer(request), lambda _: None))
    url = f"http://127.0.0.1:{await server.start()}"
    async with model_client(settings_for(url)) as rig:
        for _ in range(3):
            await rig.client.complete(model_request())
    assert server.accepted == 1
    await server.aclose()


async def test_many_agents_call_at_once():
    """A burst of agents would be reset by a short backlog, and each call be tried again."""
    async with scripted_server(SCRIPT) as server, model_client(settings_for(server.url)) as rig:
        requests = [model_request({"role": "user", "content": f"Issue {n}"}) for n in range(200)]
        answers = await asyncio.gather(*(rig.client.complete(request) for request in requests))
        calls = await server.calls()
    assert not any(answered.attempts for answered in answers)
    assert (calls["total"], calls["complete"], len(calls["byDigest"])) == (200, 200, 200)


async def test_a_provider_that_is_down_is_left_alone_by_all():
    """Every agent would try six times, for as long as the provider is down."""
    async with scripted_server(SCRIPT) as server, model_client(settings_for(server.url)) as rig:
        await server.faults({"kind": "status", "status": 500, "errorType": "down", "times": None})
        reasons = []
        for _ in range(4):
            with pytest.raises(ModelUnavailableError) as caught:
                await rig.client.complete(model_request())
            reasons.append(caught.value.reason)
        total = (await server.calls())["total"]
    assert reasons == ["down", "circuit_open", "circuit_open", "circuit_open"]
    assert total == 10


async def test_the_server_answers_everything_a_client_may_ask():
    """A configuration check against the script would fail where a real provider's passes."""
    async with (
        scripted_server(SCRIPT, faults=False) as server,
        httpx2.AsyncClient(base_url=server.url, trust_env=False) as http,
    ):
        models = (await http.get("/v1/models")).json()
        assert [model["id"] for model in models["data"]] == [SCRIPTED_MODEL]
        assert (await http.get(f"/v1/models/{SCRIPTED_MODEL}")).json() == models["data"][0]
        assert (await http.get("/v1/models/claude-opus-5-5")).status_code == 404
        assert (await http.get("/healthz")).json()["scenes"] == ["only"]
        body = {
            "model": SCRIPTED_MODEL,
            "max_tokens": 100,
            "system": "role: code",
            "messages": [{"role": "user", "content": "Totals are wrong"}],
        }
        whole = (await http.post("/v1/messages", json=body)).json()
        assert (whole["stop_reason"], whole["model"]) == ("tool_use", SCRIPTED_MODEL)
        counted = (await http.post("/v1/messages/count_tokens", json=body)).json()
        assert counted["input_tokens"] == whole["usage"]["input_tokens"]
        assert (await http.put("/faults", json=[])).status_code == 404
        assert (await http.post("/release")).status_code == 404
        for wrong in (b"{", b"[]", b'{"model": "m"}', b'{"tools": [3]}', b"[" * 100_000):
            refused = await http.post("/v1/messages", content=wrong)
            assert refused.status_code == 400
            assert refused.json()["error"]["type"] == "invalid_request_error"
        assert (await http.get("/calls")).json()["total"] == 1


async def test_what_is_not_http_is_refused():
    """A stray connection would bring the server down."""
    async with listening(lambda _: json_reply(200, {})) as (url, seen):
        port = int(url.rpartition(":")[2])
        for raw in (
            b"hello\r\n\r\n",
            b"x" * 100_000,
            b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
        assert seen == []
