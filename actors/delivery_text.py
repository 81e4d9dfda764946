"""The words of a delivered commit: branch name, subject, body, trailers.

All of it comes from people and models, so nothing here is trusted: one line
stays one line, a title can't add a trailer, skip a build or become an option,
and every character shows.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from actors.export import commit_message
from actors.untrusted import one_line, visible

SLUG_LENGTH_MAX: Final = 40
SUBJECT_LENGTH_MAX: Final = 72
BODY_LENGTH_MAX: Final = 1_000
VALUE_LENGTH_MAX: Final = 200

_SKIPS_CI: Final = re.compile(
    r"\[\s*(?:skip[ _-]?(?:ci|actions)|(?:ci|actions)[ _-]?skip|no[ _-]?ci)[^\]]*\]|"
    r"\*\*\*NO_CI\*\*\*",
    re.IGNORECASE,
)
_MENTION: Final = re.compile(r"(?<![\w.])@(?=\w)")


def slug(text: str) -> str:
    """1..40 of `a-z0-9-`, not at an end a dash: safe in refs, paths and shells."""
    plain = unicodedata.normalize("NFKD", text[:1_000]).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    short = ""
    for word in words:
        longer = f"{short}-{word}" if short else word[:SLUG_LENGTH_MAX]
        if len(longer) > SLUG_LENGTH_MAX:
            break
        short = longer
    return short or "change"


def branch_name(issue_id: str, title: str) -> str:
    """`troupe/<issue>-<slug>`."""
    return f"troupe/{safe_id(issue_id)}-{slug(title)}"


def safe_id(issue_id: str) -> str:
    """An issue's id as it stands in names of branches and folders."""
    return re.sub(r"[^A-Za-z0-9_-]", "", issue_id)[:64].lstrip("-") or "issue"


def message(title: str, summary: str, trailers: dict[str, str | None]) -> str:
    """Subject, one paragraph, trailers; those without a value are left out."""
    subject = _harmless(title, SUBJECT_LENGTH_MAX) or "Change"
    body = _harmless(summary, BODY_LENGTH_MAX)
    last = [(key, one_line(value, VALUE_LENGTH_MAX)) for key, value in trailers.items() if value]
    return commit_message("\n\n".join(part for part in (subject, body) if part), last)


def _harmless(text: str, length_max: int) -> str:
    """One line that mentions nobody, skips no build and starts no comment."""
    line = " ".join(visible(text).split())
    line = _MENTION.sub("", _SKIPS_CI.sub("", line))
    return one_line(line.lstrip("#- "), length_max)
