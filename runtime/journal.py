"""The journal of one agent: the difference each turn made, and its fold.

A turn's event carries a patch (a small subset of RFC 6902) from the state
before to the state after, beside an optional name and data for the reader.
`fold` needs nothing but the events, so the same function answers "what is the
state", "what was it at version 40" and "do journal and snapshot agree".

A state has a schema number.  Older states are lifted by pure upcasters, one
step at a time, in the middle of a fold where the schema changes.  User code is
never replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

State = dict[str, Any]
Patch = list[list[Any]]
"""`["set", path, value]`, `["del", path]`, `["add", path, [values]]` (appended to a list)."""
Upcaster = Callable[[State], State]
"""Lifts a state by one schema number; pure."""


class Recorded(msgspec.Struct, omit_defaults=True):
    """The body of a journal event."""

    patch: Patch = []
    data: Any = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Recorded).decode
_LEAF = frozenset({str, int, float, bool, type(None)})


def encode(patch: Patch, data: Any = None) -> bytes:
    return _encode(Recorded(patch, data))


def decode(body: bytes) -> Recorded:
    return _decode(body)


def diff(before: State, after: State) -> Patch:
    """The patch that turns `before` into `after`; empty when they are equal."""
    patch: Patch = []
    _diff_object(before, after, [], patch)
    return patch


def _diff_object(before: State, after: State, path: list[Any], patch: Patch) -> None:
    first, kept = len(patch), 0
    for key, value in after.items():
        if key not in before:
            patch.append(["set", [*path, key], value])
            continue
        kept += 1
        if before[key] == value:
            continue
        if type(value) in _LEAF:
            patch.append(["set", [*path, key], value])
        else:
            _diff(before[key], value, [*path, key], patch)
    if kept < len(before):
        patch[first:first] = [["del", [*path, key]] for key in before if key not in after]


def _diff(before: Any, after: Any, path: list[Any], patch: Patch) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        _diff_object(before, after, path, patch)
    elif _grew(before, after):
        patch.append(["add", path, after[len(before) :]])
    elif before != after:
        patch.append(["set", path, after])


def _grew(before: Any, after: Any) -> bool:
    return (
        isinstance(before, list)
        and isinstance(after, list)
        and len(after) > len(before) > 0
        and after[: len(before)] == before
    )


def apply(state: State, patch: Patch) -> State:
    """The state after `patch`; `state` is changed in place and returned."""
    for operation, path, *value in patch:
        if not path:
            state = value[0]
            continue
        target: Any = state
        for key in path[:-1]:
            target = target[key]
        if operation == "del":
            del target[path[-1]]
        elif operation == "add":
            target[path[-1]].extend(value[0])
        else:
            target[path[-1]] = value[0]
    return state


def upcast(state: State, schema: int, to: int, upcasters: Mapping[int, Upcaster]) -> State:
    """Lift a state from `schema` to `to`; `upcasters[n]` lifts n to n + 1.

    Raises:
        KeyError: a step is missing.
    """
    for number in range(schema, to):
        state = upcasters[number](state)
    return state


def fold(
    snapshot: tuple[State, int] | None,
    events: Iterable[tuple[bytes, int]],
    schema: int,
    upcasters: Mapping[int, Upcaster],
) -> State:
    """The state after `events`, lifted to `schema`; empty for a new agent.

    Args:
        snapshot: (state, its schema), or None to begin from nothing.
        events: (body, schema) in order.
    """
    state, at = snapshot if snapshot else ({}, None)
    for body, event_schema in events:
        if at is not None and at < event_schema:
            state = upcast(state, at, event_schema, upcasters)
        at = event_schema
        state = apply(state, decode(body).patch)
    return upcast(state, at, schema, upcasters) if at is not None else state
