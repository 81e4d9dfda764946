"""Names of things: agent ids, addresses, and time-ordered random ids.

An agent id is `kind:key` (`code:job_01J...`, `backend:acme.api`) and is unique
within an organization; the store knows the agent by its address
`organization/kind:key`, so two organizations can never meet in one agent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NewType

from runtime.clock import Clock
from runtime.errors import InvalidIdError

AgentId = NewType("AgentId", str)
"""`kind:key`"""
Address = NewType("Address", str)
"""`organization/kind:key`"""

SYSTEM = "system"
"""The organization of the scheduler and the registry; it may write to every other."""
HOME = "default"
"""The organization of whoever runs this installation: its admins control what is everybody's."""
SCHEDULER_AGENT = AgentId("scheduler:main")
SCHEDULER = Address(f"{SYSTEM}/{SCHEDULER_AGENT}")

KEY_LENGTH_MAX = 200
_AGENT_ID = re.compile(r"[a-z][a-z0-9_-]{0,31}:[A-Za-z0-9][A-Za-z0-9._@-]{0,199}")
_ORGANIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_TIME_LENGTH, _RANDOM_LENGTH = 10, 16
_DIGIT_OF_BYTE = bytes(ord(_ALPHABET[byte % 32]) for byte in range(256))
_DRAWN_TOGETHER = 64
"""Ids whose random digits are drawn in one call: a call of the system for each costs more than
all the rest of an id."""
_ULID = re.compile(rf"[0-7][{_ALPHABET}]{{25}}")


def agent_id(text: str) -> AgentId:
    """Check and return an agent id.

    Raises:
        InvalidIdError: not `kind:key` with kind [a-z][a-z0-9_-]{0,31} and a key
            of 1..200 letters, digits, `.`, `_`, `@`, `-`.
    """
    if not _AGENT_ID.fullmatch(text):
        raise InvalidIdError(text[:KEY_LENGTH_MAX])
    return AgentId(text)


def organization_id(text: str) -> str:
    """Check and return an organization's name (1..64 letters, digits, `_`, `.`, `-`)."""
    if not _ORGANIZATION.fullmatch(text):
        raise InvalidIdError(text[:KEY_LENGTH_MAX])
    return text


def kind_of(agent: str) -> str:
    """The kind of an agent id or address."""
    return agent.rpartition("/")[2].partition(":")[0]


def address(organization: str, agent: str) -> Address:
    """Where an organization's agent lives; the scheduler is everybody's."""
    if agent == SCHEDULER_AGENT:
        return SCHEDULER
    return Address(f"{organization_id(organization)}/{agent_id(agent)}")


def content_key(organization: str, digest: str) -> str:
    """Where bytes are kept: once an organization, so that a hash never opens another's."""
    return f"{organization}/{digest}"


def split(where: str) -> tuple[str, AgentId]:
    """(organization, agent id) of an address."""
    organization, _, agent = where.partition("/")
    return organization, AgentId(agent)


def ulid_time(text: str) -> str | None:
    """The part of a ULID that is its time, None for everything that is no ULID.

    Times compare as these strings do; `ulid_time_of` makes one from milliseconds.
    """
    return text[:_TIME_LENGTH] if _ULID.fullmatch(text) else None


def ulid_time_of(at_ms: int) -> str:
    """What the ids made in this millisecond begin with."""
    return _base32(at_ms, _TIME_LENGTH)


def ulid_of(at_ms: int, ten_bytes: bytes) -> str:
    """The ULID of a time and ten bytes; the same for the same."""
    return _base32(at_ms, _TIME_LENGTH) + _base32(int.from_bytes(ten_bytes, "big"), _RANDOM_LENGTH)


def _base32(number: int, length: int) -> str:
    """An even number of digits."""
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(5 * length - 10, -1, -10)])


class Ids:
    """Makes ULIDs: 48 bits of milliseconds, then 80 random bits, in Crockford base 32.

    Ids sort by the time they were made (to the millisecond) and can't be guessed.
    Not to be shared over a fork: both sides would go on with the same random digits.
    """

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._at_ms = -1
        self._time = ""
        self._digits = ""
        self._used = 0

    def ulid(self) -> str:
        at_ms = self._clock.now_ms()
        if at_ms != self._at_ms:
            self._at_ms, self._time = at_ms, _base32(at_ms, _TIME_LENGTH)
        first, self._used = self._used, self._used + _RANDOM_LENGTH
        if first >= len(self._digits):
            drawn = self._random_bytes(_RANDOM_LENGTH * _DRAWN_TOGETHER)
            self._digits = drawn.translate(_DIGIT_OF_BYTE).decode()
            first, self._used = 0, _RANDOM_LENGTH
        return self._time + self._digits[first : first + _RANDOM_LENGTH]

    def new(self, prefix: str) -> str:
        """`prefix_ULID`, for example `issue_01JD...`."""
        return f"{prefix}_{self.ulid()}"
