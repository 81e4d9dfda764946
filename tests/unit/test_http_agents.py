"""Agents and jobs over HTTP, with a real host and scheduler behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Write
from runtime.clock import SystemClock
from runtime.console import letters
from runtime.console.settings import ConsoleSettings
from runtime.errors import JobFailedError, JobWaiting
from runtime.ids import HOME, SYSTEM
from runtime.job import AgentJob, Job, JobResult, JobStatus
from runtime.keys import Role
from runtime.message import Message
from runtime.store import rules
from runtime.store.contract import Bury, Commit, Fence
from tests.http import HttpTroupe, Yielding, populate
from tests.troupe import LocalTroupe


class Counter(BaseAgent):
    """Counts, refuses, or sleeps, as it is told."""

    kind = "counter"
    role = "counting"
    capabilities = ("count",)

    class State(AgentState):
        total: int = 0

    async def receive_message(self, message: Message) -> Any:
        if message.message_type == "sleep":
            await asyncio.sleep(3600)
        self.state.total += message.content["by"]
        self.record("counted", {"by": message.content["by"]})
        return {"total": self.state.total}

    async def process_task(self, job: Job) -> JobResult:
        if job.record.payload.get("fail"):
            raise JobFailedError("it can't be done")
        if job.record.payload.get("ask"):
            raise JobWaiting("question")
        await job.step("one", _one, request={"n": 1})
        await job.step("large", _large)
        await job.artifact("code_change", "../../etc/x.patch", b"+1", "text/x-diff")
        await job.artifact("analysis", "page.html", b"<script>alert(1)</script>", "text/html")
        if job.record.payload.get("wait"):
            await asyncio.Event().wait()
        return JobResult(outcome="finished", summary="done")


async def _one(_: object) -> dict[str, int]:
    return {"answer": 42}


async def _large(_: object) -> str:
    return "x" * 20_000


class Living:
    def __init__(self, troupe: LocalTroupe, api: HttpTroupe) -> None:
        self.troupe, self.api = troupe, api

    async def job(self, **fields: Any) -> AgentJob:
        """A job of its own agent, queued."""
        door = self.api.door()
        job = AgentJob.new(
            id=self.api.ids.new("job"), organization_id="acme", agent_type="counter",
            now_ms=self.api.clock.now_ms(), **fields,
        )  # fmt: skip
        write = Write("job", job.id, job.to_json(), job_terms(job))
        await door.send("scheduler:main", {"jobId": job.id}, "job.queued", writes=[write])
        return job

    async def until(self, client: Any, path: str, status: str) -> dict[str, Any]:
        """The record once it has the status; the feed tells when to look."""
        cursor = 0
        async with asyncio.timeout(10):
            while True:
                record: dict[str, Any] = (await client.get(path)).json()
                if record.get("status") == status:
                    return record
                cursor = (await self.api.store.tail(cursor, 100, 0.2)).cursor


@pytest.fixture
async def living() -> AsyncIterator[Living]:
    troupe = await LocalTroupe({"counter": Counter}, Yielding(SystemClock())).start()
    settings = ConsoleSettings(command_wait_s=5.0)
    yield Living(troupe, HttpTroupe(troupe.store, troupe.clock, settings))
    await troupe.stop()


async def test_an_agent_is_written_to_answers_and_is_read(living: Living) -> None:
    """Would leave no way to talk to an agent, or to see what it did."""
    async with await living.api.client() as ann:
        url = "/api/agents/counter:a"
        body = {"content": {"by": 2}, "messageType": "increment", "metadata": {"trace": "t1"}}
        assert (await ann.get(url)).status_code == 404
        answer = await ann.post(f"{url}/messages", params={"wait": 5}, json=body)
        assert (answer.status_code, answer.json()["reply"]) == (200, {"total": 2})
        await ann.post(f"{url}/messages", params={"wait": 5}, json=body)
        agent = (await ann.get(url)).json()
        assert {
            "agentId": "counter:a", "kind": "counter", "role": "counting", "status": "idle",
            "capabilities": ["count"], "organizationId": "acme",
        }.items() <= agent.items()  # fmt: skip
        history = (await ann.get(f"{url}/history")).json()["items"]
        assert [event["name"] for event in history] == ["counted", "counted"]
        assert history[1]["patch"] == [["set", ["total"], 4]]
        assert history[1]["data"] == {"by": 2}
        messages = (await ann.get(f"{url}/messages")).json()["items"]
        assert [row["status"] for row in messages] == ["processed", "processed"]
        assert messages[0]["reply"] == {"total": 2}
        assert messages[0]["message"]["metadata"] == {"trace": "t1"}
        assert history[0]["cause"] == messages[0]["message"]["messageId"]
        first = (await ann.get(f"{url}/messages", params={"limit": 1})).json()
        rest = await ann.get(f"{url}/messages", params={"cursor": first["nextCursor"]})
        assert [*first["items"], *rest.json()["items"]] == messages
        assert rest.json()["nextCursor"] is None


async def test_a_repeated_message_is_handled_once_and_answered_alike(living: Living) -> None:
    """Would count twice what was sent once."""
    async with await living.api.client() as ann:
        url = "/api/agents/counter:b/messages"
        sent = {"json": {"content": {"by": 1}}, "headers": {"Idempotency-Key": "k"}}
        answers = await asyncio.gather(
            *(ann.post(url, params={"wait": 5}, **sent) for _ in range(6))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert answers[0].json()["reply"] == {"total": 1}
        unheard = await ann.post(url, **sent)
        assert unheard.status_code == 202
        assert unheard.json()["messageId"] == answers[0].json()["messageId"]


async def test_an_agent_that_takes_its_time_does_not_hold_the_caller(living: Living) -> None:
    """Would hang a client on a slow agent, or lose the message it gave up on."""
    async with await living.api.client() as ann:
        url = "/api/agents/counter:c/messages"
        body = {"content": {}, "messageType": "sleep"}
        answer = await ann.post(url, params={"wait": 0.05}, json=body)
        assert (answer.status_code, answer.json()["accepted"]) == (202, True)
        for wait in ("-1", "31", "x", "nan", "inf"):
            assert (await ann.post(url, params={"wait": wait}, json=body)).status_code == 422


async def test_agents_are_listed_by_kind_role_and_status(living: Living) -> None:
    """Would answer agents that were not asked for."""
    async with await living.api.client() as ann:
        for name in ("a", "b"):
            url = f"/api/agents/counter:{name}/messages"
            await ann.post(url, params={"wait": 5}, json={"content": {"by": 1}})
        for query, names in (
            ({}, ["counter:a", "counter:b"]), ({"kind": "counter"}, ["counter:a", "counter:b"]),
            ({"role": "counting"}, ["counter:a", "counter:b"]), ({"kind": "code"}, []),
            ({"role": "x"}, []), ({"status": "idle"}, ["counter:a", "counter:b"]),
            ({"status": "running"}, []), ({"limit": 1}, ["counter:a"]),
        ):  # fmt: skip
            page = (await ann.get("/api/agents", params=query)).json()
            assert (query, [agent["agentId"] for agent in page["items"]]) == (query, names)


async def test_an_agents_status_is_that_of_its_newest_job_while_none_runs(living: Living) -> None:
    """Would show an agent idle that works, or failing after it was put right."""
    door = living.api.door()
    await door.ask("counter:w", {"by": 1}, wait_s=5)
    for number, (status, shown) in enumerate(
        [
            (JobStatus.PENDING, "queued"), (JobStatus.WAITING, "waiting"),
            (JobStatus.PAUSED, "paused"), (JobStatus.FAILED, "error"),
            (JobStatus.COMPLETED, "idle"), (JobStatus.CANCELLED, "idle"),
            (JobStatus.RUNNING, "running"), (JobStatus.PENDING, "running"),
        ]
    ):  # fmt: skip
        job = AgentJob.new(
            id=f"job_{number}", organization_id="acme", agent_type="counter", now_ms=0,
            agent_id="counter:w", status=status,
        )  # fmt: skip
        await door.commit(writes=[Write("job", job.id, job.to_json(), job_terms(job))])
        async with await living.api.client() as ann:
            agent = (await ann.get("/api/agents/counter:w")).json()
            assert (agent["status"], agent["jobId"]) == (shown, job.id)
            found = (await ann.get("/api/agents", params={"status": shown})).json()["items"]
            assert [one["agentId"] for one in found] == ["counter:w"]


async def test_a_job_shows_its_steps_work_products_and_status(living: Living) -> None:
    """Would leave a person blind to what a job did."""
    job = await living.job()
    async with await living.api.client() as ann:
        url = f"/api/jobs/{job.id}"
        await living.until(ann, url, "completed")
        steps = (await ann.get(f"{url}/journal")).json()["items"]
        assert [(s["number"], s["key"], s["done"]) for s in steps] == [
            (1, "one", True), (2, "large", True),
        ]  # fmt: skip
        assert (steps[0]["request"], steps[0]["result"]) == ({"n": 1}, {"answer": 42})
        assert "result" not in steps[1] and steps[1]["resultBytes"] == 20_002
        first = (await ann.get(f"{url}/journal", params={"limit": 1})).json()
        rest = await ann.get(f"{url}/journal", params={"cursor": first["nextCursor"]})
        assert [*first["items"], *rest.json()["items"]] == steps
        artifacts = (await ann.get(f"{url}/artifacts")).json()["items"]
        assert {one["type"] for one in artifacts} == {"code_change", "analysis"}
        diff = await ann.get(f"{url}/diff")
        assert (diff.text, diff.headers["content-type"]) == ("+1", "text/x-diff; charset=utf-8")
        assert (await ann.get("/api/jobs", params={"status": "completed"})).json()["items"]
        assert not (await ann.get("/api/jobs", params={"agentType": "code"})).json()["items"]


async def test_what_an_agent_made_is_a_download_no_browser_runs(living: Living) -> None:
    """Would run an agent's script with the reader's rights, or write where its name says."""
    job = await living.job()
    async with await living.api.client() as ann:
        url = f"/api/jobs/{job.id}"
        await living.until(ann, url, "completed")
        for one in (await ann.get(f"{url}/artifacts")).json()["items"]:
            answer = await ann.get(f"{url}/artifacts/{one['sha256']}")
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["content-disposition"].startswith("attachment; filename*=utf-8''")
            assert "/" not in answer.headers["content-disposition"]
            assert "sandbox" in answer.headers["content-security-policy"]
        assert (await ann.get(f"{url}/artifacts/{'0' * 64}")).status_code == 404
        assert (await ann.get(f"{url}/artifacts/..%2f..%2fetc")).status_code == 404
        assert (await ann.get(f"{url}/artifacts/x")).status_code == 422


async def test_content_of_another_job_is_not_had_through_this_one(living: Living) -> None:
    """Would serve whatever hash is named to whoever has any job."""
    world = await populate(living.api)
    job = await living.job()
    async with await living.api.client() as ann:
        await living.until(ann, f"/api/jobs/{job.id}", "completed")
        answer = await ann.get(f"/api/jobs/{job.id}/artifacts/{world.artifact.sha256}")
    assert answer.status_code == 404


async def test_a_running_job_is_cancelled_once(living: Living) -> None:
    """Would leave a person without a brake."""
    job = await living.job(payload={"wait": True})
    async with await living.api.client() as ann:
        url = f"/api/jobs/{job.id}"
        await living.until(ann, url, "running")
        answer = await ann.post(f"{url}/resume")
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_status")
        answer = await ann.post(f"{url}/cancel", json={}, headers={"Idempotency-Key": "c"})
        assert (answer.status_code, answer.json()["jobId"]) == (200, job.id)
        await living.until(ann, url, "cancelled")
        again = await ann.post(f"{url}/cancel", json={}, headers={"Idempotency-Key": "c"})
        assert (again.status_code, again.content) == (200, answer.content)
        fresh = await ann.post(f"{url}/cancel")
        assert (fresh.status_code, fresh.json()["code"]) == (409, "already_ended")
        assert (await ann.post("/api/jobs/job_0/cancel")).status_code == 404


async def test_a_queued_job_is_paused_and_goes_on(living: Living) -> None:
    """Would run a job that a person had stopped, or never run it again."""
    root = await living.api.client(Role.ADMIN, HOME)
    async with root, await living.api.client() as ann:
        await root.post("/api/scheduler/pause")
        job = await living.job()
        url = f"/api/jobs/{job.id}"
        paused = await ann.post(f"{url}/pause")
        assert (paused.status_code, paused.json()["status"]) == (200, "paused")
        await root.post("/api/scheduler/resume")
        assert (await ann.get(url)).json()["status"] == "paused"
        resumed = await ann.post(f"{url}/resume")
        assert (resumed.status_code, resumed.json()["status"]) == (200, "pending")
        await living.until(ann, url, "completed")
        retried = await ann.post(f"{url}/retry")
        assert (retried.status_code, retried.json()["code"]) == (409, "wrong_status")


async def test_the_scheduler_is_stopped_by_an_admin_and_says_so(living: Living) -> None:
    """Would start jobs although they were stopped, or not tell who stopped them."""
    root = await living.api.client(Role.ADMIN, HOME, "root")
    async with root, await living.api.client() as ann:
        assert (await root.get("/api/scheduler/status")).json()["state"] == "IDLE"
        paused = await root.post("/api/scheduler/pause")
        assert paused.status_code == 200
        status = (await root.get("/api/agents/scheduler/status")).json()
        assert (status["state"], status["changedBy"]) == ("PAUSED", "root")
        job = await living.job()
        assert (await ann.get(f"/api/jobs/{job.id}")).json()["status"] == JobStatus.PENDING
        await root.post("/api/scheduler/resume")
        await living.until(ann, f"/api/jobs/{job.id}", "completed")


async def test_a_scheduler_that_is_silent_takes_commands_all_the_same() -> None:
    """Would lose a cancel because the scheduler was being restarted."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client() as ann:
        answer = await ann.post(f"/api/jobs/{world.job.id}/cancel")
        assert (answer.status_code, answer.json()["accepted"]) == (202, True)
    [asked] = [
        Message.from_json(row.body)
        for row in await api.store.history(f"{SYSTEM}/scheduler:main", 0, 10)
    ]
    assert asked.message_type == "job.cancel"
    assert asked.content == {"jobId": world.job.id, "organizationId": "acme", "by": "ann"}


