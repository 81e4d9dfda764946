"""What is sent is bounded, means one thing, and says nothing that is not asked for."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.agent import job_terms
from runtime.client import Write
from runtime.console import paging
from runtime.console.body import BODY_BYTES_MAX, DEPTH_MAX, check_json
from runtime.console.problems import ProblemError
from runtime.ids import HOME
from runtime.job import AgentJob
from runtime.keys import Role
from tests.http import ORGANIZATION, HttpTroupe, World, populate
from tests.troupe import soon

JSON = {"Content-Type": "application/json"}
SAY = "/api/agents/counter:a/messages"


def deep(depth: int) -> bytes:
    """A message whose whole body nests `depth` deep."""
    return b'{"content":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


async def post(body: bytes, url: str = SAY, **headers: str) -> Any:
    api = HttpTroupe()
    async with await api.client() as ann:
        answer = await ann.post(url, content=body, headers={**JSON, **headers})
    accepted = await api.store.history("acme/counter:a", 0, 10)
    assert bool(accepted) == answer.is_success, "refused and yet accepted"
    return answer


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_json"),
        (b"\xff\xfe", "malformed_json"),
        (b'{"content":1}}', "malformed_json"),
        (b"\x00", "malformed_json"),
        (b'\xef\xbb\xbf{"content":1}', "malformed_json"),
        (b"{'content': 1}", "malformed_json"),
        (b'{"content": NaN}', "malformed_json"),
        (b'{"content": -Infinity}', "malformed_json"),
        (b'{"content": 1e999}', "malformed_json"),
        (b'{"content": 9223372036854775808}', "malformed_json"),
        (b'{"content": ' + b"9" * 10_000 + b"}", "malformed_json"),
        (b'{"content": 1, "content": 2}', "malformed_json"),
        (b'{"content": {"a": {"b": 1, "b": 1}}}', "malformed_json"),
        (b'{"content": "\\ud800"}', "malformed_json"),
        (b'{"content": {"\\uDFFF": 1}}', "malformed_json"),
        (deep(DEPTH_MAX + 1), "json_too_deep"),
        (b"[" * 500_000, "json_too_deep"),
        (b'{"a":' * 100_000, "json_too_deep"),
    ],
)
async def test_what_two_readers_could_read_differently_is_refused(body: bytes, code: str) -> None:
    """Would accept a body that a later reader takes for another one, or dies of."""
    answer = await post(body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize(
    "body",
    [
        deep(DEPTH_MAX),
        b'{"content": "[[[[[[[[' + b"[" * 200 + b'"}',
        b'{"content": "\\"' + b"[" * 200 + b'"}',
        b'{"content": "\\ud83d\\ude00"}',
        b'{"content": 9223372036854775807}',
        b'{"content": {"a": {"x": 1}, "b": {"x": 1}}}',
        b'  {"content": null}\n',
    ],
)
async def test_what_is_unusual_but_clear_is_accepted(body: bytes) -> None:
    """Would refuse brackets in a string, an emoji or a large number."""
    assert (await post(body)).status_code == 202


async def test_a_body_of_just_the_limit_is_read_and_one_byte_more_is_not() -> None:
    """Would buffer whatever is sent, or refuse what was promised to fit."""
    head, tail = b'{"content":"', b'"}'
    full = head + b"x" * (BODY_BYTES_MAX - len(head) - len(tail)) + tail
    assert len(full) == BODY_BYTES_MAX
    assert (await post(full)).status_code == 202
    answer = await post(full + b" ")
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_body_that_only_claims_to_be_large_is_refused_unread() -> None:
    """Would read a gigabyte to find out that it is one."""
    answer = await post(b"", **{"Content-Length": str(BODY_BYTES_MAX + 1)})
    assert answer.status_code == 413
    assert (await post(b"", **{"Content-Length": "9" * 30})).status_code == 413
    assert (await post(b"", **{"Content-Length": "-1"})).status_code == 400


async def test_a_body_without_a_length_is_bounded_too() -> None:
    """Would buffer a chunked body without end."""
    read = 0

    async def endless() -> Any:
        nonlocal read
        while True:
            read += 1
            yield b" " * 65_536

    api = HttpTroupe()
    async with await api.client() as ann:
        answer = await ann.post(SAY, content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert read <= BODY_BYTES_MAX // 65_536 + 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
    ],
)
async def test_only_plain_json_is_read(headers: dict[str, str]) -> None:
    """Would let a browser's form act, or a small body unpack to a large one."""
    body = gzip.compress(b'{"content":1}') if "Content-Encoding" in headers else b'{"content":1}'
    answer = await post(body, **headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_body_of_two_types_is_of_none() -> None:
    """What looks at the first and what looks at the last would read two bodies."""
    api = HttpTroupe()
    both = [("Content-Type", "text/plain"), ("Content-Type", "application/json")]
    async with await api.client() as ann:
        for headers in (both, both[::-1]):
            answer = await ann.post(SAY, content=b'{"content":1}', headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@given(st.binary(max_size=200))
def test_check_json_accepts_only_what_the_parser_accepts(body: bytes) -> None:
    """Would let a body pass here that fails further in, as a fault of ours."""
    try:
        check_json(body)
    except ProblemError as error:
        assert error.status == 400
    else:
        json.dumps(json.loads(body), allow_nan=False)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES, st.booleans())
def test_every_json_value_is_accepted(value: Any, ascii_only: bool) -> None:
    """Would refuse something that JSON can say."""
    check_json(json.dumps(value, ensure_ascii=ascii_only).encode())


def test_checking_is_linear_in_the_body() -> None:
    """Would let one request of a megabyte stop the process for minutes."""
    for body in (b'"' + b'\\"' * 500_000, b'"' + b'\\"' * 500_000 + b"\\", b'""' * 500_000):
        with pytest.raises(ProblemError):
            check_json(body)


# Fields nobody may set

FORBIDDEN = {
    "id": "issue_mine", "organizationId": "globex", "orgId": "globex", "role": "admin",
    "status": "completed", "approvedBy": "eve", "decidedBy": "eve", "epoch": 9, "costUsd": 0,
    "createdAt": "2020-01-01", "jobId": "job_mine", "reviewId": "r", "resolution": {},
    "classification": {}, "paused": False, "sender": "scheduler:main", "by": "boss",
    "declaredType": "bug", "__proto__": {}, "expiresAtMs": 1,
}  # fmt: skip


def bodies(world: World) -> list[tuple[str, str, dict[str, Any]]]:
    """Every route that takes a body, with one it would accept."""
    decision = {"artifactHash": world.artifact.sha256}
    issue = f"/api/issues/{world.issue.id}"
    job = f"/api/jobs/{world.job.id}"
    return [
        ("POST", "/api/issues", {"source": "manual", "title": "t"}),
        ("POST", f"{issue}/messages", {"text": "t"}),
        ("POST", f"{issue}/cancel", {}),
        ("POST", f"/api/reviews/{world.review.id}/approve", decision),
        ("POST", f"/api/reviews/{world.review.id}/reject", decision),
        ("POST", f"/api/agents/{world.agent}/messages", {"content": 1}),
        *(("POST", f"/api/agents/{world.agent}/{verb}", {}) for verb in ("pause", "resume")),
        *(("POST", f"{job}/{verb}", {}) for verb in ("pause", "resume", "cancel", "retry")),
        *(("POST", f"/api/scheduler/{verb}", {}) for verb in ("pause", "resume", "drain")),
        ("POST", "/api/registry/services", {"serviceId": "new"}),
        ("PATCH", f"/api/registry/services/{world.service}", {}),
        ("POST", "/api/registry/discover", {"criteria": {}}),
        ("POST", "/api/dead-letters/x/redeliver", {}),
    ]


async def test_no_body_sets_what_it_is_not_asked_for() -> None:
    """Would let a caller write who approved, what it cost, or whose it is."""
    api = HttpTroupe()
    world = await populate(api)
    ann, root = [await api.client(Role.ADMIN, whose) for whose in (ORGANIZATION, HOME)]
    before = (await api.store.health()).commits
    tried = 0
    async with ann, root:
        for method, url, good in bodies(world):
            who = root if "/scheduler/" in url else ann
            for name, value in FORBIDDEN.items():
                answer = await who.request(method, url, json={**good, name: value})
                assert answer.status_code == 422, (url, name, answer.text)
                error = answer.json()["errors"][0]
                assert (error["path"], error["code"]) == (f"body.{name}", "extra_forbidden")
                tried += 1
    assert tried == len(FORBIDDEN) * len(bodies(world))
    assert (await api.store.health()).commits == before


async def test_unknown_fields_are_refused_at_every_depth_and_in_queries() -> None:
    """Would ignore a misspelt filter and answer everything."""
    api = HttpTroupe()
    async with await api.client() as ann:
        body = {"source": "manual", "title": "t", "context": {"modul": "crm"}}
        answer = await ann.post("/api/issues", json=body)
        assert answer.json()["errors"][0]["path"] == "body.context.modul"
        for path in ("issues", "jobs", "agents", "reviews", "dead-letters", "registry/services"):
            answer = await ann.get(f"/api/{path}", params={"stat": "x"})
            assert (path, answer.status_code) == (path, 422)
            assert answer.json()["errors"][0]["path"] == "query.stat"
        assert (await ann.get("/api/events", params={"room": "x"})).status_code == 422


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/api/agents/counter:a/schedule?nmae=nightly"),
        ("DELETE", "/api/agents/counter:a/schedule?Name=nightly"),
        ("POST", "/api/agents/counter:a/schedule?name=nightly"),  # its body names it
        ("POST", "/api/agents/counter:a/schedule/pause?drian=true"),
        ("POST", "/api/issues?wait=5"),
        ("GET", "/api/jobs/job_0?x="),
        ("GET", "/api/scheduler/status?organization=globex"),
        ("GET", "/api/health?verbose=1"),
        ("DELETE", "/api/registry/services/billing?force=true"),
    ],
)
async def test_a_parameter_that_a_route_does_not_have_is_refused(method: str, url: str) -> None:
    """A misspelt name would delete the schedule that is called `default`."""
    api = HttpTroupe()
    async with await api.client(Role.ADMIN) as ann:
        body = {"cron": "0 3 * * *"} if url.endswith("name=nightly") and method == "POST" else None
        answer = await ann.request(method, url, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    name = url.partition("?")[2].partition("=")[0]
    assert {"query." + name} == {
        one["path"] for one in answer.json()["errors"] if one["code"] == "extra_forbidden"
    }


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/api/jobs?limit=1&limit=2", "limit"),
        ("/api/issues?status=queued&status=queued", "status"),
        ("/api/agents?kind=a&role=b&kind=c", "kind"),
        ("/api/events?rooms=job:a&rooms=job:b", "rooms"),
        ("/api/agents/counter:a/schedule?name=one&name=two", "name"),
        ("/api/agents/counter:a/sessions?limit=1&limit=", "limit"),
    ],
)
async def test_a_parameter_that_comes_twice_is_refused(url: str, name: str) -> None:
    """Would follow one room, or act on one schedule, of the two that were named."""
    api = HttpTroupe()
    async with await api.client() as ann:
        answer = await soon(ann.get(url))  # a stream that is let pass has no end
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    [error] = answer.json()["errors"]
    assert (error["path"], error["code"]) == (f"query.{name}", "repeated_parameter")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"title": 7}, "body.title"),
        ({"title": None}, "body.title"),
        ({"title": "   "}, "body.title"),
        ({"source": "slack"}, "body.source"),
        ({"priority": "urgent"}, "body.priority"),
        ({"type": ["bug"]}, "body.type"),
        ({"description": {"a": 1}}, "body.description"),
        ({"context": "crm"}, "body.context"),
        ({"context": {"affectedFiles": "a.py"}}, "body.context.affectedFiles"),
        ({"context": {"metadata": []}}, "body.context.metadata"),
        ({"context": {"repository": 1}}, "body.context.repository"),
        ({"externalId": ""}, "body.externalId"),
    ],
)
async def test_a_wrong_field_is_named(fields: dict[str, Any], path: str) -> None:
    """Would leave the sender guessing which field is wrong, or store it."""
    api = HttpTroupe()
    async with await api.client() as ann:
        body = {"source": "manual", "title": "t", **fields}
        answer = await ann.post("/api/issues", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == path
    assert await api.store.count("issue") == 0


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"true", b""])
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    """Would fail on a list or on nothing at all."""
    api = HttpTroupe()
    async with await api.client() as ann:
        assert (await ann.post("/api/issues", content=body, headers=JSON)).status_code == 422


