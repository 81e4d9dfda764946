"""The words that agents are given: one Markdown file each, with `$name` for what varies.

Rendering is strict, a missing or unknown name is an error, and what is put in
is never looked into again, so text from outside can't pull anything in.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template


def render(name: str, /, **values: str) -> str:
    """The words of `name.md` with every `$field` filled in.

    Raises:
        KeyError: a field has no value.
        ValueError: a value has no field.
    """
    template = _template(name)
    unknown = values.keys() - set(template.get_identifiers())
    if unknown:
        raise ValueError(f"{name}.md has no field {sorted(unknown)}")
    return template.substitute(values)


@cache
def _template(name: str) -> Template:
    return Template((files(__package__) / f"{name}.md").read_text(encoding="utf-8").strip())
