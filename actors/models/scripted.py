"""The scripted model: a local process that speaks the Messages API and plays scripts.

It needs no key and no network, and it says what it is: the model id is
`troupe-scripted-1`, and a request outside its scenes is refused.  The same
client talks to it as to a real provider, so the demo and the tests run every
line but the model's own.  What it answers is `script`'s business, how it fails
`scripted_faults`'.

    python -m actors.models.scripted --port 0 --port-file F [--script S.json]... [--faults]

    POST /v1/messages  POST /v1/messages/count_tokens  GET /v1/models[/id]
    GET /healthz  GET /calls  PUT /faults and POST /release (with --faults only)
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from actors.models.prices import SCRIPTED_MODEL
from actors.models.request import Json, ModelRequest
from actors.models.script import NoSceneError, Script, answer, error_body, usage
from actors.models.scripted_faults import Fault, Faults, faulty_reply
from actors.models.scripted_http import HttpRequest, HttpServer, Outcome
from actors.models.scripted_reply import Reply, answer_reply, error_reply, json_reply
from actors.models.wire import from_wire
from runtime.clock import Clock, SystemClock

SCRIPTS = Path(__file__).parent / "scripts"
DIGESTS_MAX = 100_000
"""Distinct requests counted; the oldest are forgotten."""
RECENT_MAX = 1_000
"""Calls kept in order."""
_NOT_A_REQUEST = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What reading a body of some other form can raise."""
_RULES = TypeAdapter(tuple[Fault, ...])