async def test_looking_at_the_scheduler_costs_it_nothing(living: Living) -> None:
    """Would fill the scheduler's inbox, for ever, with the looks of whoever watches."""
    job = await living.job(payload={"ask": True})
    async with await living.api.client(Role.VIEWER) as ann:
        await living.until(ann, f"/api/jobs/{job.id}", "waiting")
        said = await living.troupe.client(HOME).ask("scheduler:main", {}, "scheduler.status")
        before = (await living.api.store.health()).commits
        known = [(await ann.get("/api/scheduler/status")).json() for _ in range(20)][-1]
        assert (await living.api.store.health()).commits == before
    assert {"ok": True, **known} == said, "it is what the scheduler itself says"
    assert (known["state"], known["waiting"], known["maxConcurrent"]) == ("IDLE", 1, 5)
    assert known["limits"] == {"organization": 5, "repository": 0, "agent": 1, "key": 1}


async def test_who_stopped_the_scheduler_is_told_at_home_only(living: Living) -> None:
    """Would show one organization the names of another's people."""
    root = await living.api.client(Role.ADMIN, HOME, "root")
    async with root, await living.api.client(Role.ADMIN) as ann:
        await root.post("/api/scheduler/pause", json={"reason": "acme owes us"})
        ours = (await root.get("/api/scheduler/status")).json()
        theirs = (await ann.get("/api/scheduler/status")).json()
        told = (await living.api.store.tail(0, 100, 0)).entries
        trail = (await root.get("/api/audit")).text
        await root.post("/api/scheduler/resume", json={"reason": "paid"})
        after = (await root.get("/api/scheduler/status")).json()
    assert (ours["state"], ours["changedBy"]) == ("PAUSED", "root")
    assert ours["reason"] == "acme owes us"
    assert after["reason"] == "paid"
    assert theirs == {**ours, "changedBy": HOME, "reason": ""}
    assert not any("owes" in str(one) for one in told), "of the system, so everybody's"
    [line] = [json.loads(line) for line in trail.splitlines() if "scheduler.pause" in line][-1:]
    assert (line["by"], line["reason"]) == ("root", "acme owes us")


