"""One streamed answer, put together from the events as they came over the wire.

A message is whole only when `message_stop` was seen and `stop_reason` is set;
a stream that ends before is cut, however cleanly the connection was closed.
Nothing is guessed: blocks and fields we don't know are kept as they are, and
tool input that is not whole JSON is marked, never completed.  What to do about
a cut or malformed answer is the client's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from actors.models.errors import ModelError
from actors.models.request import Json, Usage, encodable

ANSWER_BYTES_MAX = 8 << 20
"""Text and tool input of one answer; 128 k tokens are far less."""
WIRE_BYTES_MAX = 128 << 20
"""Of one stream: an event per token costs some 150 bytes."""
DEPTH_MAX = 64
"""Of an event and of a tool's input; deeper ones break the encoders that come after us."""
_APPENDED = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class MalformedAnswerError(ModelError):
    """The stream does not follow the protocol.

    Args: reason (a code). It never leaves the client.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StreamError(ModelError):
    """The server ended the stream with an error event.

    Args: type, message. It never leaves the client.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(type, message)
        self.type = type
        self.message = message


class EventReader:
    """Splits a byte stream into server-sent events: `(event, data)`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._event = ""
        self._data: list[bytes] = []
        self._bytes = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """The events that `chunk` completes; an event without its blank line never is.

        Raises:
            MalformedAnswerError: more than WIRE_BYTES_MAX.
        """
        self._bytes += len(chunk)
        if self._bytes > WIRE_BYTES_MAX:
            raise MalformedAnswerError("stream_too_long")
        self._buffer += chunk
        # A line may come in thousands of chunks: what was searched is not searched again.
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            self._scanned = 0
            if (event := self._line(line)) is not None:
                yield event
        self._scanned = len(self._buffer)

    def _line(self, line: bytes) -> tuple[str, bytes] | None:
        if not line:
            event, data = self._event, b"\n".join(self._data)
            self._event, self._data = "", []
            return (event, data) if data else None
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(value)
        return None


class AnswerBuilder:
    """Folds events into the message that the API would have answered without streaming."""

    def __init__(self) -> None:
        self._message: Json | None = None
        self._blocks: dict[int, Json] = {}
        self._parts: dict[tuple[int, str], list[str]] = {}
        self._stopped = False
        self._broken: list[str] = []
        self.size = 0
        """Characters of text and tool input so far."""

    @property
    def complete(self) -> bool:
        return (
            self._stopped
            and self._message is not None
            and isinstance(self._message.get("stop_reason"), str)
        )

    @property
    def usage(self) -> Usage:
        """As far as the server told; cumulative."""
        usage = self._message.get("usage") if self._message is not None else None
        return Usage.from_wire(usage if isinstance(usage, dict) else {})

    def add(self, name: str, data: bytes) -> None:
        """Fold one event in.

        Raises:
            MalformedAnswerError: not JSON, out of order, or too large.
            StreamError: the server reported an error in mid-stream.
        """
        event = _parse_event(data)
        kind = event.get("type") or name
        if kind == "error":
            error = event.get("error")
            error = error if isinstance(error, dict) else {}
            raise StreamError(str(error.get("type", "api_error")), str(error.get("message", "")))
        if kind == "message_start":
            self._start(event)
        elif kind == "content_block_start":
            self._block_start(event)
        elif kind == "content_block_delta":
            self._block_delta(event)
        elif kind == "message_delta":
            self._message_delta(event)
        elif kind == "message_stop":
            self._stopped = True
        # `ping`, `content_block_stop` and events made after us add nothing to the message.

    def finish(self) -> tuple[Json, tuple[str, ...]]:
        """The whole message, and the ids of tool calls whose input is not whole.

        Raises:
            MalformedAnswerError: two tool calls share an id, which no later request may repeat.
        """
        assert self._message is not None and self.complete
        content = [self._block(index) for index in sorted(self._blocks)]
        self._mark_cut_tool(content)
        ids = [block.get("id") for block in content if block.get("type") == "tool_use"]
        if len(ids) != len(set(ids)):
            raise MalformedAnswerError("duplicate_tool_ids")
        message = {**self._message, "content": content}
        return encodable(message), tuple(dict.fromkeys(self._broken))

    def _start(self, event: Json) -> None:
        message = event.get("message")
        if self._message is not None or not isinstance(message, dict):
            raise MalformedAnswerError("bad_message_start")
        self._message = dict(message)
        for index, block in enumerate(message.get("content") or []):
            self._blocks[index] = dict(block)

    def _block_start(self, event: Json) -> None:
        block, index = event.get("content_block"), event.get("index")
        if self._message is None or not isinstance(block, dict) or not isinstance(index, int):
            raise MalformedAnswerError("bad_block_start")
        self._grow(len(json.dumps(block)))
        self._blocks[index] = dict(block)

    def _block_delta(self, event: Json) -> None:
        index, delta = event.get("index"), event.get("delta")
        if not isinstance(index, int) or index not in self._blocks or not isinstance(delta, dict):
            raise MalformedAnswerError("bad_block_delta")
        kind = delta.get("type")
        if kind == "input_json_delta":
            self._append(index, "input", delta.get("partial_json"))
        elif kind in _APPENDED:
            self._append(index, _APPENDED[kind], delta.get(_APPENDED[kind]))
        elif kind == "citations_delta":
            self._grow(len(json.dumps(delta)))
            self._blocks[index]["citations"] = [
                *(self._blocks[index].get("citations") or []),
                delta.get("citation"),
            ]
        else:
            self._unknown_delta(index, delta)

    def _unknown_delta(self, index: int, delta: Json) -> None:
        """Every delta there was appends a string field or sets a field: so do new ones."""
        for key, value in delta.items():
            if key == "type":
                continue
            if isinstance(value, str):
                self._append(index, key, value)
            else:
                self._grow(len(json.dumps(value)))
                self._blocks[index][key] = value

    def _append(self, index: int, key: str, part: Any) -> None:
        if not isinstance(part, str):
            raise MalformedAnswerError("bad_block_delta")
        self._grow(len(part))
        self._parts.setdefault((index, key), []).append(part)

    def _grow(self, size: int) -> None:
        self.size += size
        if self.size > ANSWER_BYTES_MAX:
            raise MalformedAnswerError("answer_too_large")

    def _message_delta(self, event: Json) -> None:
        if self._message is None:
            raise MalformedAnswerError("bad_message_delta")
        delta, usage = event.get("delta"), event.get("usage")
        if isinstance(delta, dict):
            self._message.update(delta)
        if isinstance(usage, dict):
            # Counts are cumulative; an absent or null one leaves what message_start said.
            known = {key: value for key, value in usage.items() if value is not None}
            self._message["usage"] = {**(self._message.get("usage") or {}), **known}

    def _block(self, index: int) -> Json:
        block = self._blocks[index]
        for (at, key), parts in self._parts.items():
            if at != index:
                continue
            text = "".join(parts)
            if key != "input":
                block[key] = (block.get(key) or "") + text
            elif text:
                block["input"] = self._input(block, text)
        return block

    def _input(self, block: Json, text: str) -> Json:
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and not _deeper_than(DEPTH_MAX, value):
            return value
        self._broken.append(str(block.get("id")))
        return {}

    def _mark_cut_tool(self, content: list[Json]) -> None:
        """A call the answer ended in may lack its last fields even where its JSON is whole."""
        assert self._message is not None
        cut = self._message["stop_reason"] in ("max_tokens", "model_context_window_exceeded")
        if cut and content and content[-1].get("type") == "tool_use":
            self._broken.append(str(content[-1].get("id")))


def _parse_event(data: bytes) -> Json:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedAnswerError("event_not_json") from None
    if not isinstance(event, dict):
        raise MalformedAnswerError("event_not_json")
    if _deeper_than(DEPTH_MAX, event):
        raise MalformedAnswerError("event_too_deep")
    return event


def _deeper_than(limit: int, value: Any) -> bool:
    layer = [value]
    for _ in range(limit):
        nested = [v for v in layer if isinstance(v, dict | list)]
        if not nested:
            return False
        layer = [c for v in nested for c in (v.values() if isinstance(v, dict) else v)]
    return any(isinstance(v, dict | list) for v in layer)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
