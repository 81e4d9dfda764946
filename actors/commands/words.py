"""Codes, times and amounts as a person reads them: pure functions.

`REASONS` has a clause for each code that says why an issue or a job waits or
failed, and what can be done; how a conversation ended is told in the words of
`actors.endings`.  A code that neither knows is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from actors.commands.output import visible
from actors.endings import OUTCOMES
from runtime.clock import iso

REASONS: Final[Mapping[str, tuple[str, str | None]]] = {
    "model_not_configured": (
        "it waits for a model: none is configured",
        "Start Troupe with one: ANTHROPIC_API_KEY=... troupe up  (it goes on by itself)",
    ),
    "human_review": ("it waits for a person to review the change", None),
    "needs_triage": (
        "triage could not tell what kind of work it is and asks a person",
        "Say it: troupe issues tell ID TEXT --agent code  (or research)",
    ),
    "no_signal": ("nothing in it says what kind of work it is, so a person is asked", None),
    "narrow_margin": ("two kinds of work are equally likely, so a person is asked", None),
    "model_disagrees": ("rules and model disagree on what it is, so a person is asked", None),
    "no_repository": (
        "it names no repository and the operator has set none",
        "Hand it in again with --repo, or set TROUPE_REPOSITORY for `troupe up`",
    ),
    "question": (
        "the agent asks you something (its last log line) and waits for the answer",
        "Answer it: troupe issues tell ID TEXT",
    ),
    "sandbox_refused": (
        "commands can't be isolated on this machine, so none is run",
        "Install bubblewrap and allow it user namespaces; it goes on by itself",
    ),
    "setup_failed": (
        "the repository's setup command failed",
        "See the end of its output with: troupe explain {job}  (hosts: TROUPE_SETUP_HOSTS)",
    ),
    "disk_full": (
        "the disk with the workspaces is full",
        "Free some space; it goes on by itself from its last step",
    ),
    "repository_busy": ("another process is fetching this repository", None),
    "overloaded": ("the model's provider is overloaded; it is tried again", None),
    "circuit_open": ("the model failed too often just now; it is tried again", None),
    "paused": ("it was paused", "Let it go on with: troupe jobs resume {job}"),
    "cancelled": ("it was cancelled", None),
    "rejected": ("a person rejected the change", None),
    "refused_by_gate": ("a gate refused the change", None),
    "work_failed": ("the work failed for good", "Try again with: troupe jobs retry {job}"),
    "review_failed": (
        "the automated review failed for good",
        "Try again with: troupe jobs retry {job}",
    ),
    "delivery_failed": (
        "the approved change could not be delivered",
        "Try again with: troupe jobs retry {job}",
    ),
    "error": ("every attempt failed", "Try again with: troupe jobs retry {job}"),
    "killed_its_host": (
        "three hosts have died while they were at it",
        "Mend the cause, then: troupe jobs retry {job}",
    ),
    "scheduler_paused": (
        "the scheduler as a whole is paused, so no job starts",
        "Let it go on with: troupe scheduler resume  (an admin of `default`)",
    ),
    "agent_failed_twice": (
        "two jobs of its agent in a row have failed, so the agent gets no more",
        "Look why with: troupe agents show {agent}  and then: troupe agents resume {agent}",
    ),
    "scheduler_down": (
        "no scheduler is at work, so no job starts; it is started again by itself",
        "If it stays so: troupe status, and the log that docs/operations.md names",
    ),
    "agent_full": ("its agent does one job at a time, and another one runs", None),
    "repository_full": (
        "as many jobs work in its repository as may at once",
        "See them with: troupe jobs list --status running  (limit: TROUPE_MAX_PER_REPOSITORY)",
    ),
    "limit_key_full": (
        "as many jobs with its limit key run as may at once",
        "See them with: troupe jobs list --status running  (limit: TROUPE_MAX_PER_KEY)",
    ),
    "organization_full": (
        "as many jobs of its organization run as may at once",
        "See them with: troupe jobs list --status running  (limit: TROUPE_MAX_PER_ORGANIZATION)",
    ),
    "slots_full": (
        "as many jobs run as may at once",
        "See how many with: troupe scheduler  (limit: SCHEDULER_MAX_CONCURRENT)",
    ),
    "agent_paused": (
        "its agent is paused",
        "Let it go on with: troupe agents resume {agent}",
    ),
}
_BUDGETS: Final = {
    "budget_rounds": "TROUPE_ROUNDS_MAX",
    "budget_tokens": "TROUPE_TOKENS_MAX",
    "budget_cost": "TROUPE_COST_USD_MAX",
    "budget_wall": "TROUPE_WALL_S",
}
COUNTS: Final = ("running", "queued", "waiting", "paused")
MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
CENT: Final = 0.01


def reason(code: str) -> str:
    """A reason code as a clause: `it waits for a model: none is configured`."""
    if known := REASONS.get(code):
        return f"{known[0]} ({code})"
    if ending := OUTCOMES.get(code):
        return f"{ending[0].lower()}{ending[1:].rstrip('.')} ({code})"
    return code.replace("_", " ")


def remedy(code: str, job_id: str | None = None, agent: str | None = None) -> str | None:
    """What a person can do about a reason, if there is a known thing."""
    known = REASONS.get(code)
    if known is None and (setting := _BUDGETS.get(code)):
        return f"Raise {setting} for `troupe up`, then hand it in again"
    return (
        known[1].format(job=job_id or "JOB", agent=agent or "AGENT") if known and known[1] else None
    )


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time; None for what is none."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def clock_time(text: str | None) -> str:
    """A stored time as hh:mm:ss of this machine's zone; spaces when there is none."""
    moment = parse_time(text)
    return moment.astimezone().strftime("%H:%M:%S") if moment else " " * 8


