"""docs/guarantees.md and docs/operations.md say what the code and the tests are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from actors.intake.settings import IntakeSettings
from actors.models.settings import ModelSettings
from actors.settings import DepartmentSettings
from runtime.cluster.settings import ClusterSettings

ROOT = Path(__file__).resolve().parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def test_every_guarantee_names_a_test_that_exists() -> None:
    """A promise would outlive the test that keeps it."""
    defined = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"def (test_\w+)", path.read_text()))
    named = set(re.findall(r"`(test_\w+)`", GUARANTEES))
    assert len(named) > 25
    assert named - defined == set()


def strings(pattern: str) -> set[str]:
    """String constants of the runtime and the department that look like this."""
    found = set()
    for package in ("runtime", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(pattern, node.value))
    return found


def documented() -> dict[str, str]:
    """Every variable of the table, and its default as it is written there."""
    table = OPERATIONS.partition("\n## Environment\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|([^|]*)\|", table, re.MULTILINE)
    return {
        name: default.strip().strip("`")
        for names, default in rows
        for name in re.findall(r"`([A-Z_]+)`", names)
    }


def test_every_environment_variable_is_in_the_table_and_no_other() -> None:
    """A setting nobody can find is no setting, and one that nothing reads does nothing."""
    prefixes = "TROUPE|ANTHROPIC|SCHEDULER|REDIS|PROMETHEUS|LOG"
    names = strings(rf"^(?:{prefixes})_[A-Z_]+$|^PORT$")
    internal = {
        "TROUPE_SUPERVISED", "TROUPE_SETTINGS", "TROUPE_SCRIPTED_URL", "TROUPE_RESTARTS",
        "TROUPE_CHAOS_OUTSIDE",
        "TROUPE_CHANGED", "TROUPE_FULL", "TROUPE_LAYOUT",  # errors of the Redis scripts
    }  # fmt: skip
    assert documented().keys() == names - internal


def test_the_defaults_in_the_table_are_those_of_the_code() -> None:
    """An operator would set what is the default anyway, or rely on one that is not."""
    written = {name: text for name, text in documented().items() if text}
    in_words = {"TROUPE_REPOSITORY_ROOTS", "TROUPE_URL", "TROUPE_TOKEN"}
    assert in_words <= written.keys()
    env = {name: text for name, text in written.items() if name not in in_words}
    assert len(env) > 20
    for read in (ClusterSettings, DepartmentSettings, ModelSettings, IntakeSettings):
        assert read.from_env(env) == read.from_env({}), read
