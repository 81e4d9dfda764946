"""Gate `no_weakened_tests`: the tests that judge a change are not bent by it.

Red: an existing test is gone, switched off, or asserts less, and nothing took
its place.  A person's question: tests were replaced, an assertion says
something else now, test data or the runner's configuration changed, or what
was changed can't be understood.  More tests are always welcome.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from actors.gates import paths
from actors.gates.candidate import Candidate, Change, Objection, object_to
from actors.gates.other_tests import count, language_of
from actors.gates.protected import touched
from actors.gates.python_tests import Module, Unit, read_module
from actors.gates.runner import runner_objections
from actors.gates.verdicts import result
from actors.records import GateResult, GateVerdict

NAME: Final = "no_weakened_tests"

_DETECTS_TESTS: Final = re.compile(
    r"PYTEST_CURRENT_TEST|PYTEST_VERSION|[\"']pytest[\"']\s+(?:not\s+)?in\s+sys\.modules|"
    r"JEST_WORKER_ID|NODE_ENV[\"'\]]*\s*[!=]==?\s*[\"']test[\"']|testing\.Testing\(\)"
)


@dataclass
class _Ledger:
    """Tests that went and came, over all files of the candidate."""

    gone: list[tuple[str, str, Unit]] = field(default_factory=list)
    """Path, name, what it was."""
    came: dict[str, Unit] = field(default_factory=dict)
    """By name."""


def tests_not_weakened(candidate: Candidate) -> GateResult:
    """Whether the existing tests check as much as before."""
    ledger = _Ledger()
    found: list[Objection] = []
    for change in candidate.changes:
        found += runner_objections(candidate, change)
        if any(paths.is_test(path) for path in touched(change)):
            found += _test_file(candidate, change, ledger)
        else:
            found += _source_file(candidate, change)
    found += _settle(ledger)
    found += _fewer_ran(candidate)
    return result(NAME, found, "no test was weakened")


def _test_file(candidate: Candidate, change: Change, ledger: _Ledger) -> Iterator[Objection]:
    before = candidate.text_before(change) if paths.is_test(touched(change)[0]) else None
    after = candidate.text_after(change)
    if after is not None and _left_collection(change):
        yield object_to("failed", "renamed so that it is no longer run as a test", change.path)
        after = None
    if PurePosixPath(change.path).suffix == ".py":
        yield from _python(change, before, after, ledger)
    elif language_of(change.path):
        yield from _counted(change, before, after)
    elif before is not None and after != before:
        yield object_to("needs_human", "test data changed", change.path)


def _left_collection(change: Change) -> bool:
    old, new = touched(change)[0], change.path
    return paths.is_collected_test(old) and not paths.is_collected_test(new)


def _python(
    change: Change, before: str | None, after: str | None, ledger: _Ledger
) -> Iterator[Objection]:
    old = read_module(before) if before is not None else Module()
    new = read_module(after) if after is not None else Module()
    if old is None or new is None:
        yield object_to("needs_human", "a test file that can't be parsed", change.path)
        return
    for name, unit in old.units.items():
        if name in new.units and new.units[name].is_test >= unit.is_test:
            yield from _same_test(change.path, name, unit, new.units[name])
        elif unit.is_test:
            ledger.gone.append((change.path, name, unit))
    for name, unit in new.units.items():
        if name not in old.units and unit.is_test:
            ledger.came[name] = unit
    for what, (times, line) in new.disabled.items():
        if times > old.disabled.get(what, (0, 0))[0]:
            why = f"a test is switched off: {what}"
            yield object_to(_unless_new(before), why, change.path, line)


def _unless_new(before: str | None) -> GateVerdict:
    """A new test may be for one platform only; an old one ran until now."""
    return "failed" if before is not None else "needs_human"


def _same_test(path: str, name: str, old: Unit, new: Unit) -> Iterator[Objection]:
    lost = old.checks - new.checks
    if new.checks.total() < old.checks.total():
        example = next(iter(lost), "")
        why = f"{name} asserts less: `{example}` is gone or can't fail any more"
        yield object_to("failed" if new.is_test else "needs_human", why, path, new.line)
    elif lost:
        why = f"{name} asserts something else than `{next(iter(lost))}`"
        yield object_to("needs_human", why, path, new.line)
    if new.cases < old.cases:
        why = f"{name} has {new.cases} cases instead of {old.cases}"
        yield object_to("failed", why, path, new.line)


def _counted(change: Change, before: str | None, after: str | None) -> Iterator[Objection]:
    language = language_of(change.path)
    assert language is not None
    old, new = count(language, before or ""), count(language, after or "")
    if new.disabled > old.disabled:
        yield object_to(_unless_new(before), "a test is switched off", change.path)
    if new.tests < old.tests:
        why = f"{new.tests} tests instead of {old.tests}"
        yield object_to("failed", why, change.path)
    elif new.checks < old.checks:
        why = f"{new.checks} assertions instead of {old.checks}"
        yield object_to("failed", why, change.path)
    elif before is not None and (change.deleted or 0) > 0:
        yield object_to("needs_human", "lines of an existing test changed", change.path)


def _source_file(candidate: Candidate, change: Change) -> Iterator[Objection]:
    if change.binary or change.status.startswith("D"):
        return
    for number, line in candidate.added_lines(change):
        if _DETECTS_TESTS.search(line):
            why = "code that behaves differently under test"
            yield object_to("needs_human", why, change.path, number)


def _settle(ledger: _Ledger) -> Iterator[Objection]:
    """Moved tests are fine; replaced ones a person compares; lost ones are refused."""
    came = dict(ledger.came)
    missing: list[tuple[str, str, Unit]] = []
    for path, name, unit in ledger.gone:
        if name in came:
            yield from _same_test(path, name, unit, came.pop(name))
            continue
        same = (key for key, new in came.items() if unit.checks and new.checks == unit.checks)
        twin = next(same, None)
        if twin is not None:
            del came[twin]
        else:
            missing.append((path, name, unit))
    replaced = len(came) >= len(missing)
    for path, name, unit in missing:
        why = f"{name} is gone" + (", other tests came" if replaced else "")
        yield object_to("needs_human" if replaced else "failed", why, path, unit.line)


def _fewer_ran(candidate: Candidate) -> Iterator[Objection]:
    before, after = candidate.tests_before, candidate.tests_after
    if before is None or after is None or before.passed is None or after.passed is None:
        return
    ran = before.passed + (before.failed or 0), after.passed + (after.failed or 0)
    if ran[1] < ran[0]:
        yield object_to("needs_human", f"{ran[1]} tests ran instead of {ran[0]}")
