"""Eight issues on two repositories, and what their scripted models do about them.

Each issue has a mark.  Its agent writes it into the code, and looks for anybody
else's wherever it can see: what one workspace shows of another would be found
in the journal of its job, or in its tree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.agents import repository, use

Json = dict[str, Any]

REPOSITORIES: Final = ("cart", "till")
ROUNDS_MAX: Final = 12
"""Of a job here; only one issue needs more."""
SLEEP: Final = f"617.{os.getpid()}"
"""Seconds that the cancelled issue's command would take; only this test run names so many."""
FINDING: Final = "an empty list is not tested"
"""What the reviewer objects to."""
COMMENT: Final = "Say in the code why nothing is taken off."
"""What the person objects to."""
ADDED_TEST: Final = "test_nothing_costs_nothing"
AGAIN: Final = "You go on from your earlier change"

WRONG: Final = "    return sum(prices) - 1\n"
FIRST_TEST: Final = "    def test_total(self):\n        self.assertEqual(total([1, 2]), 3)\n"


def files(name: str) -> dict[str, str]:
    """A repository with one bug and two tests, one of which shows it."""
    return {
        ".troupe.yaml": "commands:\n  test: python3 -m unittest -q\n",
        ".gitignore": "__pycache__/\n",
        f"{name}.py": f'NAME = "{name}"\n\n\ndef total(prices):\n{WRONG}',
        f"test_{name}.py": (
            f"import unittest\n\nfrom {name} import NAME, total\n\n\n"
            "class TotalTest(unittest.TestCase):\n"
            f"{FIRST_TEST}\n"
            "    def test_name(self):\n"
            f'        self.assertEqual(NAME, "{name}")\n'
        ),
    }


def repositories(root: Path) -> dict[str, Path]:
    """The two, each with one commit on `main`."""
    return {name: repository(root / name, files(name)) for name in REPOSITORIES}


@dataclass(frozen=True)
class Story:
    """One issue: where it is filed and how it must end."""

    name: str
    repository: str
    status: str
    reason: str | None = None
    kinds: tuple[str, ...] = ("code",)
    """Agents of its jobs after triage, in order."""

    @property
    def title(self) -> str:
        return f"Totals are one too low, case {self.name}"

    @property
    def mark(self) -> str:
        return f"mark-{self.name}"

    def submission(self, where: Path) -> Json:
        """The body of POST /api/issues."""
        return {
            "source": "manual",
            "type": "bug",
            "title": self.title,
            "description": "Expected: the sum of all prices.\nActual: one too low.",
            "context": {"repository": str(where)},
        }


_WALK: Final = ("code", "review", "delivery")
_TWICE: Final = ("code", "review", "code", "review", "delivery")
SOLVED: Final = Story("solved", "cart", "completed", kinds=_WALK)
TOO: Final = Story("also", "till", "completed", kinds=_WALK)
REFUSED: Final = Story("refused", "cart", "failed", "refused_by_gate", kinds=("code", "review") * 3)
SPENT: Final = Story("spent", "till", "failed", "budget_rounds")
FAILING: Final = Story("failing", "cart", "pending", "overloaded_error")
CANCELLED: Final = Story("cancelled", "till", "failed", "cancelled")
SENT_BACK: Final = Story("bounced", "cart", "completed", kinds=_TWICE)
REJECTED: Final = Story("rejected", "till", "completed", kinds=_TWICE)
STORIES: Final = (SOLVED, TOO, REFUSED, SPENT, FAILING, CANCELLED, SENT_BACK, REJECTED)
MARKS: Final = frozenset(story.mark for story in STORIES)
OVERLOADED: Final[Json] = {
    "kind": "status",
    "times": None,
    "match": {"system": "role: code", "user": FAILING.title},
}
"""The fault of the issue whose model never answers."""


def script() -> Json:
    """What the model says, in all of the stories."""
    return {
        "name": "side by side",
        "scenes": [
            _triage(),
            *_code_scenes(),
            _scene("review", SENT_BACK, [_verdict("approve")], ADDED_TEST),
            _scene("review", SENT_BACK, [_verdict("request_changes", FINDING)]),
            *(
                _scene("review", story, [_verdict("approve")])
                for story in (SOLVED, TOO, REFUSED, REJECTED)
            ),
        ],
    }


def _code_scenes() -> list[Json]:
    finish = [_finish(), _finish()]
    drop_test = use(
        "edit",
        path=f"test_{REFUSED.repository}.py",
        old_string=f"{FIRST_TEST}\n",
        new_string="",
    )
    forever = [
        use("bash", command=f"echo '# {SPENT.mark} {number}' >> {SPENT.repository}.py")
        for number in range(ROUNDS_MAX + 1)
    ]
    return [
        _scene("code", REFUSED, [_look(REFUSED), *finish], AGAIN),
        _scene("code", SENT_BACK, [_look(SENT_BACK), _add_test(), *finish], AGAIN, FINDING),
        _scene("code", REJECTED, [_look(REJECTED), _explain(), *finish], AGAIN, COMMENT),
        *(
            _scene("code", story, [_look(story), *_solve(story), *finish])
            for story in (SOLVED, TOO, FAILING, SENT_BACK, REJECTED)
        ),
        _scene("code", REFUSED, [_mend(REFUSED), drop_test, *finish]),
        _scene("code", SPENT, [_mend(SPENT), *forever]),
        _scene("code", CANCELLED, [_mend(CANCELLED), use("bash", command=f"sleep {SLEEP}")]),
    ]


def _triage() -> Json:
    said = {
        "type": "bug",
        "priority": "medium",
        "module": None,
        "complexity": "simple",
        "confidence": "high",
        "evidence": [{"supports": "type", "quote": "one too low"}],
    }
    return {"name": "triage", "match": {"system": ["role: triage"]}, "turns": [{"json": said}]}


def _scene(role: str, story: Story, turns: Sequence[Json], *markers: str) -> Json:
    return {
        "name": " ".join((role, story.name, *markers)),
        "match": {"system": [f"role: {role}"], "user": [story.title, *markers]},
        "turns": list(turns),
    }


def _look(story: Story) -> Json:
    """Leave the mark in the scratch space, and print every mark and every process there is."""
    command = (
        f"echo {story.mark} > /tmp/{story.mark}; grep -hos 'mark-[a-z]*' /tmp/* /workspace/*; "
        "ls /tmp /workspace; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    )
    return use("bash", command=command)


def _mend(story: Story) -> Json:
    return use(
        "edit",
        path=f"{story.repository}.py",
        old_string=WRONG,
        new_string=f"    return sum(prices)  # {story.mark}\n",
    )


def _solve(story: Story) -> list[Json]:
    return [use("run_tests"), _mend(story), use("run_tests")]


def _add_test() -> Json:
    added = f"    def {ADDED_TEST}(self):\n        self.assertEqual(total([]), 0)\n"
    path = f"test_{SENT_BACK.repository}.py"
    return use("edit", path=path, old_string=FIRST_TEST, new_string=f"{FIRST_TEST}\n{added}")


def _explain() -> Json:
    mark = f"  # {REJECTED.mark}"
    return use(
        "edit",
        path=f"{REJECTED.repository}.py",
        old_string=mark,
        new_string=f"{mark}: every price counts in full",
    )


def _finish() -> Json:
    return use("finish", summary="Adds it up.", confidence="high", tests_run=["unittest"])


def _verdict(verdict: str, why: str | None = None) -> Json:
    blocking = [{"path": "README.md", "line": 1, "why": why}] if why else []
    return use("review", verdict=verdict, blocking=blocking, test_gaps=[])
