"""What was asked of schedules and what became of due times, in the log.

A line for each thing asked, with who and why; at DEBUG one for each run and
each stretch of due times that had none.  What was missed is a warning, one a
commit however many schedules it is of: after an outage that is all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.clock import iso
from runtime.ids import split
from runtime.logs import tell
from runtime.message import Message
from runtime.plans.writer import Change
from runtime.schedule.record import DEFAULT_NAME, Outcome
from runtime.store.contract import StoredMessage

logger = logging.getLogger(__name__)

OPERATIONS: Final = {
    "schedule.set": logging.INFO,
    "schedule.delete": logging.INFO,
    "schedule.pause": logging.INFO,
    "schedule.resume": logging.INFO,
    "schedule.trigger": logging.INFO,
    "schedule.event": logging.INFO,
    "schedule.fired": logging.DEBUG,
    "schedule.ended": logging.DEBUG,
    "scheduler.refused": logging.INFO,
}
"""Action -> level. What was asked for is its message's type."""
_ABOUT: Final = ("by", "reason", "event", "repository", "branch")
MISSED: Final = Outcome.MISSED.value


def asked(stored: StoredMessage, message: Message, reply: Mapping[str, Any]) -> None:
    """Something was asked of a schedule, and this was answered."""
    kind = message.message_type
    content: Mapping[str, Any] = message.content if isinstance(message.content, dict) else {}
    body = content.get("schedule")
    name = body.get("name") if isinstance(body, dict) else content.get("name")
    said: dict[str, Any] = {
        "organization": split(stored.sender)[0],
        "agent": content.get("agentId"),
        "schedule": (name or DEFAULT_NAME) if "agentId" in content else None,
        **{field: content.get(field) for field in _ABOUT},
        "job": reply.get("jobId"),
    }
    if reply.get("ok") is False:
        said |= {"asked": kind, "code": reply.get("code")}
        _say("scheduler.refused", said)
    else:
        _say(kind, said)


def decided(changes: Sequence[Change]) -> None:
    """Due times have their outcomes, durably."""
    missed = [(change, run) for change in changes for run in change.ended if run.outcome == MISSED]
    if missed:
        count = sum(run.count for _, run in missed)
        logger.warning(
            "due times were missed: %d, of %s the first",
            count,
            missed[0][0].entry.key,
            extra={"action": "schedule.missed", "count": count},
        )
    if not logger.isEnabledFor(logging.DEBUG):
        return
    for change in changes:
        about = {"schedule": change.entry.key}
        for job in change.jobs:
            _say("schedule.fired", {**about, "job": job.id})
        for run in change.ended:
            said = {"outcome": run.outcome, "why": run.reason, "count": run.count}
            due = {"due": iso(run.from_ms)}
            _say("schedule.ended", {**about, **said, **due})


def _say(action: str, said: Mapping[str, Any]) -> None:
    tell(logger, OPERATIONS.get(action, logging.INFO), action, said)
