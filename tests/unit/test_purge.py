"""`troupe purge`: an organization comes to rest, then nothing of it is left anywhere here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from actors.cli import main
from actors.commands import quiet
from actors.commands.failures import CommandError
from runtime.client import Client
from runtime.clock import SystemClock
from runtime.cluster.settings import DataDir
from runtime.ids import HOME, SCHEDULER, Ids
from runtime.store.contract import Ack, Commit, Fence
from runtime.store.memory import MemoryStore
from runtime.store.remote import RemoteStore
from tests.desk import desk
from tests.plans import Plans, planned


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("repositories").resolve()
    for name in ("ours", "shared"):
        git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-C", str(root / name)]
        subprocess.run(["git", "init", "-q", str(root / name)], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return root


class Here:
    def __init__(self, data, root, url):
        self.data, self.root, self.url = data, root, url

    def __call__(self, *args, code=0, input=None, **env):
        env = {"TROUPE_DATA": str(self.data), "TROUPE_URL": "", "TROUPE_TOKEN": ""} | env
        result = CliRunner().invoke(main, args, env=env, input=input, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def json(self, *args, **env):
        return json.loads(self(*args, "--json", **env).stdout)

    def submit(self, title, repository="ours", wait=True, **env):
        args = ("submit", "--repo", str(self.root / repository), "--title", title)
        return self.json(*args, *(["--wait"] if wait else []), **env)

    def key(self, organization, role="admin"):
        made = self.json("keys", "create", "--organization", organization, "--role", role)
        return made["token"]

    def mirror(self, repository):
        name = hashlib.sha256(str(self.root / repository).encode()).hexdigest()[:32]
        return self.data / "mirrors" / f"{name}.git"


@pytest.fixture
def here(tmp_path, root):
    data = (tmp_path / "data").resolve()
    data.mkdir()
    with desk(root, data) as made:
        yield Here(data, root, made.url)


def put(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_text("of the customer")
    return folder


def slots(here):
    """Slots that the scheduler itself believes are taken."""

    async def ask():
        store, clock = RemoteStore(DataDir(here.data).socket), SystemClock()
        client = Client(store, clock, Ids(clock), HOME)
        try:
            return (await client.ask("scheduler:main", {}, "scheduler.status"))["running"]
        finally:
            await store.close()

    return asyncio.run(ask())


def at_work(here, issue):
    """The issue's job once it runs."""
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        for job in here.json("jobs"):
            if (job.get("issueId"), job["status"]) == (issue["id"], "running"):
                return job
    raise AssertionError("it never began")


def test_nothing_of_it_is_left_and_nobody_else_notices(here):
    """A customer that has left would still be there; or take another along."""
    beta = {"TROUPE_TOKEN": here.key("beta")}
    theirs = here.submit("Export of beta", "shared", **beta)
    delivered = here.submit("Export drops pages")
    here("review", "approve", delivered["id"])
    here("watch", delivered["id"])
    here.submit("Export too", "shared")
    endless = here.submit("Export is endless", wait=False)
    here.submit("Export without a model", wait=False)
    job = at_work(here, endless)
    disk = [
        put(here.data / "deliveries" / delivered["id"]),
        put(here.data / "jobs" / job["id"]),
        put(here.mirror("ours")),
    ]
    stay = [put(here.mirror("shared")), put(here.data / "deliveries" / theirs["id"])]

    told = here.json("purge", "--organization", "acme", "--yes")
    assert (told["issues"], told["reviews"], told["keys"]) == (4, 2, 2)
    assert told["jobs"] >= 6 and told["rows"] > 50 and told["folders"] == 3
    assert not any(place.exists() for place in disk) and all(place.exists() for place in stay)
    here("issues", code=4)
    assert here.json("issues", **beta) and here.json("review", "show", theirs["id"], **beta)
    fresh = {"TROUPE_TOKEN": here.key("acme")}
    for listing in ("issues", "jobs", "agents"):
        assert here.json(listing, **fresh) == []
    trail = here("export", "--organization", "acme").stdout.splitlines()
    assert [json.loads(line)["type"] for line in trail] == ["key.created", "export.end"]
    assert slots(here) == 0, "a slot is lost until the scheduler is started anew"
    here("review", "approve", theirs["id"], **beta)
    here("watch", theirs["id"], **beta)
    again = here.submit("Export again", **fresh)
    assert again["status"] == "review"


def test_it_can_be_repeated(here):
    """A purge that was cut off could not be finished."""
    here.submit("Export drops pages")
    assert here.json("purge", "--organization", "acme", "--yes")["issues"] == 1
    told = here.json("purge", "--organization", "acme", "--yes")
    assert {told[name] for name in ("issues", "jobs", "keys", "rows", "folders")} == {0}


