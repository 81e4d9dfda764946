"""Replies of the scripted server: what goes over the wire, and how badly.

A reply is data: status, headers, the writes in order, the pauses between them,
and how the connection is left.  Faults change it; `scripted_http` sends it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from actors.models.request import Json
from actors.models.script import Play

PACED_CHARS = 24
"""Of text in one event when the answer is paced: some six tokens."""
UNPACED_CHARS = 4_096
Ending = Literal["normal", "clean_cut", "abrupt_cut"]
"""`clean_cut`: HTTP ends in good order though the answer does not.  `abrupt_cut`: the
connection is reset."""


@dataclass
class Reply:
    """One HTTP response."""

    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    writes: list[bytes] = field(default_factory=list)
    """Each goes out in one write."""
    stream: bool = False
    """Chunked; else with a content-length."""
    declared_length: int | None = None
    """A content-length that lies."""
    latency_s: float = 0.0
    """Before the first byte."""
    pause_s: float = 0.0
    """Between two writes."""
    hold_after: int | None = None
    """Waits after so many writes until the test lets go."""
    ending: Ending = "normal"
    answers: bool = False
    """It is a whole answer, if all of it is written."""


def json_reply(status: int, body: Json) -> Reply:
    return Reply(status=status, writes=[json.dumps(body).encode()])


def error_reply(status: int, kind: str, message: str) -> Reply:
    """An error in the API's form."""
    return json_reply(status, {"type": "error", "error": {"type": kind, "message": message}})


def answer_reply(play: Play, stream: bool) -> Reply:
    """The whole answer, streamed or not."""
    paced = play.tokens_per_second
    if not stream:
        reply = json_reply(200, play.message)
    else:
        chars = PACED_CHARS if paced else UNPACED_CHARS
        reply = Reply(writes=events(play.message, chars))
        reply.content_type, reply.stream = "text/event-stream; charset=utf-8", True
        reply.pause_s = PACED_CHARS / 4 / paced if paced else 0.0
    reply.latency_s, reply.answers = play.latency_ms / 1000, True
    return reply


def events(message: Json, chars: int) -> list[bytes]:
    """A message as the API streams it."""
    usage = message["usage"]
    counts = {key: usage[key] for key in ("output_tokens",) if key in usage}
    begun = {**usage, **dict.fromkeys(counts, 1)}
    start = {**message, "content": [], "stop_reason": None, "usage": begun}
    parts = [sse("message_start", {"message": start}), sse("ping", {})]
    for index, block in enumerate(message["content"]):
        parts += _block_events(index, block, chars)
    end = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    if "stop_details" in message:
        end["stop_details"] = message["stop_details"]
    parts.append(sse("message_delta", {"delta": end, "usage": counts}))
    return [*parts, sse("message_stop", {})]


def _block_events(index: int, block: Json, chars: int) -> list[bytes]:
    if block["type"] == "text":
        opened, field_name, text = {**block, "text": ""}, "text", block["text"]
        kind = "text_delta"
    elif block["type"] == "tool_use":
        opened, field_name, text = {**block, "input": {}}, "partial_json", _input_text(block)
        kind = "input_json_delta"
    else:
        opened, field_name, text, kind = block, "", "", ""
    parts = [sse("content_block_start", {"index": index, "content_block": opened})]
    for at in range(0, len(text), chars):
        delta = {"type": kind, field_name: text[at : at + chars]}
        parts.append(sse("content_block_delta", {"index": index, "delta": delta}))
    return [*parts, sse("content_block_stop", {"index": index})]


def _input_text(block: Json) -> str:
    """The input as the model would type it; a fault may have put a torn one in its place."""
    value = block["input"]
    return value if isinstance(value, str) else json.dumps(value)


def sse(event: str, data: Json) -> bytes:
    return f"event: {event}\ndata: {json.dumps({'type': event, **data})}\n\n".encode()
