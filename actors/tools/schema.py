"""Checks a tool's input against its JSON schema, and says what is wrong in words.

Only what our own schemas use: object, array, string, integer, boolean, enum,
bounds, required, no additional properties.  A model's input may be any JSON;
the answer is a list of sentences, never an exception.
"""

from __future__ import annotations

import difflib
from typing import Any

Schema = dict[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
}
PROBLEMS_MAX = 5


def problems(schema: Schema, value: Any, name: str = "input") -> list[str]:
    """What is wrong with `value`, a sentence each, at most five; empty if nothing is."""
    return list(_problems(schema, value, name))[:PROBLEMS_MAX]


def _problems(schema: Schema, value: Any, name: str) -> list[str]:
    expected = schema["type"]
    wrong = not isinstance(value, _TYPES[expected])
    if wrong or (expected == "integer" and isinstance(value, bool)):
        return [f"{name} must be of type {expected}, not {_type_name(value)}."]
    if expected == "object":
        return _object(schema, value, name)
    if expected == "array":
        return _array(schema, value, name)
    return _bounds(schema, value, name)


def _object(schema: Schema, value: dict[str, Any], name: str) -> list[str]:
    properties = schema["properties"]
    found = [f"{name} lacks {key}." for key in schema.get("required", ()) if key not in value]
    for key, item in value.items():
        if key in properties:
            found += _problems(properties[key], item, key if name == "input" else f"{name}.{key}")
        else:
            near = difflib.get_close_matches(str(key), properties, 1)
            hint = f" Did you mean {near[0]}?" if near else f" It has {', '.join(properties)}."
            found.append(f"{name} has no field {str(key)[:60]!r}.{hint}")
    return found


def _array(schema: Schema, value: list[Any], name: str) -> list[str]:
    if len(value) > schema["maxItems"]:
        return [f"{name} has {len(value)} items; at most {schema['maxItems']} are taken."]
    return [
        problem
        for index, item in enumerate(value)
        for problem in _problems(schema["items"], item, f"{name}[{index}]")
    ]


def _bounds(schema: Schema, value: Any, name: str) -> list[str]:
    if "enum" in schema and value not in schema["enum"]:
        return [f"{name} must be one of {', '.join(schema['enum'])}."]
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            return [f"{name} is longer than {schema['maxLength']} characters."]
        if any("\ud800" <= character <= "\udfff" for character in value):
            return [f"{name} holds half a character (a lone surrogate)."]
        return []
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    return [] if low <= value <= high else [f"{name} must be {_range(schema)}."]


def _range(schema: Schema) -> str:
    parts = [f"at least {schema['minimum']}"] if "minimum" in schema else []
    parts += [f"at most {schema['maximum']}"] if "maximum" in schema else []
    return " and ".join(parts)


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    for name, types in _TYPES.items():
        if type(value) in types:
            return name
    return "number"
