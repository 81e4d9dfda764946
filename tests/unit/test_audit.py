"""The audit trail: everything that was decided, by whom and when; nothing that is secret."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner

from actors import audit
from actors.cli import main
from actors.spool import Spool
from runtime.errors import StoreUnavailableError
from runtime.keys import Role
from runtime.store.contract import Commit, Put, Send
from tests.desk import PATCH, desk
from tests.http import HttpTroupe, populate

DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"
SECRET = "a sentence only its recipient may read"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("repositories")
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-C", str(path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return path.resolve()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data").resolve()


class Typed:
    def __init__(self, data, root):
        self.env = {"TROUPE_DATA": str(data), "TROUPE_URL": "", "TROUPE_TOKEN": ""}
        self.root = root

    def __call__(self, *args, code=0, **env):
        result = CliRunner().invoke(main, args, env=self.env | env, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def json(self, *args):
        return json.loads(self(*args, "--json").stdout)

    def submit(self, title):
        return self.json(
            "submit", "--repo", str(self.root), "--title", title, "--description", SECRET, "--wait"
        )


@pytest.fixture(scope="module")
def here(data, root):
    with desk(root, data) as made:
        yield made


@pytest.fixture(scope="module")
def typed(here, data, root):
    return Typed(data, root)


@pytest.fixture(scope="module")
def trail(typed, tmp_path_factory):
    """One issue delivered, one cancelled, a key made and revoked, two letters; all its lines."""
    delivered = typed.submit("Export drops pages")
    typed("review", "approve", delivered["id"], "--comment", "Well done.")
    typed("watch", delivered["id"])
    cancelled = typed.submit("Export is odd")
    typed("cancel", cancelled["id"])
    typed("watch", cancelled["id"], code=1)
    made = typed.json("keys", "create", "--organization", "acme", "--name", "ci")
    typed("keys", "revoke", made["id"])
    typed("schedule", "set", "code:acme.api", "--cron", "@yearly", "--name", "old")
    typed("schedule", "delete", "code:acme.api", "--name", "old", "--reason", "moved to CI")
    ghosts = redelivered(typed, tmp_path_factory.mktemp("payloads") / "payload.json")
    text = typed("export", "--organization", "acme").stdout
    *lines, end = [json.loads(line) for line in text.splitlines()]
    assert end == {"type": "export.end", "lines": len(lines)}
    return {
        "text": text, "lines": lines, "issue": delivered, "other": cancelled, "key": made,
        "ghosts": ghosts,
    }  # fmt: skip


def redelivered(typed, file):
    """Two messages to an agent that can't live, given up; and both once more, one with a payload.

    Their ids, which are four.
    """
    sent = [
        typed.json("agents", "send", "ghost:a", "hello", content)["messageId"]
        for content in ('{"n": 1}', '{"n": 2}')
    ]
    dead(typed, sent)
    file.write_text('{"n": 3}')
    edited = typed.json("letters", "redeliver", sent[0], "--payload", str(file))["messageId"]
    same = typed.json("letters", "redeliver", sent[1])["messageId"]
    dead(typed, [edited, same])
    return [*sent, edited, same]


def dead(typed, ids):
    """Return when these are the ghost's letters."""
    found = set()
    while found != set(ids):
        letters = typed.json("letters", "list", "--agent", "ghost:a")
        found = {one["messageId"] for one in letters}


def only(trail, type, **fields):
    return [
        line for line in trail["lines"] if line["type"] == type and fields.items() <= line.items()
    ]


def test_every_decision_is_in_it_with_who_and_when(trail):
    """An auditor could not tell who let a change through."""
    issue, other = trail["issue"]["id"], trail["other"]["id"]
    [decided] = only(trail, "review.decided", issueId=issue)
    assert (decided["decision"], decided["by"]) == ("approved", "ann")
    assert decided["comment"] == "Well done."
    assert decided["artifactHash"] == hashlib.sha256(PATCH).hexdigest()
    [said] = only(trail, "command", command="review.decided")
    assert (said["by"], said["approved"]) == ("ann", True) and said["keyId"].startswith("key_")
    [cancel] = only(trail, "command", command="issue.cancel")
    assert (cancel["by"], cancel["agent"]) == ("ann", f"issue:{other}")
    [deleted] = only(trail, "command", command="schedule.delete")
    assert (deleted["by"], deleted["name"]) == ("ann", "old")
    assert deleted["reason"] == "moved to CI"
    key = trail["key"]
    for type in ("key.created", "key.revoked"):
        assert only(trail, type, keyId=key["id"], name="ci", role="operator")