class Calls:
    """How often each request was made, and how it ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sum = _counts()
        self._by_digest: dict[str, dict[str, int]] = {}
        self._recent: deque[Json] = deque(maxlen=RECENT_MAX)

    def begin(self, request: ModelRequest, body: Json) -> Callable[[str], None]:
        """Count a call; returns what to call with its ending: complete, cut or refused."""
        digest = request.digest()
        if digest not in self._by_digest and len(self._by_digest) >= DIGESTS_MAX:
            del self._by_digest[next(iter(self._by_digest))]
        counts = self._by_digest.setdefault(digest, _counts())
        entry = {
            "digest": digest,
            "model": request.model,
            "maxTokens": request.max_tokens,
            "messages": [_sent(message) for message in body["messages"]],
            "beganMs": self._clock.now_ms(),
            "endedMs": None,
            "ending": None,
        }
        self._recent.append(entry)
        for each in (self._sum, counts):
            each["total"] += 1

        def ended(ending: str) -> None:
            entry["ending"] = ending
            entry["endedMs"] = self._clock.now_ms()
            for each in (self._sum, counts):
                each[ending] += 1

        return ended

    def to_json(self) -> Json:
        return {**self._sum, "byDigest": self._by_digest, "recent": list(self._recent)}


def _counts() -> dict[str, int]:
    return {"total": 0, "complete": 0, "cut": 0, "refused": 0}


def _sent(message: Json) -> str:
    """A hash of a message as it was sent, in its own order of keys, without breakpoints."""
    content = message["content"]
    if isinstance(content, list):
        content = [{k: v for k, v in block.items() if k != "cache_control"} for block in content]
    return hashlib.sha256(json.dumps({**message, "content": content}).encode()).hexdigest()


class ScriptedServer:
    """Plays scripts to whoever asks on the loopback."""

    def __init__(
        self,
        scripts: tuple[Script, ...],
        faults_allowed: bool = False,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
    ) -> None:
        self._scripts = scripts
        self._faults = Faults()
        self.calls = Calls(clock)
        self._http = HttpServer(self._handle)
        self._routes: dict[str, Callable[[bytes], Reply]] = {
            "GET /healthz": self._health,
            "GET /calls": self._get_calls,
            "POST /v1/messages/count_tokens": _count_tokens,
            "GET /v1/models": _models,
            f"GET /v1/models/{SCRIPTED_MODEL}": _model,
        }
        if faults_allowed:
            self._routes |= {"PUT /faults": self._put_faults, "POST /release": self._release}

    async def start(self, port: int = 0) -> int:
        """Listen; returns the port."""
        return await self._http.start(port)

    async def aclose(self) -> None:
        await self._http.aclose()

    def _handle(self, request: HttpRequest) -> tuple[Reply, Callable[[Outcome], None]]:
        if (request.method, request.path) == ("POST", "/v1/messages"):
            reply, ended = self._messages(request.body)
        else:
            reply, ended = self._other(request), _ignore
        reply.headers["x-troupe-scripted"] = "1"

        def sent(outcome: Outcome) -> None:
            refused = reply.status != 200
            whole = reply.answers and outcome == "sent"
            ended("refused" if refused else "complete" if whole else "cut")

        return reply, sent

    def _messages(self, raw: bytes) -> tuple[Reply, Callable[[str], None]]:
        try:
            body = json.loads(raw)
            request = from_wire(body)
        except _NOT_A_REQUEST as error:
            return error_reply(400, "invalid_request_error", str(error)), _ignore
        ended = self.calls.begin(request, body)
        fault = self._faults.next(request)
        try:
            play = answer(self._scripts, request, body)
        except NoSceneError as error:
            return json_reply(400, error_body(error.args[0])), ended
        if fault is None:
            reply = answer_reply(play, bool(body.get("stream")))
        else:
            reply = faulty_reply(fault, play, body)
        reply.headers["request-id"] = f"req_{request.digest()[:24]}"
        return reply, ended

    def _other(self, request: HttpRequest) -> Reply:
        route = f"{request.method} {request.path}"
        found = self._routes.get(route)
        if found is None:
            return error_reply(404, "not_found_error", f"{route} is not served here")
        return found(request.body)

    def _health(self, _: bytes) -> Reply:
        scenes = [scene.name for script in self._scripts for scene in script.scenes]
        return json_reply(200, {"status": "ok", "model": SCRIPTED_MODEL, "scenes": scenes})

    def _get_calls(self, _: bytes) -> Reply:
        return json_reply(200, {**self.calls.to_json(), "held": self._http.held})

    def _release(self, _: bytes) -> Reply:
        self._http.release()
        return json_reply(200, {})

    def _put_faults(self, body: bytes) -> Reply:
        try:
            rules = _RULES.validate_json(body)
        except ValidationError as error:
            return error_reply(400, "invalid_request_error", str(error))
        self._faults = Faults(rules)
        return json_reply(200, {"rules": len(rules)})


def _ignore(_: str) -> None:
    """The call is not counted."""


def _count_tokens(raw: bytes) -> Reply:
    try:
        body = json.loads(raw)
        from_wire({"max_tokens": 1, **body})
    except _NOT_A_REQUEST as error:
        return error_reply(400, "invalid_request_error", str(error))
    counts = usage(body, [])
    prompt = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return json_reply(200, {"input_tokens": sum(counts[key] for key in prompt)})


def _model(_: bytes) -> Reply:
    return json_reply(200, _MODEL)


def _models(_: bytes) -> Reply:
    return json_reply(200, {"data": [_MODEL], "has_more": False})


_MODEL = {
    "type": "model",
    "id": SCRIPTED_MODEL,
    "display_name": "Troupe's script (not a model)",
    "created_at": "1970-01-01T00:00:00Z",
    "lifecycle": "active",
    "max_input_tokens": 1_000_000,
    "max_tokens": 128_000,
}


async def serve(scripts: tuple[Script, ...], port: int, port_file: Path, faults: bool) -> None:
    """Serve until SIGTERM or SIGINT; the port file appears when connections are accepted."""
    server = ScriptedServer(scripts, faults)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bound = await server.start(port)
    partial = port_file.with_suffix(".partial")
    partial.write_text(f"{bound}\n")
    partial.replace(port_file)
    sys.stdout.write(f"{SCRIPTED_MODEL} plays its scenes on http://127.0.0.1:{bound}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.aclose()


def main(argv: list[str] | None = None) -> None:
    """The command line in this module's header."""
    parser = argparse.ArgumentParser(prog="python -m actors.models.scripted")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--port-file", type=Path, required=True, help="where the port is written")
    parser.add_argument("--script", type=Path, action="append", help="default: all that ship")
    parser.add_argument("--faults", action="store_true", help="allow PUT /faults, for tests")
    options: Any = parser.parse_args(argv)
    paths = options.script or sorted(SCRIPTS.glob("*.json"))
    scripts = tuple(Script.load(path) for path in paths)
    asyncio.run(serve(scripts, options.port, options.port_file, options.faults))


if __name__ == "__main__":
    main()
