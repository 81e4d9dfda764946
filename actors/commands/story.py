"""The story of an issue or a job in plain sentences: a pure function of its records.

Nothing is guessed: each sentence comes from one record with its time.  Status
changes are read from the issue agent's journal, which has every one of them;
the document only knows the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from actors.commands.words import (
    age,
    cost,
    dollars,
    duration,
    elapsed_s,
    first_line,
    next_try,
    parse_time,
    plural,
    reason,
    remedy,
)

Record = Mapping[str, Any]
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
TEXT_SHOWN: Final = 200


@dataclass(frozen=True)
class Material:
    """What the story is told from; all as the API answers it."""

    issue: Record | None = None
    jobs: Sequence[Record] = ()
    steps: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    """By job id."""
    sessions: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    """Runs of each job, by its id."""
    reviews: Sequence[Record] = ()
    history: Sequence[Record] = ()
    """The issue agent's journal."""
    messages: Sequence[Record] = ()
    """What the issue agent was sent."""


@dataclass(frozen=True)
class Sentence:
    time: str
    text: str


@dataclass(frozen=True)
class Story:
    """What happened, where it stands, and what can be done."""

    id: str
    title: str
    status: str
    happened: tuple[Sentence, ...]
    now: str
    cost: str
    next: tuple[str, ...]
    """Commands."""


def tell(material: Material, now: datetime) -> Story:
    """The story of the issue, or without one of the only job."""
    subject = material.issue or material.jobs[0]
    sentences = [
        *(_issue(material.issue) if material.issue else ()),
        *_moves(material.history),
        *(sentence for job in material.jobs for sentence in _job(job, material.steps)),
        *(sentence for job in material.jobs for sentence in _runs(job, material.sessions)),
        *(sentence for review in material.reviews for sentence in _review(review)),
        *_messages(material.messages),
    ]
    happened = sorted(sentences, key=lambda sentence: sentence.time)
    return Story(
        id=subject["id"],
        title=subject.get("title") or f"{subject['agentType']} job",
        status=subject["status"],
        happened=tuple(happened),
        now=_now(subject, material, now),
        cost=_cost(material),
        next=tuple(_next(subject, material)),
    )


def _issue(issue: Record) -> Iterator[Sentence]:
    outside = f" as {issue['externalId']}" if issue.get("externalId") else ""
    yield Sentence(issue["createdAt"], f"It was handed in from {issue['source']}{outside}.")
    found = issue.get("classification")
    if not found:
        return
    called = f"Triage ({found['classifier']}) called it a {found['complexity']} {found['type']}"
    if found.get("abstained"):
        why = reason(found.get("abstainReason") or "no signal")
        called = f"Triage ({found['classifier']}) could not tell what it is: {why}"
    quotes = "; ".join(
        f'"{" ".join(one["quote"].split())}" ({one["rule"]})'
        for one in found.get("evidence", ())[:3]
    )
    because = f", because of {quotes}" if quotes else ""
    doer = f", priority {found['priority']}, for the {found['agentType']} agent"
    yield Sentence(issue["createdAt"], f"{called}{doer}{because}.")


def _moves(history: Iterable[Record]) -> Iterator[Sentence]:
    """Each change of the issue's status, from the journal."""
    status, because = None, None
    for event in history:
        before = (status, because)
        for change in event.get("patch", ()):
            status, because = _applied(change, status, because)
        if status and (status, because) != before:
            why = f": {reason(because)}" if because else ""
            yield Sentence(event["at"], f"The issue became {status}{why}.")


def _applied(change: Sequence[Any], status: Any, because: Any) -> tuple[Any, Any]:
    """Status and reason after one entry of a journal patch."""
    path = change[1]
    value = change[2] if change[0] == "set" else None
    if path == ["issue"] and isinstance(value, dict):
        return value.get("status"), value.get("reason")
    if path == ["issue", "status"]:
        return value, because
    if path == ["issue", "reason"]:
        return status, value
    return status, because


