"""What test files in other languages check, counted by their lines.

Coarser than reading a syntax tree: a line that declares a test, one that
asserts, one that switches tests off.  Comments are not counted.  A language
that is not listed here is not understood, and the gate says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final


@dataclass(frozen=True)
class Counted:
    """What the lines of one file amount to."""

    tests: int
    checks: int
    disabled: int


@dataclass(frozen=True)
class Language:
    tests: re.Pattern[str]
    checks: re.Pattern[str]
    disabled: re.Pattern[str]
    comment: str = "//"


_SCRIPT: Final = Language(
    tests=re.compile(r"^\s*(?:it|test)(?:\.\w+)*\s*\("),
    checks=re.compile(r"\b(?:expect|assert(?:\.\w+)*)\s*\(|\bt\.(?:is|deepEqual|true|throws)\("),
    disabled=re.compile(
        r"\b(?:it|test|describe|suite|context)\.(?:skip|todo|only|fails|failing|fixme)\b|"
        r"^\s*(?:xit|xtest|xdescribe|fit|fdescribe)\s*\(|\bthis\.skip\("
    ),
)
_GO: Final = Language(
    tests=re.compile(r"^func (?:Test|Fuzz|Example)\w*\("),
    checks=re.compile(
        r"\b\w+\.(?:Error|Errorf|Fatal|Fatalf|Fail|FailNow)\(|\b(?:assert|require)\."
    ),
    disabled=re.compile(r"\bt\.Skip(?:f|Now)?\(|^//go:build\b.*\bignore\b"),
    comment="// ",
)
_RUST: Final = Language(
    tests=re.compile(r"^\s*#\[(?:\w+::)*test\b"),
    checks=re.compile(r"\b(?:assert|assert_eq|assert_ne|panic)!|#\[should_panic"),
    disabled=re.compile(r"#\[ignore\b"),
)
_JVM: Final = Language(
    tests=re.compile(r"^\s*@(?:Test|ParameterizedTest|RepeatedTest)\b"),
    checks=re.compile(r"\b(?:assert\w*|verify|fail)\s*\("),
    disabled=re.compile(r"@(?:Disabled|Ignore)\b"),
)
_RUBY: Final = Language(
    tests=re.compile(r"^\s*(?:it|specify|test|def test_\w+)\b"),
    checks=re.compile(r"\b(?:expect|assert\w*|refute\w*)\b"),
    disabled=re.compile(r"^\s*(?:xit|xdescribe|xcontext|pending|skip)\b"),
    comment="#",
)
_LANGUAGES: Final = {
    ".js": _SCRIPT,
    ".jsx": _SCRIPT,
    ".ts": _SCRIPT,
    ".tsx": _SCRIPT,
    ".mjs": _SCRIPT,
    ".cjs": _SCRIPT,
    ".mts": _SCRIPT,
    ".go": _GO,
    ".rs": _RUST,
    ".java": _JVM,
    ".kt": _JVM,
    ".rb": _RUBY,
}


def language_of(path: str) -> Language | None:
    return _LANGUAGES.get(PurePosixPath(path).suffix.casefold())


def count(language: Language, text: str) -> Counted:
    """Count a file's lines that test, check and switch off."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(language.comment)]
    return Counted(
        tests=sum(bool(language.tests.search(line)) for line in lines),
        checks=sum(len(language.checks.findall(line)) for line in lines),
        disabled=sum(len(language.disabled.findall(line)) for line in lines),
    )
