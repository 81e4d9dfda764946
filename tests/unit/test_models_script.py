"""The script: a pure function of the request, and honest about what it is."""

from __future__ import annotations

import json

import pytest

from actors.models.prices import SCRIPTED_MODEL, settle_usd, tokens_bound
from actors.models.request import Usage, canonical
from actors.models.script import NoSceneError, Script, answer
from actors.models.settings import ModelSettings
from actors.models.wire import to_wire
from runtime.errors import SettingsError
from tests.scripted import model_request, one_scene

USER = {"role": "user", "content": "Totals are wrong"}


def play(script, request):
    return answer((Script.model_validate(script),), request, to_wire(request))


def after(first, result="ok", is_error=False):
    """The request that follows an answer whose one tool said `result`."""
    block = {
        "type": "tool_result",
        "tool_use_id": first.message["content"][-1]["id"],
        "content": [{"type": "text", "text": result}],
        "is_error": is_error,
    }
    assistant = {"role": "assistant", "content": first.message["content"]}
    return model_request(USER, assistant, {"role": "user", "content": [block]})


READ = {"text": "I look.", "tools": [{"name": "read", "input": {"path": "a.py"}}]}


def test_the_same_request_gets_the_same_answer_ids_included():
    """A call repeated after a crash would lead the job another way."""
    script = one_scene(READ, {"text": "done"})
    one, two = play(script, model_request(USER)), play(script, model_request(USER))
    assert canonical(one.message) == canonical(two.message)
    other = play(script, model_request({"role": "user", "content": "Totals are wrong again"}))
    assert other.message["content"][1]["id"] != one.message["content"][1]["id"]


def test_the_number_of_assistant_messages_chooses_the_turn():
    """A resumed conversation would start from its first turn again."""
    script = one_scene(READ, {"text": "done"})
    first = play(script, model_request(USER))
    assert first.message["stop_reason"] == "tool_use"
    second = play(script, after(first))
    assert second.message["content"] == [{"type": "text", "text": "done"}]
    assert second.message["stop_reason"] == "end_turn"


def test_the_last_tool_results_choose_the_variant():
    """The sample could not show an agent that corrects itself."""
    script = one_scene(
        READ,
        [
            {"when": {"toolError": True}, "text": "failed"},
            {"when": {"resultContains": "3 passed", "resultLacks": "warning"}, "text": "passed"},
            {"text": "else"},
        ],
    )
    first = play(script, model_request(USER))
    said = [
        play(script, after(first, *result)).message["content"][0]["text"]
        for result in (("3 passed", True), ("3 passed",), ("3 passed, 1 warning",), ("?",))
    ]
    assert said == ["failed", "passed", "else", "else"]


def test_scenes_are_chosen_by_role_and_issue():
    """The reviewer would get the coder's lines, and any issue the sample's."""
    scene = {"turns": [{"text": "code"}], "match": {"system": ["code"], "user": ["Totals"]}}
    review = {"turns": [{"text": "review"}], "match": {"system": ["role: review"]}}
    script = {"name": "s", "scenes": [{**scene, "name": "c"}, {**review, "name": "r"}]}
    assert play(script, model_request(USER)).message["content"][0]["text"] == "code"
    reviewed = play(script, model_request(USER, system="role: review"))
    assert reviewed.message["content"][0]["text"] == "review"
    with pytest.raises(NoSceneError, match=r"not a model.*\(c, r\)"):
        play(script, model_request({"role": "user", "content": "My own issue"}))


def test_a_script_that_ends_says_so_unless_it_repeats():
    """A loop past its script would get an answer out of nowhere."""
    first = play(one_scene(READ), model_request(USER))
    with pytest.raises(NoSceneError, match="only 1 turns"):
        play(one_scene(READ), after(first))
    again = play(one_scene(READ, repeatLast=True), after(first))
    assert again.message["content"][0] == first.message["content"][0]


def test_captures_take_values_out_of_the_request():
    """A script could not name a hash that a tool returned, nor obey an injected order."""
    script = one_scene(
        READ,
        {
            "tools": [{"name": "edit", "input": {"deep": [{"sha": "<{{sha}}>"}]}}],
            "captures": {"sha": {"pattern": r"sha256: (\w+)"}},
        },
    )
    first = play(script, model_request(USER))
    second = play(script, after(first, "text\nsha256: abc123\n"))
    assert second.message["content"][0]["input"] == {"deep": [{"sha": "<abc123>"}]}
    with pytest.raises(NoSceneError, match="looks for 'sha'"):
        play(script, after(first, "nothing"))


def test_structured_answers_are_json_texts():
    """Triage by the script would not parse."""
    said = play(one_scene({"json": {"type": "bug"}}), model_request(USER)).message["content"]
    assert json.loads(said[0]["text"]) == {"type": "bug"}


def test_the_script_says_that_it_is_one():
    """A user would take the script's answer for a model's."""
    message = play(one_scene(READ), model_request(USER, model="claude-opus-5-5")).message
    assert message["model"] == SCRIPTED_MODEL


def test_usage_shows_the_history_as_cached():
    """The demo's costs would grow with the square of its rounds."""
    script = one_scene(READ, READ, {"text": "done"})
    long = model_request({"role": "user", "content": "Totals are wrong " * 100})
    first = play(script, long)
    usage = Usage.from_wire(first.message["usage"])
    assert usage.read_tokens == 0 and usage.write_5m_tokens > 400 and usage.input_tokens == 0
    assistant = {"role": "assistant", "content": first.message["content"]}
    result = {"role": "user", "content": "go on"}
    second = play(script, model_request(*long.messages, assistant, result))
    after_first = Usage.from_wire(second.message["usage"])
    assert after_first.read_tokens == usage.write_5m_tokens
    assert 0 < after_first.write_5m_tokens < 200


def test_a_scripted_call_costs_less_than_its_reserve():
    """A budget would be overdrawn by the demo itself."""
    request = model_request(USER)
    message = play(one_scene(READ), request).message
    usage = Usage.from_wire(message["usage"])
    assert usage.prompt_tokens <= tokens_bound(len(canonical(to_wire(request))))
    assert settle_usd(ModelSettings().price(SCRIPTED_MODEL), usage) > 0


@pytest.mark.parametrize(
    "change",
    [
        {"scenes": []},
        {"scene": []},
        {"scenes": [{"name": "a", "match": {}, "turns": []}]},
        {"scenes": [{"name": "a", "match": {}, "turns": [{"say": "x"}]}]},
        {
            "scenes": [
                {"name": "a", "match": {}, "turns": [{"captures": {"x": {"pattern": "no group"}}}]}
            ]
        },
        {"scenes": [{"name": "a", "match": {}, "turns": [{"captures": {"x": {"pattern": "("}}}]}]},
    ],
)
def test_a_script_with_a_mistake_is_refused_at_the_start(tmp_path, change):
    """The mistake would show in the middle of the demo."""
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**one_scene(READ), **change}))
    with pytest.raises(SettingsError, match=r"bad\.json"):
        Script.load(path)


def test_the_example_in_the_modules_header_is_a_script():
    """The documented format would not be the one that is read."""
    from actors.models import script

    header = script.__doc__
    example = header[header.index("{") : header.rindex("}") + 1]
    loaded = Script.model_validate(json.loads(example))
    assert loaded.scenes[0].turns[1][1].captures["sha"].source == "results"
