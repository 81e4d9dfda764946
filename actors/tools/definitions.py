"""The tools as the model is told of them: name, description, JSON schema, kind.

The shapes are those that models know from their own tool sets.  The text is
part of every request's cached prefix, so it holds no date, path of a machine
or run.  What a tool does is `toolbox`' business.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from actors.tools.schema import Schema

ToolKind = Literal["pure", "workspace", "control"]
COMMAND_TIMEOUT_S_MAX = 600
COMMAND_TIMEOUT_S = 120

_CONFIDENCE = {"type": "string", "enum": ["low", "medium", "high"]}


def _object(required: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _string(description: str, length_max: int = 20_000) -> Schema:
    return {"type": "string", "description": description, "maxLength": length_max}


def _integer(description: str, minimum: int, maximum: int | None = None) -> Schema:
    bounds: Schema = {"type": "integer", "description": description, "minimum": minimum}
    return bounds if maximum is None else {**bounds, "maximum": maximum}


def _list(items: Schema, description: str, length_max: int = 200) -> Schema:
    return {"type": "array", "items": items, "description": description, "maxItems": length_max}


_PATH = _string("Path from the repository's root.", 4_096)
_PLACE = _object("path line", path=_PATH, line=_integer("Line number.", 1))

_TOOLS: dict[str, tuple[ToolKind, str, Schema]] = {
    "read": (
        "pure",
        "Read a text file. Lines come numbered, with the sha256 of the file. Give a range for"
        " long files.",
        _object(
            "path",
            path=_PATH,
            start_line=_integer("First line, from 1.", 1),
            end_line=_integer("Last line.", 1),
        ),
    ),
    "edit": (
        "workspace",
        "Replace a text in a file. old_string must occur exactly once, character by character"
        " with its indentation, unless replace_all is true.",
        _object(
            "path old_string new_string",
            path=_PATH,
            old_string=_string("The text to replace.", 1_000_000),
            new_string=_string("What takes its place.", 1_000_000),
            replace_all={"type": "boolean", "description": "Replace every occurrence."},
            expect_sha=_string("Refuse if the file's sha256 is another.", 64),
        ),
    ),
    "write": (
        "workspace",
        "Write a whole file, new or existing; an existing one must have been read before.",
        _object("path content", path=_PATH, content=_string("The whole content.", 5_000_000)),
    ),
    "glob": (
        "pure",
        "List files whose path matches a pattern such as src/**/*.py, sorted. Directories of"
        " dependencies and caches are skipped.",
        _object(
            "pattern",
            pattern=_string("*, ?, [abc], {a,b} and ** for any depth.", 1_000),
            path=_string("Directory to look in.", 4_096),
        ),
    ),
    "grep": (
        "pure",
        "Search the lines of files with a regular expression (Python's syntax).",
        _object(
            "pattern",
            pattern=_string("The regular expression.", 2_000),
            path=_string("File or directory to look in.", 4_096),
            glob=_string("Only files whose path or name matches.", 1_000),
            context=_integer("Lines shown around each match.", 0, 5),
            max=_integer("Matches shown, 100 unless given.", 1, 200),
        ),
    ),
    "bash": (
        "workspace",
        "Run a bash command in a sandbox without network. Each call is a new shell in the"
        " repository's root: no directory, variable or process outlives it. There is no .git;"
        " use git_diff, git_log and git_blame.",
        _object(
            "command",
            command=_string("What to run.", 100_000),
            timeout_s=_integer(
                f"Killed after so many seconds, {COMMAND_TIMEOUT_S} unless given.",
                1,
                COMMAND_TIMEOUT_S_MAX,
            ),
            cwd=_string("Directory to run in, from the repository's root.", 4_096),
        ),
    ),
    "run_tests": (
        "workspace",
        "Run the repository's own test command. Whether it passed is told by its exit code.",
        _object(
            "",
            targets=_list(_string("A test file or test id.", 1_000), "Only these tests."),
            last_failed={"type": "boolean", "description": "Only those that failed last time."},
        ),
    ),
    "git_diff": (
        "pure",
        "Show what has changed since the job began.",
        _object("", paths=_list(_PATH, "Only these paths.")),
    ),
    "git_log": (
        "pure",
        "Show the commits before the job began, the latest first.",
        _object("", path=_PATH, n=_integer("How many, 20 unless given.", 1, 50)),
    ),
    "git_blame": (
        "pure",
        "Show which commit last touched each line, as of when the job began.",
        _object(
            "path start end",
            path=_PATH,
            start=_integer("First line.", 1),
            end=_integer("Last line.", 1),
        ),
    ),
    "artifact_read": (
        "pure",
        "Read a part of an output that was too long to be shown.",
        _object(
            "id offset limit",
            id=_string("The artifact named in the output.", 64),
            offset=_integer("First character, from 0.", 0),
            limit=_integer("How many characters.", 1, 15_000),
        ),
    ),
    "finish": (
        "control",
        "End the work: everything that was asked for is done and tested.",
        _object(
            "summary confidence tests_run",
            summary=_string("What was changed and why, for the reviewer."),
            confidence=_CONFIDENCE,
            tests_run=_list(_string("A command.", 1_000), "The tests that were run."),
            residual_risk=_string("What may still be wrong."),
        ),
    ),
    "ask_human": (
        "control",
        "Ask a person something that nothing here answers; the work waits for the answer.",
        _object(
            "question",
            question=_string("The question."),
            options=_list(_string("An answer.", 500), "Answers to choose from.", 10),
        ),
    ),
    "report": (
        "control",
        "End the research with its result.",
        _object(
            "root_cause evidence options confidence",
            root_cause=_string("What is the case and why."),
            evidence=_list(_PLACE, "Where it shows."),
            options=_list(_string("One way to go, with what it costs."), "What could be done.", 20),
            confidence=_CONFIDENCE,
        ),
    ),
    "review": (
        "control",
        "End the review with a verdict.",
        _object(
            "verdict blocking test_gaps",
            verdict={"type": "string", "enum": ["approve", "request_changes", "escalate"]},
            blocking=_list(
                _object(
                    "path line why",
                    path=_PATH,
                    line=_integer("Line number.", 1),
                    why=_string("What is wrong."),
                ),
                "What must change before approval.",
            ),
            test_gaps=_list(_string("What no test covers.", 2_000), "Missing tests."),
        ),
    ),
}
NAMES = tuple(_TOOLS)
assert {kind for kind, _, _ in _TOOLS.values()} == set(get_args(ToolKind))


def kind(name: str) -> ToolKind:
    """Whether a tool only looks, may change the tree, or steers the loop.

    Raises:
        KeyError: there is no such tool.
    """
    return _TOOLS[name][0]


def schema(name: str) -> Schema:
    """A tool's input schema."""
    return _TOOLS[name][2]


def definition(name: str) -> dict[str, Any]:
    """A tool as the Messages API takes it."""
    _, description, input_schema = _TOOLS[name]
    return {"name": name, "description": description, "input_schema": input_schema}