def test_it_is_meant(here):
    """A slip of the hand would remove a customer."""
    here.submit("Export drops pages")
    for args in (("--organization", "acme"), ("--organization", "acme", "--json")):
        assert "--yes" in here("purge", *args, code=2).stderr
    assert "own" in here("purge", "--organization", "system", "--yes", code=2).stderr
    here("purge", "--organization", "a/b", "--yes", code=2)
    here("purge", "--organization", "acme", "--yes", code=2, TROUPE_URL=here.url)
    assert len(here.json("issues")) == 1


@pytest.mark.parametrize(("typed", "code", "left"), [("acme", 0, 4), ("acne", 1, 0)])
def test_on_a_terminal_the_name_is_typed(here, monkeypatch, typed, code, left):
    """The wrong organization would be gone by a completed command line."""
    original = "actors.commands.output.Output.__init__"

    def on_terminal(self, as_json):
        init(self, as_json)
        self.terminal = True

    from actors.commands.output import Output

    init = Output.__init__
    monkeypatch.setattr(original, on_terminal)
    here("purge", "--organization", "acme", code=code, input=f"{typed}\n")
    here("issues", code=left)


def test_what_does_not_come_to_rest_is_not_purged(here, monkeypatch):
    """A job would go on, and write into what is being removed."""
    here.submit("Export drops pages")

    async def deaf(client, ids):
        """Nobody hears the cancel."""

    monkeypatch.setattr(quiet, "_cancel", deaf)
    monkeypatch.setattr(quiet, "REST_WAIT_S", 0.1)
    told = here("purge", "--organization", "acme", "--yes", code=1)
    assert "nothing was purged" in told.stderr
    monkeypatch.undo()
    fresh = {"TROUPE_TOKEN": here.key("acme")}
    assert len(here.json("issues", **fresh)) == 1


def test_the_operators_own_organization_gets_a_new_key(here):
    """The operator would be locked out of the machine."""
    admin = DataDir(here.data).admin_key
    admin.write_text(here.key("default"))
    before = admin.read_text()
    here("purge", "--organization", "default", "--yes")
    assert admin.read_text() != before
    assert here.json("issues") == []


async def test_a_mirror_in_use_stays(here):
    """A job of another organization would lose the repository under its feet."""
    from actors.commands import remains
    from runtime.cluster.processes import held

    place = put(here.mirror("ours"))
    found = remains.Remains(mirrors={place.stem})
    with held(place.with_suffix(".use")):
        assert await remains.clear(here.data, found) == 0
    assert place.exists()
    assert await remains.clear(here.data, found) == 1
    assert not place.exists()
    store = RemoteStore(DataDir(here.data).socket)
    assert (await remains.find(store, "acme")).mirrors == set()
    await store.close()


async def test_at_rest_the_scheduler_has_heard_of_every_end(monkeypatch):
    """What it never hears of holds a slot until it is started anew."""
    monkeypatch.setattr(quiet, "REST_WAIT_S", 0.1)
    clock = SystemClock()
    store = MemoryStore(clock)
    client = Client(store, clock, Ids(clock), "acme")
    await Client(store, clock, Ids(clock), "beta").send("scheduler:main", {}, "job.ended")
    await quiet.bring_to_rest(client, print)
    said = await client.send("scheduler:main", {}, "job.ended")
    with pytest.raises(CommandError):
        await quiet.bring_to_rest(client, print)
    incarnation = await store.register("o", "scheduler", 10)
    [claimed] = await store.claim("o", 1, [SCHEDULER])
    fence = Fence(incarnation, claimed.epoch)
    await store.commit([Commit("system", SCHEDULER, fence, acks=(Ack(said),))])
    await quiet.bring_to_rest(client, print)


@pytest.mark.parametrize("failed", [1, 2])
def test_an_agent_that_failed_is_nobodys_after_a_purge(failed: int) -> None:
    """Whoever has the organization's name next would find it held, and nobody could say why."""

    @planned
    async def test(plans: Plans) -> None:
        async def trigger(number: int, seconds: float = 0, **payload: Any) -> None:
            name = f"n{number}"
            await plans.set(name=name, cron="0 0 1 1 *", payload=payload, maxAttempts=1)
            assert (await plans.ask("trigger", name=name))["ok"]
            await asyncio.sleep(5)

        for number in range(failed):
            await trigger(number, fails=True)
        [hold] = await plans.client.list("hold")
        assert json.loads(hold.body)["held"] is (failed == 2)
        await quiet.bring_to_rest(plans.client, print)
        while (await plans.store.purge("acme", 500)).more:
            pass
        await trigger(0, fails=True)
        await trigger(1)
        assert [job.status for job in await plans.jobs()] == ["failed", "completed"]

    test()
