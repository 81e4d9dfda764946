"""Holds: an agent of which two jobs in a row have failed gets no more until a person lets it.

    document  (`hold`, agent's address)   Hold, in the commit that ends the job

A job has failed when its tries are used up.  Only agents that do more than one
job are counted (those a job names by `agentId`): an agent of a job's own has no
second one.  A job that completes begins the count anew; one that is cancelled
says nothing.  A person may hold any agent.  What is queued for a held agent
stays queued.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from runtime.clock import iso
from runtime.errors import told
from runtime.ids import address, split
from runtime.job import AgentJob
from runtime.jobs.decisions import Decision, publish
from runtime.jobs.table import JobTable
from runtime.store.contract import Document, Put
from runtime.turn import feed_event
from runtime.wire import WireModel

logger = logging.getLogger(__name__)

HOLDS: Final = "hold"
FAILURES_MAX: Final = 2
"""Jobs in a row that may fail before their agent is held."""
FAILED_TWICE: Final = "failed_twice"
"""Why it is then held."""


class Hold(WireModel):
    """How an agent's latest jobs ended, if the last one failed, or that it is held."""

    agent_id: str
    organization_id: str
    failures: int = 0
    """Jobs in a row that have failed."""
    held: bool = False
    """None of its jobs starts."""
    job_id: str | None = None
    """The one that failed last."""
    error: str | None = None
    by: str = ""
    """Who holds it: a person, or `scheduler` after failures."""
    reason: str | None = None
    """Why: `failed_twice`, or as a person has put it."""
    at: str = ""


class Holds:
    """What is known of failing agents; one for each life of a scheduler."""

    def __init__(self, jobs: JobTable) -> None:
        self._jobs = jobs
        self._known: dict[str, Hold] = {}

    def load(self, documents: Iterable[Document]) -> None:
        for document in documents:
            try:
                self._note(document.key, Hold.model_validate_json(document.body))
            except ValueError as error:  # whoever wrote it stops nobody else's
                logger.error(
                    "the hold of %s can't be read: %s",
                    document.key,
                    told(error),
                    extra={"action": "hold.unreadable", "agent": document.key},
                )

    def reload(self, where: str, document: Document | None) -> None:
        """What was decided of an agent was not written: go by what is."""
        hold = self._fresh(where)
        if document is not None:
            hold = Hold.model_validate_json(document.body)
        self._note(where, hold)

    def stops(self, job: AgentJob) -> bool:
        """Whether the agent of a job's own is held; of one that jobs share the queue knows."""
        if job.agent_id is not None or not self._known:
            return False
        hold = self._known.get(address(job.organization_id, job.agent))
        return hold is not None and hold.held

    def failed(self, decision: Decision, job: AgentJob, now_ms: int) -> None:
        """Count a job that has failed for good; hold its agent when it was the second in a row."""
        if job.agent_id is None:
            return
        where = address(job.organization_id, job.agent)
        before = self._known.get(where) or self._fresh(where)
        failures = before.failures + 1
        begins = failures >= FAILURES_MAX and not before.held
        by = {"held": True, "by": "scheduler", "reason": FAILED_TWICE} if begins else {}
        news = {"failures": failures, "job_id": job.id, "error": job.error, "at": iso(now_ms)}
        decision.puts.append(self._note(where, before.model_copy(update={**news, **by})))
        if begins:
            publish(decision, "agent:paused", job, now_ms, reason=FAILED_TWICE, error=job.error)
            logger.error(
                "%s is paused: %d of its jobs in a row have failed",
                where,
                failures,
                extra={"action": "agent.held", "agent": where, "job": job.id},
            )

    def completed(self, where: str) -> list[Put]:
        """A job of the agent has completed: it begins anew."""
        hold = self._known.get(where)
        if hold is None or not hold.failures:
            return []
        return [self._note(where, hold.model_copy(update={"failures": 0, "error": None}))]

    def ask(
        self, where: str, held: bool, by: str, now_ms: int, reason: str | None = None
    ) -> Decision:
        """A person holds an agent, or lets it go on; asked for again it changes nothing.

        Who is let go on begins the count of failures anew, also if it was not held.
        """
        before = self._known.get(where) or self._fresh(where)
        reply = {"ok": True, "status": "paused" if held else "resumed"}
        if before.held == held and (held or not before.failures):
            return Decision(reply=reply)
        told = {"held": held, "by": by, "reason": reason, "at": iso(now_ms)}
        changed = {**told, "failures": 0, "job_id": None, "error": None}
        put = self._note(where, before.model_copy(update=changed))
        if before.held == held:
            return Decision(puts=[put], reply=reply)
        data = {"agentId": before.agent_id, "status": reply["status"], "by": by}
        event, rooms = f"agent:{reply['status']}", (f"agent:{before.agent_id}",)
        feed = feed_event(before.organization_id, event, data, rooms, now_ms)
        return Decision(puts=[put], feed=[feed], reply=reply)

    def _fresh(self, where: str) -> Hold:
        organization, agent = split(where)
        return Hold(agent_id=agent, organization_id=organization)

    def _note(self, where: str, hold: Hold) -> Put:
        """Know it, have the queue keep to it; what writes it down."""
        if hold.held:
            self._jobs.hold(hold.organization_id, hold.agent_id)
        else:
            self._jobs.let_go(hold.organization_id, hold.agent_id)
        if hold.held or hold.failures:
            self._known[where] = hold
            return Put(HOLDS, where, hold.organization_id, hold.to_json())
        self._known.pop(where, None)
        return Put(HOLDS, where, hold.organization_id, None)
