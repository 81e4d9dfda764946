"""/api/dead-letters: messages and jobs that were given up, and giving them another try.

    document  (`dead_letter`, recipient's address/message id)   or   (…, job/job id)

A redelivered message has a new id and is otherwise the one that was given up:
same sender, same content.  A job is tried again by the scheduler; the message that
started its run has no letter beside the job's.  Either is
done in the commit that removes the dead letter as it was read, so a letter is
redelivered once, however many ask at once.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from msgspec.structs import replace
from pydantic import Field
from starlette.responses import JSONResponse, Response

from runtime.client import Write
from runtime.console.caller import Caller, Operator, Viewer
from runtime.console.command import CommandAnswer, command, done
from runtime.console.once import TRIES_MAX, Idempotent, Once, busy
from runtime.console.paging import Page, PageQuery, list_page, page
from runtime.console.problems import invalid, not_found
from runtime.errors import InvalidMessageError
from runtime.group import why_refused
from runtime.ids import SYSTEM
from runtime.job import AgentJob
from runtime.message import REDELIVERED, Message
from runtime.store.contract import DEAD_LETTERS, Commit, Document, Put, Refused, Send, StoredMessage
from runtime.wire import WireModel

_JOB: Final = "job/"

router = APIRouter(prefix="/api/dead-letters", tags=["dead letters"])
LetterKey = Annotated[str, Path(max_length=1_000)]


class Redelivery(WireModel):
    payload: Any = None
    """What is to be in place of the message's content or the job's payload; absent: as it was."""


class LettersQuery(PageQuery):
    agent: str | None = Field(None, max_length=240)


class DeadLetter(WireModel):
    id: str
    agent: str
    """Whom the message was for, or whose job it was."""
    sender: str
    reason: str | None = None
    """`error`: every try failed. `killed_its_host`: three hosts have died of it."""
    error: str
    attempts: int
    at: str
    job_id: str | None = None
    message_id: str | None = None


class OpenedLetter(DeadLetter):
    """A dead letter with what is in it."""

    message_type: str | None = None
    """Of a message."""
    payload: Any = None
    """The message's content or the job's payload, as it would be redelivered; null: it can't be
    read."""


@router.get("", response_model=Page[DeadLetter], summary="What was given up, and why")
async def list_letters(caller: Viewer, query: Annotated[LettersQuery, Query()]) -> Response:
    documents, cursor = await list_page(caller, DEAD_LETTERS, query, query.filters())
    return page((DeadLetter(**_view(one)).to_json() for one in documents), cursor)


@router.get("/{letter_id}", response_model=OpenedLetter, summary="One of them, with its payload")
async def get_letter(letter_id: LetterKey, caller: Viewer) -> Response:
    letter = await caller.own(DEAD_LETTERS, _decode(letter_id))
    inside = await _inside(caller, letter)
    return Response(
        OpenedLetter(**_view(letter), **inside).to_json(), media_type="application/json"
    )


def _view(document: Document) -> dict[str, Any]:
    record = json.loads(document.body)
    about = "job_id" if document.key.startswith(_JOB) else "message_id"
    return {**record, "id": letter_id(document.key), about: record["id"]}


async def _inside(caller: Caller, letter: Document) -> dict[str, Any]:
    if letter.key.startswith(_JOB):
        job = await caller.own("job", letter.key.removeprefix(_JOB))
        return {"payload": AgentJob.from_json(job.body).payload}
    try:
        message = Message.from_json((await _buried(caller, letter)).body)
    except InvalidMessageError:  # which may be what it died of
        return {}
    return {"message_type": message.message_type, "payload": message.content}


@router.post(
    "/{letter_id}/redeliver",
    status_code=202,
    response_model=CommandAnswer,
    responses={200: {"model": CommandAnswer, "description": "The job is queued again"}},
    summary="Try what was given up once more",
)
async def redeliver(
    letter_id: LetterKey, caller: Operator, once: Idempotent, body: Redelivery | None = None
) -> Response:
    key = _decode(letter_id)
    edited = body.model_dump(exclude_unset=True) if body is not None else {}
    if key.startswith(_JOB):
        return await _retry_job(caller, once, key, edited)
    for _ in range(TRIES_MAX):
        kept = await once.kept(caller)
        if kept is not None:
            return JSONResponse(kept["answer"], 202)
        letter = await caller.own(DEAD_LETTERS, key)
        buried = await _buried(caller, letter)
        answer = await _send_again(caller, once, letter, buried, edited)
        if answer is not None:
            return JSONResponse(answer, 202)
    raise busy()


async def _retry_job(caller: Caller, once: Once, key: str, edited: dict[str, Any]) -> Response:
    letter = await caller.client.get(DEAD_LETTERS, key)
    if letter is None and await once.kept(caller) is None:
        raise not_found()
    job_id = key.removeprefix(_JOB)
    content: dict[str, Any] = {"jobId": job_id, "letter": letter.revision if letter else None}
    if "payload" in edited:
        if not isinstance(edited["payload"], dict):
            raise invalid("body.payload", "invalid_value", "A job's payload is an object.")
        content |= {"payload": edited["payload"], "newId": caller.console.ids.new("job")}
    return done(await command(caller, once, "job.retry", content), jobId=job_id)


async def _buried(caller: Caller, letter: Document) -> StoredMessage:
    organization, _, rest = letter.key.partition("/")
    agent, _, message_id = rest.partition("/")
    message = await caller.console.store.outcome(f"{organization}/{agent}", message_id, 0.0)
    if message is None:
        raise not_found()
    return message


async def _send_again(
    caller: Caller, once: Once, letter: Document, message: StoredMessage, edited: dict[str, Any]
) -> dict[str, Any] | None:
    """Accept the message anew and remove the letter; None when somebody else was quicker."""
    message_id = caller.console.ids.ulid()
    answer = CommandAnswer(message_id=message_id).to_wire()
    given_up = Message.from_json(message.body)
    again = {"messageId": given_up.message_id, "by": caller.by, "edited": "payload" in edited}
    told = {**(given_up.metadata or {}), REDELIVERED: again}
    content = edited.get("payload", given_up.content)
    envelope = replace(given_up, message_id=message_id, metadata=told, content=content)
    send = Send(message_id, message.sender, message.recipient, envelope.to_json(), message.reply_to)
    writes = [
        Write(DEAD_LETTERS, letter.key, None, {}, letter.revision),
        *once.writes(caller, {"answer": answer}),
    ]
    puts = tuple(
        Put(
            write.collection,
            write.key,
            letter.organization,
            write.body,
            tuple(f"{name}={value}" for name, value in write.terms.items()),
            write.expect,
        )
        for write in writes
    )
    # as the system, because the sender may be of it: the scheduler's words die too
    [written] = await caller.console.store.commit([Commit(SYSTEM, sends=(send,), puts=puts)])
    if isinstance(written, Refused) and written.reason != "revision_conflict":
        raise why_refused(written)
    return None if isinstance(written, Refused) else answer


def letter_id(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _decode(letter_id: str) -> str:
    """The letter's key; what is no id names nothing."""
    try:
        padded = letter_id + "=" * (-len(letter_id) % 4)
        return base64.b64decode(padded, b"-_", validate=True).decode()
    except ValueError:
        raise not_found() from None
