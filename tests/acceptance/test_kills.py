"""Kill anything at any time: the walk ends as it would have, and nothing is paid for twice.

The larger run (`make verify`) sets TROUPE_KILLS.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from runtime.cluster.settings import State
from tests.acceptance.deployment import SAMPLE_ISSUE, Deployment, git
from tests.acceptance.witness import Call, Kill, paid_twice, recorded_calls, unexplained

pytestmark = pytest.mark.ray

KILLS = int(os.environ.get("TROUPE_KILLS", "30"))
SEED = int(os.environ.get("TROUPE_SEED", "7"))
KINDS = ("host", "host", "host", "scheduler", "scheduler", "scheduler", "scheduler", "replica")
"""The scheduler has the store in its process."""


def model_calls(troupe: Deployment) -> list[Call]:
    """What the scripted server was asked, in order: the only witness of what was paid for."""
    state = State.read(troupe.data / "running.json")
    url = state.companions["scripted-model"]
    with urllib.request.urlopen(f"{url}/calls", timeout=10) as answer:
        return [Call(one["digest"], one["beganMs"]) for one in json.load(answer)["recent"]]


def submit(troupe: Deployment, repository, name: str) -> str:
    """File the sample's issue so that no other issue leads to the same request to the model."""
    told = f"{SAMPLE_ISSUE['description']}\n\nThis is {name}."
    return troupe.submit(repository, externalId=name, description=told)


def walk(troupe: Deployment, name: str) -> str:
    """One undisturbed walk; its final tree."""
    repository = troupe.repository(name)
    issue = submit(troupe, repository, name)
    troupe.approve(issue)
    return troupe.final_tree(issue, repository)


def test_random_kills_change_nothing_but_the_time_it_takes(troupe: Deployment) -> None:
    """A crash would lose an issue, change its outcome, or pay for a recorded call again."""
    chance = random.Random(SEED)
    kills: list[Kill] = []
    calls: set[Call] = set()
    issues: list[str] = []
    expected = walk(troupe, "undisturbed")
    while len(kills) < KILLS:
        names = [f"killed-{len(issues) + n}" for n in range(3)]
        repositories = [troupe.repository(name) for name in names]
        mine = [submit(troupe, *pair) for pair in zip(repositories, names, strict=True)]
        issues += mine
        kill_while(troupe, mine, "review", kills, chance)
        for issue in mine:
            troupe.approve(issue)
        kill_while(troupe, mine, "completed", kills, chance)
        calls |= set(model_calls(troupe))
        for issue, repository in zip(mine, repositories, strict=True):
            assert troupe.final_tree(issue, repository) == expected
            branches = git(repository, "branch", "--list", "troupe/*").split()
            assert len(branches) == 1, branches
    recorded = {key: at for issue in issues for key, at in recorded_calls(troupe, issue).items()}
    again = paid_twice(calls)
    print(f"\nkills {len(kills)}, walks {len(issues)}, model calls paid for again {len(again)}")
    assert {call.digest for call in calls} >= recorded.keys()
    assert unexplained(again, kills, recorded) == []
    health = troupe.call("GET", "/api/health")
    assert health["store"]["durability"] == "power loss"


def kill_while(
    troupe: Deployment, issues: list[str], status: str, kills: list[Kill], chance: random.Random
) -> None:
    """SIGKILL one random process after another until all issues have a status."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = [troupe.call("GET", f"/api/issues/{issue}") for issue in issues]
        if all(one["status"] in (status, "completed", "failed") for one in found):
            return
        kind = chance.choice(KINDS)
        if len(kills) < KILLS and troupe.kill(kind):
            kills.append(Kill(kind, time.time_ns() // 1_000_000))
        time.sleep(chance.uniform(0.1, 1.0))
    raise AssertionError(found)


def busy_host(troupe: Deployment) -> int:
    """The process of a host that runs a job just now."""
    program = (
        "import json, ray\n"
        "from runtime import connect\n"
        "connect()\n"
        "hosts = [ray.get_actor(f'host-{n}', namespace='troupe') for n in (0, 1)]\n"
        "busy = [h for h in hosts if ray.get(h.status.remote())['jobs']]\n"
        "print(json.dumps([ray.get(h.pid.remote()) for h in busy]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=troupe.env, capture_output=True, text=True, timeout=60
    )
    [told] = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return json.loads(told)[0]


def stale_commits(troupe: Deployment) -> int:
    return troupe.call("GET", "/api/health")["store"]["refused"].get("stale_epoch", 0)


def test_a_paused_host_is_fenced_when_it_wakes(troupe: Deployment) -> None:
    """A process that slept through its lease would write over its successor."""
    expected = walk(troupe, "before-the-pause")
    names = ["paused-0", "paused-1", "paused-2"]
    repositories = [troupe.repository(name) for name in names]
    issues = [
        troupe.submit(repository, externalId=name)
        for repository, name in zip(repositories, names, strict=True)
    ]
    for issue in issues:
        troupe.until(f"/api/issues/{issue}", lambda found: found["status"] == "processing")
    before = stale_commits(troupe)
    pid = busy_host(troupe)
    os.kill(pid, signal.SIGSTOP)
    try:
        for issue in issues:
            troupe.until(f"/api/issues/{issue}", lambda found: found["status"] == "review")
    finally:
        os.kill(pid, signal.SIGCONT)
    troupe.until("/api/health", lambda _: stale_commits(troupe) > before, within_s=30)
    for issue, repository in zip(issues, repositories, strict=True):
        troupe.approve(issue)
        assert troupe.final_tree(issue, repository) == expected


def test_after_every_process_was_killed_up_goes_on(troupe: Deployment) -> None:
    """A power cut of the whole machine would lose the work under way."""
    repository = troupe.repository("power")
    issue = troupe.submit(repository, externalId="power")
    before = troupe.under_way(issue)["job"]
    assert troupe.kill_everything() > 5
    troupe.up()
    after = troupe.call("GET", f"/api/jobs/{before['id']}")
    assert (after["attempts"], after["progress"] >= before["progress"]) == (1, True)
    troupe.approve(issue)
    troupe.final_tree(issue, repository)
