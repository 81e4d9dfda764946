"""Giving a message up: what is written so that nobody wonders where it went.

The message leaves the inbox as dead, and a document in `dead_letter` says why.  If
it was the run of a job the scheduler is told instead that the run has failed for
good: no job stays running with nobody at it, and the letter is the job's, which
the scheduler writes, so that one job has one.
"""

from __future__ import annotations

from typing import Any, Final

from runtime.clock import iso
from runtime.errors import InvalidMessageError
from runtime.ids import SCHEDULER, SCHEDULER_AGENT, split
from runtime.jobs.events import is_run_of
from runtime.message import Message
from runtime.store.contract import DEAD_LETTERS, Bury, Parts, Put, Send, StoredMessage
from runtime.turn import to_json

FAILED: Final = "error"
"""Why most are given up: the handler raised as often as it was tried."""


def burial(
    agent: str, stored: StoredMessage, error: str, now_ms: int, reason: str = FAILED
) -> Parts:
    """The parts of the commit by which `agent` (an address) gives `stored` up."""
    buries = (Bury(stored.message_id, error),)
    if (job_id := _run_of(stored)) is not None:
        send = _run_failed(agent, stored, job_id, error, now_ms, reason)
        return {"buries": buries, "puts": (), "sends": (send,)}
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
    put = Put(DEAD_LETTERS, key, organization, to_json(letter), terms)
    return {"buries": buries, "puts": (put,), "sends": ()}


def _run_of(stored: StoredMessage) -> str | None:
    """The job whose run a message is, as the scheduler has sent it; None: it is no run."""
    if stored.sender != SCHEDULER:
        return None
    try:
        message = Message.from_json(stored.body)
    except InvalidMessageError:
        return None
    if message.message_type != "job.run":
        return None
    job_id = str(message.content.get("jobId")) if isinstance(message.content, dict) else ""
    return job_id if is_run_of(stored.message_id, job_id) else None


def _run_failed(
    agent: str, stored: StoredMessage, job_id: str, error: str, now_ms: int, reason: str
) -> Send:
    content: dict[str, Any] = {"jobId": job_id, "outcome": "failed", "final": True, "error": error}
    ended = Message(
        message_id=f"job.ended:{job_id}:{stored.seq}",
        sender=split(agent)[1],
        recipient=SCHEDULER_AGENT,
        message_type="job.ended",
        content=content if reason == FAILED else {**content, "reason": reason},
        timestamp=iso(now_ms),
    )
    return Send(ended.message_id, agent, SCHEDULER, ended.to_json())
