"""Putting an answer together: whole or not at all, and nothing guessed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models import stream
from actors.models.scripted_reply import events, sse
from actors.models.stream import AnswerBuilder, EventReader, MalformedAnswerError, StreamError

USAGE = {"input_tokens": 9, "output_tokens": 5}


def message(*content, stop_reason="end_turn"):
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": USAGE,
    }


def tool(id="toolu_1", **input):
    return {"type": "tool_use", "id": id, "name": "write", "input": input}


def build(raw: bytes, chunk: int = 1 << 20) -> AnswerBuilder:
    reader, builder = EventReader(), AnswerBuilder()
    for at in range(0, len(raw), chunk):
        for name, data in reader.feed(raw[at : at + chunk]):
            builder.add(name, data)
    return builder


def opened(block) -> bytes:
    """A stream up to an open block 0."""
    start = sse("message_start", {"message": {**message(), "stop_reason": None}})
    return start + sse("content_block_start", {"index": 0, "content_block": block})


def delta(**fields) -> bytes:
    return sse("content_block_delta", {"index": 0, "delta": fields})


def closed(stop_reason="end_turn") -> bytes:
    end = {"delta": {"stop_reason": stop_reason, "stop_sequence": None}, "usage": USAGE}
    return sse("message_delta", end) + sse("message_stop", {})


text = st.text(min_size=1, max_size=40)
inputs = st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=9), st.integers()))
contents = st.lists(
    st.one_of(
        text.map(lambda t: {"type": "text", "text": t}),
        inputs.map(lambda i: {"type": "tool_use", "name": "x", "input": i}),
    ),
    max_size=4,
)


@given(content=contents, chars=st.integers(1, 50), chunk=st.integers(1, 400))
def test_an_answer_is_what_was_sent_however_it_was_cut_into_packets(content, chars, chunk):
    """A packet boundary in a character or an event would change the answer."""
    for index, block in enumerate(content):
        if block["type"] == "tool_use":
            block["id"] = f"toolu_{index}"
    sent = message(*content, stop_reason="tool_use")
    builder = build(b"".join(events(sent, chars)), chunk)
    assert builder.complete
    assert builder.finish() == (sent, ())
    assert (builder.usage.input_tokens, builder.usage.output_tokens) == (9, 5)


def test_a_stream_cut_anywhere_is_never_complete():
    """Half an answer would be journaled and paid for as a whole one."""
    raw = b"".join(events(message({"type": "text", "text": "hello"}, tool(path="a")), 3))
    assert build(raw).complete
    assert not any(build(raw[:end]).complete for end in range(len(raw)))


def test_message_stop_without_a_reason_is_not_complete():
    """A server that ends politely in the middle would be believed."""
    raw = opened({"type": "text", "text": "hi"}) + sse("message_stop", {})
    assert not build(raw).complete


@pytest.mark.parametrize(
    ("typed", "broken"),
    [
        ('{"path": "a.py", "content": "x"}', False),
        ('{"path": "a.py", "conte', True),
        ('{"path": "a.py", "size": NaN}', True),
        ('["a.py"]', True),
        ('{"a":' * 100 + "1" + "}" * 100, True),
        ("[" * 200_000, True),
    ],
)
def test_tool_input_that_is_not_a_whole_object_is_marked(typed, broken):
    """The SDK completes torn JSON by itself: a file would be written without its content."""
    raw = opened(tool()) + delta(type="input_json_delta", partial_json=typed) + closed("tool_use")
    answer, marked = build(raw).finish()
    assert marked == (("toolu_1",) if broken else ())
    assert answer["content"][0]["input"] == ({} if broken else json.loads(typed))


def test_a_tool_call_that_the_limit_ended_is_marked_even_if_its_json_is_whole():
    """A call that lost its last argument would be run as if the model had meant it."""
    raw = b"".join(events(message(tool("toolu_1"), tool("toolu_2"), stop_reason="max_tokens"), 9))
    assert build(raw).finish()[1] == ("toolu_2",)


def test_what_we_do_not_know_is_kept_as_it_is():
    """A block of a newer model would be lost, and sending the history back would be refused."""
    block = {"type": "block_of_tomorrow", "payload": {"a": 1}, "note": "x"}
    raw = (
        opened(block)
        + delta(type="delta_of_tomorrow", note="y", level=3)
        + sse("event_of_tomorrow", {"index": 0})
        + closed("reason_of_tomorrow")
    )
    answer, _ = build(raw).finish()
    assert answer["content"] == [{**block, "note": "xy", "level": 3}]
    assert answer["stop_reason"] == "reason_of_tomorrow"


def test_thinking_keeps_its_signature():
    """The provider refuses a history whose thinking blocks were changed."""
    raw = (
        opened({"type": "thinking", "thinking": "", "signature": ""})
        + delta(type="thinking_delta", thinking="hm")
        + delta(type="signature_delta", signature="abc")
        + closed()
    )
    assert build(raw).finish()[0]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "abc"}
    ]


def test_halves_of_an_emoji_in_two_deltas_are_joined():
    """An answer with an emoji could not be written to the journal."""
    start = opened({"type": "text", "text": ""})
    halves = [
        b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, '
        b'"delta": {"type": "text_delta", "text": "%s"}}\n\n' % half
        for half in (rb"\ud83d", rb"\ude00 \udc00")
    ]
    answer, _ = build(start + b"".join(halves) + closed()).finish()
    assert answer["content"][0]["text"] == "\U0001f600 \ufffd"


def test_two_calls_with_one_id_are_refused():
    """The next request would be refused, and the history could never go on."""
    sent = message(tool("toolu_1"), tool("toolu_1"), stop_reason="tool_use")
    with pytest.raises(MalformedAnswerError, match="duplicate_tool_ids"):
        build(b"".join(events(sent, 9))).finish()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"data: {torn\n\n", "event_not_json"),
        (b"data: 3\n\n", "event_not_json"),
        (b"data: " + b"[" * 200_000 + b"\n\n", "event_not_json"),
        (b'data: {"a": ' + b"[" * 70 + b"]" * 70 + b"}\n\n", "event_too_deep"),
        (sse("message_start", {"message": 3}), "bad_message_start"),
        (sse("content_block_start", {"index": 0, "content_block": {}}), "bad_block_start"),
        (opened(tool()) + delta(type="text_delta", text=3), "bad_block_delta"),
        (sse("content_block_delta", {"index": 7, "delta": {}}), "bad_block_delta"),
        (sse("message_delta", {"delta": {}}), "bad_message_delta"),
    ],
)
def test_a_stream_that_breaks_the_protocol_is_named(raw, reason):
    """A broken server would crash the job instead of being one more failed try."""
    with pytest.raises(MalformedAnswerError, match=reason):
        build(raw)


def test_an_error_in_mid_stream_is_an_error():
    """An overloaded provider would look like an answer that stopped early."""
    with pytest.raises(StreamError) as caught:
        build(opened(tool()) + sse("error", {"error": {"type": "overloaded_error"}}))
    assert caught.value.type == "overloaded_error"


def test_an_answer_has_a_largest_size(monkeypatch):
    """A server that never stops would fill the memory of every agent in the process."""
    monkeypatch.setattr(stream, "ANSWER_BYTES_MAX", 1_000)
    with pytest.raises(MalformedAnswerError, match="answer_too_large"):
        build(opened({"type": "text", "text": ""}) + delta(type="text_delta", text="x" * 1_001))
    monkeypatch.setattr(stream, "WIRE_BYTES_MAX", 2_000)
    with pytest.raises(MalformedAnswerError, match="stream_too_long"):
        build(sse("ping", {}) * 100)


def test_usage_told_later_wins_and_what_is_not_told_again_stays():
    """Prompt tokens named only at the start would be forgotten, and the call be too cheap."""
    start = {**message(), "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
    told = {"output_tokens": 77, "input_tokens": None}
    end = {"delta": {"stop_reason": "end_turn"}, "usage": told}
    raw = sse("message_start", {"message": start}) + sse("message_delta", end)
    usage = build(raw).usage
    assert (usage.input_tokens, usage.output_tokens) == (9, 77)
