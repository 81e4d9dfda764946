"""A script: data that says what the scripted model answers to which request.

The answer is a pure function of the request: the scene is chosen by markers in
it, the turn by how many assistant messages it has, a variant by the last tool
results.  So a call repeated after a crash gets the same bytes, ids included.
It tests and shows the machinery; it has no intelligence and serves only its
scenes.

    {"name": "sample", "scenes": [{
       "name": "code",
       "match": {"system": ["role: code"], "user": ["Totals are wrong"]},
       "latencyMs": 300, "tokensPerSecond": 120,
       "turns": [
         {"text": "I read the failing test first.",
          "tools": [{"name": "read", "input": {"path": "tests/test_cart.py"}}]},
         [{"when": {"toolError": true}, "text": "That did not work.",
           "tools": [{"name": "bash", "input": {"command": "git status"}}]},
          {"tools": [{"name": "edit", "input": {"path": "cart.py", "old_string": "+",
                                                "new_string": "-", "expect_sha": "{{sha}}"}}],
           "captures": {"sha": {"from": "results", "pattern": "sha256: ([0-9a-f]{64})"}}}],
         {"json": {"verdict": "approve"}}]}]}
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from actors.models.errors import SCRIPT_NO_MATCH, ModelError
from actors.models.prices import SCRIPTED_MODEL
from actors.models.request import Json, ModelRequest, blocks, canonical
from runtime.errors import SettingsError
from runtime.wire import WireModel

BYTES_PER_SCRIPTED_TOKEN = 4
"""More than the client's bound assumes, so that a reserve always covers the cost."""


class NoSceneError(ModelError):
    """The script has no answer for this request.

    Args: message.
    """


class Match(WireModel):
    """Every given text must occur."""

    system: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    """In the first user message."""

    def fits(self, request: ModelRequest) -> bool:
        first_user = text_of([m for m in request.messages if m["role"] == "user"][:1])
        return all(marker in request.system for marker in self.system) and all(
            marker in first_user for marker in self.user
        )


class Condition(WireModel):
    """Of the tool results in the last message; every given one must hold."""

    tool_error: bool | None = None
    result_contains: str | None = None
    result_lacks: str | None = None

    def holds(self, last: Json) -> bool:
        results = [b for b in last["content"] if b.get("type") == "tool_result"]
        failed = any(block.get("is_error") for block in results)
        text = text_of([last])
        return (
            (self.tool_error is None or self.tool_error == failed)
            and (self.result_contains is None or self.result_contains in text)
            and (self.result_lacks is None or self.result_lacks not in text)
        )


class ToolCall(WireModel):
    name: str
    input: dict[str, Any] = Field(default_factory=dict)


class Capture(WireModel):
    """Takes group 1 of a pattern out of the request, for `{{name}}` in texts and inputs."""

    source: Literal["results", "first", "system", "all"] = Field(default="results", alias="from")
    """The last message, the first message, the system text, or all messages."""
    pattern: str

    def value(self, request: ModelRequest) -> str | None:
        parts = {
            "results": request.messages[-1:],
            "first": request.messages[:1],
            "all": request.messages,
        }
        text = request.system if self.source == "system" else text_of(parts[self.source])
        found = re.search(self.pattern, text)
        return found.group(1) if found else None

    @field_validator("pattern")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(str(error)) from error
        if groups < 1:
            raise ValueError("a capture needs a group")
        return pattern


class Turn(WireModel):
    """One answer: a text, tool calls, or one JSON text."""

    when: Condition | None = None
    text: str | None = None
    tools: tuple[ToolCall, ...] = ()
    data: Any = Field(default=None, alias="json")
    captures: dict[str, Capture] = Field(default_factory=dict)


class Scene(WireModel):
    """The answers of one conversation."""

    name: str
    match: Match
    turns: tuple[Turn | tuple[Turn, ...], ...] = Field(min_length=1)
    """By number of assistant messages so far; of variants, the first whose `when` holds."""
    repeat_last: bool = False
    """Answer the last turn for ever, instead of an error after it."""
    latency_ms: float = Field(default=0, ge=0, le=60_000)
    """Before the first byte."""
    tokens_per_second: float | None = Field(default=None, gt=0)
    """None: as fast as it goes."""


