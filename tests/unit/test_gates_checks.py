"""Gates `lint` and `types`: only what a change has broken is held against it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.assignment import NOTE_LENGTH_MAX, ReviewOpinion, notes_of
from actors.gates import CheckVerdict, run_gates
from actors.records import GateResult
from actors.review import ReviewAgent
from tests.agents import CART, FINISH, FIX, assignment, case, use
from tests.candidates import candidate, policy
from tests.workshop import needs_sandbox

CLEAN, BROKEN = {"a.py": "x = 1\n"}, {"a.py": "x = 2\n"}
LINT = "! grep -n FLAW *.py"
"""Prints each line with a flaw; exit code 1 if there is any."""
TYPES = "! grep -n WRONG *.py"
POLICY = CART[".troupe.yaml"] + f"  lint: {LINT!r}\n  types: {TYPES!r}\n"
FILES = {**CART, ".troupe.yaml": POLICY}
SPOIL = use("edit", path="cart.py", old_string="def total", new_string="# FLAW\ndef total")
APPROVE = use("review", verdict="approve", blocking=[], test_gaps=[])


def judged(before: CheckVerdict | None, after: CheckVerdict | None) -> GateResult:
    rules = policy(commands={"test": "pytest", "lint": "ruff check"})
    made = candidate(CLEAN, BROKEN, rules=rules)
    made = replace(
        made,
        checks_before={"lint": before} if before else {},
        checks_after={"lint": after} if after else {},
    )
    [result] = [one for one in run_gates(made).results if one.gate == "lint"]
    return result


@pytest.mark.parametrize(
    ("before", "after", "verdict", "words"),
    [
        (0, 0, "passed", "finds nothing"),
        (1, 0, "passed", "finds nothing"),
        (0, 1, "failed", "exit code 1, and passed before"),
        (0, 127, "failed", "exit code 127, and passed before"),
        (1, 1, "passed", "as it did before"),
        (2, 1, "passed", "as it did before"),
        (127, 127, "unknown", "can't be run here: exit code 127"),
        (126, 1, "unknown", "can't be run here"),
        (0, None, "unknown", "did not run to its end on the final tree"),
        (None, 0, "passed", "finds nothing"),
        (None, 1, "unknown", "on the base tree it did not run to its end"),
    ],
)
def test_a_checker_fails_a_change_only_where_it_passed_before(
    before: int | None, after: int | None, verdict: str, words: str
) -> None:
    """Old findings would block every change, or a checker that never ran would look green."""
    result = judged(CheckVerdict(before), CheckVerdict(after, ("a.py:1: flaw",)))
    assert result.verdict == verdict
    assert words in result.message
    assert [one.why for one in result.findings] == (["a.py:1: flaw"] * (verdict == "failed"))


def test_a_checker_that_was_not_run_is_unknown() -> None:
    """A missing run would be taken for a clean one."""
    assert judged(None, None).verdict == "unknown"
    assert judged(CheckVerdict(0), None).verdict == "unknown"
    assert judged(None, CheckVerdict(1)).verdict == "unknown"


def test_without_a_command_there_is_no_gate() -> None:
    """Every repository without a linter would carry a verdict about none."""
    names = [one.gate for one in run_gates(candidate(CLEAN, BROKEN)).results]
    assert "lint" not in names and "types" not in names


@needs_sandbox
async def test_a_change_that_breaks_the_linter_goes_back_with_what_it_found(tmp_path):
    """Else an owner is asked to approve what their own build machine will refuse."""
    async with case(tmp_path, FIX, SPOIL, FINISH, FINISH, files=FILES) as work:
        job = work.next(ReviewAgent, await work.run())
        reviewed = await job.run()
        assert reviewed.outcome == "refused_by_gate"
        opinion = ReviewOpinion.model_validate(reviewed.data)
        verdicts = {one.gate: one.verdict for one in opinion.gates.results}
        assert (verdicts["lint"], verdicts["types"], verdicts["tests"]) == (
            "failed", "passed", "passed",
        )  # fmt: skip
        [note] = notes_of(opinion)
        assert note.text.startswith("lint: the linter fails with exit code 1, and passed before\n")
        assert "cart.py:1:# FLAW" in note.text
        order = [key for key in job.durable.steps if key.endswith(("-base", "-final"))]
        assert order == [
            "lint-base", "types-base", "tests-base", "lint-final", "types-final", "tests-final",
        ]  # fmt: skip
        assert await work.calls() == 4, "no model was asked"


@needs_sandbox
async def test_flaws_of_before_are_not_held_against_a_change(tmp_path):
    """Else no agent can work in a repository that is not spotless."""
    dirty = {**FILES, "old.py": "# FLAW\n# WRONG\n"}
    async with case(tmp_path, FIX, FINISH, FINISH, files=dirty, review=[APPROVE]) as work:
        job = work.next(ReviewAgent, await work.run())
        opinion = ReviewOpinion.model_validate((await job.run()).data)
        assert opinion.gates.verdict == "passed"
        assert opinion.automated is not None


@needs_sandbox
async def test_what_a_checker_writes_is_in_no_change(tmp_path):
    """Else a fixing linter changes what a person is about to approve."""
    write = "echo x > fixed.py; echo more >> test_cart.py"
    writing = f"commands:\n  test: '{write}'\n  lint: '{write}'\n"
    files = {**CART, ".troupe.yaml": writing}
    look = use("bash", command="ls; cat *.py")
    async with case(tmp_path, FIX, FINISH, FINISH, files=files, review=[look, APPROVE]) as work:
        job = work.next(ReviewAgent, await work.run())
        opinion = ReviewOpinion.model_validate((await job.run()).data)
        assert opinion.gates.verdict != "failed", opinion.gates
        seen = job.durable.result("round-1/tool-1")["output"]
        assert "cart.py" in seen and "fixed.py" not in seen and "more" not in seen


@needs_sandbox
async def test_a_checker_that_was_killed_says_nothing(tmp_path):
    """Else a checker that ran out of memory refuses a good change."""
    killed = CART[".troupe.yaml"] + "  lint: '! grep -q 1$ cart.py && kill -9 $$'\n"
    files = {**CART, ".troupe.yaml": killed}
    async with case(tmp_path, FIX, FINISH, FINISH, files=files, review=[APPROVE]) as work:
        job = work.next(ReviewAgent, await work.run())
        opinion = ReviewOpinion.model_validate((await job.run()).data)
        assert {one.gate: one.verdict for one in opinion.gates.results}["lint"] == "unknown"


def test_notes_are_bounded_however_much_a_checker_prints() -> None:
    """A linter with a million lines would make the next assignment invalid."""
    result = judged(CheckVerdict(0), CheckVerdict(1, tuple(f"{n} {'x' * 290}" for n in range(99))))
    gates = run_gates(candidate(CLEAN, BROKEN)).model_copy(update={"results": (result,)})
    [note] = notes_of(ReviewOpinion(gates=gates))
    assert len(note.text) == NOTE_LENGTH_MAX
    assert assignment("/srv", notes=[note.to_wire()])["notes"] == [note.to_wire()]
