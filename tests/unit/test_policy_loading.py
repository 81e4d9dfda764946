"""The policy is complete, strict, and says what it guessed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy import (
    POLICY_BYTES_MAX,
    AgentPolicy,
    Budgets,
    Commands,
    DeliveryPolicy,
    GatePolicy,
    PolicyError,
    PolicyFile,
    RepositoryPolicy,
    load_policy,
    parse_policy,
)


def load_files(files: dict[str, bytes]) -> RepositoryPolicy:
    return load_policy(files.get, files.keys())


WHOLE = """
version: 1
commands:
  setup: pip install -e .
  test: |
    python -m pytest -q tests/fast
  lint: ruff check
  types: mypy
gates: {maxFiles: 3, maxLines: 50, maxDeletedFiles: 0, maxFileBytes: 1000, dependencies: refuse}
protectedPaths:
  - migrations/**
  - "*.sql"
delivery: {mode: branch}
budgets: {rounds: 10, tokens: 50000, costUsd: 1, wallMinutes: 2.5}
agents:
  research: {enabled: false}
"""


def test_every_key_is_read() -> None:
    """Would ignore a rule the owner has written down."""
    policy = load_files({".troupe.yaml": WHOLE.encode()})
    assert policy.commands.setup == "pip install -e ."
    assert policy.commands.test == "python -m pytest -q tests/fast\n"
    assert policy.gates.max_files == 3 and policy.gates.dependencies == "refuse"
    assert policy.protected_paths == ("migrations/**", "*.sql")
    assert (policy.budgets.rounds, policy.budgets.cost_usd) == (10, 1.0)
    assert not policy.allows("research") and policy.allows("code")
    assert policy.source == "file" and policy.assumptions == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("commands:\n  tests: x", "line 2: commands.tests is not known; did you mean test?"),
        ("gates:\n\n  maxFile: 3", "line 3: gates.maxFile is not known; did you mean maxFiles?"),
        ("gate: {}", "line 1: gate is not known; did you mean gates?"),
        ("protected_paths: [a]", "did you mean protectedPaths?"),
        ("agents:\n  cod: {}", "line 2: agents.cod is not known; did you mean code?"),
        ("agents:\n  code: {enabeld: no}", "line 2: agents.code.enabeld is not known"),
        ("qqqqq: 1", "known are version, commands"),
        ("budgets:\n  rounds: '3'", "line 2: budgets.rounds is wrong"),
        ("budgets: {tokens: yes}", "budgets.tokens is wrong"),
        ("budgets: {costUsd: .nan}", "budgets.costUsd is wrong"),
        ("budgets: {rounds: 0}", "budgets.rounds is wrong"),
        ("delivery:\n  mode: push", "line 2: delivery.mode is wrong"),
        ("protectedPaths: x", "protectedPaths is wrong: it must be a list"),
        ("protectedPaths:\n- a\n- ../b", "line 3: protectedPaths.1 is wrong"),
        ("protectedPaths: ['!keep']", "can't be negated"),
        ("protectedPaths: ['*********']", "more than 8 stars"),
        ("commands: {test: ' '}", "may not be blank"),
        ('commands: {test: "a\\0b"}', "control characters"),
        ("commands: [test]", "it must be a mapping"),
        ("just words", "it must be a mapping"),
        ("commands: {test: x}\ncommands: {}", "line 2: commands is there twice"),
        ("on: push", "line 1: a key must be text"),
        ("a: &x [1]\nb: *x", "anchors and aliases are not read"),
        ("a: !!python/object/apply:os.system [id]", "tags are not read"),
        ("a: 1\n---\nb: 2", "a second document"),
        ("[" * 40, "nested deeper than"),
        ("{" * 4_000, "nested deeper than"),
        ("a: " + "9" * 5_000, "not a usable value"),
        ("a: [", "line 1"),
        ("<<: {gates: {}}", "line 1"),
        ("version: 2", "version is wrong"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_place(text: str, sentence: str) -> None:
    """Would ignore a misspelled rule: the path that it protects would be open."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode())
    assert sentence in str(caught.value)


def test_all_errors_come_at_once_in_the_order_of_lines() -> None:
    """Would make the owner push once for each mistake."""
    text = "".join(f"wrong{n}: 1\n" for n in range(15))
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode())
    assert [str(arg).partition(":")[0] for arg in caught.value.args[:10]] == [
        f"line {n}" for n in range(1, 11)
    ]
    assert caught.value.args[10] == "and 5 more"


def test_a_file_that_is_too_big_or_not_text_is_refused() -> None:
    """Would spend memory on, or crash at, a hostile repository's file."""
    with pytest.raises(PolicyError, match="at most"):
        parse_policy(b"#" * (POLICY_BYTES_MAX + 1))
    with pytest.raises(PolicyError, match="not UTF-8"):
        parse_policy(b"commands: {test: \xff}")


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_give_a_policy_or_a_policy_error(body: bytes) -> None:
    """Would let a repository crash the agent that reads its policy."""
    try:
        parse_policy(body)
    except PolicyError as error:
        assert error.args


def test_a_policy_under_a_wrong_name_is_not_silently_ignored() -> None:
    """Would run without the protection its owner believes in."""
    with pytest.raises(PolicyError, match=r"rename it to \.troupe\.yaml"):
        load_files({".troupe.yml": b"protectedPaths: [a]"})


def test_an_empty_file_means_the_defaults() -> None:
    """Would refuse a file with only comments."""
    assert load_files({".troupe.yaml": b"# nothing yet\n"}).budgets.rounds is None


PACKAGE = '{"scripts": {"test": "vitest run"}}'


@pytest.mark.parametrize(
    ("tree", "command"),
    [
        ({"pytest.ini": ""}, "python -m pytest -q"),
        ({"pyproject.toml": "[tool.pytest.ini_options]"}, "python -m pytest -q"),
        ({"setup.cfg": "[tool:pytest]"}, "python -m pytest -q"),
        ({"setup.py": "", "tests/unit/test_a.py": ""}, "python -m pytest -q"),
        ({"calc.py": "", "calc_test.py": ""}, "python -m pytest -q"),
        ({"pyproject.toml": "[project]"}, "python -m pytest -q"),
        ({"package.json": PACKAGE}, "npm test"),
        ({"package.json": PACKAGE, "pyproject.toml": "[tool.ruff]"}, "npm test"),
        ({"Makefile": "all: x\n\nlint test: deps\n\tgo"}, "make test"),
        ({"Makefile": "test: all\n"}, "make test"),
        ({"go.mod": "module x"}, "go test ./..."),
        ({"Cargo.toml": "[package]"}, "cargo test"),
        ({"README.md": ""}, None),
        ({"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\""}}'}, None),
        ({"package.json": "[" * 100_000}, None),
        ({"package.json": '{"scripts": []}'}, None),
        ({"Makefile": "test := 3\nlatest: x\ntests: y\n\ttest: z\n"}, None),
        ({"node_modules/a/test_b.py": ""}, None),
    ],
)
def test_the_test_command_is_detected_and_said(tree: dict[str, str], command: str | None) -> None:
    """Would run nothing, or the wrong thing, in a repository without a policy."""
    policy = load_files({name: text.encode() for name, text in tree.items()})
    assert policy.commands.test == command
    assert policy.source == "detected"
    said = " ".join(policy.assumptions)
    assert f"`{command}`" in said if command else "set commands.test" in said


def test_a_second_candidate_is_named_too() -> None:
    """Would hide that half of the tests are not run."""
    policy = load_files({"package.json": PACKAGE.encode(), "pytest.ini": b""})
    assert policy.commands.test == "python -m pytest -q"
    assert "not run: `npm test`" in " ".join(policy.assumptions)


def test_the_digest_is_of_the_rules() -> None:
    """Would let a job go on under rules that are no longer its own."""
    base = load_files({".troupe.yaml": WHOLE.encode()})
    same = load_files({".troupe.yaml": b"# a comment\n" + WHOLE.encode()})
    other = load_files({".troupe.yaml": WHOLE.replace("*.sql", "*.sq").encode()})
    assert base.digest == same.digest != other.digest
    assert RepositoryPolicy.model_validate(base.to_wire()).digest == base.digest
    assert RepositoryPolicy.model_validate_json(base.to_json()) == base


def test_the_documented_policy_is_one_and_names_every_key() -> None:
    """An owner would copy an example that is refused, or never learn of a key."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    parsed = parse_policy(example.encode())
    sections = (PolicyFile, Commands, GatePolicy, DeliveryPolicy, Budgets, AgentPolicy)
    keys = {field.alias or name for model in sections for name, field in model.model_fields.items()}
    assert {key for key in keys if f"{key}:" not in example} == set()
    assert parsed.gates == GatePolicy() and parsed.commands.setup
