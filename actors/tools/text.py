"""Text for the model: nothing hidden in it, and never more than fits.

Output of commands and files may hold terminal escapes, bytes that are not
UTF-8, and characters that are invisible or turn the reading direction; all
are shown as escapes.  A long text keeps its head and its tail, says how much is
left out, and names the artifact that has all of it.
"""

from __future__ import annotations

import hashlib
import re

RESULT_CHARS_MAX = 16_000
"""Of one tool result."""
SIDE_CHARS = 7_850
"""Kept of head and of tail; the rest of the bound is for the note."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"  # invisible
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"  # invisible, direction
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e0fff]"  # half characters, tags
)


def visible(raw: bytes | str) -> str:
    """Text with everything unseen written as an escape; line ends become `\\n`."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    return _HIDDEN.sub(_escape, text.replace("\r\n", "\n"))


def shortened(text: str) -> tuple[str, bytes | None]:
    """The text within the bound, and all of it as bytes to be kept if it did not fit."""
    if len(text) <= RESULT_CHARS_MAX:
        return text, None
    whole = text.encode()
    elided = len(text) - 2 * SIDE_CHARS
    note = (
        f"\n[... {elided} characters left out; all {len(text)} are in artifact"
        f" {hashlib.sha256(whole).hexdigest()}, see artifact_read ...]\n"
    )
    return text[:SIDE_CHARS] + note + text[-SIDE_CHARS:], whole


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was not UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
