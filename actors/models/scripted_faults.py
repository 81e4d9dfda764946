"""Faults: rules that make the scripted server fail in a chosen way at a chosen call.

A rule applies to the calls that fit its `match`, from the `nth` of them on,
`times` times.  The first rule that applies wins.  Counting is why faults are
for tests only: with rules the server's answer is no longer a pure function of
the request.

    [{"kind": "status", "status": 529, "times": 2},
     {"kind": "status", "status": 429, "retryAfter": "30", "match": {"system": "role: code"}},
     {"kind": "cut", "afterEvent": 3, "abrupt": true, "nth": 2}]
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from actors.models.request import Json, ModelRequest, blocks
from actors.models.script import Play, text_of, usage
from actors.models.scripted_reply import Reply, answer_reply, json_reply, sse
from runtime.wire import WireModel

HUGE_BYTES = 10 << 20
Kind = Literal[
    "status",
    "cut",
    "error_event",
    "bad_event",
    "not_a_stream",
    "content_length",
    "drip",
    "hold",
    "truncated_tool",
    "unknown_block",
    "unknown_stop",
    "duplicate_tool_ids",
    "empty_end_turn",
    "huge_text",
    "refusal",
    "pause_turn",
    "nonsense",
    "no_usage",
]


class FaultMatch(WireModel):
    """Every given one must hold."""

    digest: str | None = None
    system: str | None = None
    """Occurs in the system text, where the agent's role is."""
    user: str | None = None
    """Occurs in the first message, where the issue is."""

    def fits(self, request: ModelRequest) -> bool:
        return (
            (self.digest is None or self.digest == request.digest())
            and (self.system is None or self.system in request.system)
            and (self.user is None or self.user in _first_text(request))
        )


def _first_text(request: ModelRequest) -> str:
    return text_of([{**one, "content": blocks(one["content"])} for one in request.messages[:1]])


class Fault(WireModel):
    """One rule; the fields below `kind` belong to the kinds named."""

    kind: Kind
    match: FaultMatch = FaultMatch()
    nth: int = Field(default=1, ge=1)
    """Of the calls that fit, 1-based."""
    times: int | None = Field(default=1, ge=1)
    """None: from then on always."""
    status: int = 529
    """status"""
    error_type: str = "overloaded_error"
    """status, error_event"""
    error_code: str | None = None
    """status: `enforced_spend_limit_reached`"""
    retry_after: str | None = None
    """status"""
    should_retry: bool | None = None
    """status: the header x-should-retry"""
    after_event: int = Field(default=1, ge=0)
    """cut, error_event, bad_event, hold: after so many events"""
    abrupt: bool = False
    """cut: reset the connection instead of ending the response in good order"""
    pause_ms: float = 0
    """drip: between two events"""
    length_delta: int = 0
    """content_length: what is declared, less what is sent"""
    size_bytes: int = HUGE_BYTES
    """huge_text"""


class Faults:
    """The rules in force and how often each one's calls came."""

    def __init__(self, rules: tuple[Fault, ...] = ()) -> None:
        self._rules = rules
        self._seen = [0] * len(rules)

    def next(self, request: ModelRequest) -> Fault | None:
        """Count the call and return the fault it meets."""
        hit: Fault | None = None
        for index, rule in enumerate(self._rules):
            if not rule.match.fits(request):
                continue
            self._seen[index] += 1
            turn = self._seen[index] - rule.nth
            if hit is None and turn >= 0 and (rule.times is None or turn < rule.times):
                hit = rule
        return hit


def faulty_reply(fault: Fault, play: Play, body: Json) -> Reply:
    """What the server sends instead of the answer."""
    if fault.kind == "status":
        return _status(fault)
    message = copy.deepcopy(play.message)
    change = _MESSAGE_FAULTS.get(fault.kind)
    if change is not None:
        change(message, fault)
        message["usage"] = {} if fault.kind == "no_usage" else usage(body, message["content"])
    reply = answer_reply(
        Play(message, play.latency_ms, play.tokens_per_second), bool(body.get("stream"))
    )
    wire = _WIRE_FAULTS.get(fault.kind)
    return reply if wire is None else wire(reply, fault)


