"""Export: lines cut into pages, each with its header and footer."""

from __future__ import annotations

from briefs.layout import WIDTH, lines_of
from briefs.model import Brief

LINES_PER_PAGE = 50
FORM_FEED = "\f"


def paginate(lines: list[str], per_page: int = LINES_PER_PAGE) -> list[list[str]]:
    """Cut lines into pages of at most `per_page` lines; a brief has at least one page."""
    count = max(1, len(lines) // per_page)
    return [lines[page * per_page : (page + 1) * per_page] for page in range(count)]


def export(brief: Brief) -> str:
    """The brief as text, pages set apart by a form feed."""
    pages = paginate(lines_of(brief))
    return FORM_FEED.join(
        _page(brief, body, number, len(pages)) for number, body in enumerate(pages, 1)
    )


def _page(brief: Brief, body: list[str], number: int, total: int) -> str:
    header = f"{brief.title} ({brief.client})"
    footer = f"page {number} of {total}".rjust(WIDTH)
    return "\n".join([header, "=" * len(header), *body, "", footer])