def test_every_outcome_is_in_it_with_its_cost(trail):
    """Nobody could tell what the money went for, or where the work is."""
    issue = trail["issue"]["id"]
    [ended] = only(trail, "issue.ended", issueId=issue)
    assert (ended["status"], ended["outcome"]) == ("completed", "delivered")
    assert ended["branch"] == "troupe/1-export" and ended["costUsd"] == pytest.approx(0.03)
    [made] = only(trail, "delivery.made", issueId=issue)
    assert (made["branch"], made["commit"]) == ("troupe/1-export", "2" * 40)
    jobs = only(trail, "job.ended", issueId=issue)
    assert [job["agentType"] for job in jobs] == ["code", "review", "delivery"]
    assert (jobs[0]["costUsd"], jobs[0]["outcome"]) == (pytest.approx(0.03), "finished")
    [cancelled] = only(trail, "issue.ended", issueId=trail["other"]["id"])
    assert (cancelled["status"], cancelled["reason"]) == ("failed", "cancelled")


def test_every_message_is_in_it_without_its_content(trail):
    """Whoever reads the trail would read what agents and people wrote; or miss who told whom."""
    kinds = {line["messageType"] for line in only(trail, "message")}
    wanted = {"issue.submitted", "triage.classify", "job.queued", "job.run", "job.ended"}
    assert wanted <= kinds
    [first] = only(
        trail, "message", messageType="issue.submitted", recipient=f"issue:{trail['issue']['id']}"
    )
    assert first["sender"].startswith("client:key_") and first["status"] == "processed"
    assert SECRET not in trail["text"]


def test_who_redelivers_a_letter_is_in_it_and_whether_they_changed_it(trail):
    """Nobody would see that a person has put words into another's mouth."""
    *_, edited, same = trail["ghosts"]
    told = [
        (line["messageId"], line["by"], line["edited"], line["recipient"])
        for line in only(trail, "message.redelivered")
    ]
    assert told == [(edited, "ann", True, "ghost:a"), (same, "ann", False, "ghost:a")]


def test_messages_to_an_agent_that_has_never_lived_are_in_it_once(trail):
    """What was sent to a mistyped agent would have been said to nobody; or several times."""
    found = [line["messageId"] for line in only(trail, "message", recipient="ghost:a")]
    assert found == trail["ghosts"]


def test_it_is_in_the_order_of_time(trail):
    """Cause would come after effect."""
    moments = [line["at"] for line in trail["lines"]]
    assert moments == sorted(moments) and len(set(moments)) > 10


def test_keys_are_not_in_it(trail, here):
    """The export of a trail would be a way in."""
    for token in (here.token, here.viewer, trail["key"]["token"]):
        secret = token.removeprefix("troupe_")
        for part in (secret, secret[:16], hashlib.sha256(token.encode()).hexdigest()):
            assert part not in trail["text"]


def test_every_line_is_as_the_manual_says(trail):
    """A program would meet a field or a type that nobody has described."""
    section = DOCS.read_text().partition("## The audit trail")[2].partition("\n## ")[0]
    manual = {}
    for types, fields in re.findall(r"^\| (`\w+\.?.*?) \| (.*) \|$", section, re.MULTILINE):
        for type in re.findall(r"`([\w.]+)`", types):
            manual[type] = set(re.findall(r"(?<![\w.`])(\w+)(?![\w.`])", fields))
    seen = {line["type"] for line in trail["lines"]}
    assert seen == set(manual)
    for line in trail["lines"]:
        extra = set(line) - {"at", "type", "organizationId"} - manual[line["type"]]
        assert not extra, (line["type"], extra)


def test_another_organization_is_not_in_it(trail, typed):
    """A customer would read another's trail."""
    assert {line["organizationId"] for line in trail["lines"]} == {"acme"}
    foreign = typed("export", "--organization", "beta").stdout
    assert [json.loads(line)["type"] for line in foreign.splitlines()] == ["export.end"]


