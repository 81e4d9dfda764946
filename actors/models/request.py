"""What is asked of a model and what it answers, as plain data that can be journaled.

A request's digest names what is asked and nothing else: not the purpose, not
where the cache breakpoints are, not whether a text came as a string or as a
block.  An answer keeps the message as it came over the wire; all else is read
from it.  How a request looks on the wire is `wire`'s business.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

Json = dict[str, Any]
STOP_REASONS = frozenset(
    {
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "pause_turn",
        "refusal",
        "model_context_window_exceeded",
    }
)
"""What we know; anything else is to be treated as an incomplete answer."""


def canonical(value: Any) -> bytes:
    """JSON in the one form that is hashed: sorted keys, no spaces, UTF-8."""
    return _utf8(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def encodable(value: Json) -> Json:
    """The same JSON in text that has a UTF-8 form, so that it can be sent and stored.

    An emoji cut in two arrives as two halves of a surrogate pair: halves that
    meet are joined, a lone one becomes U+FFFD.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return dict(json.loads(_utf8(text)))
    return value


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def blocks(content: str | list[Json]) -> list[Json]:
    """A message's content as a list of blocks, without cache breakpoints."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        {key: value for key, value in block.items() if key != "cache_control"} for block in content
    ]


@dataclass(frozen=True)
class ModelRequest:
    """One call of a model; the history in `messages` is append-only."""

    model: str
    system: str
    messages: list[Json]
    """Messages API dicts; an assistant's is `{"role": "assistant", "content": answer.content}`."""
    max_tokens: int
    tools: list[Json] = field(default_factory=list)
    output_format: Json | None = None
    """A JSON schema that the answer's text must follow."""
    purpose: str = ""
    """For logs: `code`, `review`."""

    def digest(self) -> str:
        """SHA-256 of what is asked."""
        asked = {
            "model": self.model,
            "system": self.system,
            "tools": blocks(self.tools),
            "messages": [{**m, "content": blocks(m["content"])} for m in self.messages],
            "maxTokens": self.max_tokens,
            "outputFormat": self.output_format,
        }
        return hashlib.sha256(canonical(asked)).hexdigest()


@dataclass(frozen=True)
class Usage:
    """Tokens of one call; the four kinds of prompt tokens exclude one another."""

    input_tokens: int = 0
    """Neither read from nor written to the cache."""
    output_tokens: int = 0
    write_5m_tokens: int = 0
    write_1h_tokens: int = 0
    read_tokens: int = 0

    @classmethod
    def from_wire(cls, usage: Json) -> Usage:
        """Read the API's `usage`; servers leave out what they don't know."""
        breakdown = usage.get("cache_creation")
        hour = _count(breakdown, "ephemeral_1h_input_tokens")
        five = _count(breakdown, "ephemeral_5m_input_tokens")
        written = max(_count(usage, "cache_creation_input_tokens"), hour + five)
        return cls(
            input_tokens=_count(usage, "input_tokens"),
            output_tokens=_count(usage, "output_tokens"),
            write_5m_tokens=written - hour,
            write_1h_tokens=hour,
            read_tokens=_count(usage, "cache_read_input_tokens"),
        )

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.write_5m_tokens + self.write_1h_tokens + self.read_tokens

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


def _count(usage: Any, key: str) -> int:
    value = usage.get(key) if isinstance(usage, dict) else None
    return max(0, value) if isinstance(value, int) else 0


@dataclass(frozen=True)
class Attempt:
    """A try that failed before the answer came."""

    reason: str
    waited_s: float
    """How long we then waited in place."""
    cost_usd: float | None
    """What the try cost, at most; None when the model has no price."""


@dataclass(frozen=True)
class ModelAnswer:
    """A whole message (message_stop was seen and there is a stop_reason), and what it cost."""

    raw: Json
    """The message as it came over the wire, unknown blocks and fields included."""
    usage: Usage
    cost_usd: float | None
    """Of this answer and of the failed attempts before it; None when the model has no price."""
    request_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    broken_tools: tuple[str, ...] = ()
    """Ids of tool calls whose input is not whole; they must not be run."""

    @property
    def content(self) -> list[Json]:
        """The blocks, verbatim; send them back unchanged."""
        return list(self.raw["content"])

    @property
    def stop_reason(self) -> str:
        return str(self.raw["stop_reason"])

    @property
    def model(self) -> str:
        """Who answered, in the server's words."""
        return str(self.raw.get("model", ""))

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        parts = [block.get("text", "") for block in self.content if block.get("type") == "text"]
        return "".join(parts)

    @property
    def tool_calls(self) -> list[Json]:
        """The `tool_use` blocks to run: none unless the model stopped for them."""
        if self.stop_reason != "tool_use":
            return []
        return [block for block in self.content if block.get("type") == "tool_use"]

    def to_json(self) -> Json:
        """JSON-able data for the journal."""
        return {
            "raw": self.raw,
            "usage": asdict(self.usage),
            "costUsd": self.cost_usd,
            "requestId": self.request_id,
            "attempts": [
                {"reason": a.reason, "waitedS": a.waited_s, "costUsd": a.cost_usd}
                for a in self.attempts
            ],
            "brokenTools": list(self.broken_tools),
        }

    @classmethod
    def from_json(cls, data: Json) -> ModelAnswer:
        """The answer that `to_json` was made of."""
        return cls(
            raw=data["raw"],
            usage=Usage(**data["usage"]),
            cost_usd=data["costUsd"],
            request_id=data["requestId"],
            attempts=tuple(
                Attempt(a["reason"], a["waitedS"], a["costUsd"]) for a in data["attempts"]
            ),
            broken_tools=tuple(data["brokenTools"]),
        )
