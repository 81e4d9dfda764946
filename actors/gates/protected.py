"""Gates `protected_paths` and `ci`: files whose change reaches beyond the code.

The owner's own `protectedPaths` are refused: the line was drawn on purpose.
What every build machine, editor or other agent trusts needs a person.  A rename
counts at both ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.gates import paths
from actors.gates.candidate import Candidate, Change, Objection, object_to
from actors.gates.verdicts import result
from actors.records import GateResult


def protected_paths(candidate: Candidate) -> GateResult:
    """Whether the change leaves protected files alone."""
    policy = candidate.policy
    found: list[Objection] = []
    for change in candidate.changes:
        for path in touched(change):
            own = paths.matching(path, policy.protected_paths)
            builtin = paths.matching(path, paths.PROTECTED)
            if own:
                found.append(object_to("failed", f"protected by the policy's `{own}`", path))
            elif builtin:
                found.append(object_to("needs_human", f"protected path `{builtin}`", path))
    found += _lock_files(candidate)
    return result("protected_paths", found, "no protected file changed")


def _lock_files(candidate: Candidate) -> Sequence[Objection]:
    rule = candidate.policy.gates.dependencies
    if rule == "allow":
        return []
    return [
        object_to("failed" if rule == "refuse" else "needs_human", "a lock file", change.path)
        for change in candidate.changes
        if any(paths.matching(path, paths.LOCKS) for path in touched(change))
    ]


def ci_files(candidate: Candidate) -> GateResult:
    """Whether the change leaves alone what runs on build machines and at commits."""
    found = [
        object_to("needs_human", "runs on build machines or at commits", path)
        for change in candidate.changes
        for path in touched(change)
        if paths.matching(path, paths.CI)
    ]
    return result("ci", found, "no CI file changed")


def touched(change: Change) -> tuple[str, ...]:
    """The paths a change is about: a copy leaves its source alone."""
    if change.old_path and change.old_path != change.path and not change.status.startswith("C"):
        return change.old_path, change.path
    return (change.path,)
