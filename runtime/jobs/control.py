"""What people ask of the queue as a whole, and of agents: to pause, to drain, to go on.

    scheduler.pause | scheduler.drain | scheduler.resume  {by, reason?}   of HOME or `system` only
    scheduler.status                                      {}
    agent.pause | agent.resume                            {agentId, by, reason?}, of the asker's own

What was asked of the queue last is kept as a document (`standing.Control`), and
how it stands is told to everybody when it has changed.
"""

from __future__ import annotations

from typing import Any, Final

from runtime.clock import Clock, iso
from runtime.ids import HOME, SYSTEM, address
from runtime.jobs.decisions import Decision, refuse
from runtime.jobs.holds import Holds
from runtime.jobs.table import JobTable
from runtime.message import Message
from runtime.standing import COLLECTION, Control, Present, standing
from runtime.store.contract import FeedEvent, Put
from runtime.turn import feed_event
from runtime.wire import WireModel

VERBS: Final = frozenset({"pause", "resume", "drain"})
HOLDING: Final = frozenset({"agent.pause", "agent.resume"})
TELL_EVERY_S: Final = 5.0
"""Between two events that only say how the queue stands."""
UNTOLD: Final = ("changedBy", "reason", "owner", "epoch", "limits")
"""What of the status is not everybody's business, or never news."""


class Controls:
    """One for each life of a scheduler."""

    def __init__(self, jobs: JobTable, holds: Holds, clock: Clock) -> None:
        self.asked = Control()
        """Of the queue as a whole."""
        self.present = Present()
        """Whose turn it is."""
        self._jobs = jobs
        self._holds = holds
        self._clock = clock
        self._told = jobs.counts()
        self._tell_at_s = 0.0

    @property
    def paused(self) -> bool:
        """Whether no job may start."""
        return self.asked.paused

    def status(self) -> dict[str, Any]:
        """Counts and state, as `GET /api/scheduler/status` answers them from the store."""
        return standing(self.asked, self.present, self._jobs.counts())

    def begins(self, present: Present) -> Decision:
        """A scheduler has taken over."""
        self.present = present
        return Decision(puts=[_put("present", present)])

    def takes(self, message: Message) -> bool:
        """Whether a message is for `decide`."""
        return message.message_type.startswith("scheduler.") or message.message_type in HOLDING

    def decide(self, organization: str, message: Message) -> Decision:
        """What a message leads to.

        Args:
            organization: the sender's.

        Raises:
            InvalidIdError, KeyError, TypeError: the message is not of its type's form.
        """
        if message.message_type in HOLDING:
            return self._hold(organization, message)
        verb = message.message_type.removeprefix("scheduler.")
        if verb == "status":
            return Decision(reply={"ok": True, **self.status()})
        if verb not in VERBS:
            raise KeyError(message.message_type)
        if organization not in (SYSTEM, HOME):
            return refuse("not_yours", f"only {HOME} may {verb} the scheduler")
        now_ms, content = self._clock.now_ms(), message.content or {}
        self.asked = Control(
            paused=verb != "resume",
            draining=verb == "drain",
            by=str(content.get("by", message.sender)),
            at=iso(now_ms),
            reason=str(content.get("reason") or ""),
        )
        reply = {"ok": True, **self.status()}
        return Decision(puts=[_put("control", self.asked)], feed=[self._stands()], reply=reply)

    def _hold(self, organization: str, message: Message) -> Decision:
        where = address(organization, message.content["agentId"])
        by = str(message.content.get("by") or message.sender)
        held = message.message_type == "agent.pause"
        return self._holds.ask(where, held, by, self._clock.now_ms(), message.why)

    def news(self, now_s: float) -> Decision | None:
        """Word to everybody how the queue stands, when that has changed; not all the time."""
        counts = self._jobs.counts()
        if counts == self._told or now_s < self._tell_at_s:
            return None
        self._told, self._tell_at_s = counts, now_s + TELL_EVERY_S
        return Decision(feed=[self._stands()])

    def _stands(self) -> FeedEvent:
        # of the system, so that every organization is told; so nobody's name is in it
        stats = {name: value for name, value in self.status().items() if name not in UNTOLD}
        told, now_ms = {"stats": stats}, self._clock.now_ms()
        return feed_event(SYSTEM, "scheduler:status", told, ("scheduler",), now_ms)


def _put(key: str, record: WireModel) -> Put:
    return Put(COLLECTION, key, SYSTEM, record.to_json())
