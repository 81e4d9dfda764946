"""P1: one agent tells many that live on another host, in one turn each time.

Two hosts, each a process, over one store.  A round is one message to the
speaker, which sends to all N listeners in its turn, and ends when every
listener's new state is durable.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from runtime.agent import AgentState, BaseAgent
from runtime.client import Client
from runtime.hosting.host import Host, HostSettings
from runtime.kinds import Kinds
from runtime.message import Message
from runtime.store.remote import RemoteStore
from tests.benchmarks.bench_messages import Rig
from tests.benchmarks.cases import result, size
from tests.child import ROOT

N = size("N", 1_000)
ROUNDS = size("ROUNDS", 20)
WITHIN_S = 120.0


class Listener(BaseAgent):
    """Counts what it is told, and says how much it was when it is asked."""

    kind = "listener"

    class State(AgentState):
        n: int = 0

    async def receive_message(self, message: Message) -> object:
        if message.message_type == "read":
            return self.state.n
        self.state.n += 1
        return None


class Speaker(BaseAgent):
    kind = "speaker"

    class State(AgentState):
        said: int = 0

    async def receive_message(self, message: Message) -> object:
        self.state.said += 1
        for key in range(message.content["to"]):
            await self.send_message(f"listener:{key}", {}, "told")
        return self.state.said


async def other_host(socket: Path) -> None:
    """The host of the listeners: this module as a process of its own."""
    rig = Rig(socket.parent)
    store = RemoteStore(socket)
    host = Host("listeners", store, *parts(rig, store))
    await host.start()
    await host.watch()


def parts(rig: Rig, store: RemoteStore) -> tuple[Any, ...]:
    """What every host is made of."""
    kinds = Kinds({"listener": Listener, "speaker": Speaker}, store)
    settings = HostSettings(lease_s=10.0, idle_s=3_600.0)
    return kinds, rig.clock, rig.ids, rig.random.random, settings


async def read_all(rig: Rig) -> list[int]:
    """How much each listener was told."""
    asks = (rig.client.ask(f"listener:{key}", {}, "read") for key in range(N))
    return await asyncio.gather(*asks)


async def speaker_here(rig: Rig) -> str:
    """A speaker that lives on this process's host: the hosts take what comes."""
    for number in range(100):
        await rig.client.ask(f"speaker:{number}", {"to": 0})
        if rig.host.status()["agents"]:
            return f"speaker:{number}"
    raise RuntimeError("the other host takes every speaker")


async def run() -> None:
    root = Path(tempfile.mkdtemp(prefix="bench-fanout-"))
    rig = Rig(root)
    rig.process.directory.mkdir(parents=True, exist_ok=True)
    await rig.process.start()
    store = RemoteStore(rig.process.socket)
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.cases.fanout", str(rig.process.socket), cwd=ROOT
    )
    try:
        rig.store = store
        rig.client = Client(RemoteStore(rig.process.socket), rig.clock, rig.ids, "acme", "b")
        await read_all(rig)
        rig.host = Host("speakers", store, *parts(rig, store))
        await rig.host.start()
        speaker = await speaker_here(rig)
        began = time.perf_counter()
        for _ in range(ROUNDS):
            await rig.client.send(speaker, {"to": N})
        async with asyncio.timeout(WITHIN_S):
            while await rig.client.ask(f"listener:{N - 1}", {}, "read") < ROUNDS:
                await asyncio.sleep(0.002)
            counted = await read_all(rig)
        wall_s = time.perf_counter() - began
        result("P1 troupe fan-out to another host", {
            "fanout_msgs_s": round(N * ROUNDS / wall_s, 1), "n": N, "rounds": ROUNDS,
            "exact": sum(counted) == N * ROUNDS,
        })  # fmt: skip
        await rig.stop()
    finally:
        other.kill()
        await other.wait()
        shutil.rmtree(root)


if __name__ == "__main__":
    uvloop.run(other_host(Path(sys.argv[1])) if len(sys.argv) > 1 else run())