async def test_why_an_agent_is_held_is_told(living: Living) -> None:
    """Its jobs would wait for ever, and nobody could see for what."""
    async with await living.api.client(Role.ADMIN) as ann:
        url = "/api/agents/counter:held"
        failing = [
            await living.job(agent_id="counter:held", payload={"fail": True}) for _ in range(2)
        ]
        for job in failing:
            await living.until(ann, f"/api/jobs/{job.id}", "failed")
        found = (await ann.get(url)).json()
        assert (found["status"], found["hold"]["by"]) == ("paused", "scheduler")
        assert found["hold"]["reason"] == "failed_twice"
        assert "it can't be done" in found["hold"]["error"]
        assert found["hold"]["jobId"] in {job.id for job in failing}
        assert (await ann.post(f"{url}/resume", json={"reason": "mended"})).status_code == 200
        assert "hold" not in (await ann.get(url)).json()
        await ann.post(f"{url}/pause", json={"reason": "too dear"})
        hold = (await ann.get(url)).json()["hold"]
        assert (hold["by"], hold["reason"], hold.get("jobId")) == ("ann", "too dear", None)
        lines = [json.loads(line) for line in (await ann.get("/api/audit")).text.splitlines()]
    asked = [(one["command"], one["reason"]) for one in lines if one["type"] == "command"]
    assert asked == [("agent.resume", "mended"), ("agent.pause", "too dear")]


