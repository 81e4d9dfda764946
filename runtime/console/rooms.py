"""Rooms: which events a reader is told, and which of them it may ask for.

    agent:<id>  issue:<id>  job:<id>   what is published about one of them
    organization:<id>, monitoring      everything of the reader's organization
    scheduler                          how the scheduler is, which is everybody's

An event is matched by keys: one for each of its rooms and one for its whole
organization.  A reader's keys name its own organization in each of them, so an
id of another one's matches nothing, exactly as an id that never was.  Only the
events of `system` in the room `COMMON` are everybody's, so nothing of an
organization may ever be in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from runtime.ids import SYSTEM

Key = tuple[str, str]
"""(organization, room)"""

ROOMS_MAX: Final = 50
"""Rooms of one reader."""
MONITORING: Final = "monitoring"
COMMON: Final = "scheduler"
"""The room whose events of `system` every organization is told."""

_EVERYTHING: Final = "*"  # the key of a whole organization; no room has this name
_OF_AN_ORGANIZATION: Final = "organization:"
_ROOM = re.compile(r"(agent|issue|job):[\x21-\x7e]{1,250}")


def is_room(organization: str, room: str) -> bool:
    """Whether readers of an organization may ask for this room.

    The room of another organization as a whole may not be asked for; that of
    another's agent, issue or job may, and nothing is ever told in it.
    """
    if room in (MONITORING, COMMON):
        return True
    if room.startswith(_OF_AN_ORGANIZATION):
        return room == _OF_AN_ORGANIZATION + organization
    return _ROOM.fullmatch(room) is not None


def wanted_keys(organization: str, rooms: Iterable[str]) -> frozenset[Key]:
    """What a reader of `rooms` is told; each must be one that `is_room`."""
    keys: set[Key] = set()
    for room in rooms:
        whole = room == MONITORING or room.startswith(_OF_AN_ORGANIZATION)
        keys.add((organization, _EVERYTHING if whole else room))
        if whole or room == COMMON:
            keys.add((SYSTEM, COMMON))
    return frozenset(keys)


def event_keys(organization: str, rooms: Iterable[str]) -> frozenset[Key]:
    """What an event of an organization in `rooms` is found by."""
    return frozenset([(organization, _EVERYTHING), *((organization, room) for room in rooms)])
