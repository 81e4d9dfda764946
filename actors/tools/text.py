"""Text for the model: nothing hidden in it, and never more than fits.

Output of commands and files may hold terminal escapes, bytes that are not
UTF-8, and characters that are invisible or turn the reading direction; all
are shown as escapes.  A long text keeps its head and its tail, says how much is
left out, and names the artifact that has all of it.
"""

from __future__ import annotations

import hashlib

RESULT_CHARS_MAX = 16_000
"""Of one tool result."""
SIDE_CHARS = 7_850
"""Kept of head and of tail; the rest of the bound is for the note."""

_HIDDEN = (
    *((0x00, 0x09), (0x0B, 0x20), (0x7F, 0xA0)),  # control characters but tab and line feed
    *((0xAD, 0xAE), (0x34F, 0x350), (0x61C, 0x61D), (0x115F, 0x1161), (0x17B4, 0x17B6)),
    *((0x180E, 0x180F), (0x200B, 0x2010), (0x2028, 0x202F), (0x2060, 0x2070)),  # direction
    *((0x3164, 0x3165), (0xD800, 0xE000), (0xFEFF, 0xFF00), (0xFFA0, 0xFFA1)),  # half ones
    *((0xFFF9, 0xFFFC), (0xE0000, 0xE1000)),  # tags
)
"""Ranges of code points that are invisible, or act on a terminal or the reading direction."""


def _escape(number: int) -> str:
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was not UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


_ESCAPES = {number: _escape(number) for low, high in _HIDDEN for number in range(low, high)}


def visible(raw: bytes | str) -> str:
    """Text with everything unseen written as an escape; line ends become `\\n`."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    return text.replace("\r\n", "\n").translate(_ESCAPES)


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
