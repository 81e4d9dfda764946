"""What only a whole deployment shows: `troupe up` with its own Ray, store, hosts and API.

python -m tests.benchmarks.cases.cluster ask | intake | sockets | kill | node

ask      P1: one question through Ray, answered when it is durable; 1 and 64 in flight
intake   P4: POST /api/issues with 1 and 32 connections, by wrk
sockets  P5: from a commit to a WebSocket, 1 and 100 clients
kill     P6: SIGKILL of a host with about 1,000 agents; the first right answer of one of them,
         with another host beside it as by default, and as the only host
node     P6: every process of a worker node with its host; until all agents answer right
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import uvloop

from runtime.client import AskTimeoutError, Client
from runtime.clock import SystemClock
from runtime.cluster import ClusterSettings, down, up
from runtime.cluster.connect import connect
from runtime.cluster.port import free_port
from runtime.cluster.processes import end_all, marked
from runtime.cluster.stores import local_client
from runtime.errors import StoreUnavailableError
from runtime.ids import HOME, Ids
from runtime.keys import Keys, Role
from runtime.store.contract import FeedEvent
from runtime.verify.chaos.node import Node
from runtime.verify.chaos.strikes import title
from tests.benchmarks.bench_messages import closed_loop
from tests.benchmarks.cases import latency, result, size
from tests.benchmarks.deployed import AGENTS, APPLICATION
from tests.benchmarks.listeners import listen, uncollected

ROOT: Final = Path(__file__).resolve().parents[3]
KEYS: Final = size("KEYS", 1_000)
SECONDS: Final = size("SECONDS", 6)
KILLS: Final = size("KILLS", 5)
EVENTS: Final = size("EVENTS", 60)
EVENT_EVERY_S: Final = 0.1
ROOM: Final = "agent:bench:told"
"""Of the events that are measured; nothing else is told in it."""
PROBE_S: Final = 0.01
WITHIN_S: Final = 120.0
ORGANIZATIONS: Final = 64
"""Issues of one are refused when 1,000 of it wait."""
WRK: Final = """wrk.method='POST'
wrk.headers['Content-Type']='application/json'
wrk.body='{"source":"manual","title":"The export is empty","description":"Since today."}'
local keys, n = {KEYS}, 0
request=function()
  n = n % #keys + 1
  wrk.headers['Authorization'] = 'Bearer ' .. keys[n]
  return wrk.format()
end
done=function(s,l,r) io.write(string.format('OUT %f %f %f %d %d\\n',
  s.requests/(s.duration/1e6), l:percentile(50)/1e3, l:percentile(99)/1e3,
  s.errors.status+s.errors.connect+s.errors.read+s.errors.write+s.errors.timeout,
  s.requests)) end