def moment(text: str | None) -> str:
    """A stored time as date and time of this machine's zone, with its offset."""
    at = parse_time(text)
    return at.astimezone().isoformat(" ", "seconds").replace("+00:00", "Z") if at else ""


def elapsed_s(since: str | None, until: str | None) -> float | None:
    """Seconds between two stored times."""
    begin, end = parse_time(since), parse_time(until)
    return (end - begin).total_seconds() if begin and end else None


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    for unit, name, part, part_name in (
        (DAY_S, "d", HOUR_S, "h"),
        (HOUR_S, "h", MINUTE_S, "min"),
        (MINUTE_S, "min", 1, "s"),
    ):
        if whole >= unit:
            count, rest = divmod(whole, unit)
            return (
                f"{count} {name} {rest // part} {part_name}" if rest // part else f"{count} {name}"
            )
    return f"{whole} s"


def age(since: str | None, now: datetime) -> str:
    """How long ago a stored time was: `5 min`; empty when there is none."""
    at = parse_time(since)
    if at is None:
        return ""
    seconds = max(0.0, (now - at).total_seconds())
    for unit, name in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"


def dollars(amount: float) -> str:
    """`$0`, `$0.0042`, `$1.25`: small amounts keep four digits."""
    if amount == 0:
        return "$0"
    return f"${amount:.2f}" if amount >= CENT * 100 else f"${amount:.4f}"


def cost(record: Mapping[str, Any]) -> str:
    """What a job or issue has cost, and its tokens where they are known."""
    tokens = record.get("tokens")
    amount = dollars(float(record.get("costUsd") or 0))
    return f"{amount}, {tokens:,} tokens" if tokens else amount


def next_try(job: Mapping[str, Any]) -> str | None:
    """When a job whose last attempt failed is tried again: `not before …`."""
    after_ms = int(job.get("notBeforeMs", 0))
    again = job["status"] == "pending" and after_ms and job.get("attempts", 0)
    return f"not before {moment(iso(after_ms))}" if again else None


def scheduler_state(status: Mapping[str, Any]) -> str:
    """The scheduler's state in a line: who has stopped it and why, and how many jobs there are."""
    counts = ", ".join(f"{status[name]} {name}" for name in COUNTS if name in status)
    by = ""
    if status["state"] == "PAUSED":
        why = f": {' '.join(status['reason'].split())}" if status.get("reason") else ""
        verb = "drained" if status.get("draining") else "paused"
        by = visible(f", {verb} by {status['changedBy']} {moment(status['changedAt'])}{why}")
    return f"{status['state']}{by}; jobs: {counts} (at most {status['maxConcurrent']})"


def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def plural(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
