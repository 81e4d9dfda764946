"""JSON that every reader understands alike.

Refused beside what is no JSON: a name that comes twice in one object, NaN and
Infinity, a number that no 64 bits hold, and half a character (RFC 8259, sections
4, 6 and 8.2, leave these to each reader).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

INTEGER_MAX: Final = 2**63 - 1
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""Perhaps half a character: as an escape, or as bytes that were no UTF-8."""


class AmbiguousJsonError(ValueError):
    """Two readers could understand it differently; says why."""


def read_strictly(text: str) -> Any:
    """The value of a text.

    Raises:
        json.JSONDecodeError: it is no JSON.
        AmbiguousJsonError: it is, and does not mean one thing.
        RecursionError: it nests too deep.
    """
    value = json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_constant,
        parse_float=_float,
        parse_int=_integer,
    )
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeError:
            raise AmbiguousJsonError("a text has half a character") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AmbiguousJsonError("a name comes twice in one object")
    return found


def _constant(_: str) -> NoReturn:
    raise AmbiguousJsonError("NaN and Infinity are no JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise AmbiguousJsonError("a number is out of range")
    return number


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 20 else INTEGER_MAX + 1
    if abs(number) > INTEGER_MAX:
        raise AmbiguousJsonError("a number is out of range")
    return number