"""


class Deployed:
    """A deployment, and a client of its store."""

    def __init__(self, settings: ClusterSettings, env: dict[str, str], url: str) -> None:
        self.settings = settings
        self.data = settings.directory.root
        self.env = env
        self.url = url
        self.clock = SystemClock()
        self.ids = Ids(self.clock)
        self.client = Client(local_client(settings), self.clock, self.ids, HOME, "bench")

    @property
    def key(self) -> str:
        return self.settings.directory.admin_key.read_text().strip()

    async def add(self, key: int, by: int = 1, wait_s: float = 30.0) -> int:
        return int(await self.client.ask(f"counter:k{key}", {"by": by}, "add", wait_s=wait_s))

    async def count_all(self, keys: int = KEYS) -> None:
        await asyncio.gather(*(self.add(key) for key in range(keys)))

    async def homes(self, keys: int) -> dict[int, list[int]]:
        """Which agents live in which process: their keys by its pid."""

        async def pid(key: int) -> int:
            return int(await self.client.ask(f"counter:k{key}", {}, "pid"))

        pids = await asyncio.gather(*(pid(key) for key in range(keys)))
        found: dict[int, list[int]] = {}
        for key, home in enumerate(pids):
            found.setdefault(home, []).append(key)
        return found


@asynccontextmanager
async def deployed(**fields: Any) -> AsyncIterator[Deployed]:
    root = Path(tempfile.mkdtemp(prefix="bench-cluster-"))
    data = root / "data"
    data.mkdir(mode=0o700)
    settings = ClusterSettings(
        data=str(data), port=free_port(), agents=AGENTS, application=APPLICATION, **fields
    )
    unset = ("TROUPE_", "RAY_", "ANTHROPIC_", "REDIS_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    env["PYTHONPATH"] = str(ROOT)
    try:
        running = await asyncio.to_thread(up, settings, env=env)
        made = Deployed(settings, env, running.url)
        yield made
        await made.client.store.close()
    finally:
        await asyncio.to_thread(down, data)
        end_all(data)
        shutil.rmtree(root)


async def ask() -> None:
    """As a program on the head's machine asks: a call of a host's Ray actor."""
    async with deployed() as troupe:
        await troupe.count_all()
        connected = connect(troupe.data)

        async def one() -> None:
            key = int.from_bytes(os.urandom(2)) % KEYS
            await connected.ask(f"counter:k{key}", "add", {"by": 1})

        await closed_loop(1, 1.0, one)
        metrics: dict[str, Any] = {}
        for in_flight in (1, 64):
            took, wall_s = await closed_loop(in_flight, SECONDS, one)
            metrics[f"c{in_flight}_msgs_s"] = round(len(took) / wall_s, 1)
            metrics |= latency(took, f"c{in_flight}_")
        result("P1 troupe ask through Ray", metrics)


async def intake() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    async with deployed() as troupe:
        script = troupe.data.parent / "post.lua"
        keys = Keys(troupe.client.store, troupe.clock)
        made = [
            await keys.create(f"bench{number}", Role.OPERATOR, "bench")
            for number in range(ORGANIZATIONS)
        ]
        script.write_text(WRK.replace("KEYS", ",".join(f"'{token}'" for token, _ in made)))
        metrics: dict[str, Any] = {}
        for connections in (1, 32):
            metrics |= await asyncio.to_thread(wrk, script, connections, f"{troupe.url}/api/issues")
        accepted = await troupe.client.store.count("issue")
        metrics["exact"] = accepted >= metrics.pop("c1_n") + metrics.pop("c32_n")
        result("P4 troupe POST /api/issues", metrics)


def wrk(script: Path, connections: int, url: str) -> dict[str, Any]:
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", str(script), url]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.search(r"OUT (\S+) (\S+) (\S+) (\d+) (\d+)", told)
    assert found is not None, told
    c = f"c{connections}"
    return {
        f"{c}_rps": round(float(found[1]), 1), f"{c}_p50_ms": round(float(found[2]), 3),
        f"{c}_p99_ms": round(float(found[3]), 3), f"{c}_errors": int(found[4]),
        f"{c}_n": int(found[5]),
    }  # fmt: skip


async def sockets() -> None:
    async with deployed() as troupe:
        for clients in (1, 100):
            result(f"P5 troupe websocket clients={clients}", await listened(troupe, clients))


async def listened(troupe: Deployed, clients: int) -> dict[str, Any]:
    """Each event is a commit of its own; from before it to every socket that tells it.

    What a commit itself takes until it is answered is told apart: it ends with a fsync.
    """
    url = troupe.url.replace("http", "ws") + "/api/ws"
    headers = {"Authorization": f"Bearer {troupe.key}"}
    listening = [await listen(url, headers) for _ in range(clients)]
    committed = []
    async with asyncio.timeout(WITHIN_S):
        for listener in listening:
            listener.say({"subscribe": [ROOM]})
            assert (await listener.heard(1))[0][1]["event"] == "subscribed"
        with uncollected():
            for _ in range(EVENTS):
                await asyncio.sleep(EVENT_EVERY_S)
                began = time.perf_counter()
                body = json.dumps({"at": began}).encode()
                now_ms = troupe.clock.now_ms()
                event = FeedEvent(HOME, "bench:told", (ROOM,), now_ms, body)
                await troupe.client.commit(events=[event])
                committed.append(time.perf_counter() - began)
        heard = [await listener.heard(EVENTS) for listener in listening]
    for listener in listening:
        listener.close()
    took = [at - told["data"]["at"] for each in heard for at, told in each]
    return {
        "received": len(took),
        "expected": clients * EVENTS,
        **latency(took),
        **latency(committed, "commit_"),
    }


async def kill() -> None:
    """The other host takes the agents over; an only one is started again, and takes over itself."""
    metrics: dict[str, Any] = {}
    for hosts, name in ((2, ""), (1, "only_host_")):
        took, agents = await killed(hosts)
        metrics |= {f"{name}{unit}": value for unit, value in recovered(took).items()}
        metrics[f"{name}agents"] = agents
    result("P6 troupe kill -9 of a host with its agents", metrics)


async def killed(hosts: int) -> tuple[list[float], list[int]]:
    """Seconds of each kill until the first right answer, and how many agents the victim had."""
    keys = KEYS * hosts
    async with deployed(hosts=hosts) as troupe:
        await troupe.count_all(keys)
        took, agents = [], []
        for _ in range(KILLS):
            pid, victims = max((await troupe.homes(keys)).items(), key=lambda home: len(home[1]))
            os.kill(pid, signal.SIGKILL)
            took.append(await first_right(troupe, victims))
            agents.append(len(victims))
            await until(lambda: hosts_of(troupe.data) == hosts)
            await asyncio.sleep(1.0)
        return took, agents


async def first_right(troupe: Deployed, keys: list[int]) -> float:
    """Ask another agent every 10 ms, several may wait; seconds until one answers, and right."""
    began = time.perf_counter()
    waiting: set[asyncio.Task[int]] = set()
    for key in cycle(keys):
        if time.perf_counter() - began > WITHIN_S:
            break
        waiting.add(asyncio.create_task(troupe.add(key, 0)))
        done, waiting = await asyncio.wait(
            waiting, timeout=PROBE_S, return_when=asyncio.FIRST_COMPLETED
        )
        answers = [task.result() for task in done if task.exception() is None]
        if answers:
            took_s = time.perf_counter() - began
            assert set(answers) == {1}, answers
            await asyncio.gather(*waiting, return_exceptions=True)
            return took_s
    raise TimeoutError


async def node() -> None:
    """Two worker nodes with a host each; all of one is killed. Each agent is asked at once."""
    fields = {"hosts": 2, "host_cpus": 2.0, "host_labels": (("tier", "agents"),)}
    async with deployed(**fields) as troupe:
        roots = [troupe.data.parent / name for name in ("a", "b")]
        env = {**troupe.env, "TROUPE_SETTINGS": troupe.settings.to_json().decode()}
        nodes = []
        try:
            for root in roots:
                root.mkdir()
                nodes.append(Node(troupe.settings.directory, root, env, "tier=agents"))
                keeping = asyncio.create_task(nodes[-1].keep())
                await until(lambda root=root: hosts_of(root) > 0)  # type: ignore[misc]
                keeping.cancel()
            await troupe.count_all()
            began = time.perf_counter()
            for pid in marked(roots[0]):
                os.kill(pid, signal.SIGKILL)
            took = await asyncio.gather(*(answered(troupe, key, began) for key in range(KEYS)))
            moved = sorted(one for one in took if one > 1.0)
            result("P6 troupe node lost", {
                "all_s": round(max(took), 2), "agents": KEYS, "moved": len(moved),
                "first_moved_s": round(moved[0], 2) if moved else None,
            })  # fmt: skip
        finally:
            for one in nodes:
                await asyncio.to_thread(one.end)


async def answered(troupe: Deployed, key: int, began: float) -> float:
    """Seconds until the agent has said what it should."""
    while True:
        try:
            n = await troupe.add(key, 0)
        except (AskTimeoutError, StoreUnavailableError):
            continue
        assert n == 1, f"counter {key} says {n}"
        return time.perf_counter() - began


def hosts_of(root: Path) -> int:
    return sum(title(pid).startswith("ray::AgentHost") for pid in marked(root))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.2)


def recovered(took: list[float]) -> dict[str, Any]:
    ordered = sorted(took)
    return {
        "median_s": round(ordered[len(ordered) // 2], 3), "min_s": round(ordered[0], 3),
        "max_s": round(ordered[-1], 3), "n": len(took),
    }  # fmt: skip


CASES: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
    "ask": ask, "intake": intake, "sockets": sockets, "kill": kill, "node": node,
}  # fmt: skip

if __name__ == "__main__":
    uvloop.run(CASES[sys.argv[1]]())
