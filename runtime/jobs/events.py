"""What host and scheduler write of a job alike: its record, its events, its start and its end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from runtime.agent import job_terms
from runtime.clock import iso
from runtime.ids import address
from runtime.job import AgentJob
from runtime.store.contract import FeedEvent, Put, Send

_encode = msgspec.json.Encoder().encode


def record_put(record: AgentJob, revision: int) -> Put:
    """Write a job's record over the one of `revision`, with the terms by which it is listed."""
    terms = [f"{name}={value}" for name, value in job_terms(record).items()]
    return Put("job", record.id, record.organization_id, record.to_json(), tuple(terms), revision)


def job_rooms(record: AgentJob) -> tuple[str, ...]:
    """The rooms a job's events are published in."""
    rooms = (f"job:{record.id}", f"agent:{record.agent}")
    return (*rooms, f"issue:{record.issue_id}") if record.issue_id else rooms


def job_event(record: AgentJob, event: str, now_ms: int, **more: Any) -> FeedEvent:
    """A public event about a job, of the runtime's own making.

    Args:
        more: strings and integers, which every encoder writes alike.
    """
    data = {
        "agentId": record.agent,
        "jobId": record.id,
        "status": record.status,
        **more,
        "timestamp": iso(now_ms),
    }
    return FeedEvent(record.organization_id, event, job_rooms(record), now_ms, _encode(data))


def renamed(event: FeedEvent, name: str) -> FeedEvent:
    """The same event under another name, encoded once."""
    return FeedEvent(event.organization, name, event.rooms, event.at_ms, event.body)


def ms_of(timestamp: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time."""
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)


def run_id(job_id: str, revision: int) -> str:
    """Id of the message `job.run` by which a job is started.

    Args:
        revision: of the job's record before, so that each start has its own.
    """
    return f"run:{job_id}:{revision}"


def is_run_of(message_id: str, job_id: str) -> bool:
    """Whether a message is `job.run` as the scheduler has sent it; delivered anew it is not."""
    return message_id.startswith(f"run:{job_id}:")


def finished_send(
    record: AgentJob, sender: str, sender_address: str, moment: int, now_ms: int
) -> Send:
    """`job.completed`, `job.failed` or `job.cancelled` for `replyTo`; one for each `moment`."""
    content = {
        "status": record.status.value,
        "result": msgspec.Raw(record.result.to_json()) if record.result else None,
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
    content = {"jobId": record.id, **content}
    where = address(record.organization_id, record.reply_to)
    told = (f"{kind}:{record.id}:{moment}", f"job.{kind}", content, now_ms)
    return job_send(sender, sender_address, record.reply_to, where, *told)


def job_send(
    sender: str,
    sender_address: str,
    recipient: str,
    where: str,
    message_id: str,
    message_type: str,
    content: dict[str, Any],
    now_ms: int,
) -> Send:
    """A message of the runtime's own making, as `Message` would encode it.

    Args:
        content: JSON-able without floats that JSON can't say; a `msgspec.Raw` in it is
            put in as it is, encoded once.
    """
    message = {
        "messageId": message_id,
        "sender": sender,
        "recipient": recipient,
        "messageType": message_type,
        "content": content,
        "timestamp": iso(now_ms),
    }
    return Send(message_id, sender_address, where, _encode(message))
