"""What an agent is doing, in words for people: "Editing src/x.py", "Running the tests".

Names come from models and repositories, so they are made visible, shortened
and kept on one line.  Unknown tools are shown by their name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from actors.untrusted import one_line

SUBJECT_LENGTH_MAX: Final = 80
THINKING: Final = "Thinking"

_WORDS: Final[Mapping[str, tuple[str, str | None]]] = {
    "read": ("Reading", "path"),
    "edit": ("Editing", "path"),
    "write": ("Writing", "path"),
    "glob": ("Looking for files", "pattern"),
    "grep": ("Searching for", "pattern"),
    "bash": ("Running", "command"),
    "run_tests": ("Running the tests", None),
    "git_diff": ("Looking at its changes", None),
    "git_log": ("Looking at the history", None),
    "git_blame": ("Looking at who wrote", "path"),
    "artifact_read": ("Reading a long output", None),
    "finish": ("Reviewing its own change", None),
    "report": ("Writing the report", None),
    "review": ("Writing the review", None),
    "ask_human": ("Waiting for your answer", None),
}


def step_words(tool: str, arguments: Any) -> str:
    """What a call of a tool does."""
    words, field = _WORDS.get(tool, (f"Using {one_line(tool, SUBJECT_LENGTH_MAX)}", None))
    subject = arguments.get(field) if field and isinstance(arguments, Mapping) else None
    if not isinstance(subject, str) or not subject:
        return words
    return f"{words} {one_line(subject, SUBJECT_LENGTH_MAX)}"
