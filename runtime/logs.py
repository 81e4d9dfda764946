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
from collections.abc import Mapping
from typing import Any, Final, TextIO

from runtime.clock import iso

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PACKAGES: Final = ("runtime", "actors", "serve_app")
"""Whose records are written; libraries keep their own way."""
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
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


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
