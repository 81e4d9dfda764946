"""Giving a message up: what is written so that nobody wonders where it went.

The message leaves the inbox as dead, a document in `dead_letter` says why, and
if it was the run of a job the scheduler is told that the run has failed for
good, so that no job stays running with nobody at it.
"""

from __future__ import annotations

from typing import Final

from runtime.clock import iso
from runtime.errors import InvalidMessageError
from runtime.ids import SCHEDULER, SCHEDULER_AGENT, split
from runtime.message import Message
from runtime.store.contract import DEAD_LETTERS, Bury, Parts, Put, Send, StoredMessage
from runtime.turn import to_json

FAILED: Final = "error"
"""Why most are given up: the handler raised as often as it was tried."""


def burial(
    agent: str, stored: StoredMessage, error: str, now_ms: int, reason: str = FAILED
) -> Parts:
    """The parts of the commit by which `agent` (an address) gives `stored` up."""
    organization, agent_id = split(agent)
    letter = {
        "id": stored.message_id,
        "agent": agent_id,
        "sender": split(stored.sender)[1],
        "reason": reason,
        "error": error,
        "attempts": stored.attempts + 1,
        "at": iso(now_ms),
    }
    key, terms = f"{agent}/{stored.message_id}", (f"agent={agent_id}",)
    return {
        "buries": (Bury(stored.message_id, error),),
        "puts": (Put(DEAD_LETTERS, key, organization, to_json(letter), terms),),
        "sends": _run_failed(agent, stored, error, now_ms, reason),
    }


def _run_failed(
    agent: str, stored: StoredMessage, error: str, now_ms: int, reason: str
) -> tuple[Send, ...]:
    if stored.sender != SCHEDULER:
        return ()
    try:
        message = Message.from_json(stored.body)
    except InvalidMessageError:
        return ()
    if message.message_type != "job.run":
        return ()
    job_id = message.content["jobId"]
    content = {"jobId": job_id, "outcome": "failed", "final": True, "error": error}
    ended = Message(
        message_id=f"job.ended:{job_id}:{stored.seq}",
        sender=split(agent)[1],
        recipient=SCHEDULER_AGENT,
        message_type="job.ended",
        content=content if reason == FAILED else {**content, "reason": reason},
        timestamp=iso(now_ms),
    )
    return (Send(ended.message_id, agent, SCHEDULER, ended.to_json()),)
