"""An issue is accepted once, whole, and only for a repository that may be named."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import pytest

from actors.intake import submission
from actors.records import AgentIssue
from runtime.keys import Role
from runtime.message import Message
from runtime.store.memory import MemoryStore
from tests.http import HttpTroupe, populate

SOURCE = {
    "source": "erp",
    "externalId": "brief-123",
    "type": "bug",
    "priority": "high",
    "title": "Brief PDF export failing for large documents",
    "description": "When exporting briefs with more than 50 pages...",
    "context": {
        "module": "briefs",
        "organizationId": "acme",
        "metadata": {"affectedUsers": ["user_123"], "errorLogs": "..."},
    },
}
PLAIN = {"source": "manual", "title": "It fails"}


class Landing(MemoryStore):
    """Says that it is out although the commit landed, once."""

    armed = False

    async def commit(self, commits: Any) -> Any:
        from runtime.errors import StoreUnavailableError

        answer = await super().commit(commits)
        if self.armed:
            self.armed = False
            raise StoreUnavailableError("the connection broke")
        return answer


async def test_the_sources_request_gets_the_sources_answer() -> None:
    """Would break every ERP that was written against the source documents."""
    api = HttpTroupe()
    async with await api.client() as ann:
        answer = await ann.post("/api/issues", json=SOURCE)
        body = answer.json()
        assert answer.status_code == 202
        assert list(body) == ["id", "status", "jobId", "estimatedWait", "trackingUrl"]
        assert body["id"].startswith("issue_") and body["jobId"].startswith("job_")
        assert body["status"] == "queued"
        assert body["estimatedWait"] == "less than a minute"
        assert body["trackingUrl"] == f"/api/issues/{body['id']}"
        issue = (await ann.get(body["trackingUrl"])).json()
    assert {"id": body["id"], "status": "queued"}.items() <= issue.items()
    assert issue["context"] == {**SOURCE["context"], "affectedFiles": [], "relatedIssues": []}
    assert (issue["declaredType"], issue["organizationId"]) == ("bug", "acme")


async def test_an_accepted_issue_is_one_commit() -> None:
    """Would leave an issue that nobody works on, or work on one that nobody can see."""
    api = HttpTroupe()
    async with await api.client() as ann:
        before = (await api.store.health()).commits
        headers = {"Idempotency-Key": "k"}
        body = (await ann.post("/api/issues", json=SOURCE, headers=headers)).json()
        assert (await api.store.health()).commits == before + 1
    [row] = await api.store.history(f"acme/issue:{body['id']}", 0, 10)
    message = Message.from_json(row.body)
    assert message.message_type == "issue.submitted"
    assert message.content["jobId"] == body["jobId"]
    document = await api.store.get("issue", body["id"])
    assert document is not None
    assert AgentIssue.model_validate(message.content["issue"]).to_json() == document.body
    assert {"status=queued", "type=bug", "source=erp", "module=briefs"} <= {*document.terms}
    assert await api.store.get("external", "acme/erp/brief-123")
    assert await api.store.count("idempotency", "acme") == 1
    feed = await api.store.tail(0, 10, 0, "acme")
    [event] = [entry for entry in feed.entries if entry.event == "issue:created"]
    assert event.rooms == (f"issue:{body['id']}",)
    assert json.loads(event.body)["jobId"] == body["jobId"]


async def test_an_external_id_is_one_issue_for_its_source_and_organization() -> None:
    """Would work twice on what a system sent twice, or mix two systems' ids."""
    api = HttpTroupe()
    async with await api.client() as ann, await api.client(organization="globex") as bob:
        first = await ann.post("/api/issues", json=SOURCE)
        again = await ann.post("/api/issues", json={**SOURCE, "title": "Other words"})
        assert (first.status_code, again.status_code) == (202, 200)
        assert {**again.json(), "estimatedWait": ""} == {**first.json(), "estimatedWait": ""}
        other_source = await ann.post("/api/issues", json={**SOURCE, "source": "manual"})
        context = {**SOURCE["context"], "organizationId": "globex"}  # type: ignore[dict-item]
        elsewhere = await bob.post("/api/issues", json={**SOURCE, "context": context})
    ids = {answer.json()["id"] for answer in (first, other_source, elsewhere)}
    assert len(ids) == 3
    assert await api.store.count("issue") == 3


