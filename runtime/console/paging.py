"""Lists: `?limit=&cursor=` in, `{items, nextCursor}` out.

A page is no larger than one process can well hold for each of many clients: it may be
short because of what its items weigh, and is not the last for that.

A cursor is opaque and belongs to one list with its filters: used with another
it is refused, never misread.  It names a place between two keys, so a page
neither repeats nor skips what was there when the first page was read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from pydantic import Field
from starlette.responses import Response

from runtime.console.caller import Caller
from runtime.console.problems import ProblemError, invalid
from runtime.store.contract import Document
from runtime.wire import WireModel

LIMIT_MAX: Final = 200
LIMIT_DEFAULT: Final = 50
SCAN_MAX: Final = 2_000
"""Documents looked at for one page of a filter that no index knows."""
PAGE_BYTES_MAX: Final = 8 << 20
"""Of the records on one page; one that is larger comes alone."""
NUMBER_MAX: Final = 2**53
"""No journal and no inbox is longer."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half of a pair: JSON can say it, no store can keep it."""

Item = TypeVar("Item")
Place = TypeVar("Place", str, int)


class PageQuery(WireModel):
    """Query of a list; subclasses add their filters."""

    limit: int = Field(LIMIT_DEFAULT, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(None, max_length=2_000)

    def filters(self) -> dict[str, str]:
        """The filters that were given, by their names on the wire."""
        given = self.model_dump(mode="json", by_alias=True, exclude={"limit", "cursor"})
        return {name: value for name, value in given.items() if value is not None}


class Page(WireModel, Generic[Item]):
    """One page of a list; `nextCursor` is null on the last."""

    items: tuple[Item, ...]
    next_cursor: str | None = None


class Cursors:
    """The cursors of one list of one organization with its filters."""

    def __init__(self, caller: Caller, listing: str, query: PageQuery) -> None:
        bound = [caller.principal.organization, listing, sorted(query.filters().items())]
        self._mark = hashlib.sha256(json.dumps(bound).encode()).hexdigest()[:12]

    def write(self, place: str | int) -> str:
        text = json.dumps([self._mark, place], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def read(self, cursor: str | None, kind: type[Place]) -> Place | None:
        """The place a cursor names, None without one.

        Raises:
            ProblemError: 422, it is of another list or no cursor at all.
        """
        if cursor is None:
            return None
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            mark, place = json.loads(base64.b64decode(padded, b"-_", validate=True))
        except (ValueError, TypeError, RecursionError):
            raise _bad_cursor() from None
        if mark != self._mark or type(place) is not kind or not _is_place(place):
            raise _bad_cursor()
        return place


def _is_place(place: str | int) -> bool:
    """Whether a store can look there: anybody may have made it up."""
    if isinstance(place, int):
        return 0 <= place <= NUMBER_MAX
    return not _SURROGATE.search(place)


def _bad_cursor() -> ProblemError:
    return invalid("query.cursor", "invalid_cursor", "The cursor is not of this list.")


def page(items: Iterable[bytes], next_cursor: str | None) -> Response:
    """A page of items that are JSON already."""
    body = b'{"items":[' + b",".join(items) + b'],"nextCursor":'
    return Response(body + json.dumps(next_cursor).encode() + b"}", media_type="application/json")


async def list_page(
    caller: Caller,
    collection: str,
    query: PageQuery,
    terms: Mapping[str, str] | None = None,
    keep: Callable[[Document], bool] | None = None,
    descending: bool = True,
    listing: str | None = None,
) -> tuple[list[Document], str | None]:
    """One page of the organization's documents, and the cursor of the next.

    It ends with `query.limit` documents or before `PAGE_BYTES_MAX` of them.

    Args:
        terms: what the store's index filters by.
        keep: a filter the index does not know. A page may then be short, even
            empty, while there is a next one: at most SCAN_MAX are looked at.
        listing: tells lists of one collection apart whose terms are no filters.
    """
    cursors = Cursors(caller, listing or collection, query)
    after = cursors.read(query.cursor, str)
    found: list[Document] = []
    seen = size_bytes = 0
    while True:
        batch = await caller.client.list(
            collection, terms, after, query.limit + 1 if keep is None else LIMIT_MAX, descending
        )
        for document in batch:
            heavier_bytes = size_bytes + len(document.body)
            is_full = len(found) == query.limit or (found and heavier_bytes > PAGE_BYTES_MAX)
            if is_full or seen == SCAN_MAX:
                return found, cursors.write(after or "")
            seen += 1
            after = document.key
            if keep is None or keep(document):
                found.append(document)
                size_bytes = heavier_bytes
        if not batch:
            return found, None


def body_bytes(row: Any) -> int:
    """What a row weighs that has a body."""
    return len(row.body)


async def number_page(
    caller: Caller,
    listing: str,
    query: PageQuery,
    read: Callable[[int, int], Awaitable[Sequence[Any]]],
    place_of: Callable[[Any], int],
    size_of: Callable[[Any], int] = body_bytes,
) -> tuple[list[Any], str | None]:
    """One page of what is numbered upwards: a journal, an inbox's history.

    Args:
        size_of: bytes of a row, of which a page has `PAGE_BYTES_MAX`.
    """
    cursors = Cursors(caller, listing, query)
    after = cursors.read(query.cursor, int) or 0
    rows: list[Any] = []
    size_bytes = 0
    while True:
        more = await read(place_of(rows[-1]) if rows else after, query.limit + 1 - len(rows))
        for row in more:
            size_bytes += size_of(row)
            if len(rows) == query.limit or (rows and size_bytes > PAGE_BYTES_MAX):
                return rows, cursors.write(place_of(rows[-1]))
            rows.append(row)
        if not more:
            return rows, None