def _job(job: Record, steps: Mapping[str, Sequence[Record]]) -> Iterator[Sentence]:
    name = f"{job['agentType']} job {job['id']}"
    yield Sentence(job["queuedAt"], f"The {name} was queued with priority {job['priority']}.")
    if started := job.get("startedAt"):
        waited_s = elapsed_s(job["queuedAt"], started) or 0.0
        yield Sentence(started, f"The {name} began after {duration(waited_s)} in the queue.")
    done = list(steps.get(job["id"], ()))
    if done:
        yield Sentence(done[-1]["at"], _work(name, job, done))
    if job["status"] in ENDED:
        result: Record = job.get("result") or {}
        took_s = elapsed_s(job.get("startedAt"), job.get("completedAt"))
        took = f" after {duration(took_s)}" if took_s is not None else ""
        error = job.get("error") if job["status"] == "failed" else None  # else of an old attempt
        outcome = result.get("outcome") or error or job.get("reason") or ""
        how = f" ({_short(outcome)})" if outcome and outcome != job["status"] else ""
        said = f": {_short(result['summary'])}" if result.get("summary") else ""
        text = f"The {name} {job['status']}{took}{how}{said}."
        yield Sentence(job.get("completedAt") or job["queuedAt"], text)


def _runs(job: Record, sessions: Mapping[str, Sequence[Record]]) -> Iterator[Sentence]:
    """What the job's record does not know any more: failed attempts, and hosts that have died."""
    name = f"{job['agentType']} job {job['id']}"
    for number, run in enumerate(sessions.get(job["id"], ())):  # the newest first
        for cut in run.get("interrupted") or ():
            text = f"The host of the {name} had died, and another one went on with it."
            yield Sentence(cut["endedAt"], text)
        if run["status"] != "failed" or not run.get("endedAt"):
            continue
        if job["status"] == "failed" and not number:
            continue  # how the job ended is told of the job
        took = duration(run.get("durationMs", 0) / 1000)
        error = _short(run.get("error") or "no error was told")
        yield Sentence(run["endedAt"], f"An attempt of the {name} failed after {took} ({error}).")


def _work(name: str, job: Record, steps: Sequence[Record]) -> str:
    kinds = Counter(step["key"].rpartition("/")[2] for step in steps)
    models = sum(count for kind, count in kinds.items() if kind.startswith("model"))
    again = sum(step["attempts"] > 1 for step in steps)
    text = f"The {name} recorded {plural(len(steps), 'step')}"
    text += f", {plural(models, 'model call')} among them" if models else ""
    text += f", for {cost(job)}"
    if again:
        text += f"; {plural(again, 'step')} had to be begun again after an interruption"
    if job.get("attempts", 0) > 1:
        text += f"; this is attempt {job['attempts']} of {job.get('maxAttempts', 1)}"
    return f"{text}."


def _review(review: Record) -> Iterator[Sentence]:
    gates: Record = review.get("gates") or {}
    opinion: Record = review.get("automated") or {}
    checked = f"the gates say {gates['verdict']}" if gates else "no gate was asked"
    judged = f", the reviewing agent says {opinion['verdict']}" if opinion else ""
    name = f"the change {review['artifactHash'][:12]} ({review['id']})"
    yield Sentence(
        review["requestedAt"], f"A person was asked to review {name}: {checked}{judged}."
    )
    if review.get("decidedAt"):
        said = f': "{_short(review["comment"])}"' if review.get("comment") else ""
        by = review.get("decidedBy") or "somebody"
        yield Sentence(review["decidedAt"], f"{by} {review['status']} {name}{said}.")


def _messages(messages: Iterable[Record]) -> Iterator[Sentence]:
    """What people said, and what went wrong; the agents' own talk is in the jobs."""
    for row in messages:
        message: Record = row["message"]
        content = message.get("content") or {}
        if row["status"] == "dead":
            error = _short(row.get("error") or "")
            text = f"A message {message['messageType']} was given up: {error}."
            yield Sentence(row.get("finishedAt") or row["acceptedAt"], text)
        elif message["messageType"] in ("issue.message", "issue.cancel"):
            by = content.get("by") or message["sender"]
            said = f': "{_short(content["text"])}"' if content.get("text") else ""
            verb = "asked to cancel it" if message["messageType"].endswith("cancel") else "said"
            yield Sentence(row["acceptedAt"], f"{by} {verb}{said}.")


