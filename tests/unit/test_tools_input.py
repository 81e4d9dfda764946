"""What models send and what they are shown: schemas, refusals in words, visible text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.tools import NAMES, RESULT_CHARS_MAX, definition, kind, visible
from actors.tools.definitions import schema
from actors.tools.junit import parse
from actors.tools.schema import problems
from actors.tools.text import shortened

KINDS = {
    "pure": {"read", "glob", "grep", "git_diff", "git_log", "git_blame", "artifact_read"},
    "workspace": {"edit", "write", "bash", "run_tests"},
    "control": {"finish", "ask_human", "report", "review"},
}
GOOD: dict[str, dict[str, Any]] = {
    "read": {"path": "a", "start_line": 1, "end_line": 2},
    "edit": {"path": "a", "old_string": "x", "new_string": "", "replace_all": True,
             "expect_sha": "0" * 64},
    "write": {"path": "a", "content": ""},
    "glob": {"pattern": "*", "path": "src"},
    "grep": {"pattern": "x", "path": "src", "glob": "*.py", "context": 5, "max": 200},
    "bash": {"command": "true", "timeout_s": 600, "cwd": "src"},
    "run_tests": {"targets": ["tests/test_a.py::test_b"], "last_failed": False},
    "git_diff": {"paths": ["a"]},
    "git_log": {"path": "a", "n": 50},
    "git_blame": {"path": "a", "start": 1, "end": 2},
    "finish": {"summary": "s", "confidence": "high", "tests_run": ["t"], "residual_risk": "r"},
    "ask_human": {"question": "q", "options": ["a", "b"]},
    "artifact_read": {"id": "0" * 64, "offset": 0, "limit": 100},
    "report": {"root_cause": "r", "evidence": [{"path": "a", "line": 1}], "options": ["o"],
               "confidence": "low"},
    "review": {"verdict": "approve", "blocking": [{"path": "a", "line": 1, "why": "w"}],
               "test_gaps": ["g"]},
}  # fmt: skip


def test_each_tool_has_the_kind_that_settles_an_interrupted_call() -> None:
    """A tool that changes the tree would be run again on the changed tree."""
    assert {name for names in KINDS.values() for name in names} == set(NAMES) == set(GOOD)
    for expected, names in KINDS.items():
        assert {kind(name) for name in names} == {expected}


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_is_what_the_messages_api_takes(name: str) -> None:
    """Every request with this tool would be refused."""
    made = json.loads(json.dumps(definition(name)))
    assert set(made) == {"name", "description", "input_schema"}
    assert made["input_schema"]["additionalProperties"] is False
    assert set(made["input_schema"]["required"]) <= set(made["input_schema"]["properties"])


@pytest.mark.parametrize("name", NAMES)
def test_the_shapes_are_the_agreed_ones(name: str) -> None:
    """Models know these shapes; a renamed field would fail most calls."""
    assert problems(schema(name), GOOD[name]) == []
    assert set(schema(name)["properties"]) == set(GOOD[name])
    needed = {key: GOOD[name][key] for key in schema(name)["required"]}
    assert problems(schema(name), needed) == []
    for key in needed:
        rest = {other: value for other, value in needed.items() if other != key}
        assert problems(schema(name), rest) == [f"input lacks {key}."]


@pytest.mark.parametrize(
    ("name", "sent", "said"),
    [
        ("read", {"pth": "a"}, "input has no field 'pth'. Did you mean path?"),
        ("read", {"path": 5}, "path must be of type string, not integer."),
        ("read", {"path": None}, "path must be of type string, not null."),
        ("read", {"path": "a", "start_line": True}, "start_line must be of type integer"),
        ("read", {"path": "a", "start_line": 1.5}, "not number."),
        ("read", {"path": "a", "start_line": 0}, "start_line must be at least 1."),
        ("read", [], "input must be of type object, not array."),
        ("read", "a", "input must be of type object, not string."),
        ("read", {"path": "\ud800"}, "half a character"),
        ("bash", {"command": "x", "timeout_s": 601}, "at least 1 and at most 600."),
        ("finish", {**GOOD["finish"], "confidence": "sure"}, "one of low, medium, high."),
        ("finish", {**GOOD["finish"], "tests_run": [1]}, "tests_run[0] must be of type string"),
        ("review", {**GOOD["review"], "blocking": [{"path": "a"}]}, "blocking[0] lacks line."),
        ("write", {"path": "a" * 5000, "content": ""}, "path is longer than 4096 characters."),
    ],
)
def test_a_wrong_input_is_said_in_words(name: str, sent: Any, said: str) -> None:
    """A model could not correct its call."""
    assert said in " ".join(problems(schema(name), sent))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(NAMES), JSON)
@settings(max_examples=200)
def test_no_json_makes_the_check_fail(name: str, sent: Any) -> None:
    """A strange input would end the job instead of the call."""
    found = problems(schema(name), sent)
    assert len(found) <= 5 and all(isinstance(sentence, str) for sentence in found)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain\ttext\n", "plain\ttext\n"),
        (b"a\r\nb\rc", "a\nb\\x0dc"),
        (b"\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        (b"caf\xc3\xa9 \xff\xfe", "café \\xff\\xfe"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u200bb\ufeffc\u2066", "a\\u200bb\\ufeffc\\u2066"),
        ("\U000e0041\u00ad", "\\ue0041\\xad"),
        ("\x9b31m\x00", "\\x9b31m\\x00"),
        ("\udcff\ud800", "\\xff\\ud800"),
    ],
)
def test_nothing_unseen_reaches_a_reader(raw: bytes | str, shown: str) -> None:
    """Hidden text could steer a model or a terminal without anybody seeing it."""
    assert visible(raw) == shown
    assert visible(shown) == shown


def test_a_text_that_fits_is_left_whole() -> None:
    """Short outputs would lose their middle, or be stored for nothing."""
    text = "x" * RESULT_CHARS_MAX
    assert shortened(text) == (text, None)


def test_a_long_text_keeps_head_tail_and_the_handle_of_the_whole() -> None:
    """The model could not find the error in the middle of a long output."""
    text = "first " + "é" * 50_000 + " last"
    short, whole = shortened(text)
    assert len(short) <= RESULT_CHARS_MAX
    assert short.startswith("first ") and short.endswith(" last")
    assert whole == text.encode()
    assert f"[... {50_011 - 15_700} characters left out; all 50011 are in artifact " in short


JUNIT = b"""<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.unit.test_a.TestB" name="test_c"><failure>boom</failure></testcase>
<testcase classname="tests.unit.test_a" name="test_d"/>
<testcase classname="tests.unit.test_a" name="test_e"><skipped/></testcase>
<testcase classname="" name="tests/broken.py"><error message="no module"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_counted_and_its_failures_named_for_another_run() -> None:
    """`last_failed` would run nothing, or everything."""
    report = parse(JUNIT)
    assert report is not None
    assert report.summary == "1 passed, 1 failed, 1 errors, 1 skipped"
    assert report.failing == ("tests/unit/test_a.py::TestB::test_c", "tests/broken.py")
    assert report.shown[0] == "tests/unit/test_a.py::TestB::test_c\nboom"
    assert report.shown[1] == "tests/broken.py\nno module"


@pytest.mark.parametrize(
    "content",
    [b"", b"not xml", b"<a>", JUNIT.replace(b"<testsuites>", b"<!DOCTYPE x><testsuites>", 1)],
)
def test_what_is_no_report_is_none(content: bytes) -> None:
    """A forged report could stop the host or make it expand entities for ever."""
    assert parse(content) is None


def test_the_program_in_the_sandbox_needs_only_the_standard_library() -> None:
    """It runs under a bare interpreter, without our packages."""
    import ast
    import sys

    from actors.sandbox import escape
    from actors.tools import inside

    for module in (inside, escape):
        tree = ast.parse(Path(module.__file__).read_text())
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )
        }  # fmt: skip
        assert imported <= sys.stdlib_module_names
