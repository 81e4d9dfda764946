"""JUnit reports: what a test run says about itself.

The report is written by the repository's own code, so it is data to show and
never the verdict: that is the exit code.  It is parsed without entities.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

FAILURES_SHOWN = 3
FAILURE_CHARS_MAX = 2_500
NAMES_KEPT = 200


@dataclass(frozen=True)
class TestReport:
    """Counts as reported, and what failed."""

    __test__ = False

    tests: int
    failed: int
    errors: int
    skipped: int
    failing: tuple[str, ...]
    """`path::name` as pytest takes them, as far as the report tells."""
    shown: tuple[str, ...]
    """The first three failures with their text."""

    @property
    def summary(self) -> str:
        passed = self.tests - self.failed - self.errors - self.skipped
        return (
            f"{passed} passed, {self.failed} failed, {self.errors} errors, {self.skipped} skipped"
        )


def parse(content: bytes) -> TestReport | None:
    """The report, or None if there is none that can be read."""
    if not content or b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        return None
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 - entities are refused above
    except ElementTree.ParseError:
        return None
    cases = list(root.iter("testcase"))
    bad = [case for case in cases if _trouble(case) is not None]
    errors = sum(case.find("error") is not None for case in bad)
    return TestReport(
        tests=len(cases),
        failed=len(bad) - errors,
        errors=errors,
        skipped=sum(case.find("skipped") is not None for case in cases),
        failing=tuple(_name(case) for case in bad[:NAMES_KEPT]),
        shown=tuple(_shown(case) for case in bad[:FAILURES_SHOWN]),
    )


def _trouble(case: ElementTree.Element) -> ElementTree.Element | None:
    failure = case.find("failure")
    return failure if failure is not None else case.find("error")


def _name(case: ElementTree.Element) -> str:
    """pytest writes the class as `tests.unit.test_x.TestY`; modules begin with `test`."""
    name = case.get("name", "?")
    parts = case.get("classname", "").split(".")
    for at in range(len(parts) - 1, -1, -1):
        if parts[at].startswith("test") or parts[at].endswith("_test"):
            return "::".join(["/".join(parts[: at + 1]) + ".py", *parts[at + 1 :], name])
    return "::".join([*filter(None, parts), name])


def _shown(case: ElementTree.Element) -> str:
    trouble = _trouble(case)
    assert trouble is not None
    text = (trouble.text or "").strip() or trouble.get("message", "")
    if len(text) > FAILURE_CHARS_MAX:
        text = f"[... cut ...]\n{text[-FAILURE_CHARS_MAX:]}"
    return f"{_name(case)}\n{text}"
