"""A candidate: one proposed change with everything a gate may look at.

It is data and two readers, so gates are pure functions and give the same
verdict on any machine.  Added lines are computed from the two trees, never
from the patch: attributes in the repository can make git call a text binary,
and what a patch leaves out would then go unseen.  Making trees, changes and
patch is the workspace's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from actors.errors import AgentError
from actors.policy import RepositoryPolicy
from actors.records import GateFinding, GateResult, GateVerdict

SCAN_BYTES_MAX: Final = 4 << 20
"""Of one file; a gate that would have to look at more says `unknown`."""

ABSENT: Final = "000000"
SYMLINK: Final = "120000"
SUBMODULE: Final = "160000"

Reader = Callable[[str], bytes | None]


class GateInputError(AgentError):
    """A gate can't look at what it must judge."""


class UnscannableError(GateInputError):
    """A file is too large to be looked at.

    Args: path, size_bytes.
    """

    def __init__(self, path: str, size_bytes: int) -> None:
        super().__init__(path, size_bytes)
        self.size_bytes = size_bytes


class Change(Protocol):
    """One changed path, as git's raw diff names it."""

    @property
    def path(self) -> str:
        """In the final tree; of a deletion, in the base tree."""

    @property
    def status(self) -> str:
        """A, M, D, R, C or T; a similarity may follow."""

    @property
    def old_path(self) -> str | None:
        """Of a rename or a copy."""

    @property
    def old_mode(self) -> str:
        """Six octal digits; zeros where there was nothing."""

    @property
    def new_mode(self) -> str: ...

    @property
    def added(self) -> int | None:
        """Lines; None for binary content."""

    @property
    def deleted(self) -> int | None: ...

    @property
    def binary(self) -> bool: ...


@dataclass(frozen=True)
class SuiteVerdict:
    """What a run of the configured test command said."""

    exit_code: int | None
    """None: it was not run to its end (timeout, sandbox gone)."""
    passed: int | None = None
    """None where the command does not count."""
    failed: int | None = None


@dataclass(frozen=True)
class CheckVerdict:
    """What a run of a linter or a type checker said."""

    exit_code: int | None
    """None: it was not run to its end (timeout, sandbox gone)."""
    last_lines: tuple[str, ...] = ()
    """Of what it printed."""


@dataclass(frozen=True)
class Candidate:
    """A proposed change, from `base` to `final`."""

    base: Reader
    """A file's content; None when there is none; UnscannableError over SCAN_BYTES_MAX."""
    final: Reader
    changes: Sequence[Change]
    patch: bytes
    policy: RepositoryPolicy
    """Of the base commit."""
    tests_before: SuiteVerdict | None = None
    """On the base tree."""
    tests_after: SuiteVerdict | None = None
    """On the final tree."""
    checks_before: Mapping[str, CheckVerdict] = field(default_factory=dict)
    """On the base tree, by the command's key in the policy."""
    checks_after: Mapping[str, CheckVerdict] = field(default_factory=dict)
    final_names: Collection[str] = ()
    """All paths of the final tree; without them only changed paths are compared."""

    def text_before(self, change: Change) -> str | None:
        """The text at the base, under its old name; None if there was no file."""
        if change.old_mode in (ABSENT, SUBMODULE):
            return None
        return self._text(self.base, change.old_path or change.path)

    def text_after(self, change: Change) -> str | None:
        """The text in the final tree; None if the file is gone."""
        if change.new_mode in (ABSENT, SUBMODULE):
            return None
        return self._text(self.final, change.path)

    def added_lines(self, change: Change) -> Iterator[tuple[int, str]]:
        """Number and text of each line of the final file that the base file did not have.

        Raises:
            GateInputError: the file can't be read or is over SCAN_BYTES_MAX.
        """
        after = self.text_after(change)
        if after is None:
            return
        known = set((self.text_before(change) or "").splitlines())
        for number, line in enumerate(after.splitlines(), 1):
            if line not in known:
                yield number, line

    @staticmethod
    def _text(read: Reader, path: str) -> str:
        body = read(path)
        if body is None:
            raise GateInputError(path, "is not in the tree")
        if len(body) > SCAN_BYTES_MAX:
            raise UnscannableError(path, len(body))
        return body.decode("utf-8", "replace")


Gate = Callable[[Candidate], GateResult]

WORST_FIRST: Final[tuple[GateVerdict, ...]] = ("failed", "unknown", "needs_human", "passed")


def worst(verdicts: Collection[GateVerdict]) -> GateVerdict:
    """The verdict of several: one red makes it red, and one unknown is never green."""
    return min(verdicts, key=WORST_FIRST.index, default="passed")


@dataclass(frozen=True)
class Objection:
    """One finding and what it alone would mean for the candidate."""

    verdict: GateVerdict
    finding: GateFinding


def object_to(
    verdict: GateVerdict, why: str, path: str | None = None, line: int | None = None
) -> Objection:
    return Objection(verdict, GateFinding(path=path, line=line, why=why))