async def test_a_letter_for_a_full_inbox_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was answered as if somebody else had changed it, though it only has to wait."""
    api = HttpTroupe()
    world = await populate(api)
    address = f"acme/{world.agent}"
    incarnation = await api.store.register("h", "h", 5)
    [claimed] = await api.store.claim("h", 1, [address])
    bury = Bury(claimed.inbox[0].message_id, "boom")
    fence = Fence(incarnation, claimed.epoch)
    await api.store.commit([Commit("acme", address, fence, buries=(bury,))])
    monkeypatch.setattr(rules, "INBOX_MAX", 0)
    async with await api.client() as ann:
        [letter] = (await ann.get("/api/dead-letters")).json()["items"]
        full = await ann.post(f"/api/dead-letters/{letter['id']}/redeliver")
        assert (full.status_code, full.json()["code"]) == (429, "inbox_full")
        assert full.headers["Retry-After"]
        assert len((await ann.get("/api/dead-letters")).json()["items"]) == 1


async def test_nobody_says_in_metadata_that_a_message_was_redelivered() -> None:
    """The audit trail would have it that another person had put words into a message."""
    api = HttpTroupe()
    async with await api.client() as ann:
        body = {"content": {}, "metadata": {"redelivered": {"by": "bob", "edited": True}}}
        assert (await ann.post("/api/agents/code:a/messages", json=body)).status_code == 422


async def test_a_dead_message_is_tried_once_more_and_once_only() -> None:
    """Would lose what was given up, or handle it as often as somebody clicks."""
    api = HttpTroupe()
    world = await populate(api)
    address = f"acme/{world.agent}"
    incarnation = await api.store.register("h", "h", 5)
    [claimed] = await api.store.claim("h", 1, [address])
    dead = claimed.inbox[0].message_id
    fence = Fence(incarnation, claimed.epoch)
    await api.store.commit([Commit("acme", address, fence, buries=(Bury(dead, "boom"),))])
    async with await api.client() as ann:
        [letter] = (await ann.get("/api/dead-letters")).json()["items"]
        assert (letter["agent"], letter["error"], letter["messageId"]) == (
            world.agent, "boom", dead,
        )  # fmt: skip
        assert (await ann.get("/api/dead-letters?agent=code:none")).json()["items"] == []
        assert (await ann.get(f"/api/dead-letters?agent={letter['agent']}")).json()["items"]
        opened = (await ann.get(f"/api/dead-letters/{letter['id']}")).json()
        sent = json.loads(claimed.inbox[0].body)
        assert opened == {
            **letter, "messageType": sent["messageType"], "payload": sent["content"],
        }  # fmt: skip
        url = f"/api/dead-letters/{letter['id']}/redeliver"
        headers = {"Idempotency-Key": "r"}
        answers = await asyncio.gather(*(ann.post(url, headers=headers) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.content for answer in answers}) == 1
        assert (await ann.get("/api/dead-letters")).json()["items"] == []
        assert (await ann.post(url)).status_code == 404
        for wrong in ("x", "!", "a" * 999, "L3g"):
            assert (await ann.post(f"/api/dead-letters/{wrong}/redeliver")).status_code == 404
    [again] = await api.store.inbox(address, 0, 10)
    old, new = [json.loads(row.body) for row in await api.store.history(address, 0, 10)]
    metadata = new.pop("metadata")
    assert new == {
        **{k: v for k, v in old.items() if k != "metadata"},
        "messageId": again.message_id,
    }
    told = {"messageId": old["messageId"], "by": "ann", "edited": False}
    assert metadata == {**(old.get("metadata") or {}), "redelivered": told}
    assert again.sender == "acme/client:test"


async def test_what_is_redelivered_may_be_mended() -> None:
    """What failed for what it says would fail as often as it is redelivered."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client() as ann:
        url = f"/api/dead-letters/{letters.letter_id(world.letter)}/redeliver"
        assert (await ann.post(url, json={"content": 1})).status_code == 422
        assert (await ann.post(url, json={"payload": {"by": 7}})).status_code == 202
    *_, again = await api.store.history(f"acme/{world.agent}", 0, 10)
    assert json.loads(again.body)["content"] == {"by": 7}


