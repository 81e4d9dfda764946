"""Log lines as JSON: one object a line, for programs that read logs.

    {"time", "level", "logger", "message", "action", ..., "error"?}

`action` and what else a record carries (`extra`) are members of their own; a
stack trace is one string in `error`.  Every value is escaped by JSON, so what a
record quotes can never make a second line or another field.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final, TextIO

from runtime.clock import iso
from runtime.errors import told

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PACKAGES: Final = ("runtime", "actors", "serve_app")
"""Whose records are written; libraries keep their own way."""
CAUSES_MAX: Final = 8
"""Errors that one has led to the other, the last ones of them."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OWN: Final = frozenset({"time", "level", "logger", "message", "error"})


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": iso(round(record.created * 1000)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            # what begins with an underscore a library has put there, for itself
            if name not in _STANDARD and name not in _OWN and name[0] != "_":
                said[name] = value
        if record.exc_info:
            said["error"] = _trace(record.exc_info[1])
        return json.dumps(said, default=str)


def _trace(error: BaseException | None) -> str:
    """Where it was raised and what it tells; after what had led to it."""
    parts: list[str] = []
    while error is not None and len(parts) < CAUSES_MAX:
        parts.append("".join(traceback.format_tb(error.__traceback__)) + told(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nthen\n\n".join(reversed(parts))


def tell(logger: logging.Logger, level: int, action: str, fields: Mapping[str, Any]) -> None:
    """An operation: its action and what of the fields is known, as words and as members."""
    known = {name: value for name, value in fields.items() if value is not None}
    words = " ".join(f"{name}={value}" for name, value in known.items())
    logger.log(level, "%s %s", action, words, extra={"action": action, **known})


def level_of(text: str) -> str:
    """A level's name, however it is written.

    Raises:
        ValueError: there is no such level.
    """
    level = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(text.strip().upper(), text.strip().upper())
    if level not in LEVELS:
        raise ValueError(f"{text!r} is no log level; use one of {', '.join(LEVELS).lower()}")
    return level


def configure(level: str, stream: TextIO | None = None) -> None:
    """Write our packages' records as JSON to `stream` (default: stderr). Idempotent."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in PACKAGES:
        package = logging.getLogger(name)
        package.handlers = [handler]
        package.setLevel(level_of(level))
        package.propagate = False
