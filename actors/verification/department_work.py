"""The department's work in a chaos run: two repositories, their issues, and what the model says.

    till     its issues are solved, reviewed, and approved or rejected by a person
    booth    its issues are never done: the script goes on and on, beyond the budget
             that the repository's own policy sets

Every issue has a mark in its title, which its agent writes into the code: no two
changes are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from actors.models.script import Script
from actors.triage import COST_USD_MAX as TRIAGE_USD
from actors.verification.department_facts import Work

Json = dict[str, Any]

TILL: Final = "till"
BOOTH: Final = "booth"
NAMES: Final = (TILL, BOOTH)
JOB_USD: Final = 1.0
"""The operator's ceiling."""
BOOTH_USD: Final = 0.2
"""Of the endless script some nine rounds come near it, and all of them are worth more."""
ENDLESS: Final = 30
"""Rounds of that script."""
LONG: Final = "And one line more. " * 100
"""What it says in each, so that a round costs a cent."""
BUDGET_EVERY: Final = 4
REJECT_EVERY: Final = 6
NAP: Final = "sleep 60 & sleep 2"
"""Before each command, so that strikes find sandboxes at work, and something that would go on."""
WRONG: Final = "    return sum(prices) - 1\n"
FILES: Final = {
    ".gitignore": "__pycache__/\n",
    "till.py": f"def total(prices):\n{WRONG}",
    "test_till.py": (
        "import unittest\n\nfrom till import total\n\n\n"
        "class TillTest(unittest.TestCase):\n"
        "    def test_total(self):\n        self.assertEqual(total([1, 2]), 3)\n"
    ),
}


@dataclass(frozen=True)
class Case:
    """One issue."""

    number: int

    @property
    def mark(self) -> str:
        return f"mark-{self.number:05d}"

    @property
    def repository(self) -> str:
        return BOOTH if self.number % BUDGET_EVERY == BUDGET_EVERY - 1 else TILL

    @property
    def wanted(self) -> bool:
        """Whether its change is approved when it is reviewed."""
        return self.number % REJECT_EVERY != REJECT_EVERY - 1

    def budgets(self) -> dict[Work, float]:
        """What its jobs may spend, dollars."""
        job_usd = BOOTH_USD if self.repository == BOOTH else JOB_USD
        return {
            Work(self.mark, "triage"): TRIAGE_USD,
            Work(self.mark, "code"): job_usd,
            Work(self.mark, "review"): job_usd,
        }

    def submission(self, repositories: Path) -> Json:
        return {
            "source": "manual", "type": "bug",
            "title": f"Totals of the {self.repository} are one too low, {self.mark}",
            "description": "Expected: the sum of all prices.\nActual: one too low.",
            "context": {"repository": str(where(repositories, self.repository))},
        }  # fmt: skip


def where(repositories: Path, name: str) -> Path:
    return repositories / f"{name}.git"


def files(name: str) -> Mapping[str, str]:
    """What a repository begins with."""
    policy = "commands:\n  test: python3 -m unittest -q\n"
    if name == BOOTH:
        policy += f"budgets:\n  costUsd: {BOOTH_USD}\n"
    return {**FILES, ".troupe.yaml": policy}


def script() -> Script:
    """What the model says to all of them."""
    return Script.model_validate(
        {"name": "chaos", "scenes": [_triage(), _endless(), _solver(), _reviewer()]}
    )


def _triage() -> Json:
    said = {
        "type": "bug", "priority": "medium", "module": None, "complexity": "simple",
        "confidence": "high", "evidence": [{"supports": "type", "quote": "one too low"}],
    }  # fmt: skip
    return _scene("triage", "Totals of the", [{"json": said}])


def _endless() -> Json:
    turns = [
        {"text": LONG, **_use("bash", command=f"{NAP}; echo '# {number}' >> till.py")}
        for number in range(ENDLESS)
    ]
    return _scene("code", f"Totals of the {BOOTH}", turns)


def _solver() -> Json:
    finish = _use("finish", summary="Adds it up.", confidence="high", tests_run=["unittest"])
    mend = {
        **_use(
            "edit",
            path="till.py",
            old_string=WRONG,
            new_string="    return sum(prices)  # {{mark}}\n",
        ),
        "captures": {"mark": {"from": "first", "pattern": r"(mark-\d+)"}},
    }
    look = _use("bash", command=f"{NAP}; cat till.py")
    return _scene("code", f"Totals of the {TILL}", [look, mend, _use("run_tests"), finish, finish])


def _reviewer() -> Json:
    verdict = _use("review", verdict="approve", blocking=[], test_gaps=[])
    return _scene("review", "Totals of the", [_use("read", path="till.py"), verdict])


def _scene(role: str, title: str, turns: list[Json]) -> Json:
    match = {"system": [f"role: {role}"], "user": [title]}
    return {"name": f"{role}: {title}", "match": match, "turns": turns}


def _use(tool: str, **arguments: Any) -> Json:
    return {"tools": [{"name": tool, "input": arguments}]}