def _now(subject: Record, material: Material, now: datetime) -> str:
    code = _reason(subject, material)
    if subject["status"] in ENDED:
        resolution: Record = subject.get("resolution") or subject.get("result") or {}
        outcome = resolution.get("outcome")
        ended = f"It is {subject['status']}"
        ended += f" ({outcome})" if outcome and outcome != subject["status"] else ""
        where = resolution.get("pullRequestUrl") or resolution.get("branch")
        ended += f"; the work is in {where}" if where else ""
        why = code if code and code != outcome else None
        return f"{ended}{f': {reason(why)}' if why else ''}."
    since = age(_since(subject, material), now)
    for_long = f", for {since} now" if since else ""
    if code:
        before = material.jobs[-1].get("ahead") if material.jobs else None
        ahead = f"; {plural(before, 'job')} of its organization before it" if before else ""
        return f"It is {subject['status']}{for_long}: {reason(code)}{ahead}."
    job = material.jobs[-1] if material.jobs else None
    step = ""
    if job and job["status"] == "running" and job.get("currentStep"):
        step = f"; the {job['agentType']} agent is at: {job['currentStep']}"
    if job and (again := next_try(job)):
        step = f"; an attempt failed ({_short(job.get('error') or '')}), the next is {again}"
    return f"It is {subject['status']}{for_long}{step}."


def _since(subject: Record, material: Material) -> str | None:
    """When it came into its status; None: that is not known."""
    since: str | None = subject.get("updatedAt") or subject.get("queuedAt")
    if material.issue is None and subject["status"] != "pending":
        newest: Record = next(iter(material.sessions.get(subject["id"], ())), {})
        is_this = newest.get("status") == subject["status"]
        since = (newest.get("endedAt") or newest["startedAt"]) if is_this else None
    return since


def _reason(subject: Record, material: Material) -> str | None:
    """Why it waits or has failed: its own reason, else that of the job it waits for."""
    last = material.jobs[-1] if material.jobs else None
    if last and last["status"] in ("pending", "waiting", "paused") and last.get("reason"):
        return str(last["reason"])
    if subject.get("reason"):
        return str(subject["reason"])
    if subject["status"] == "review":
        return "human_review" if subject.get("reviewId") else "needs_triage"
    return None


def _cost(material: Material) -> str:
    total = sum(float(job.get("costUsd", 0)) for job in material.jobs)
    tokens = sum(int(job.get("tokens", 0)) for job in material.jobs)
    parts = [f"{job['agentType']} {dollars(float(job.get('costUsd', 0)))}" for job in material.jobs]
    split = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    return cost({"costUsd": total, "tokens": tokens}) + split


def _next(subject: Record, material: Material) -> Iterator[str]:
    """Commands that make sense now, the likeliest first."""
    code = _reason(subject, material) or ""
    job_id = subject.get("jobId") or subject["id"]
    waits = subject["status"] == "review"
    if waits and subject.get("reviewId"):
        yield f"troupe review show {subject['reviewId']}"
        yield f"troupe review approve {subject['reviewId']}"
        yield f'troupe review reject {subject["reviewId"]} --comment "what should be different"'
    elif waits:
        yield f'troupe issues tell {subject["id"]} --agent code "what is to be done"'
    elif code == "question":
        if issue_id := subject["id"] if material.issue else subject.get("issueId"):
            yield f'troupe issues tell {issue_id} "..."'
    elif hint := remedy(code, job_id, subject.get("agentId")):
        yield hint
    if subject["status"] not in ENDED and not waits:
        yield f"troupe watch {subject['id']}"
        yield f"troupe cancel {subject['id']}"
    resolution: Record = subject.get("resolution") or {}
    repository = (subject.get("context") or {}).get("repository", "")
    if resolution.get("branch") and repository.startswith("/"):
        yield f"git -C {repository} log -p {resolution['branch']}"


def _short(text: str) -> str:
    line = first_line(str(text)).rstrip(".")
    return line if len(line) <= TEXT_SHOWN else f"{line[:TEXT_SHOWN]}…"


def order(jobs: Iterable[Record]) -> list[Record]:
    """Jobs in the order in which they were queued."""
    return sorted(jobs, key=lambda job: (parse_time(job["queuedAt"]) is None, job["queuedAt"]))
