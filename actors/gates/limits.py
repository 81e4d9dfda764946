"""Gates `patch` and `size`: there is a change, and a person can read it."""

from __future__ import annotations

from actors.gates.candidate import Candidate, Objection, UnscannableError, object_to
from actors.gates.verdicts import result
from actors.records import GateResult


def not_empty(candidate: Candidate) -> GateResult:
    """Whether anything was changed at all."""
    if not candidate.changes and not candidate.patch:
        return GateResult(gate="patch", verdict="failed", message="nothing was changed")
    if not candidate.changes or not candidate.patch:
        message = "the patch and the list of changes disagree about whether there is a change"
        return GateResult(gate="patch", verdict="unknown", message=message)
    count = len(candidate.changes)
    return GateResult(gate="patch", verdict="passed", message=f"{count} files changed")


def size(candidate: Candidate) -> GateResult:
    """Whether the change stays within the policy's limits."""
    limits = candidate.policy.gates
    changes = candidate.changes
    lines = sum((change.added or 0) + (change.deleted or 0) for change in changes)
    deleted = [change for change in changes if change.status.startswith("D")]
    found: list[Objection] = []
    if len(changes) > limits.max_files:
        found.append(object_to("needs_human", f"{len(changes)} files, over {limits.max_files}"))
    if lines > limits.max_lines:
        found.append(object_to("needs_human", f"{lines} lines, over {limits.max_lines}"))
    if len(deleted) > limits.max_deleted_files:
        why = f"{len(deleted)} files deleted, over {limits.max_deleted_files}"
        found += [object_to("needs_human", why, change.path) for change in deleted]
    for change in changes:
        bytes_now = 0 if change.status.startswith("D") else _size(candidate, change.path)
        if bytes_now > limits.max_file_bytes:
            why = f"{bytes_now} bytes, over {limits.max_file_bytes}"
            found.append(object_to("failed", why, change.path))
    return result("size", found, f"{len(changes)} files, {lines} lines")


def _size(candidate: Candidate, path: str) -> int:
    try:
        return len(candidate.final(path) or b"")
    except UnscannableError as error:
        return error.size_bytes