async def test_an_answer_never_repeats_what_was_sent() -> None:
    """Would carry a secret, or a script, from a wrong request into logs and pages."""
    api = HttpTroupe()
    canary = "<script>canary</script>"
    async with await api.client() as ann:
        answers = [
            await ann.post("/api/issues", json={"source": canary, "title": canary}),
            await ann.post("/api/issues", content=canary.encode(), headers=JSON),
            await ann.get("/api/jobs", params={"status": canary}),
            await ann.get("/api/jobs", params={"cursor": canary}),
            await ann.get("/api/events", params={"cursor": "x" * 200 + canary}),
        ]
    assert [answer.status_code for answer in answers] == [422, 400, 422, 422, 422]
    assert not [answer.text for answer in answers if "canary" in answer.text]


@pytest.mark.parametrize("listing", ["agents/counter:a/messages", "jobs"])
async def test_a_page_is_no_larger_than_many_can_be_given_at_once(
    listing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request for 200 items of a mebibyte would stop a replica for seconds."""
    monkeypatch.setattr(paging, "PAGE_BYTES_MAX", 2_500)
    api = HttpTroupe()
    for number, weight in enumerate((1_000, 1_000, 1_000, 9_000, 10)):
        payload = {"text": "x" * weight, "number": number}
        job = AgentJob.new(
            id=f"job_{9 - number}", organization_id=ORGANIZATION, agent_type="worker", now_ms=0,
            payload=payload,
        )  # fmt: skip
        write = Write("job", job.id, job.to_json(), job_terms(job))
        await api.door().send("counter:a", payload, writes=[write])
    pages: list[list[int]] = []
    cursor: dict[str, str] = {}
    async with await api.client() as ann:
        while len(pages) < 6:
            page = (await ann.get(f"/api/{listing}", params={"limit": 100, **cursor})).json()
            items = [one.get("payload") or one["message"]["content"] for one in page["items"]]
            pages.append([item["number"] for item in items])
            cursor = {"cursor": page["nextCursor"]} if page["nextCursor"] else {}
            if not cursor:
                break
    assert [number for page in pages for number in page] == list(range(5))
    assert [3] in pages, "what is larger than a page comes alone"
    assert max(map(len, pages)) <= 2
