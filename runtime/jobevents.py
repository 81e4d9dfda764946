"""Where a job's events go and what its end is told as; shared by host and scheduler."""

from __future__ import annotations

from runtime.clock import iso
from runtime.ids import address
from runtime.job import AgentJob
from runtime.message import Message
from runtime.store.contract import Send


def job_rooms(record: AgentJob) -> tuple[str, ...]:
    """The rooms a job's events are published in."""
    rooms = (f"job:{record.id}", f"agent:{record.agent}")
    return (*rooms, f"issue:{record.issue_id}") if record.issue_id else rooms


def finished_send(
    record: AgentJob, sender: str, sender_address: str, ending: int, now_ms: int
) -> Send:
    """`job.completed`, `job.failed` or `job.cancelled` for `replyTo`; one for each `ending`."""
    assert record.reply_to is not None
    result = record.result.to_wire() if record.result else None
    message = Message(
        message_id=f"finished:{record.id}:{ending}",
        sender=sender,
        recipient=record.reply_to,
        message_type=f"job.{record.status.value}",
        content={
            "jobId": record.id,
            "status": record.status.value,
            "result": result,
            "error": record.error,
        },
        timestamp=iso(now_ms),
    )
    where = address(record.organization_id, record.reply_to)
    return Send(message.message_id, sender_address, where, message.to_json())
