"""The audit trail of an organization: who decided what and when, and what came of it.

    key.created key.revoked           issue.submitted issue.ended
    job.queued job.ended              review.requested review.decided
    delivery.made                     command       what a person asked of Troupe
    message                           every message, without its content
    message.redelivered               a dead letter that a person had tried once more

Each is one line with `at`, `type` and `organizationId`; docs/api.md has the
fields.  A line says what its record says and is made of named fields only, so
that no content, prompt, key or hash of a key gets into it by the way.  Records
are kept; commands and messages are as old as retention lets them be.

Everything is read page by page and sorted on the disk (`spool`): memory does not
grow with the organization.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from actors.spool import Spool
from runtime.client import Client
from runtime.clock import iso
from runtime.errors import InvalidMessageError
from runtime.ids import SCHEDULER, SYSTEM, split
from runtime.keys import COLLECTION as KEYS
from runtime.message import REDELIVERED, Message

PAGE: Final = 100
"""Records read at once; an artifact is none of them."""
MESSAGES_PAGE: Final = 50
"""A message has up to a MiB."""
LETTERS: Final = "dead_letter"
END: Final = "export.end"
COMMANDS: Final = frozenset(
    {
        "issue.cancel", "issue.message", "review.decided",
        "job.pause", "job.resume", "job.cancel", "job.retry", "agent.pause", "agent.resume",
        "scheduler.pause", "scheduler.resume", "scheduler.drain",
        "schedule.set", "schedule.delete", "schedule.pause", "schedule.resume",
        "schedule.trigger", "schedule.event",
    }
)  # fmt: skip
"""Messages that are a person's decision when a client sends them."""
_ENDED: Final = frozenset({"completed", "failed", "cancelled"})
_NAMED: Final = (
    "issueId", "reviewId", "jobId", "approved", "artifactHash", "comment",
    "agentId", "name", "event", "repository", "reason",
)  # fmt: skip
"""What a command can be about, by the names in its content."""

Line = dict[str, Any]
Record = Mapping[str, Any]


async def gather(client: Client, since: str = "") -> Spool:
    """The trail of the client's organization from `since` (RFC 3339) on; close it when read.

    Raises:
        StoreUnavailableError: the store did not answer; there is no spool.
    """
    spool = Spool()
    try:
        async for line in _everything(client):
            if line["at"] >= since:
                await spool.put({**line, "organizationId": client.organization})
    except BaseException:
        spool.close()
        raise
    return spool


def end(spool: Spool) -> str:
    """The line that ends an export: without it, it was cut off."""
    return json.dumps({"type": END, "lines": spool.count})


async def _everything(client: Client) -> AsyncIterator[Line]:
    async for record in _keys(client):
        for line in of_key(record):
            yield line
    for collection, lines in (("issue", of_issue), ("job", of_job), ("review", of_review)):
        async for record in _records(client, collection):
            for line in lines(record):
                yield line
    async for agent in _agents(client):
        async for line in _messages(client, agent):
            yield line
    async for line in _messages(client, SCHEDULER):
        yield line


# reading


async def _records(client: Client, collection: str) -> AsyncIterator[Record]:
    after: str | None = None
    while page := await client.list(collection, after=after, limit=PAGE, descending=False):
        for document in page:
            yield json.loads(document.body)
        after = page[-1].key


async def _agents(client: Client) -> AsyncIterator[str]:
    """Addresses of all that have lived, and of the others that have dead letters."""
    async for record in _records(client, "agent"):
        yield f"{client.organization}/{record['agentId']}"
    async for letter in _records(client, LETTERS):
        where = f"{client.organization}/{letter['agent']}"
        if await client.get("agent", where) is None and await _is_first(client, letter):
            yield where


async def _is_first(client: Client, letter: Record) -> bool:
    """Whether a dead letter is the first of its agent; asked: a set would grow."""
    terms = {"agent": letter["agent"]}
    found = await client.list(LETTERS, terms, limit=1, descending=False)
    return any(json.loads(one.body)["id"] == letter["id"] for one in found)


async def _keys(client: Client) -> AsyncIterator[Record]:
    """Keys are the system's documents; a term says whose they are."""
    terms, after = [f"organization={client.organization}"], None
    while page := await client.store.list_documents(KEYS, SYSTEM, terms, after, PAGE, False):
        for document in page:
            yield json.loads(document.body)
        after = page[-1].key


async def _messages(client: Client, agent: str) -> AsyncIterator[Line]:
    """What an agent was sent; of what the system's were sent, what came from the organization."""
    own = f"{client.organization}/"
    after = 0
    while page := await client.store.history(agent, after, MESSAGES_PAGE):
        for stored in page:
            if agent.startswith(own) or stored.sender.startswith(own):
                for line in of_message(stored):
                    yield line
        after = page[-1].seq


# lines


