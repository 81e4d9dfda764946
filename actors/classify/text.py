"""The issue's words: where rules look, and the quotes they give as evidence.

A quote is always a piece of the title or the description, verbatim, so that a
person can find it and a claim can be checked.  Rules about words look at the
prose only: code blocks and stack lines are blanked, with their length kept, so
that every place means the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from actors.records import DESCRIPTION_BYTES_MAX, IssueSubmission

QUOTE_LENGTH_MAX: Final = 160
QUOTE_LENGTH_MIN: Final = 3
"""A claim's quote: a single letter is in every issue."""
NEGATION_WORDS: Final = 3
"""How far before a word a negation still turns it."""

_CODE: Final = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{1,200}`", re.DOTALL)
_STACK: Final = re.compile(r"^[ \t]+(?:at |File \"|\.\.\. ).*$|^Traceback .*$", re.MULTILINE)
_NEGATION: Final = re.compile(
    r"\b(?:no|not|never|without|nothing|none|isn't|wasn't|aren't|doesn't|didn't|don't|hardly)\b"
    rf"(?:[^\w.!?;\n]+[\w']+){{0,{NEGATION_WORDS}}}[^\w.!?;\n]*$",
    re.IGNORECASE,
)
_NEGATION_INSIDE: Final = re.compile(r"\b(?:no|not|never)\b|n't\b", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A place in the issue."""

    quote: str
    in_title: bool


@dataclass(frozen=True)
class IssueText:
    """Title and description, whole and as prose."""

    title: str
    description: str

    @classmethod
    def of(cls, submission: IssueSubmission) -> IssueText:
        return cls(submission.title, submission.description[:DESCRIPTION_BYTES_MAX])

    @cached_property
    def prose(self) -> str:
        """The description with code blanked."""
        return _STACK.sub(_blank, _CODE.sub(_blank, self.description))

    def find(
        self, pattern: re.Pattern[str], *, raw: bool = False, title_only: bool = False
    ) -> Found | None:
        """The first match, title first; `raw` looks into code as well."""
        return next((found for _, found in self._matches(pattern, raw, title_only)), None)

    def find_meant(self, pattern: re.Pattern[str], *, negative: bool = False) -> Found | None:
        """The first match that is not negated: "no data was lost" loses nothing.

        Args:
            negative: the phrase is itself a denial ("cannot save"), so a `not` within
                it is no second one.
        """
        for match, found in self._matches(pattern):
            inside = not negative and _NEGATION_INSIDE.search(match.group())
            before = match.string[max(0, match.start() - 80) : match.start()]
            if not inside and not _NEGATION.search(before):
                return found
        return None

    def holds(self, quote: str) -> bool:
        """Whether the quote is there, verbatim."""
        enough = len(quote.strip()) >= QUOTE_LENGTH_MIN
        return enough and (quote in self.title or quote in self.description)

    def _matches(
        self, pattern: re.Pattern[str], raw: bool = False, title_only: bool = False
    ) -> Iterator[tuple[re.Match[str], Found]]:
        body = self.description if raw else self.prose
        places = [(self.title, self.title, True), (body, self.description, False)]
        for text, original, in_title in places[: 1 if title_only else 2]:
            for match in pattern.finditer(text):
                quote = original[match.start() : match.end()].strip()[:QUOTE_LENGTH_MAX]
                if quote:
                    yield match, Found(quote, in_title)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())
