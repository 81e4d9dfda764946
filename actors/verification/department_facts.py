"""The facts of the department's part of a chaos run: pure.

    approval  the audit trail: who decided for which hash, and whose work it was; and a
              person of the load has really done so
    effect    what has arrived in a bare repository
    kill      a host that had sandboxes is missed
    sandbox   what is left of them when its time is up
    budget    what the load's own settings let a job spend
    charge    the provider's bill, at the call's beginning
    call      the same once more, after all commits: what a job's record may claim to have cost

The provider knows a job by its issue's title and its agent's role, which are in
each request; the audit trail tells its id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from actors.verification.arrivals import Arrival
from actors.verification.billing import MARK, Charge
from actors.verification.sandboxes import Finding
from runtime.ids import HOME
from runtime.verify.chaos.live import Live
from runtime.verify.history import Call

NEVER_MS: Final = 1 << 60
"""Approvals do not expire here."""
MODEL_STEP: Final = "model"
"""The step of a job that calls a model once and tells no digest: triage."""
Line = Mapping[str, Any]


class Work(NamedTuple):
    """A job: the mark of its issue, and the role of its agent."""

    mark: str
    role: str

    def __str__(self) -> str:
        return f"{self.role} of {self.mark}"


def jobs(audit: Iterable[Line]) -> dict[Work, str]:
    """The id of each issue's one job of each kind of agent."""
    marks: dict[str, str] = {}
    found: dict[Work, str] = {}
    lines = list(audit)
    for line in lines:
        if line["type"] == "issue.submitted" and (mark := MARK.search(line.get("title", ""))):
            marks[line["issueId"]] = mark.group()
    for line in lines:
        if line["type"] == "job.queued" and line.get("issueId") in marks:
            found[Work(marks[line["issueId"]], line["agentType"])] = line["jobId"]
    return found


def tell_approvals(live: Live, audit: Sequence[Line], meant: Collection[str]) -> None:
    """
    Args:
        meant: the hashes that a person did approve, whatever the trail says.
    """
    roles = {line["name"]: line["role"] for line in audit if line["type"] == "key.created"}
    authors = {
        line["jobId"]: line.get("agentId") or f"{line['agentType']}:{line['jobId']}"
        for line in audit
        if line["type"] == "job.queued"
    }
    for line in audit:
        if line["type"] != "review.decided" or line["artifactHash"] not in meant:
            continue
        if line["decision"] == "approved":
            by = line.get("by", "")
            value = {
                "by": by, "author": authors.get(line["jobId"], ""), "role": roles.get(by, ""),
                "untilMs": NEVER_MS,
            }  # fmt: skip
            live.add_at(_at_ns(line), by, "ok", "approval", org=HOME, key=line["artifactHash"],
                        value=value)  # fmt: skip


def tell_effects(live: Live, arrivals: Iterable[Arrival]) -> None:
    for one in arrivals:
        what = f"{one.ref} is {one.commit}"
        live.add_at(one.at_ns, "git", "ok", "effect", org=HOME, key=one.sha256, value=what)


def tell_sandboxes(live: Live, found: Iterable[Finding], at_ns: int) -> None:
    for one in found:
        if one.f == "kill":
            live.add_at(at_ns, "scan", "info", "kill", key=one.host)
        else:
            live.add_at(at_ns, "scan", "ok", "sandbox", key=one.host, value=one.left)


def tell_budgets(live: Live, budgets: Mapping[Work, float]) -> None:
    """To be told before anything is charged."""
    for work, cost_usd in budgets.items():
        live.add("load", "info", "budget", key=str(work), value=cost_usd)


def tell_charges(
    live: Live,
    charges: Iterable[Charge],
    ids: Mapping[Work, str],
    steps: Mapping[tuple[str, str], str],
) -> None:
    """
    Args:
        steps: the key of the step that made a request, by job and the request's digest.
    """
    for one in charges:
        work = Work(one.mark, one.role)
        live.add_at(one.at_ns, "provider", "invoke", "charge", key=str(work), value=one.cost_usd)
        if (job := ids.get(work)) is not None:
            step = steps.get((job, one.digest), MODEL_STEP)
            call = Call(step, "external", "", cost_usd=one.cost_usd)
            live.add("provider", "ok", "call", key=f"{job}:{step}", value=call)


def _at_ns(line: Line) -> int:
    """A trail's times are milliseconds."""
    return round(datetime.fromisoformat(line["at"]).timestamp() * 1000) * 1_000_000
