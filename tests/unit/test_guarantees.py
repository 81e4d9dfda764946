"""docs/guarantees.md and docs/operations.md say what the code and the tests are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

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


def test_every_environment_variable_is_in_the_table() -> None:
    """A setting nobody can find is no setting."""
    names = strings(r"^(?:TROUPE|ANTHROPIC|SCHEDULER)_[A-Z_]+$") | {"PORT"}
    internal = {
        "TROUPE_SUPERVISED", "TROUPE_SETTINGS", "TROUPE_SCRIPTED_URL", "TROUPE_RESTARTS",
        "TROUPE_CHAOS_OUTSIDE",
        "TROUPE_CHANGED", "TROUPE_FULL", "TROUPE_LAYOUT",  # errors of the Redis scripts
    }  # fmt: skip
    assert {name for name in names - internal if f"`{name}`" not in OPERATIONS} == set()
