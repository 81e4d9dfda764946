"""The body on the wire: append-only, cached where it pays, and readable back."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models.wire import from_wire, to_wire
from tests.scripted import model_request

USER = {"role": "user", "content": "Totals are wrong"}
THINKING = {"type": "thinking", "thinking": "hm", "signature": "abc"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"b": 1, "a": 2}}
ASSISTANT = {"role": "assistant", "content": [THINKING, CALL]}
RESULT = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}],
}
TOOLS = [{"name": "read", "input_schema": {"type": "object"}}]


def marks(body):
    """Where the breakpoints are: (message index, block index), and `system` and `tools`."""
    found = [
        (i, j)
        for i, message in enumerate(body["messages"])
        for j, block in enumerate(message["content"])
        if "cache_control" in block
    ]
    return found + [
        key
        for key in ("system", "tools")
        if any("cache_control" in block for block in body.get(key, []))
    ]


def bare(message):
    """The bytes of a message without breakpoints."""
    content = [{k: v for k, v in b.items() if k != "cache_control"} for b in message["content"]]
    return json.dumps({**message, "content": content}).encode()


def test_appending_changes_no_byte_before():
    """Every call would pay for the whole history anew, and bound thinking would be refused."""
    first = to_wire(model_request(USER, tools=TOOLS))
    second = to_wire(model_request(USER, ASSISTANT, RESULT, tools=TOOLS))
    assert bare(first["messages"][0]) == bare(second["messages"][0])
    assert (first["system"], first["tools"]) == (second["system"], second["tools"])
    assert b'"input": {"b": 1, "a": 2}' in bare(second["messages"][1])


def test_breakpoints_are_where_the_last_call_ended_and_where_this_one_does():
    """The prefix that the last call wrote would not be found in the cache."""
    assert marks(to_wire(model_request(USER))) == [(0, 0), "system"]
    assert marks(to_wire(model_request(USER, ASSISTANT, RESULT))) == [(0, 0), (2, 0), "system"]
    longer = [USER, ASSISTANT, RESULT, ASSISTANT, RESULT]
    assert marks(to_wire(model_request(*longer))) == [(2, 0), (4, 0), "system"]
    assert marks(to_wire(model_request(USER, system="", tools=TOOLS))) == [(0, 0), "tools"]


def test_no_breakpoint_is_put_where_the_provider_refuses_it():
    """A paused turn that ends in thinking would be answered with 400."""
    paused = {"role": "assistant", "content": [CALL, {"type": "text", "text": ""}, THINKING]}
    assert marks(to_wire(model_request(USER, paused))) == [(0, 0), (1, 0), "system"]


def test_the_callers_history_is_left_as_it_was():
    """The journaled messages would gain breakpoints that were never in them."""
    messages = [USER, ASSISTANT, RESULT]
    before = copy.deepcopy(messages)
    to_wire(model_request(*messages, tools=TOOLS))
    assert messages == before and TOOLS == [{"name": "read", "input_schema": {"type": "object"}}]


def test_a_schema_goes_out_as_the_output_format():
    """The classifier's answer would be free text."""
    schema = {"type": "object"}
    body = to_wire(model_request(output_format=schema))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert "output_config" not in to_wire(model_request())


def test_text_without_a_utf8_form_can_be_sent():
    """A file name that is not UTF-8 in a tool result would kill the call before it is made."""
    request = model_request({"role": "user", "content": "name \udcff, emoji \ud83d\ude00"})
    body = to_wire(request)
    assert from_wire(body).digest() == request.digest()
    assert body["messages"][0]["content"][0]["text"] == "name \ufffd, emoji \U0001f600"


text = st.text(max_size=20)
block = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": text}),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_use"),
            "id": text,
            "name": text,
            "input": st.dictionaries(text, st.one_of(text, st.integers(), st.none())),
        }
    ),
)
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant"]),
        "content": st.one_of(text, st.lists(block, max_size=4)),
    }
)


@given(messages=st.lists(message, min_size=1, max_size=6), system=text, schema=st.booleans())
def test_a_body_read_back_is_the_same_request(messages, system, schema):
    """The server would count a repeated call as a new one, and a kill test would prove nothing."""
    request = model_request(
        *messages, system=system, output_format={"type": "object"} if schema else None, tools=TOOLS
    )
    body = json.loads(json.dumps(to_wire(request)))
    assert from_wire(body).digest() == request.digest()


def test_a_digest_names_what_is_asked_and_nothing_else():
    """A resumed job would be told that its code changed, or not be told when it did."""
    request = model_request(USER)
    assert request.digest() == model_request(USER, purpose="other").digest()
    as_block = {"role": "user", "content": [{"type": "text", "text": "Totals are wrong"}]}
    assert request.digest() == model_request(as_block).digest()
    for change in (
        {"model": "m"},
        {"system": "s"},
        {"max_tokens": 1},
        {"tools": TOOLS},
        {"output_format": {}},
        {"messages": [RESULT]},
    ):
        assert model_request(**{"messages": [USER], **change}).digest() != request.digest()


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"model": "m", "max_tokens": 1, "messages": []},
        {"model": "m", "max_tokens": 1, "messages": [{"role": "robot", "content": "x"}]},
        {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": ["x"]}]},
        {"model": "m", "max_tokens": 1, "messages": [{"role": "user"}]},
        {"model": "m", "max_tokens": "1", "messages": [USER]},
    ],
)
def test_a_body_of_another_form_is_refused_by_name(body):
    """The server would fall over instead of saying what is missing."""
    with pytest.raises(ValueError, match=r"\w+"):
        from_wire(body)
