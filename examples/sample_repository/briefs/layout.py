"""Layout: a brief as lines no wider than the page."""

from __future__ import annotations

import textwrap

from briefs.model import Brief

WIDTH = 72


def lines_of(brief: Brief, width: int = WIDTH) -> list[str]:
    """All lines of the brief's body, in order; sections are set apart by a blank line."""
    lines: list[str] = []
    for section in brief.sections:
        if lines:
            lines.append("")
        lines.append(section.heading.upper())
        for paragraph in section.body.split("\n"):
            lines.extend(textwrap.wrap(paragraph, width) or [""])
    return lines
