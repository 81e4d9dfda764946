"""Untrusted text, made fit to be shown to a model: what is hidden shows, what is data says so.

Issue text, comments and repository content are data, never instructions.  A
block of data begins and ends with a nonce that its author could not know, and
characters that a person does not see (zero-width, bidirectional, tags, control,
HTML comments) are written out.  The nonce is a function of the job, so a resumed
job builds the same prompt byte for byte.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

NONCE_LENGTH = 16
NAME_LENGTH_MAX = 120
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
_PLAIN = re.compile(r"[\t\n\x20-\x7e]*")
# Invisible although their category says letter, mark or other.
_INVISIBLE = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0}
    | set(range(0xFE00, 0xFE10))
    | set(range(0xE0100, 0xE01F0))
)


def visible(text: str) -> str:
    """The text with every character that does not show written as `\\u{hex}`.

    Tabs and newlines stay; a carriage return before a newline is dropped.
    """
    text = text.replace("\r\n", "\n")
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_shown(character) for character in text)


def data_block(name: str, text: str, nonce: str) -> str:
    """The text as a delimited block that `prompts/untrusted.md` tells the model to distrust."""
    shown = visible(text).replace("<!--", "&lt;!--").replace("-->", "--&gt;")
    return f"<data-{nonce} name={one_line(name)!r}>\n{shown}\n</data-{nonce}>"


def nonce(job_id: str) -> str:
    """What delimits one job's data: the job's random id is younger than any text it is given."""
    return hashlib.sha256(f"nonce/{job_id}".encode()).hexdigest()[:NONCE_LENGTH]


def one_line(text: str, length_max: int = NAME_LENGTH_MAX) -> str:
    """Visible text on one line, shortened: for progress, logs and names."""
    line = " ".join(visible(text).split())
    return line if len(line) <= length_max else line[: length_max - 1] + "…"


def _shown(character: str) -> str:
    if character in "\t\n":
        return character
    hidden = ord(character) in _INVISIBLE or unicodedata.category(character) in _HIDDEN_CATEGORIES
    return f"\\u{{{ord(character):x}}}" if hidden else character
