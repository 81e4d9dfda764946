"""Schedules over HTTP: what is answered, and what is refused with its place."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from actors.department import kinds_with
from actors.services import Services
from actors.settings import DepartmentSettings
from runtime.console.caller import Console
from runtime.console.settings import ConsoleSettings
from runtime.ids import SYSTEM
from runtime.keys import Role
from runtime.store.contract import Commit, Committed, Put
from tests.http import HttpTroupe
from tests.troupe import LocalTroupe

URL = "/api/agents/backend:acme.api/schedule"


@pytest.fixture
async def ann() -> AsyncIterator[httpx2.AsyncClient]:
    """An admin of an organization with a running scheduler."""
    troupe = LocalTroupe({})
    api = HttpTroupe(troupe.store, troupe.clock, ConsoleSettings(command_wait_s=5.0))
    troupe.start_scheduler()
    async with await api.client(Role.ADMIN) as client:
        yield client
    await troupe.kill_scheduler()
    await troupe.store.close()


async def test_a_schedule_is_answered_with_its_defaults_and_its_next_five_fires(
    ann: httpx2.AsyncClient,
) -> None:
    """Nobody would see what a schedule does before it has done it."""
    body = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "end": "2099-01-01T00:00:00Z"}
    answer = await ann.post(URL, json=body)
    assert answer.status_code == 201, answer.text
    view = answer.json()
    assert (view["status"], view["revision"], view["priority"]) == ("active", 1, "NORMAL")
    assert (view["overlap"], view["catchUp"]["policy"]) == ("skip", "latest")
    assert len(view["next"]) == 5
    assert {fire["local"][11:16] for fire in view["next"]} <= {"02:30", "03:00"}
    assert view["nextRunAt"] == view["next"][0]["utc"]
    assert (await ann.get(URL)).json() == view
    again = await ann.post(URL, json=body)
    assert (again.status_code, again.json()["revision"]) == (200, 1)
    [listed] = (await ann.get("/api/schedules?agent=backend:acme.api")).json()["items"]
    assert listed["id"] == view["id"]


@pytest.mark.parametrize(
    ("body", "code", "position"),
    [
        ({"cron": "61 * * * *"}, "out_of_range", 0),
        ({"cron": "0 0 */2 * 1"}, "ambiguous_day_fields", None),
        ({"interval": "every fortnight"}, "bad_interval", 6),
        ({"interval": "0 9 * * *"}, "wrong_kind", 0),
        ({"at": "2026-03-08T02:30", "timezone": "America/New_York"}, "nonexistent_time", None),
        ({"cron": "0 9 * * *", "timezone": "CET5"}, None, None),
        ({"nightly": "25:00-26:00"}, "bad_window", 0),
        ({"at": "garbage"}, "bad_instant", 0),
        ({"cron": "  61 * * * *"}, "out_of_range", 2),
        ({"cron": "0 9 * * *", "start": ""}, "bad_instant", 0),
        ({"cron": "0 9 * * *", "limitKey": ""}, "bad_text", 0),
        ({"cron": "0 9 * * *", "limitKey": "key\0"}, "bad_text", 3),
        ({"cron": "0 9 * * *", "repository": " "}, "bad_text", 0),
        ({"event": "push", "branch": "ma\nin"}, "bad_text", 2),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_can_not_be_meant_is_refused_with_its_place(
    ann: httpx2.AsyncClient, body: dict[str, Any], code: str | None, position: int | None
) -> None:
    """A schedule would run at times that its author did not mean."""
    answer = await ann.post(URL, json=body)
    problem = answer.json()
    assert answer.status_code == 422
    assert isinstance(problem["position"], int)
    assert problem["errors"][0]["path"] == f"body.{problem['field']}"
    if code is not None:
        assert problem["code"] == code
    if position is not None:
        assert problem["position"] == position
    assert (await ann.get(URL)).status_code == 404


async def test_a_body_says_when_exactly_once(ann: httpx2.AsyncClient) -> None:
    """Two answers to one question."""
    for body in ({}, {"cron": "0 9 * * *", "interval": "PT5M"}, {"cron": "0 9 * * *", "x": 1}):
        assert (await ann.post(URL, json=body)).status_code == 422


@pytest.mark.parametrize("taken", [True, False, "5", " 5 "], ids=repr)
async def test_a_number_is_a_number(ann: httpx2.AsyncClient, taken: Any) -> None:
    """A slip would be a schedule with a jitter of one second, or one attempt."""
    for field in ("jitterS", "maxAttempts", "budgetUsdPerDay"):
        refused = await ann.post(URL, json={"cron": "0 9 * * *", field: taken})
        assert refused.status_code == 422, field
        assert refused.json()["errors"][0]["path"] == f"body.{field}"
        assert refused.json()["errors"][0]["message"] == "a number is due"
    for part in ("windowS", "cap"):
        caught = {"catchUp": {part: taken}}
        assert (await ann.post(URL, json={"cron": "0 9 * * *", **caught})).status_code == 422
    whole = {"cron": "0 9 * * *", "jitterS": 5.0, "budgetUsdPerDay": 2}
    view = (await ann.post(URL, json=whole)).json()
    assert (view["jitterS"], view["budgetUsdPerDay"]) == (5, 2.0)


@pytest.mark.parametrize("taken", [0, 1, "false", "on"], ids=repr)
async def test_a_truth_is_a_truth(ann: httpx2.AsyncClient, taken: Any) -> None:
    """A schedule would be made active, or paused, by what means nothing."""
    for field in ("enabled", "onlyIfChanged"):
        body = {"cron": "0 9 * * *", "repository": "https://git.example/x", field: taken}
        refused = await ann.post(URL, json=body)
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, f"body.{field}")


async def test_what_was_taken_once_is_still_read(ann: httpx2.AsyncClient) -> None:
    """A schedule of before would be an error in each list, and could not be deleted."""
    app: Any = ann._transport.app  # type: ignore[attr-defined]
    store = app.state.console.store
    await ann.post(URL, json={"event": "push", "limitKey": "k", "repository": "r"})
    [stored] = await store.list_documents("schedule", "acme", [], None, 10, False)
    body = stored.body.replace(b'"limitKey":"k"', b'"limitKey":""')
    body = body.replace(b'"repository":"r"', b'"repository":"\\u0000"')
    put = Put("schedule", stored.key, "acme", body, ("agent=backend:acme.api",))
    assert isinstance((await store.commit([Commit("acme", puts=(put,))]))[0], Committed)
    view = (await ann.get(URL)).json()
    assert (view["limitKey"], view["repository"]) == ("", "\0")
    refused = await ann.patch(URL, json={"priority": "HIGH"})
    assert (refused.status_code, refused.json()["field"]) == (422, "repository")


async def test_a_kind_that_nobody_hosts_is_set_with_a_warning(ann: httpx2.AsyncClient) -> None:
    """The first to tell of a slip in an agent's name would be the failed run, at night."""
    body = {"cron": "0 9 * * *"}
    app: Any = ann._transport.app  # type: ignore[attr-defined]
    console: Console = app.state.console
    assert "warning" not in (await ann.post(URL, json=body)).json()
    app.state.console = replace(console, kinds=frozenset({"review"}))
    warned = await ann.post("/api/agents/revue:a/schedule", json=body)
    assert warned.status_code == 201
    assert "`revue`" in warned.json()["warning"]
    assert "warning" not in (await ann.post("/api/agents/review:a/schedule", json=body)).json()
    put = Put("kind", "revue", SYSTEM, b"{}")
    assert isinstance((await console.store.commit([Commit(SYSTEM, puts=(put,))]))[0], Committed)
    again = await ann.post("/api/agents/revue:a/schedule", json=body)
    assert (again.status_code, again.json().get("warning")) == (200, None)


