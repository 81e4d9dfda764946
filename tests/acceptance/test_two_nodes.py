"""Several nodes: agents go on elsewhere when theirs is lost or emptied.

The nodes are raylets of one machine, each with a data directory of its own, so
that what a job needs there can only have come from the store and the repository.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from runtime.cluster.port import free_port
from runtime.cluster.processes import marked
from runtime.cluster.settings import MARKER, DataDir, State
from tests.acceptance.deployment import Deployment, deployed, kill_all

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RAY = str(Path(sys.executable).parent / "ray")
OBJECT_STORE_BYTES = 80_000_000
NUMBERS = count()


class Node:
    """A worker node: a raylet with all it has started."""

    def __init__(self, troupe: Deployment, name: str) -> None:
        self._troupe = troupe
        self.data = troupe.data / name
        self.data.mkdir()
        state = State.read(DataDir(troupe.data).state)
        assert state is not None
        env = {
            **troupe.env,
            "TROUPE_DATA": str(self.data),
            "TROUPE_SCRIPTED_URL": state.companions["scripted-model"],
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(DataDir(troupe.data).ray_token),
            "RAY_worker_niceness": "0",
            MARKER: str(self.data),
        }
        self.env = env
        self._address = state.ray_address
        self._process = subprocess.Popen(
            [
                RAY, "start", f"--address={state.ray_address}", "--block", "--num-cpus=2",
                f"--object-store-memory={OBJECT_STORE_BYTES}", "--labels", "tier=agents",
                f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats",
            ],
            env=env, stdin=subprocess.DEVNULL,
            stdout=(self.data / "ray.log").open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        # Two that begin at the same time on one machine take the same names for their sockets.
        log = self.data / "ray.log"
        troupe.wait(lambda: b"Ray runtime started" in log.read_bytes(), f"{name} to start", 60)

    @property
    def pids(self) -> list[int]:
        return marked(self.data)

    def kill(self) -> int:
        """The machine is gone: every process at once."""
        killed = kill_all(lambda: self.pids)
        self._process.wait()
        return killed

    def drain(self) -> None:
        """Tell Ray that the machine is to go away in ten minutes."""
        [mine] = [host["node"] for host in hosts(self._troupe).values() if host["pid"] in self.pids]
        argv = [
            RAY, "drain-node", f"--address={self._address}", f"--node-id={mine}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test",
            "--deadline-remaining-seconds=600",
        ]  # fmt: skip
        subprocess.run(argv, env=self.env, check=True, capture_output=True)


@pytest.fixture(scope="module")
def troupe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Hosts belong on worker nodes, and each fills one."""
    data = tmp_path_factory.mktemp("nodes")
    with deployed(data, TROUPE_HOST_LABELS="tier=agents", TROUPE_HOST_CPUS="2") as made:
        yield made


@pytest.fixture
def nodes(troupe: Deployment) -> Iterator[list[Node]]:
    """Two nodes with a host each."""
    made = [node(troupe), node(troupe)]
    troupe.wait(lambda: all(at(troupe, one) for one in made), "a host on each node", 90)
    yield made
    for one in made:
        one.kill()


def node(troupe: Deployment) -> Node:
    return Node(troupe, f"node-{next(NUMBERS)}")


def hosts(troupe: Deployment) -> dict[str, dict[str, Any]]:
    """What each host says of itself, with its pid; those that are placed."""
    program = (
        "import json, ray\n"
        "from runtime import connect\n"
        "connect()\n"
        "told = {}\n"
        "for name in ('host-0', 'host-1'):\n"
        "    try:\n"
        "        host = ray.get_actor(name, namespace='troupe')\n"
        "        pid, status = ray.get([host.pid.remote(), host.status.remote()], timeout=3)\n"
        "        told[name] = {**status, 'pid': pid}\n"
        "    except (ray.exceptions.RayError, ValueError):\n"
        "        pass\n"
        "print(json.dumps(told))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=troupe.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    # Ray itself writes among what the program prints when a node dies.
    [told] = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, dict[str, Any]] = json.loads(told)
    return found


def at(troupe: Deployment, place: Node) -> list[dict[str, Any]]:
    """The hosts on a node."""
    pids = place.pids
    return [host for host in hosts(troupe).values() if host["pid"] in pids]


def busy(troupe: Deployment, made: list[Node]) -> Node:
    """The node that a job runs on, once there is one."""

    def look() -> Node | None:
        return next((node for node in made if any(host["jobs"] for host in at(troupe, node))), None)

    found = troupe.wait(look, "a host with a job", 60)
    assert isinstance(found, Node)
    return found


def walk(troupe: Deployment, name: str) -> tuple[str, Path]:
    """An issue under way: its id and its repository."""
    repository = troupe.repository(name)
    issue = troupe.submit(repository, externalId=name)
    troupe.under_way(issue)
    return issue, repository


def finish(troupe: Deployment, issue: str, repository: Path) -> str:
    """Approve it, and answer its final tree."""
    troupe.approve(issue)
    return troupe.final_tree(issue, repository)


@pytest.fixture(scope="module")
def trees() -> list[str]:
    """The final trees of all walks of this module."""
    return []


def test_a_job_goes_on_elsewhere_when_its_node_is_lost(
    troupe: Deployment, nodes: list[Node], trees: list[str]
) -> None:
    """A machine that dies would take the work on it along."""
    issue, repository = walk(troupe, "lost")
    lost = busy(troupe, nodes)
    job = troupe.call("GET", f"/api/issues/{issue}")["job"]["id"]
    killed_at = time.monotonic()
    assert lost.kill() >= 2
    other = next(one for one in nodes if one is not lost)
    troupe.wait(lambda: any(host["jobs"] for host in at(troupe, other)), "the job elsewhere", 60)
    print(f"\nresumed {time.monotonic() - killed_at:.1f} s after its node was lost")
    trees.append(finish(troupe, issue, repository))
    assert len(set(trees)) == 1
    assert troupe.call("GET", f"/api/jobs/{job}")["attempts"] == 1


def test_agents_move_away_from_a_node_that_is_emptied(
    troupe: Deployment, nodes: list[Node], trees: list[str]
) -> None:
    """A machine given back by the cloud would cost every job on it ten seconds and a step."""
    issue, repository = walk(troupe, "drained")
    emptied = busy(troupe, nodes)
    emptied.drain()
    troupe.wait(lambda: not at(troupe, emptied), "the host to leave its node", 60)
    new = node(troupe)
    nodes.append(new)
    troupe.wait(lambda: at(troupe, new), "the host on a new node", 60)
    trees.append(finish(troupe, issue, repository))
    assert len(set(trees)) == 1
