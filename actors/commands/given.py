"""JSON that a person gave, read as strictly as the API reads it."""

from __future__ import annotations

import json
from typing import Any

from actors.commands.failures import WrongUsageError


def read_json(text: str, name: str, hint: str | None = None) -> Any:
    """The value of a text.

    Args:
        name: what it was given as.

    Raises:
        WrongUsageError: it is no JSON, or says what JSON can't (NaN, half a character).
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise WrongUsageError(f"{name} nests too deep.", hint) from error
    except ValueError as error:
        raise WrongUsageError(f"{name} is no JSON: {error}.", hint) from error
    return value
