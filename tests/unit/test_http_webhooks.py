"""Pushes that GitHub delivers: signed, told to the schedules once, and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from actors.intake.routes import routes
from actors.intake.settings import IntakeSettings
from runtime.console.app import create_app
from runtime.console.settings import ConsoleSettings
from runtime.errors import SettingsError
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe

SECRET = "It's a Secret to Everybody"
OTHER = "another organization's"
PUSH = {
    "ref": "refs/heads/main",
    "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
    "after": "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c",
    "deleted": False,
    "compare": "https://github.com/acme/api/compare/6113728f27ae...0d1a26e67d8f",
    "pusher": {"name": "mona", "email": "mona@example.org"},
    "repository": {
        "id": 186853002,
        "full_name": "acme/api",
        "clone_url": "https://github.com/acme/api.git",
        "default_branch": "main",
    },
    "commits": [],
}
SCHEDULE = {"event": "push", "repository": "https://github.com/acme/api.git", "branch": "main"}


@pytest.fixture
async def troupe() -> AsyncIterator[LocalTroupe]:
    troupe = LocalTroupe({})
    troupe.start_scheduler()
    for organization in ("default", "acme"):
        asked = {"agentId": "qa:api", "schedule": SCHEDULE, "by": "test"}
        told = await troupe.client(organization).ask("scheduler:main", asked, "schedule.set")
        assert told["ok"], told
    yield troupe
    await troupe.kill_scheduler()
    await troupe.store.close()


@pytest.fixture
async def github(troupe: LocalTroupe) -> AsyncIterator[httpx2.AsyncClient]:
    settings = IntakeSettings(github_secrets={"default": SECRET, "acme": OTHER})
    console = ConsoleSettings(command_wait_s=10.0)
    app = create_app(troupe.store, troupe.clock, troupe.ids, routes(settings), console)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://troupe") as client:
        yield client


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def deliver(
    github: httpx2.AsyncClient,
    payload: Any = PUSH,
    event: str = "push",
    delivery: str = "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    signature: str | None = None,
    query: str = "",
) -> httpx2.Response:
    body = json.dumps(payload).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/044aadd",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": sign(body) if signature is None else signature,
    }
    headers = {name: value for name, value in headers.items() if value}
    return await github.post(f"/api/webhooks/github{query}", content=body, headers=headers)


async def _jobs(troupe: LocalTroupe) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in await troupe.store.list_documents("job")]


def test_a_signature_is_that_of_githubs_own_example() -> None:
    """Would sign otherwise than GitHub does; source: its "Validating webhook deliveries"."""
    from actors.intake.webhooks import signed

    example = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert signed(b"Hello, World!", example, SECRET)
    assert not signed(b"Hello, World?", example, SECRET)
    assert not signed(b"Hello, World!", example, None)
    assert not signed(b"Hello, World!", "", SECRET)


async def test_a_push_runs_what_waits_for_it_once_however_often_it_is_delivered(
    troupe: LocalTroupe, github: httpx2.AsyncClient
) -> None:
    """A push would start nothing, or each redelivery another run."""
    first = await deliver(github)
    assert first.status_code == 200, first.text
    assert first.json()["schedules"] == [
        {"agentId": "qa:api", "name": "default", "outcome": "fired"}
    ]
    again = await deliver(github)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    [job] = await _jobs(troupe)
    told = job["payload"]["event"]
    assert (job["organizationId"], told["commit"], told["by"]) == (
        "default", PUSH["after"], "github",
    )  # fmt: skip
    assert told["data"]["pusher"] == "mona"
    changed = await deliver(github, {**PUSH, "after": "f" * 40})
    assert (changed.status_code, changed.json()["code"]) == (422, "idempotency_key_reused")


async def test_what_is_not_signed_with_the_organizations_secret_is_refused(
    troupe: LocalTroupe, github: httpx2.AsyncClient
) -> None:
    """Anybody on the internet could start agents."""
    assert isinstance(troupe.store, MemoryStore)
    before = (await troupe.store.health()).commits
    body = json.dumps(PUSH).encode()
    wrong = [
        await deliver(github, signature=""),
        await deliver(github, signature="sha256=" + "0" * 64),
        await deliver(github, signature=sign(body, OTHER)),
        await deliver(github, signature=sign(body + b" ")),
        await deliver(github, query="?organization=acme"),
        await deliver(github, query="?organization=nobody"),
    ]
    assert {answer.status_code for answer in wrong} == {401}
    assert len({answer.content for answer in wrong}) == 1
    assert wrong[0].json()["code"] == "unauthorized"
    assert (await troupe.store.health()).commits == before
    right = await deliver(github, signature=sign(body, OTHER), query="?organization=acme")
    assert right.status_code == 200
    [job] = await _jobs(troupe)
    assert job["organizationId"] == "acme"


async def test_what_nobody_can_wait_for_changes_nothing(
    troupe: LocalTroupe, github: httpx2.AsyncClient
) -> None:
    """A ping, a tag or a branch that is gone would be taken for a push to a branch."""
    for payload, event in (
        ({"zen": "Keep it logically awesome.", "hook_id": 1}, "ping"),
        ({**PUSH, "ref": "refs/tags/v1"}, "push"),
        ({**PUSH, "deleted": True}, "push"),
    ):
        answer = await deliver(github, payload, event)
        assert (answer.status_code, answer.json()) == (200, {"accepted": True, "ignored": event})
    broken = await deliver(github, {"ref": "refs/heads/main"})
    assert (broken.status_code, broken.json()["code"]) == (422, "no_push")
    nameless = await deliver(github, delivery="")
    assert nameless.status_code == 422
    elsewhere = await deliver(github, {**PUSH, "ref": "refs/heads/topic"})
    assert elsewhere.json()["schedules"] == []
    assert await _jobs(troupe) == []


@pytest.mark.parametrize("text", ["s3cret", '["s3cret"]', '{"default": ""}', '{"default": 7}'])
def test_secrets_that_are_none_are_refused_without_being_told(text: str) -> None:
    """A typing error would leave the webhook open, or a secret in a log."""
    with pytest.raises(SettingsError) as refused:
        IntakeSettings.from_env({"TROUPE_GITHUB_SECRETS": text})
    assert "s3cret" not in str(refused.value)
