"""A decision is a person's, for one artifact, taken once, and in one commit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from actors.intake import reviews
from actors.records import Review
from runtime.client import Write
from runtime.keys import Role
from runtime.message import Message
from tests.http import PATCH, HttpTroupe, World, populate


async def decided(api: HttpTroupe, world: World) -> list[Any]:
    """What the issue's agent was told."""
    rows = await api.store.history(f"acme/issue:{world.issue.id}", 0, 10)
    return [Message.from_json(row.body) for row in rows]


def put(review: Review) -> Write:
    terms = {"status": review.status, "issue": review.issue_id}
    return Write("review", review.id, review.to_json(), terms)


async def test_a_review_shows_the_change_and_what_the_gates_say() -> None:
    """Would ask a person to approve what they can't see."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client(Role.VIEWER) as viewer:
        review = (await viewer.get(f"/api/reviews/{world.review.id}")).json()
        assert review["diff"] == PATCH.decode()
        assert review["diffTruncated"] is False
        assert review["gates"]["results"][0]["message"] == "12 passed"
        listed = (await viewer.get("/api/reviews", params={"status": "pending"})).json()
        assert [item["id"] for item in listed["items"]] == [world.review.id]
        for query in ({"status": "approved"}, {"issue": "issue_0"}):
            assert (await viewer.get("/api/reviews", params=query)).json()["items"] == []


async def test_a_change_too_large_to_show_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would let a person approve the first part for the whole."""
    monkeypatch.setattr(reviews, "DIFF_BYTES_MAX", 8)
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client() as ann:
        review = (await ann.get(f"/api/reviews/{world.review.id}")).json()
    assert (review["diff"], review["diffTruncated"]) == (PATCH[:8].decode(), True)


@pytest.mark.parametrize(("verb", "status"), [("approve", "approved"), ("reject", "rejected")])
async def test_a_decision_is_one_commit(verb: str, status: str) -> None:
    """Would record an approval that nobody acts on, or act on one that is not recorded."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client(name="ann") as ann:
        before = (await api.store.health()).commits
        body = {"artifactHash": world.artifact.sha256, "comment": "because"}
        answer = await ann.post(f"/api/reviews/{world.review.id}/{verb}", json=body)
        assert (await api.store.health()).commits == before + 1
    review = answer.json()
    assert (review["status"], review["decidedBy"], review["comment"]) == (status, "ann", "because")
    document = await api.store.get("review", world.review.id)
    assert document and json.loads(document.body) == review
    assert f"status={status}" in document.terms
    [message] = await decided(api, world)
    assert message.message_type == "review.decided"
    assert message.content == {
        "reviewId": world.review.id,
        "approved": status == "approved",
        "artifactHash": world.artifact.sha256,
        "comment": "because",
        "by": "ann",
    }


async def test_another_artifact_than_the_one_under_review_is_a_conflict() -> None:
    """Would deliver a change that was put up after the person looked."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client() as ann:
        for verb in ("approve", "reject"):
            url = f"/api/reviews/{world.review.id}/{verb}"
            answer = await ann.post(url, json={"artifactHash": "0" * 64})
            assert (answer.status_code, answer.json()["code"]) == (409, "artifact_changed")
            for wrong in ("", "x" * 64, world.artifact.sha256.upper(), world.artifact.sha256[:12]):
                assert (await ann.post(url, json={"artifactHash": wrong})).status_code == 422
        gone = world.review.model_copy(update={"status": "superseded"})
        await api.door().commit(writes=[put(gone)])
        body = {"artifactHash": world.artifact.sha256}
        answer = await ann.post(f"/api/reviews/{world.review.id}/approve", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "artifact_changed")
    assert await decided(api, world) == []


async def test_a_review_is_decided_once() -> None:
    """Would turn an approval around after the delivery, or deliver twice."""
    api = HttpTroupe()
    world = await populate(api)
    url, body = f"/api/reviews/{world.review.id}", {"artifactHash": world.artifact.sha256}
    async with await api.client(name="ann") as ann, await api.client(name="bob") as bob:
        first = await ann.post(f"{url}/approve", json=body)
        again = await bob.post(f"{url}/approve", json=body)
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == first.json()
        assert (await api.store.health()).refused == {}
        other = await bob.post(f"{url}/reject", json=body)
        assert (other.status_code, other.json()["code"]) == (409, "already_decided")
    assert len(await decided(api, world)) == 1


async def test_of_two_who_decide_at_once_one_decides() -> None:
    """Would tell the agent both, and leave to chance which one holds."""
    api = HttpTroupe()
    world = await populate(api)
    url, body = f"/api/reviews/{world.review.id}", {"artifactHash": world.artifact.sha256}
    async with await api.client() as ann:
        answers = await asyncio.gather(
            *(ann.post(f"{url}/{verb}", json=body) for verb in ("approve", "reject") * 4)
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [409] * 4
    [message] = await decided(api, world)
    winners = {a.json()["status"] for a in answers if a.is_success}
    assert winners == {"approved" if message.content["approved"] else "rejected"}


async def test_a_review_that_changes_under_the_decision_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Would approve what the agent replaced between the look and the write."""
    api = HttpTroupe()
    world = await populate(api)
    really = reviews._write

    async def late(*args: Any) -> None:
        monkeypatch.setattr(reviews, "_write", really)
        newer = world.review.model_copy(update={"artifact_hash": "0" * 64})
        await api.door().commit(writes=[put(newer)])
        await really(*args)

    monkeypatch.setattr(reviews, "_write", late)
    async with await api.client() as ann:
        body = {"artifactHash": world.artifact.sha256}
        answer = await ann.post(f"/api/reviews/{world.review.id}/approve", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "artifact_changed")
    assert await decided(api, world) == []


@pytest.mark.parametrize("role", list(Role))
async def test_an_agent_never_decides(role: Role) -> None:
    """Would let an agent approve its own work, with whatever role its key was given."""
    api = HttpTroupe()
    world = await populate(api)
    async with await api.client(role, name="agent:code") as agent:
        for verb in ("approve", "reject"):
            body = {"artifactHash": world.artifact.sha256}
            answer = await agent.post(f"/api/reviews/{world.review.id}/{verb}", json=body)
            code = "forbidden" if role is Role.VIEWER else "agents_cannot_decide"
            assert (answer.status_code, answer.json()["code"]) == (403, code)
    assert await decided(api, world) == []


async def test_a_repeated_decision_with_its_key_is_the_same_answer() -> None:
    """Would answer 409 to the repetition of a decision that was taken."""
    api = HttpTroupe()
    world = await populate(api)
    url, body = f"/api/reviews/{world.review.id}", {"artifactHash": world.artifact.sha256}
    async with await api.client() as ann:
        headers = {"Idempotency-Key": "d"}
        first = await ann.post(f"{url}/approve", json=body, headers=headers)
        later = world.review.model_copy(update={"status": "superseded"})
        await api.door().commit(writes=[put(later)])
        again = await ann.post(f"{url}/approve", json=body, headers=headers)
        assert (again.status_code, again.content) == (200, first.content)
        other = await ann.post(f"{url}/reject", json=body, headers={"Idempotency-Key": "d2"})
        assert other.status_code == 409