async def test_of_many_at_once_one_issue_comes() -> None:
    """Would let two requests that arrive together both win."""
    api = HttpTroupe()
    async with await api.client() as ann:
        answers = await asyncio.gather(
            *(ann.post("/api/issues", json={**SOURCE, "title": f"t{n}"}) for n in range(8))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await api.store.count("issue") == 1


async def test_the_same_key_and_body_is_the_same_answer() -> None:
    """Would make a second issue of a request that was only repeated."""
    api = HttpTroupe()
    async with await api.client() as ann:
        spaced = json.dumps(PLAIN, indent=3).encode()
        headers = {"Idempotency-Key": "once", "Content-Type": "application/json"}
        first = await ann.post("/api/issues", json=PLAIN, headers=headers)
        second = await ann.post("/api/issues", content=spaced, headers=headers)
        assert (first.status_code, first.content) == (second.status_code, second.content)
        other = await ann.post("/api/issues", json={**PLAIN, "title": "u"}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await api.store.count("issue") == 1


async def test_a_concurrent_pair_with_one_key_has_one_effect() -> None:
    """Would file two issues when a client gives up waiting and asks again."""
    api = HttpTroupe()
    async with await api.client() as ann:
        headers = {"Idempotency-Key": "once"}
        answers = await asyncio.gather(
            *(ann.post("/api/issues", json=PLAIN, headers=headers) for _ in range(8))
        )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert await api.store.count("issue") == 1


async def test_a_key_is_one_organizations_and_one_routes() -> None:
    """Would answer one organization with what another was answered."""
    api = HttpTroupe()
    headers = {"Idempotency-Key": "once"}
    async with await api.client() as ann, await api.client(organization="globex") as bob:
        first = await ann.post("/api/issues", json=PLAIN, headers=headers)
        other = await bob.post("/api/issues", json=PLAIN, headers=headers)
        assert first.json()["id"] != other.json()["id"]
        said = await ann.post("/api/agents/a:b/messages", json={"content": 1}, headers=headers)
        assert said.status_code == 202


async def test_a_key_is_one_resources_too() -> None:
    """Would answer the cancel of one issue with that of another, and cancel only one."""
    api = HttpTroupe()
    one, two = await populate(api), await populate(api)
    headers = {"Idempotency-Key": "once"}
    async with await api.client() as ann:
        first = await ann.post(f"/api/issues/{one.issue.id}/cancel", headers=headers)
        other = await ann.post(f"/api/issues/{two.issue.id}/cancel", headers=headers)
    assert (first.status_code, other.status_code) == (202, 422)
    assert other.json()["code"] == "idempotency_key_reused"


async def test_a_key_is_one_querys_too() -> None:
    """Would answer a drain of one schedule with the pause of another, and not do it."""
    api = HttpTroupe()
    world = await populate(api)
    url, headers = f"/api/agents/{world.job.agent}/schedule/pause", {"Idempotency-Key": "once"}
    async with await api.client(Role.ADMIN) as ann:
        asked = [{"drain": "true", "name": "default"}, {"name": "default", "drain": "true"}]
        alike = [await ann.post(url, params=query, headers=headers) for query in asked]
        others = [
            await ann.post(url, params=query, headers=headers)
            for query in ({}, {"name": "default"}, {"drain": "false", "name": "default"})
        ]
    assert [answer.status_code for answer in alike] == [202, 202]
    assert {answer.json()["code"] for answer in others} == {"idempotency_key_reused"}
    assert {answer.status_code for answer in others} == {422}


async def test_what_is_kept_of_a_request_without_a_query_stays_as_it_was() -> None:
    """Would refuse a request that is repeated after an update, or with another patience."""
    api = HttpTroupe()
    url, body = "/api/agents/a:b/messages", {"content": 1}
    meant = json.dumps(["POST", url, body], sort_keys=True).encode()
    async with await api.client() as ann:
        for query in ({"wait": "0.01"}, {}):
            await ann.post(url, params=query, json=body, headers={"Idempotency-Key": "once"})
    [record] = await api.store.list_documents("idempotency", "acme", limit=2)
    assert json.loads(record.body)["request"] == hashlib.sha256(meant).hexdigest()
    assert len(await api.store.history("acme/a:b", 0, 10)) == 1


async def test_two_keys_are_none() -> None:
    """Would repeat what the other key had promised to happen once."""
    api = HttpTroupe()
    async with await api.client() as ann:
        headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        answer = await ann.post("/api/issues", json=PLAIN, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert await api.store.count("issue") == 0


async def test_a_commit_that_landed_unheard_is_found_by_its_key() -> None:
    """Would file the issue a second time after a 503 whose commit had landed."""
    store = Landing(HttpTroupe().clock)
    api = HttpTroupe(store)
    async with await api.client() as ann:
        headers = {"Idempotency-Key": "once"}
        store.armed = True
        lost = await ann.post("/api/issues", json=PLAIN, headers=headers)
        assert lost.status_code == 503
        found = await ann.post("/api/issues", json=PLAIN, headers=headers)
    assert found.status_code == 202
    assert await api.store.get("issue", found.json()["id"])
    assert await api.store.count("issue") == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é", "a\tb"])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    """Would ignore it, and so repeat what was to happen once."""
    api = HttpTroupe()
    async with await api.client() as ann:
        headers = {"Idempotency-Key": key.encode("latin-1")}
        answer = await ann.post("/api/issues", json=PLAIN, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "header.Idempotency-Key"


async def test_another_organization_cannot_be_named() -> None:
    """Would file work, and its cost, under a stranger."""
    api = HttpTroupe()
    async with await api.client() as ann:
        body = {**PLAIN, "context": {"organizationId": "globex"}}
        answer = await ann.post("/api/issues", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "foreign_organization")
        absent = {**PLAIN, "context": {"organizationId": "nobody"}}
        assert (await ann.post("/api/issues", json=absent)).content == answer.content
    assert await api.store.count("issue") == 0


async def test_too_many_waiting_issues_are_refused_before_they_are_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Would let one organization fill the store."""
    monkeypatch.setattr(submission, "QUEUED_MAX", 2)
    api = HttpTroupe()
    async with await api.client() as ann, await api.client(organization="globex") as bob:
        assert [
            (await ann.post("/api/issues", json={**PLAIN, "title": f"t{n}"})).status_code
            for n in range(3)
        ] == [202, 202, 429]
        assert (await bob.post("/api/issues", json=PLAIN)).status_code == 202


async def test_issues_that_come_at_once_are_no_more_than_may_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Would let one organization fill the store by asking often at once."""
    monkeypatch.setattr(submission, "QUEUED_MAX", 2)
    api = HttpTroupe()
    async with await api.client() as ann:
        answers = await asyncio.gather(
            *(ann.post("/api/issues", json={**PLAIN, "title": f"t{n}"}) for n in range(20))
        )
    assert sorted(answer.status_code for answer in answers) == [202] * 2 + [429] * 18
    assert await api.store.count("issue") == 2


async def test_lists_filter_by_each_field_and_by_words() -> None:
    """Would answer issues that were not asked for."""
    api = HttpTroupe()
    async with await api.client() as ann:
        await ann.post("/api/issues", json=SOURCE)
        await ann.post("/api/issues", json={**PLAIN, "type": "feature", "priority": "low"})
        for query, count in (
            ({"type": "bug"}, 1), ({"type": "task"}, 0), ({"priority": "low"}, 1),
            ({"priority": "normal"}, 0), ({"module": "briefs"}, 1), ({"source": "manual"}, 1),
            ({"status": "queued"}, 2), ({"status": "failed"}, 0), ({"q": "PDF export"}, 1),
            ({"q": "export pdf 50"}, 1), ({"q": "fails"}, 1), ({"q": "brief-123"}, 1),
            ({"q": "zebra"}, 0), ({"q": "fails", "type": "bug"}, 0), ({}, 2),
        ):  # fmt: skip
            answer = await ann.get("/api/issues", params=query)
            assert (query, len(answer.json()["items"])) == (query, count)


async def test_pages_give_everything_once_in_order() -> None:
    """Would repeat or skip an issue between two pages."""
    api = HttpTroupe()
    async with await api.client() as ann:
        for number in range(7):
            await ann.post("/api/issues", json={**PLAIN, "title": f"t{number}"})
        for query in ({}, {"q": "t"}):
            seen: list[str] = []
            cursor, pages = None, 0
            while pages == 0 or cursor:
                params = {**query, "limit": 3} | ({"cursor": cursor} if cursor else {})
                page = (await ann.get("/api/issues", params=params)).json()
                seen += [issue["id"] for issue in page["items"]]
                cursor, pages = page["nextCursor"], pages + 1
                if pages == 1:  # what comes meanwhile is newer and belongs to no later page
                    await ann.post("/api/issues", json={**PLAIN, "title": "t late"})
            assert len(seen) == len(set(seen)) == 7 + (1 if query else 0)
            assert seen == sorted(seen, reverse=True)
            assert pages == 3


async def test_a_cursor_belongs_to_its_list() -> None:
    """Would misread a place of one list as one of another."""
    api = HttpTroupe()
    async with await api.client() as ann, await api.client(organization="globex") as bob:
        for _ in range(2):
            await ann.post("/api/issues", json=PLAIN)
        cursor = (await ann.get("/api/issues", params={"limit": 1})).json()["nextCursor"]
        for client, path, extra in (
            (ann, "jobs", {}), (ann, "issues", {"type": "bug"}), (bob, "issues", {}),
        ):  # fmt: skip
            answer = await client.get(f"/api/{path}", params={"cursor": cursor, **extra})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
        for junk in ("x", "!!!!", "W10", "bnVsbA", "e30", "W1tbW1tb", "A" * 1_999):
            answer = await ann.get("/api/issues", params={"cursor": junk})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
        mark, _ = json.loads(base64.urlsafe_b64decode(cursor + "==="))
        for place in ("\ud800", "issue_\udfff", 1, None, True, [], {}):
            made_up = base64.urlsafe_b64encode(json.dumps([mark, place]).encode()).decode()
            answer = await ann.get("/api/issues", params={"cursor": made_up.rstrip("=")})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
        for limit in ("0", "201", "-1", "x", "1.5"):
            assert (await ann.get("/api/issues", params={"limit": limit})).status_code == 422


async def test_an_issue_is_answered_with_its_job_in_the_sources_shape() -> None:
    """Would leave the ERP without the progress it shows."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client(Role.VIEWER) as viewer:
        issue = (await viewer.get(f"/api/issues/{world.issue.id}")).json()
    assert issue["job"] == {
        "id": world.job.id,
        "agentType": "code",
        "progress": 0,
        "currentStep": None,
        "logs": [],
    }


async def test_words_reach_the_issues_agent_with_who_said_them() -> None:
    """Would let a caller speak in another's name, or to a closed issue."""
    api = HttpTroupe()
    world = await populate(api)
    url = f"/api/issues/{world.issue.id}"
    async with await api.client(name="ann") as ann:
        body = {"text": "Use the new API", "agentType": "code"}
        said = await ann.post(f"{url}/messages", json=body)
        cancelled = await ann.post(f"{url}/cancel", json={})
        assert (said.status_code, cancelled.status_code) == (202, 202)
        rows = await api.store.history(f"acme/issue:{world.issue.id}", 0, 10)
        sent = [Message.from_json(row.body) for row in rows]
        assert [(m.message_type, m.content) for m in sent] == [
            ("issue.message", {**body, "by": "ann"}),
            ("issue.cancel", {"by": "ann"}),
        ]
        assert said.json()["messageId"] == sent[0].message_id
        for wrong in ({}, {"text": ""}, {"text": "x" * 10_001}, {"text": "x", "agentType": "pm"}):
            assert (await ann.post(f"{url}/messages", json=wrong)).status_code == 422
        closed = world.issue.model_copy(update={"status": "completed"})
        await api.door().commit(writes=[_issue(closed)])
        for verb, body in (("messages", {"text": "x"}), ("cancel", {})):
            answer = await ann.post(f"{url}/{verb}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (409, "issue_closed")


async def test_a_repeated_cancel_is_one_message_even_after_the_issue_is_closed() -> None:
    """Would answer 409 to the repetition of a request that succeeded."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client() as ann:
        url, headers = f"/api/issues/{world.issue.id}/cancel", {"Idempotency-Key": "c"}
        first = await ann.post(url, headers=headers)
        closed = world.issue.model_copy(update={"status": "failed"})
        await api.door().commit(writes=[_issue(closed)])
        again = await ann.post(url, headers=headers)
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert len(await api.store.history(f"acme/issue:{world.issue.id}", 0, 10)) == 1


def _issue(issue: AgentIssue) -> Any:
    from runtime.client import Write

    return Write("issue", issue.id, issue.to_json(), {"status": issue.status})