def of_key(key: Record) -> list[Line]:
    who = {"keyId": key["id"], "name": key["name"], "role": key["role"]}
    lines = [{"at": key["createdAt"], "type": "key.created", **who}]
    if key.get("revokedAt"):
        lines.append({"at": key["revokedAt"], "type": "key.revoked", **who})
    return lines


def of_issue(issue: Record) -> list[Line]:
    context = issue.get("context") or {}
    about = {
        **_some(issue, "source", "externalId", "title", "priority"),
        "issueType": issue.get("type"),
        "repository": context.get("repository"),
    }
    lines = [_line("issue.submitted", issue["createdAt"], {"issueId": issue["id"]}, about)]
    if issue.get("status") in _ENDED:
        resolution = issue.get("resolution") or {}
        how = {
            **_some(issue, "status", "reason", "costUsd", "jobIds"),
            **_some(resolution, "outcome", "branch", "commit", "pullRequestUrl"),
        }
        lines.append(_line("issue.ended", issue["updatedAt"], {"issueId": issue["id"]}, how))
    return lines


def of_job(job: Record) -> list[Line]:
    which = {"jobId": job["id"], **_some(job, "issueId", "agentType")}
    about = _some(job, "agentId", "priority", "repository")
    lines = [_line("job.queued", job["queuedAt"], which, about)]
    if job.get("status") not in _ENDED or not job.get("completedAt"):
        return lines
    result = job.get("result") or {}
    how = {
        **_some(job, "status", "reason", "attempts", "startedAt", "costUsd", "tokens"),
        **_some(result, "outcome", "pullRequestUrl"),
        # an earlier attempt's error is no part of how another one ended
        "error": job.get("error") if job["status"] == "failed" else None,
    }
    lines.append(_line("job.ended", job["completedAt"], which, how))
    if job.get("agentType") == "delivery" and job["status"] == "completed":
        where = _some(result.get("data") or {}, "branch", "commit")
        lines.append(_line("delivery.made", job["completedAt"], which, where))
    return lines


def of_review(review: Record) -> list[Line]:
    which = {"reviewId": review["id"], **_some(review, "issueId", "jobId", "artifactHash")}
    verdicts = {
        "gates": (review.get("gates") or {}).get("verdict"),
        "automated": (review.get("automated") or {}).get("verdict"),
    }
    lines = [_line("review.requested", review["requestedAt"], which, verdicts)]
    if review.get("decidedAt"):
        how = {"decision": review["status"], "by": review.get("decidedBy")}
        how |= _some(review, "comment")
        lines.append(_line("review.decided", review["decidedAt"], which, how))
    return lines


def of_message(stored: Any) -> list[Line]:
    """A stored message: its metadata, who redelivered it, and what it asked for if a person did."""
    at = iso(stored.accepted_ms)
    which = {"messageId": stored.message_id}
    about = {
        "sender": split(stored.sender)[1],
        "recipient": split(stored.recipient)[1],
        "replyTo": stored.reply_to,
        "bytes": len(stored.body),
        "status": stored.status,
        "attempts": stored.attempts,
        "error": stored.error,
        "finishedAt": iso(stored.finished_ms) if stored.finished_ms is not None else None,
    }
    try:
        message = Message.from_json(stored.body)
    except InvalidMessageError:  # it is a dead letter, and counts all the same
        return [_line("message", at, which, about)]
    about |= {"messageType": message.message_type, "metadata": message.metadata}
    lines = [_line("message", at, which, about), *_redelivered(stored, message)]
    kind, _, key_id = message.sender.partition(":")
    if kind == "client" and message.message_type in COMMANDS:
        lines.append(_command(stored, message, key_id, at))
    return lines


def _redelivered(stored: Any, message: Message) -> list[Line]:
    """Who had it tried once more, and whether with another payload."""
    told = (message.metadata or {}).get(REDELIVERED)
    if not isinstance(told, dict):
        return []
    about = {
        **_some(told, "by", "edited"),
        "of": told.get("messageId"),
        "sender": message.sender,
        "recipient": message.recipient,
        "messageType": message.message_type,
    }
    which = {"messageId": stored.message_id}
    return [_line("message.redelivered", iso(stored.accepted_ms), which, about)]


def _command(stored: Any, message: Message, key_id: str, at: str) -> Line:
    content = message.content if isinstance(message.content, dict) else {}
    said = json.loads(stored.reply) if stored.reply else {}
    answer = said if isinstance(said, dict) else {}
    about = {
        "by": content.get("by"),
        "keyId": key_id,
        "agent": split(stored.recipient)[1],
        **_some(content, *_NAMED),
        "edited": "payload" in content if "letter" in content else None,
        "refused": answer.get("code") if answer.get("ok") is False else None,
    }
    which = {"messageId": stored.message_id, "command": message.message_type}
    return _line("command", at, which, about)


def _line(type: str, at: str, which: Record, about: Record) -> Line:
    """A line; what has no value is left out."""
    return {"at": at, "type": type, **which, **{k: v for k, v in about.items() if v is not None}}


def _some(record: Record, *names: str) -> Line:
    return {name: record.get(name) for name in names}
