"""Gate `tests`: the configured command passes on the final tree.

The exit code decides, never what the tests print: counts can be forged by the
code under test.  A suite that was red before is green afterwards or the gate
is not; only fewer failures than before make it a person's question.
"""

from __future__ import annotations

from typing import Final

from actors.gates.candidate import Candidate, SuiteVerdict
from actors.records import GateResult, GateVerdict

NAME: Final = "tests"


def tests_pass(candidate: Candidate) -> GateResult:
    """Whether the test command exits with 0 on the final tree."""
    verdict, message = _judge(
        candidate.policy.commands.test, candidate.tests_before, candidate.tests_after
    )
    return GateResult(gate=NAME, verdict=verdict, message=message)


def _judge(
    command: str | None, before: SuiteVerdict | None, after: SuiteVerdict | None
) -> tuple[GateVerdict, str]:
    if command is None:
        return "needs_human", "this repository has no test command; nothing was run"
    if after is None or after.exit_code is None:
        return "unknown", "the tests did not run to their end on the final tree"
    if after.exit_code != 0:
        return _red(before, after)
    if after.passed == 0 and not (before and before.passed == 0):
        return "needs_human", "the command succeeded, but no test ran"
    return "passed", _counted("tests pass", after)


def _red(before: SuiteVerdict | None, after: SuiteVerdict) -> tuple[GateVerdict, str]:
    said = _counted(f"the tests fail with exit code {after.exit_code}", after)
    if before is None or before.exit_code in (0, None):
        return "failed", said
    if before.failed is None or after.failed is None:
        return "failed", f"{said}; they failed before, too"
    if 0 < after.failed < before.failed and (after.passed or 0) >= (before.passed or 0):
        return "needs_human", f"{said}; {before.failed} failed before"
    return "failed", f"{said}; {before.failed} failed before"


def _counted(said: str, verdict: SuiteVerdict) -> str:
    if verdict.passed is None:
        return said
    return f"{said}: {verdict.passed} passed, {verdict.failed or 0} failed"