def test_since_leaves_out_what_was_before(trail, typed):
    """Every export would be all of it, however often it is made."""
    middle = trail["lines"][len(trail["lines"]) // 2]["at"]
    text = typed("export", "--organization", "acme", "--since", middle).stdout
    lines = [json.loads(line) for line in text.splitlines()][:-1]
    assert lines == [line for line in trail["lines"] if line["at"] >= middle]
    typed("export", "--since", "2100-01-01")
    assert "2026-11-01" in typed("export", "--since", "yesterday", code=2).stderr


def test_pages_of_any_size_give_the_same(trail, typed, monkeypatch):
    """Lines would be missing, or there twice, where one page ends."""
    monkeypatch.setattr(audit, "PAGE", 2)
    monkeypatch.setattr(audit, "MESSAGES_PAGE", 1)
    assert typed("export", "--organization", "acme").stdout == trail["text"]


# where it goes


def test_a_file_is_whole_or_not_there(trail, typed, tmp_path, monkeypatch):
    """An export that was cut off would pass for the trail."""
    file = tmp_path / "trail.jsonl"
    assert typed.json("export", "--organization", "acme", str(file)) == {
        "file": str(file),
        "lines": len(trail["lines"]) + 1,
    }
    assert file.read_text() == trail["text"]
    assert "--force" in typed("export", str(file), code=2).stderr
    assert file.read_text() == trail["text"]
    typed("export", "--organization", "beta", str(file), "--force")
    assert len(file.read_text().splitlines()) == 1

    async def cut(self):
        yield ["{}"]
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(Spool, "lines", cut)
    typed("export", str(tmp_path / "other.jsonl"), code=1)
    assert {one.name for one in tmp_path.iterdir()} == {"trail.jsonl"}


def test_elsewhere_it_comes_over_http_with_an_admins_key(trail, typed, here):
    """An operator without a shell on the machine could not have it; or a viewer could."""
    remote = {"TROUPE_URL": here.url, "TROUPE_TOKEN": here.token}
    assert typed("export", "--organization", "acme", **remote).stdout == trail["text"]
    told = typed("export", "--organization", "beta", code=2, **remote)
    assert told.stdout == "" and "--organization acme" in told.stderr
    viewer = remote | {"TROUPE_TOKEN": here.viewer}
    assert typed("export", "--organization", "acme", code=4, **viewer).stdout == ""


# the route


@pytest.fixture
def api():
    return HttpTroupe()


async def test_one_export_at_a_time(api, monkeypatch):
    """Ten exports at once would read everything ten times and fill the disk."""
    begun, go = asyncio.Event(), asyncio.Event()
    gather = audit.gather

    async def slow(*given):
        begun.set()
        await go.wait()
        return await gather(*given)

    monkeypatch.setattr(audit, "gather", slow)
    ann = await api.client(Role.ADMIN)
    first = asyncio.create_task(ann.get("/api/audit"))
    await begun.wait()
    second = await ann.get("/api/audit")
    assert (second.status_code, second.json()["code"]) == (503, "export_running")
    go.set()
    assert (await first).status_code == 200
    assert (await ann.get("/api/audit")).status_code == 200


async def test_a_store_that_is_out_is_said_and_not_a_short_file(api, monkeypatch):
    """Half a trail would look like all of it."""
    await populate(api)
    ann = await api.client(Role.ADMIN)

    async def out(*_):
        raise StoreUnavailableError("out")

    monkeypatch.setattr(api.store, "history", out)
    answer = await ann.get("/api/audit")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("since", ["yesterday", "2026-11-01T00:00:00", ""])
async def test_since_is_a_moment_with_its_zone(api, since):
    """A trail would begin hours off, or with everything."""
    ann = await api.client(Role.ADMIN)
    answer = await ann.get("/api/audit", params={"since": since})
    assert answer.status_code == 422


async def test_what_cant_be_read_is_a_line_all_the_same(api):
    """One message that is none would hide the whole trail."""
    await populate(api)
    door = api.door()
    send = Send("odd", "acme/client:x", "acme/code:odd", b"no message at all")
    described = Put("agent", "acme/code:odd", "acme", b'{"agentId": "code:odd"}')
    await door.store.commit([Commit("acme", sends=(send,), puts=(described,))])
    ann = await api.client(Role.ADMIN)
    lines = [json.loads(line) for line in (await ann.get("/api/audit")).text.splitlines()]
    assert [line["recipient"] for line in lines if line.get("messageId") == "odd"] == ["code:odd"]


# the spool


async def test_a_spool_gives_lines_in_the_order_of_time(monkeypatch):
    """The trail would be as its sources are read."""
    monkeypatch.setattr("actors.spool.BATCH", 3)
    spool = Spool()
    moments = [7, 3, 9, 3, 1, 8, 2]
    for number, at in enumerate(moments):
        await spool.put({"at": f"{at}", "n": number})
    found = [json.loads(line) async for lines in spool.lines() for line in lines]
    assert [line["n"] for line in found] == [4, 6, 1, 3, 0, 5, 2]
    assert spool.count == 7
    spool.close()


async def test_memory_does_not_grow_with_the_trail():
    """An export of years would take all the memory of a replica."""
    spool = Spool()
    tracemalloc.start()
    for number in range(30_000):
        await spool.put({"at": f"{number % 977}", "text": "x" * 1_000})
    async for _ in spool.lines():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    spool.close()
    assert peak < 5 << 20, f"{peak} bytes for 30 MB of lines"