class Script(WireModel):
    name: str
    scenes: tuple[Scene, ...] = Field(min_length=1)

    @classmethod
    def load(cls, path: Path) -> Script:
        """Read a script.

        Raises:
            SettingsError: it can't be read or does not have the form above.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise SettingsError(f"the script {path}", str(error)) from error


@dataclass(frozen=True)
class Play:
    """What to answer, and how fast."""

    message: Json
    latency_ms: float = 0.0
    tokens_per_second: float | None = None


def answer(scripts: tuple[Script, ...], request: ModelRequest, body: Json) -> Play:
    """The answer to a request.

    Raises:
        NoSceneError: no scene, no turn or no variant fits.
    """
    messages = [{**message, "content": blocks(message["content"])} for message in request.messages]
    request = replace(request, messages=messages)
    scenes = [scene for script in scripts for scene in script.scenes]
    scene = next((scene for scene in scenes if scene.match.fits(request)), None)
    if scene is None:
        names = ", ".join(scene.name for scene in scenes)
        raise NoSceneError(
            f"this is a script and not a model: it serves only its scenes ({names}); "
            "set ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL to use a model"
        )
    turn = _turn(scene, request)
    digest = request.digest()
    content = _content(turn, _captured(scene, turn, request), digest)
    message = {
        "id": f"msg_{digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": SCRIPTED_MODEL,
        "content": content,
        "stop_reason": "tool_use" if turn.tools else "end_turn",
        "stop_sequence": None,
        "usage": usage(body, content),
    }
    return Play(message, scene.latency_ms, scene.tokens_per_second)


def error_body(message: str) -> Json:
    """The answer where there is none."""
    return {"type": "error", "error": {"type": SCRIPT_NO_MATCH, "message": message}}


def _turn(scene: Scene, request: ModelRequest) -> Turn:
    number = sum(message["role"] == "assistant" for message in request.messages)
    if number >= len(scene.turns):
        if not scene.repeat_last:
            raise NoSceneError(f"the scene {scene.name!r} has only {len(scene.turns)} turns")
        number = len(scene.turns) - 1
    turn = scene.turns[number]
    variants = (turn,) if isinstance(turn, Turn) else turn
    for variant in variants:
        if variant.when is None or variant.when.holds(request.messages[-1]):
            return variant
    raise NoSceneError(f"no variant of turn {number} of the scene {scene.name!r} fits")


def _captured(scene: Scene, turn: Turn, request: ModelRequest) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, capture in turn.captures.items():
        value = capture.value(request)
        if value is None:
            raise NoSceneError(f"the scene {scene.name!r} looks for {name!r} and does not find it")
        values[name] = value
    return values


def _content(turn: Turn, values: dict[str, str], digest: str) -> list[Json]:
    content: list[Json] = []
    if turn.text is not None:
        content.append({"type": "text", "text": _filled(turn.text, values)})
    if turn.data is not None:
        content.append({"type": "text", "text": json.dumps(_filled(turn.data, values))})
    for index, call in enumerate(turn.tools):
        # The digest covers the whole history, so an id is new in its conversation.
        name = hashlib.sha256(f"{digest}/{index}".encode()).hexdigest()[:24]
        content.append(
            {
                "type": "tool_use",
                "id": f"toolu_{name}",
                "name": call.name,
                "input": _filled(call.input, values),
            }
        )
    return content


def _filled(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace("{{" + name + "}}", text)
        return value
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    return value


def text_of(messages: list[Json]) -> str:
    """All text in messages, tool results included."""
    return "\n".join(_block_text(block) for message in messages for block in message["content"])


def _block_text(block: Json) -> str:
    content = block.get("content")
    if isinstance(content, list):
        return "\n".join(_block_text(part) for part in content if isinstance(part, dict))
    return str(block.get("text") or content or "")


def usage(body: Json, content: list[Json]) -> Json:
    """Token counts from lengths; the cache as if the previous call of the history had filled it."""
    counts = _prompt_counts(body)
    return {
        **counts,
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts["cache_creation_input_tokens"],
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": sum(tokens(canonical(block)) for block in content),
        "service_tier": "standard",
    }


def tokens(text: bytes) -> int:
    return math.ceil(len(text) / BYTES_PER_SCRIPTED_TOKEN)


def _prompt_counts(body: Json) -> dict[str, int]:
    """Up to the breakpoint before the last one is read, from there to the last is written."""
    system = body.get("system") or []
    system = system if isinstance(system, list) else [{"type": "text", "text": system}]
    parts = [*(body.get("tools") or []), *system]
    for message in body["messages"]:
        content = message["content"]
        parts += content if isinstance(content, list) else [{"type": "text", "text": content}]
    total, marks = 0, [0]
    for part in parts:
        bare = {key: value for key, value in part.items() if key != "cache_control"}
        total += tokens(canonical(bare))
        if "cache_control" in part:
            marks.append(total)
    first_call = all(message["role"] != "assistant" for message in body["messages"])
    read = 0 if first_call else marks[-2:][0]
    return {
        "input_tokens": total - marks[-1],
        "cache_creation_input_tokens": marks[-1] - read,
        "cache_read_input_tokens": read,
    }
