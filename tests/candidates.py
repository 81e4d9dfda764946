"""Candidates for the gates, made from two dictionaries of files.

`candidate(base, final)` finds the changes as git would: added, modified,
deleted, and renamed where `renames` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.gates import Candidate, SuiteVerdict
from actors.policy import PolicyFile, RepositoryPolicy

GREEN = SuiteVerdict(exit_code=0, passed=3, failed=0)
RED = SuiteVerdict(exit_code=1, passed=2, failed=1)
Files = Mapping[str, "str | bytes"]


@dataclass(frozen=True)
class FileChange:
    """Has what `gates.Change` asks for."""

    path: str
    status: str
    old_path: str | None = None
    old_mode: str = "100644"
    new_mode: str = "100644"
    added: int | None = 0
    deleted: int | None = 0
    binary: bool = False


def policy(**stated: Any) -> RepositoryPolicy:
    """A policy with a test command and what is stated, in the file's own keys."""
    stated = {"commands": {"test": "python -m pytest -q"}, **stated}
    file = PolicyFile.model_validate(stated)
    return RepositoryPolicy(**{name: getattr(file, name) for name in PolicyFile.model_fields})


def candidate(
    base: Files,
    final: Files,
    *,
    renames: Mapping[str, str] | None = None,
    modes: Mapping[str, tuple[str, str]] | None = None,
    before: SuiteVerdict | None = RED,
    after: SuiteVerdict | None = GREEN,
    rules: RepositoryPolicy | None = None,
    patch: bytes | None = None,
) -> Candidate:
    """What an agent hands in that found `base` and left `final`."""
    old = {path: _bytes(text) for path, text in base.items()}
    new = {path: _bytes(text) for path, text in final.items()}
    changes = list(_changes(old, new, dict(renames or {}), dict(modes or {})))
    made = b"diff --git\n" if changes else b""
    return Candidate(
        base=old.get,
        final=new.get,
        changes=changes,
        patch=made if patch is None else patch,
        policy=rules or policy(),
        tests_before=before,
        tests_after=after,
        final_names=tuple(new),
    )


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _changes(
    old: dict[str, bytes],
    new: dict[str, bytes],
    renames: dict[str, str],
    modes: dict[str, tuple[str, str]],
) -> Any:
    sources = set(renames)
    for path in sorted(old.keys() | new.keys()):
        source = next((name for name, target in renames.items() if target == path), None)
        before, after = old.get(source or path), new.get(path)
        if path in sources or (before == after and source is None and path not in modes):
            continue
        status = "R100" if source else "A" if before is None else "D" if after is None else "M"
        defaults = (
            "000000" if before is None else "100644",
            "000000" if after is None else "100644",
        )
        old_mode, new_mode = modes.get(path, defaults)
        binary = b"\0" in (after or b"") or b"\0" in (before or b"")
        lines = set((after or b"").splitlines()), set((before or b"").splitlines())
        yield FileChange(
            path=path,
            status=status,
            old_path=source,
            old_mode=old_mode,
            new_mode=new_mode,
            added=None if binary else len(lines[0] - lines[1]),
            deleted=None if binary else len(lines[1] - lines[0]),
            binary=binary,
        )
