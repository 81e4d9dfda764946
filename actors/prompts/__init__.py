"""The words that agents are given: one Markdown file each, with `$name` for what varies.

Rendering is strict, a missing or unknown name is an error, and what is put in
is never looked into again, so text from outside can't pull anything in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from string import Template


def render(name: str, /, **values: str) -> str:
    """The words of `name.md` with every `$field` filled in; errors as `fill`."""
    return fill(words(name), values)


@cache
def words(name: str) -> str:
    """The words of `name.md`, with their fields."""
    return (files(__package__) / f"{name}.md").read_text(encoding="utf-8").strip()


def fill(text: str, values: Mapping[str, str]) -> str:
    """Words with every `$field` filled in.

    Raises:
        KeyError: a field has no value.
        ValueError: a value has no field.
    """
    template = Template(text)
    unknown = values.keys() - set(template.get_identifiers())
    if unknown:
        raise ValueError(f"there is no field {sorted(unknown)}")
    return template.substitute(values)
