"""Helpers around the scripted model server: start one, tell it how to fail, ask it questions.

`scripted_server` runs it on this test's loop and a real socket; it is quick.
`scripted_process` starts the process that ships, for tests that kill things.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from actors.models.client import CALL_TIMEOUT_S, ModelClient
from actors.models.prices import SCRIPTED_MODEL
from actors.models.request import ModelRequest
from actors.models.script import Script
from actors.models.scripted import ScriptedServer
from actors.models.settings import ModelSettings
from runtime.clock import ManualClock

Json = dict[str, Any]
START_TIMEOUT_S = 30.0


@dataclass
class Scripted:
    """A running scripted server, seen from outside."""

    url: str
    pid: int | None = None

    async def calls(self) -> Json:
        """`total`, `complete`, `cut`, `refused`, `held`, `byDigest`, `recent`."""
        return await self._ask("GET", "/calls")

    async def faults(self, *rules: Json) -> None:
        """Put these fault rules in force, in place of all before."""
        await self._ask("PUT", "/faults", list(rules))

    async def release(self) -> None:
        """Let every held answer go on."""
        await self._ask("POST", "/release", {})

    async def until_held(self, count: int = 1) -> None:
        """Return when so many answers are held back in mid-stream."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while (await self.calls())["held"] < count:
                await asyncio.sleep(0)

    async def _ask(self, method: str, path: str, body: Any = None) -> Json:
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.request(method, self.url + path, json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@contextlib.asynccontextmanager
async def scripted_server(*scripts: Script | Json, faults: bool = True) -> AsyncIterator[Scripted]:
    """A server in this process, on a real socket."""
    loaded = tuple(s if isinstance(s, Script) else Script.model_validate(s) for s in scripts)
    server = ScriptedServer(loaded, faults)
    port = await server.start()
    try:
        yield Scripted(f"http://127.0.0.1:{port}")
    finally:
        await server.aclose()


@contextlib.asynccontextmanager
async def scripted_process(
    directory: Path, *scripts: Script | Json, faults: bool = True
) -> AsyncIterator[Scripted]:
    """The process that ships; it writes into `directory` and is gone at the end."""
    arguments = ["--port", "0", "--port-file", str(directory / "scripted.port")]
    for index, script in enumerate(scripts):
        path = directory / f"script-{index}.json"
        wire = script.to_wire() if isinstance(script, Script) else script
        path.write_text(json.dumps(wire))
        arguments += ["--script", str(path)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "actors.models.scripted",
        *arguments,
        *(["--faults"] if faults else []),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
        assert line, "the scripted server did not start"
        port = (directory / "scripted.port").read_text().strip()
        yield Scripted(f"http://127.0.0.1:{port}", process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def one_scene(*turns: Json | list[Json], role: str = "role: code", **scene: Any) -> Json:
    """A script of one scene that fits every request with `role` in its system text."""
    return {
        "name": "test",
        "scenes": [{"name": "only", "match": {"system": [role]}, "turns": list(turns), **scene}],
    }


def model_request(*messages: Json, **changes: Any) -> ModelRequest:
    """A request that `one_scene` fits."""
    fields: Json = {
        "model": SCRIPTED_MODEL,
        "system": "role: code",
        "messages": list(messages) or [{"role": "user", "content": "Totals are wrong"}],
        "max_tokens": 1_000,
        "purpose": "code",
    }
    return ModelRequest(**{**fields, **changes})


def settings_for(url: str, **env: str) -> ModelSettings:
    """Settings as `troupe up` makes them when no model is configured."""
    return ModelSettings.from_env({"TROUPE_SCRIPTED_URL": url, **env})


@dataclass
class Waits:
    """A sleep that takes no time and moves the clock instead."""

    clock: ManualClock
    seconds: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.clock.advance(seconds)


@dataclass
class Rig:
    """A model client with its clock and its waits in the test's hand."""

    client: ModelClient
    clock: ManualClock
    waits: Waits


@contextlib.asynccontextmanager
async def model_client(
    settings: ModelSettings,
    random: Callable[[], float] = lambda: 0.5,
    call_timeout_s: float = CALL_TIMEOUT_S,
) -> AsyncIterator[Rig]:
    """The real client; only time and chance are the test's."""
    clock = ManualClock()
    waits = Waits(clock)
    client = ModelClient(settings, clock, random, waits, call_timeout_s)
    try:
        yield Rig(client, clock, waits)
    finally:
        await client.aclose()
