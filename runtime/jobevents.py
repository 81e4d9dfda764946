"""Where a job's events go, and what is told of its start and its end; by host and scheduler."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from runtime.clock import iso
from runtime.ids import address
from runtime.job import AgentJob
from runtime.message import Message
from runtime.store.contract import FeedEvent, Send


def job_rooms(record: AgentJob) -> tuple[str, ...]:
    """The rooms a job's events are published in."""
    rooms = (f"job:{record.id}", f"agent:{record.agent}")
    return (*rooms, f"issue:{record.issue_id}") if record.issue_id else rooms


def renamed(event: FeedEvent, name: str) -> FeedEvent:
    """The same event under another name, encoded once."""
    return FeedEvent(event.organization, name, event.rooms, event.at_ms, event.body)


def ms_of(timestamp: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time."""
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)


def finished_send(
    record: AgentJob, sender: str, sender_address: str, moment: int, now_ms: int
) -> Send:
    """`job.completed`, `job.failed` or `job.cancelled` for `replyTo`; one for each `moment`."""
    content = {
        "status": record.status.value,
        "result": record.result.to_wire() if record.result else None,
        "error": record.error,
    }
    kind = record.status.value
    return told_send(record, kind, content, sender, sender_address, moment, now_ms)


def told_send(
    record: AgentJob,
    kind: str,
    content: dict[str, Any],
    sender: str,
    sender_address: str,
    moment: int,
    now_ms: int,
) -> Send:
    """The message `job.<kind>` for the agent that asked for the job, unique by `moment`."""
    assert record.reply_to is not None
    message = Message(
        message_id=f"{kind}:{record.id}:{moment}",
        sender=sender,
        recipient=record.reply_to,
        message_type=f"job.{kind}",
        content={"jobId": record.id, **content},
        timestamp=iso(now_ms),
    )
    where = address(record.organization_id, record.reply_to)
    return Send(message.message_id, sender_address, where, message.to_json())
