"""A brief: what a client wants, in sections."""

from __future__ import annotations

import json
from dataclasses import dataclass


class InvalidBriefError(ValueError):
    """The text is not a brief."""


@dataclass(frozen=True)
class Section:
    heading: str
    body: str


@dataclass(frozen=True)
class Brief:
    title: str
    client: str
    sections: tuple[Section, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Brief:
        """Read a brief.

        Raises:
            InvalidBriefError: not JSON, or a field is missing or no text.
        """
        try:
            data = json.loads(text)
            sections = tuple(
                Section(_text(item, "heading"), _text(item, "body"))
                for item in data.get("sections", [])
            )
            return cls(_text(data, "title"), _text(data, "client"), sections)
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidBriefError(str(error)) from error


def _text(data: dict, name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise InvalidBriefError(f"{name} must be text")
    return value
