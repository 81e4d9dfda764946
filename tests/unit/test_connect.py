"""Which host a Python client asks."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from runtime.cluster.connect import LOOK_MS, Troupe
from runtime.errors import InvalidScheduleError
from runtime.message import Message
from tests.store_process import StoreProcess

AGENTS = [f"counter:{n}" for n in range(20)]


class Method:
    """What is behind `handle.method`."""

    def __init__(self, method) -> None:
        self.remote = method


class PlayedHost:
    """An actor's handle: says which agents live there and remembers what it was asked."""

    def __init__(self, *agents: str) -> None:
        self.asked: list[str] = []
        self.ask = Method(self._ask)
        self.living = Method(self._living)
        self.agents = set(agents)

    def _ask(self, organization, body):
        self.asked.append(Message.from_json(body).recipient)

    def _living(self, organization, agents):
        self._answer = Future()
        self._answer.set_result([agent for agent in agents if agent in self.agents])
        return self

    def future(self):
        return self._answer


@pytest.fixture
def hosts():
    return {"host-0": PlayedHost(), "host-1": PlayedHost()}


@pytest.fixture
def troupe(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(Troupe, "_present", lambda troupe: dict(hosts))
    return Troupe("acme", tmp_path)


def ask_all(troupe) -> None:
    for agent in AGENTS:
        troupe.ask(agent, "add", {"by": 1})


def look_again(troupe) -> None:
    troupe._looked_ms -= 2 * LOOK_MS


def test_an_agent_is_asked_where_it_lives(troupe, hosts):
    """Half of all asks would take a commit more, for ever."""
    ask_all(troupe)
    assert all(hosts[name].asked for name in hosts), "spread, while nothing is known"
    hosts["host-1"].agents = set(AGENTS)
    look_again(troupe)
    troupe.ask(AGENTS[0], "add")
    for host in hosts.values():
        host.asked.clear()
    ask_all(troupe)
    assert hosts["host-1"].asked == AGENTS


def test_an_agent_whose_host_is_gone_is_asked_elsewhere(troupe, hosts):
    """Asks would go to a host that is no more."""
    hosts["host-1"].agents = set(AGENTS)
    ask_all(troupe)
    look_again(troupe)
    ask_all(troupe)
    del hosts["host-1"]
    look_again(troupe)
    hosts["host-0"].asked.clear()
    ask_all(troupe)
    assert hosts["host-0"].asked == AGENTS


def under_every_name(schedules) -> None:
    made = schedules.create("qa:acme.api", {"cron": "0 9 * * *"})
    assert (made.name, made.status) == ("default", "active")
    assert schedules.update("qa:acme.api", {"priority": "HIGH"}).priority == "HIGH"
    assert schedules.update_schedule("qa:acme.api", {"cron": "0 8 * * *"}).revision == 3
    assert schedules.get("qa:acme.api").cron == "0 8 * * *"
    assert [one.agent_id for one in schedules.get_agent_schedules("qa:acme.api")] == ["qa:acme.api"]
    assert [one.agent_id for one in schedules.get_scheduled_agents()] == ["qa:acme.api"]
    assert schedules.get_execution_history("qa:acme.api", limit=2) == []
    assert schedules.validate_cron_expression("0 9 * * *")
    assert not schedules.validate_cron_expression("61 * * * *")
    with pytest.raises(InvalidScheduleError):
        schedules.create("qa:acme.api", {"cron": "61 * * * *"})
    for _ in range(2):
        schedules.delete("qa:acme.api")
    assert schedules.get("qa:acme.api") is None


async def test_schedules_are_asked_for_by_their_names_in_a_loop_and_without_one(troupe, tmp_path):
    """A notebook has an event loop already."""
    process = await StoreProcess(tmp_path, scheduler=1).start()
    try:
        under_every_name(troupe.schedules)
        await asyncio.to_thread(under_every_name, troupe.schedules)
    finally:
        await process.kill()