def test_the_kinds_that_replicas_know_are_those_that_hosts_make() -> None:
    """An agent of the department would be warned of."""
    made = kinds_with(Services(DepartmentSettings.from_env({})))
    root = Path(__file__).resolve().parents[2]
    named = (root / "serve_app.py").read_text().partition("KINDS = frozenset({")[2].partition("}")
    assert set(made) == set(re.findall(r'"(\w+)"', named[0]))


async def test_who_sets_what_is_past_is_warned(ann: httpx2.AsyncClient) -> None:
    """A wrong year would be answered as a success, and never run."""
    past = await ann.post(URL, json={"at": "2020-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["status"]) == (201, "ended")
    assert "Nothing is due" in past.json()["warning"]
    over = await ann.post(URL, json={"event": "push", "end": "2020-01-01T00:00:00Z"})
    assert "Nothing is due" in over.json()["warning"]
    for body in ({"at": "2099-01-01T00:00:00Z"}, {"event": "push"}):
        assert "warning" not in (await ann.post(URL, json=body)).json()


async def test_only_pause_and_resume_change_the_status_of_what_is_there(
    ann: httpx2.AsyncClient,
) -> None:
    """Who may change a schedule would do what only admins may."""
    await ann.post(URL, json={"cron": "0 9 * * *", "enabled": False})
    for changes in ({"enabled": True}, {"enabled": True, "cron": "0 8 * * *"}):
        refused = await ann.patch(URL, json=changes)
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong_status")
    assert (await ann.patch(URL, json={"cron": "0 8 * * *"})).json()["status"] == "paused"
    assert (await ann.post(f"{URL}/resume")).json()["status"] == "active"
    assert (await ann.patch(URL, json={"enabled": False})).json()["code"] == "wrong_status"


async def test_a_schedule_keeps_its_name(ann: httpx2.AsyncClient) -> None:
    """Another name would be answered as a success, and left out."""
    await ann.post(URL, json={"cron": "0 9 * * *"})
    renamed = await ann.patch(URL, json={"name": "other"})
    assert (renamed.status_code, renamed.json()["code"]) == (422, "not_changeable")
    assert (await ann.patch(URL, json={"name": "default"})).status_code == 200


@pytest.mark.parametrize(
    "url", ["https://bot:s3cr3t@git.example/x", "https://s3cr3t@git.example/x"]
)
async def test_a_repository_is_named_without_its_secret(ann: httpx2.AsyncClient, url: str) -> None:
    """It would be in the log, in the audit trail and in what viewers see."""
    told = await ann.post("/api/schedules/events", json={"event": "push", "repository": url})
    made = await ann.post(URL, json={"event": "push", "repository": url})
    assert (told.status_code, made.status_code) == (422, 422)
    assert "s3cr3t" not in told.text + made.text
    plain = {"event": "push", "repository": "ssh://git@git.example/x"}
    assert (await ann.post("/api/schedules/events", json=plain)).status_code == 200


@pytest.mark.parametrize("field", ["repository", "branch", "defaultBranch", "commit"])
async def test_what_an_event_names_can_be_read(ann: httpx2.AsyncClient, field: str) -> None:
    """It would be accepted, and start nothing: no schedule can name such a thing."""
    for text in ("", "  ", "a\0b", "a\n"):
        refused = await ann.post("/api/schedules/events", json={"event": "push", field: text})
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["path"].endswith(field)
    told = {"event": "push", field: "feature/é 1"}
    assert (await ann.post("/api/schedules/events", json=told)).status_code == 200


async def test_only_true_lets_a_run_end_before_a_pause(ann: httpx2.AsyncClient) -> None:
    """A schedule would be paused in the middle of what somebody was told is refused."""
    await ann.post(URL, json={"cron": "0 9 * * *"})
    for drain in (1, "yes", "false"):
        assert (await ann.post(f"{URL}/pause", json={"drain": drain})).status_code == 422
    assert (await ann.post(f"{URL}/pause?drain=true")).status_code == 200


async def test_what_an_event_tells_is_no_larger_than_a_payload(ann: httpx2.AsyncClient) -> None:
    """Each of many schedules would have a copy of it, and the store no room for them."""
    event = {"event": "push", "data": {"text": "x" * 16_300}}
    assert (await ann.post("/api/schedules/events", json=event)).status_code == 200
    event["data"] = {"text": "x" * 16_384}
    refused = await ann.post("/api/schedules/events", json=event)
    assert refused.status_code == 422
    assert "16384 bytes" in refused.text


async def test_parts_of_a_schedule_are_changed(ann: httpx2.AsyncClient) -> None:
    """A change of the time would cost the payload, or the other way round."""
    body = {"cron": "0 9 * * *", "payload": {"depth": 2}, "priority": "HIGH"}
    await ann.post(URL, json=body)
    answer = await ann.patch(URL, json={"interval": "PT30M", "reason": "more often"})
    view = answer.json()
    assert answer.status_code == 200, answer.text
    assert (view["interval"], view.get("cron"), view["revision"]) == ("PT30M", None, 2)
    assert (view["payload"], view["priority"]) == ({"depth": 2}, "HIGH")
    assert (view["reason"], view["changedBy"]) == ("more often", "ann")
    assert (await ann.patch(URL, json={"cron": "x"})).status_code == 422
    bounds = {"start": "2027-01-01", "end": "2026-01-01"}
    assert (await ann.patch(URL, json=bounds)).json()["code"] == "bad_bounds"
    both = await ann.patch(URL, json={"at": "2099-01-01T00:00:00Z", "cron": "0 9 * * *"})
    message = both.json()["errors"][0]["message"]
    assert message == "exactly one of cron, interval, at, event, nightly says when"
    revisions = (await ann.get(f"{URL}/revisions")).json()["items"]
    assert [one["revision"] for one in revisions] == [1, 2]
    await ann.patch(URL, json={"catchUp": {"policy": "all", "cap": 3}})
    caught = (await ann.patch(URL, json={"catchUp": {"windowS": 60}})).json()["catchUp"]
    assert caught == {"policy": "all", "windowS": 60, "cap": 3}
    assert (await ann.delete(URL)).status_code == 204
    assert (await ann.get(URL)).status_code == 404
    assert (await ann.get(f"{URL}/revisions")).json()["items"][-1]["until"]


async def test_a_nightly_with_another_time_is_caught_up_as_was_asked(
    ann: httpx2.AsyncClient,
) -> None:
    """What was left of a night would be the window of a daily run ever after."""
    made = (await ann.post(URL, json={"nightly": "01:00-02:00"})).json()
    hour, minute = (int(part) for part in made["next"][0]["utc"][11:16].split(":"))
    assert made["catchUp"]["windowS"] == (120 - hour * 60 - minute) * 60
    wider = (await ann.patch(URL, json={"nightly": "00:00-23:59"})).json()["catchUp"]
    fresh = {"name": "default", "nightly": "00:00-23:59"}
    assert wider == (await ann.post(URL, json=fresh)).json()["catchUp"]
    daily = (await ann.patch(URL, json={"cron": "0 9 * * *"})).json()
    assert daily["catchUp"]["windowS"] == 86_400
    asked = {"nightly": "01:00-02:00", "catchUp": {"windowS": 30}}
    assert (await ann.patch(URL, json=asked)).json()["catchUp"]["windowS"] == 30


async def test_what_is_deleted_is_gone_however_often_it_is_asked_for(
    ann: httpx2.AsyncClient,
) -> None:
    """A repetition whose first answer was lost would look as if nothing had been deleted."""
    assert (await ann.delete(URL)).status_code == 204
    await ann.post(URL, json={"cron": "0 0 1 1 *"})
    key = {"Idempotency-Key": "once"}
    for _ in range(2):
        assert (await ann.delete(URL, headers=key)).status_code == 204
        assert (await ann.get(URL)).status_code == 404
    await ann.post(URL, json={"cron": "0 0 1 1 *"})
    assert (await ann.delete(URL, headers=key)).status_code == 204
    assert (await ann.get(URL)).status_code == 200, "the same request again has no other effect"
    for _ in range(2):
        assert (await ann.delete("/api/registry/services/none")).status_code == 204


async def test_a_request_for_what_was_deleted_since_has_its_answer(ann: httpx2.AsyncClient) -> None:
    """Whoever did not hear that it was done would hear that there was never anything to do."""
    await ann.post(URL, json={"cron": "0 0 1 1 *"})
    key = {"Idempotency-Key": "now"}
    first = await ann.post(f"{URL}/trigger", headers=key)
    assert first.status_code == 200
    await ann.delete(URL)
    again = await ann.post(f"{URL}/trigger", headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert (await ann.post(f"{URL}/trigger")).status_code == 404


async def test_pause_resume_trigger_and_their_ledger(ann: httpx2.AsyncClient) -> None:
    """Operators would have no hand on a schedule, or nobody would know whose it was."""
    await ann.post(URL, json={"cron": "0 0 1 1 *"})
    triggered = (await ann.post(f"{URL}/trigger", json={"reason": "now"})).json()
    assert (await ann.get(f"/api/jobs/{triggered['jobId']}")).status_code == 200
    again = await ann.post(f"{URL}/trigger")
    assert (again.status_code, again.json()["code"]) == (409, "executing")
    paused = await ann.post(f"{URL}/pause?drain=true", json={"reason": "release"})
    assert paused.status_code == 200, paused.text
    assert paused.json()["reason"] == "release"
    assert paused.json().get("nextRunAt") is None
    resumed = (await ann.post(f"{URL}/resume")).json()
    assert resumed["nextRunAt"] == resumed["next"][0]["utc"]
    [occurrence] = (await ann.get(f"{URL}/occurrences")).json()["items"]
    assert (occurrence["outcome"], occurrence["cause"]) == ("fired", "manual")
    one = await ann.get(f"/api/occurrences/{occurrence['id']}")
    assert one.json() == occurrence
    none = (await ann.get(f"{URL}/occurrences?outcome=missed")).json()
    assert none["items"] == []
    trail = (await ann.get("/api/audit")).text
    assert '"command":"schedule.pause"' in trail
    assert '"reason":"release"' in trail


async def test_an_event_reaches_the_schedules_that_wait_for_it(ann: httpx2.AsyncClient) -> None:
    """A push would start nothing."""
    await ann.post(URL, json={"event": "push", "repository": "https://git/x"})
    told = await ann.post(
        "/api/schedules/events",
        json={"event": "push", "repository": "https://git/x", "commit": "abc"},
    )
    assert told.json()["schedules"] == [
        {"agentId": "backend:acme.api", "name": "default", "outcome": "fired"}
    ]
