"""The Messages API body of a request, and the request of a body.

Appending to the history changes nothing before it on the wire: message i of
request n is byte for byte message i of request n+1, cache breakpoints aside
(the provider leaves them out of the cached prefix too).  Reading a body back
gives a request with the same digest, which is how the scripted server knows
what it was asked.

Breakpoints, at most three of the four allowed: after tools and system, after
the previous user turn (what the last call wrote is read there exactly, so the
20-block lookback does not matter), and after the last block.
"""

from __future__ import annotations

from typing import Any

from actors.models.request import Json, ModelRequest, blocks, encodable

_BREAKPOINT = {"type": "ephemeral"}
_CACHEABLE = frozenset({"text", "tool_use", "tool_result", "image", "document"})
"""Thinking blocks and blocks we don't know refuse a breakpoint."""


def to_wire(request: ModelRequest) -> Json:
    """The body to send, streaming."""
    body: Json = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "stream": True,
        "messages": _with_breakpoints(
            [{**message, "content": blocks(message["content"])} for message in request.messages]
        ),
    }
    tools = blocks(request.tools)
    if request.system:
        body["system"] = [{"type": "text", "text": request.system, "cache_control": _BREAKPOINT}]
    elif tools:
        tools[-1] = {**tools[-1], "cache_control": _BREAKPOINT}
    if tools:
        body["tools"] = tools
    if request.output_format is not None:
        schema = {"type": "json_schema", "schema": request.output_format}
        body["output_config"] = {"format": schema}
    return encodable(body)


def _with_breakpoints(messages: list[Json]) -> list[Json]:
    last = len(messages) - 1
    earlier_user = [i for i in range(last) if messages[i]["role"] == "user"]
    for index in {last, *earlier_user[-1:]} - {-1}:
        messages[index]["content"] = _mark_last(messages[index]["content"])
    return messages


def _mark_last(content: list[Json]) -> list[Json]:
    for index in range(len(content) - 1, -1, -1):
        block = content[index]
        if block.get("type") in _CACHEABLE and block.get("text") != "":
            return [
                *content[:index],
                {**block, "cache_control": _BREAKPOINT},
                *content[index + 1 :],
            ]
    return content


def from_wire(body: Any) -> ModelRequest:
    """The request that a body asks.

    Raises:
        ValueError: not a Messages API body; the message says what is missing.
    """
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")
    for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if not isinstance(body.get(name), kind):
            raise ValueError(f"{name}: field required")
    messages = [_message(message) for message in body["messages"]]
    if not messages:
        raise ValueError("messages: at least one message is required")
    output = body.get("output_config") or {}
    return ModelRequest(
        model=body["model"],
        system=_system(body.get("system")),
        messages=messages,
        max_tokens=body["max_tokens"],
        tools=blocks(body.get("tools") or []),
        output_format=(output.get("format") or {}).get("schema"),
    )


def _system(system: Any) -> str:
    if isinstance(system, list):
        return "".join(str(block.get("text", "")) for block in system)
    return system or ""


def _message(message: Any) -> Json:
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant", "system"):
        raise ValueError("messages: each has a role, user or assistant")
    content = message.get("content")
    if isinstance(content, list) and not all(isinstance(block, dict) for block in content):
        raise ValueError("messages: a content block is an object")
    if not isinstance(content, str | list):
        raise ValueError("messages: content is a string or a list of blocks")
    return {**message, "content": blocks(content)}
