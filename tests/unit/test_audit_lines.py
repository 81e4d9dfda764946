"""What the audit trail makes of one record or one message."""

from __future__ import annotations

from actors import audit
from runtime.clock import iso
from runtime.message import Message
from runtime.store.contract import StoredMessage

NOW_MS = 1_790_000_000_000


def stored(message, status="processed", accepted_ms=NOW_MS):
    sender, recipient = f"acme/{message.sender}", f"acme/{message.recipient}"
    body = message.to_json()
    return StoredMessage(1, message.message_id, sender, recipient, body, accepted_ms, status=status)


def message(content, made_ms=NOW_MS, type="hello", **more):
    return Message(
        message_id="m", sender="client:key_1", recipient="code:a", message_type=type,
        content=content, timestamp=iso(made_ms), **more,
    )  # fmt: skip


def test_a_letter_of_a_job_says_whether_its_payload_was_changed():
    """A job would run with what a person has written, and pass for the one that had failed."""
    contents = ({"letter": 3, "payload": {}}, {"letter": 3}, {})
    said = [
        audit.of_message(stored(message({"jobId": "job_1", **one}, type="job.retry")))[1]
        for one in contents
    ]
    assert [line.get("edited") for line in said] == [True, False, None]


def test_an_earlier_attempts_error_is_told_of_no_job_that_ended_otherwise():
    """A job that was cancelled, or has done its work, would look failed."""
    job = {"id": "job_1", "queuedAt": "t", "completedAt": "t", "error": "OSError: no"}
    errors = [
        audit.of_job({**job, "status": status})[1].get("error")
        for status in ("failed", "cancelled", "completed")
    ]
    assert errors == ["OSError: no", None, None]
