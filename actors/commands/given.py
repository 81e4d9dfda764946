"""JSON that a person gave, read as strictly as the API reads it."""

from __future__ import annotations

from typing import Any

from actors.commands.failures import WrongUsageError
from runtime.strictjson import read_strictly


def read_json(text: str, name: str, hint: str | None = None) -> Any:
    """The value of a text.

    Args:
        name: what it was given as.

    Raises:
        WrongUsageError: it is no JSON, or does not mean one thing.
    """
    try:
        return read_strictly(text)
    except RecursionError as error:
        raise WrongUsageError(f"{name} nests too deep.", hint) from error
    except ValueError as error:
        raise WrongUsageError(f"{name} is no JSON: {error}.", hint) from error