async def test_of_many_who_redeliver_at_once_one_does() -> None:
    """Would handle a message as often as somebody clicks."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client() as ann:
        url = f"/api/dead-letters/{letters.letter_id(world.letter)}/redeliver"
        answers = await asyncio.gather(*(ann.post(url) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] + [404] * 5
    assert len(await api.store.history(f"acme/{world.agent}", 0, 10)) == 2


async def test_a_dead_job_is_tried_again_by_the_scheduler(living: Living) -> None:
    """Would leave a job that failed for good without a way back."""
    job = await living.job(payload={"fail": True})
    async with await living.api.client() as ann:
        await living.until(ann, f"/api/jobs/{job.id}", "failed")
        listed = (await ann.get("/api/dead-letters")).json()["items"]
        [letter] = [one for one in listed if one.get("jobId") == job.id]
        answer = await ann.post(f"/api/dead-letters/{letter['id']}/redeliver")
        assert (answer.status_code, answer.json()["status"]) == (200, "pending")


async def test_a_dead_job_is_redelivered_with_another_payload_as_another_job(
    living: Living,
) -> None:
    """Its recorded steps would be taken for those of the new payload."""
    job = await living.job(payload={"fail": True})
    async with await living.api.client() as ann:
        await living.until(ann, f"/api/jobs/{job.id}", "failed")
        url = f"/api/dead-letters/{letters.letter_id('job/' + job.id)}/redeliver"
        opened = (await ann.get(url.removesuffix("/redeliver"))).json()
        assert (opened["jobId"], opened["payload"]) == (job.id, {"fail": True})
        wrong = await ann.post(url, json={"payload": "text"})
        assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "body.payload")
        answer = (await ann.post(url, json={"payload": {}})).json()
        assert answer["jobId"] != job.id
        await living.until(ann, f"/api/jobs/{answer['jobId']}", "completed")
        assert (await ann.get(f"/api/jobs/{job.id}")).json()["status"] == "failed"
        assert (await ann.post(url, json={"payload": {}})).status_code == 404


async def test_of_many_who_redeliver_a_job_at_once_one_does(living: Living) -> None:
    """Would run the job as often as somebody clicks, or forget what a repeated request did."""
    one, other = [await living.job(payload={"fail": True}) for _ in range(2)]
    root = await living.api.client(Role.ADMIN, HOME)
    async with root, await living.api.client() as ann:
        for job in (one, other):
            await living.until(ann, f"/api/jobs/{job.id}", "failed")
        await root.post("/api/scheduler/pause")
        url = f"/api/dead-letters/{letters.letter_id('job/' + one.id)}/redeliver"
        answers = await asyncio.gather(*(ann.post(url) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [200] + [404] * 5
        assert (await ann.get(f"/api/jobs/{one.id}")).json()["status"] == "pending"
        url = f"/api/dead-letters/{letters.letter_id('job/' + other.id)}/redeliver"
        first, again = [await ann.post(url, headers={"Idempotency-Key": "r"}) for _ in range(2)]
        assert (first.status_code, again.content) == (200, first.content)
        assert (await ann.post(url)).status_code == 404
        assert (await ann.get("/api/dead-letters")).json()["items"] == []
