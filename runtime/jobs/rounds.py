"""A round of the scheduler: what has come, what it led to, and how that is packed into commits.

What one message led to, or the start of one job, is a unit.  Units go together,
in their order, because a commit for each would cost the store and both ends
several times as much; a unit is never split, and a round is short enough that
others have something to do meanwhile.  When a commit is refused, each
of its units is decided on again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from runtime.errors import InvalidMessageError
from runtime.ids import kind_of
from runtime.jobs.decisions import Decision
from runtime.message import Message
from runtime.store.contract import Ack, StoredMessage
from runtime.turn import to_json

RETRY: Final = "job.retry"
ENDED: Final = "job.ended"
CANCEL: Final = "job.cancel"
PAUSE: Final = "job.pause"
RESUME: Final = "job.resume"
DECIDE_MAX: Final = 3
"""Times one message is decided on by itself when a record changes under the decision."""
UNWRITABLE: Final = "unwritable"
"""Why a decision was not written: the store can't, and nothing of it is there."""
UNITS_MAX: Final = 64
"""Units of one commit."""
UNIT_BYTES_MAX: Final = 1 << 20
"""Bytes from which on no further unit joins a commit."""
ENDS_MAX: Final = 28
"""Ends of runs that are heard in one round: hosts work on what has taken the place of the first
while the next are decided on. With all at once, hosts, store and scheduler would work in turns."""
OVER: Final = frozenset({"completed", "cancelled"})
"""Ends of a run after which nothing is left to decide."""
OUTCOMES: Final = (*OVER, "failed", "waiting", "paused")
"""All ends of a run; what is compared with them need not be a text."""
_READING: Final = frozenset({RETRY, CANCEL, PAUSE, RESUME})


class Heard(Struct, frozen=True):
    """A message as it was read, once."""

    stored: StoredMessage
    message: Message | None
    error: str
    """Why there is no message."""
    job_id: str | None
    """The job it is about, if it says so."""
    over: bool
    """It tells that a job is over."""

    @property
    def ends(self) -> bool:
        """Whether a run has let go of its slot."""
        return self.message is not None and self.message.message_type == ENDED

    @property
    def reads_more(self) -> bool:
        """Whether more than the job's record is read to decide on it, or on what follows it.

        Of cancel, pause and resume each has to find what was asked before.
        """
        if self.ends:
            return not self.over
        return self.message is not None and self.message.message_type in _READING

    @classmethod
    def of(cls, stored: StoredMessage) -> Heard:
        try:
            message = Message.from_json(stored.body)
        except InvalidMessageError as error:
            return cls(stored, None, str(error), None, False)
        content = {} if message.content is None else message.content
        if not isinstance(content, dict):
            return cls(stored, None, "its content is no object", None, False)
        job_id, ends = content.get("jobId"), message.message_type == ENDED
        about = job_id if isinstance(job_id, str) else None
        if ends and (about is None or content.get("outcome") not in OUTCOMES):
            return cls(stored, None, "it names no job, or no end of a run", None, False)
        if ends and kind_of(stored.sender) == "client":
            return cls(stored, None, "only the host of a run says that it has ended", None, False)
        return cls(stored, message, "", about, ends and content["outcome"] in OVER)


class Unit(Struct, frozen=True):
    """What is written together or not at all."""

    decision: Decision
    heard: Heard | None = None
    """The message that led to it."""
    starts: str | None = None
    """The job it starts."""
    looks: bool = False
    """That job has waited: it only looks whether it can go on."""

    @property
    def ack(self) -> Ack | None:
        if self.heard is None:
            return None
        reply = self.decision.reply
        return Ack(self.heard.stored.message_id, to_json(reply) if reply is not None else None)

    @property
    def size_bytes(self) -> int:
        size = 0
        for put in self.decision.puts:
            size += len(put.body or b"")
        for send in self.decision.sends:
            size += len(send.body)
        return size


def rounds(heard: Sequence[Heard]) -> list[list[Heard]]:
    """What has come, in its order, in parts of which each is one round; at least one."""
    parts: list[list[Heard]] = [[]]
    ends = 0
    for one in heard:
        if one.ends and ends == ENDS_MAX:
            parts.append([])
            ends = 0
        parts[-1].append(one)
        ends += one.ends
    return parts


def packed(units: list[Unit]) -> list[list[Unit]]:
    """The units in their order, in parts of which each is one commit."""
    parts: list[list[Unit]] = []
    size = 0
    for unit in units:
        if not parts or len(parts[-1]) == UNITS_MAX or size > UNIT_BYTES_MAX:
            parts.append([])
            size = 0
        parts[-1].append(unit)
        size += unit.size_bytes
    return parts
