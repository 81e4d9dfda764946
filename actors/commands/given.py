"""JSON that a person gave, read as strictly as the API reads it."""

from __future__ import annotations

import json
from typing import Any, Final

from actors.commands.failures import WrongUsageError

INTEGER_MAX: Final = 2**63 - 1


def read_json(text: str, name: str, hint: str | None = None) -> Any:
    """The value of a text.

    Args:
        name: what it was given as.

    Raises:
        WrongUsageError: it is no JSON, says what JSON can't (NaN, half a character), or
            what two readers understand differently: a name twice, a number no 64 bits hold.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise WrongUsageError(f"{name} nests too deep.", hint) from error
    except ValueError as error:
        raise WrongUsageError(f"{name} is no JSON: {error}.", hint) from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else INTEGER_MAX + 1
    if abs(number) > INTEGER_MAX:
        raise ValueError("a number is out of range")
    return number