def _status(fault: Fault) -> Reply:
    error: Json = {"type": fault.error_type, "message": f"scripted fault: {fault.status}"}
    if fault.error_code is not None:
        error["details"] = {"error_code": fault.error_code}
    reply = json_reply(fault.status, {"type": "error", "error": error})
    if fault.retry_after is not None:
        reply.headers["retry-after"] = fault.retry_after
    if fault.should_retry is not None:
        reply.headers["x-should-retry"] = str(fault.should_retry).lower()
    return reply


def _truncated_tool(message: Json, _: Fault) -> None:
    for block in message["content"]:
        if block["type"] == "tool_use":
            text = json.dumps(block["input"])
            block["input"] = text[: max(1, len(text) * 2 // 3)]
    message["stop_reason"] = "max_tokens"


def _unknown_block(message: Json, _: Fault) -> None:
    block = {"type": "block_of_tomorrow", "payload": {"kept": [1, 2, 3]}, "text": "not a text"}
    message["content"].insert(0, block)


def _unknown_stop(message: Json, _: Fault) -> None:
    message["stop_reason"] = "reason_of_tomorrow"


def _duplicate_tool_ids(message: Json, _: Fault) -> None:
    calls = [block for block in message["content"] if block["type"] == "tool_use"]
    message["content"] += copy.deepcopy(calls[:1])


def _empty_end_turn(message: Json, _: Fault) -> None:
    message["content"], message["stop_reason"] = [], "end_turn"


def _huge_text(message: Json, fault: Fault) -> None:
    message["content"] = [{"type": "text", "text": "x" * fault.size_bytes}]
    message["stop_reason"] = "end_turn"


def _refusal(message: Json, _: Fault) -> None:
    message["content"], message["stop_reason"] = [], "refusal"
    message["stop_details"] = {"type": "refusal", "category": "cyber", "explanation": "scripted"}


def _pause_turn(message: Json, _: Fault) -> None:
    message["content"] = [{"type": "text", "text": "Not done yet."}]
    message["stop_reason"] = "pause_turn"


def _nonsense(message: Json, _: Fault) -> None:
    message["content"] = [{"type": "text", "text": "Colourless green ideas sleep furiously. {]"}]
    message["stop_reason"] = "end_turn"


def _nothing(message: Json, _: Fault) -> None:
    """The message is as it was."""


_MESSAGE_FAULTS: dict[str, Callable[[Json, Fault], None]] = {
    "truncated_tool": _truncated_tool,
    "unknown_block": _unknown_block,
    "unknown_stop": _unknown_stop,
    "duplicate_tool_ids": _duplicate_tool_ids,
    "empty_end_turn": _empty_end_turn,
    "huge_text": _huge_text,
    "refusal": _refusal,
    "pause_turn": _pause_turn,
    "nonsense": _nonsense,
    "no_usage": _nothing,
}


def _cut(reply: Reply, fault: Fault) -> Reply:
    reply.writes = reply.writes[: fault.after_event]
    reply.ending, reply.answers = ("abrupt_cut" if fault.abrupt else "clean_cut"), False
    return reply


def _error_event(reply: Reply, fault: Fault) -> Reply:
    error = {"type": fault.error_type, "message": "scripted fault"}
    reply.writes = [*reply.writes[: fault.after_event], sse("error", {"error": error})]
    reply.answers = False
    return reply


def _bad_event(reply: Reply, fault: Fault) -> Reply:
    reply.writes.insert(fault.after_event, b'event: content_block_delta\ndata: {"torn\n\n')
    reply.answers = False
    return reply


def _not_a_stream(reply: Reply, _: Fault) -> Reply:
    return Reply(content_type="text/html", writes=[b"<html><body>Please sign in.</body></html>"])


def _content_length(reply: Reply, fault: Fault) -> Reply:
    reply.declared_length = sum(len(write) for write in reply.writes) + fault.length_delta
    reply.stream, reply.answers = False, fault.length_delta == 0
    return reply


def _drip(reply: Reply, fault: Fault) -> Reply:
    reply.pause_s = fault.pause_ms / 1000
    return reply


def _hold(reply: Reply, fault: Fault) -> Reply:
    reply.hold_after = fault.after_event
    return reply


_WIRE_FAULTS: dict[str, Callable[[Reply, Fault], Reply]] = {
    "cut": _cut,
    "error_event": _error_event,
    "bad_event": _bad_event,
    "not_a_stream": _not_a_stream,
    "content_length": _content_length,
    "drip": _drip,
    "hold": _hold,
}
