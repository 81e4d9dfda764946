"""What is drawn for the conformance machine: the names it uses, and random commits.

A commit is drawn from what the model says is there, so that most are accepted;
now and then it has another incarnation, epoch, version or part than it should.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from runtime.clock import Clock, ManualClock
from runtime.ids import SYSTEM, Ids
from runtime.store.contract import (
    ABSENT,
    ANY,
    DEAD_LETTERS,
    Ack,
    Bury,
    Commit,
    Event,
    FeedEvent,
    Fence,
    Intent,
    Put,
    Remind,
    Result,
    Retry,
    Send,
    Snapshot,
)
from runtime.verify.conformance.model import Model

AGENTS = ["acme/a:1", "acme/a:2", "beta/a:1", "system/scheduler:main"]
OWNERS = {"o1": "host-1", "o2": "host-2", "o3": "host-1"}
JOBS = ["job_1", "job_2"]
TERMS = ["a=1", "a=2", "b=1"]

agents = st.sampled_from(AGENTS)
owners = st.sampled_from(list(OWNERS))
early = Ids(ManualClock(), lambda count: b"1" * count).ulid()
"""As old as the machine's clock when it begins."""
ids = st.sampled_from([*(f"m{number}" for number in range(8)), early])
keys = st.sampled_from(["k1", "k2", "k3", "k4"])
bodies = st.binary(max_size=3)
few = st.integers(1, 3)
feeds = st.builds(
    FeedEvent,
    st.sampled_from(["acme", "beta"]),
    st.sampled_from(["job:started", "job:completed"]),
    st.just(("monitoring",)),
    st.integers(0, 9),
    bodies,
)
intents = st.builds(
    Intent,
    st.sampled_from(JOBS),
    keys,
    st.sampled_from(["pure", "workspace", "external"]),
    bodies,
)
events = st.builds(Event, st.sampled_from(["e", "f"]), bodies, st.integers(1, 3))
wrong_parts = st.one_of(
    ids.map(lambda id: {"acks": (Ack(id),)}),
    ids.map(lambda id: {"acks": (Ack(id),), "buries": (Bury(id, "twice"),)}),
    keys.map(lambda key: {"results": (Result("job_1", key, b"unasked"),)}),
    keys.map(lambda key: {"intents": (Intent("job_1", key, "pure", b"again"),)}),
)
PARTS = ["puts", "feed", "sends", "inbox", "inbox", "journal", "reminders", "steps", "steps"]
SLIPS = [None, None, None, None, None, None, "incarnation", "epoch", "version", "part"]


class Draws:
    """Draws commits that fit what the model knows."""

    def __init__(self, model: Model, clock: Clock) -> None:
        self._model = model
        self._clock = clock

    def commit(self, draw: Any) -> Commit:
        """One commit; most would be accepted, and are wrong in one thing now and then."""
        held = [a for a in AGENTS if a in self._model.agents and self._model.agents[a]["epoch"]]
        agent = draw(st.sampled_from([*held, None]))
        of = agent.split("/")[0] if agent else draw(st.sampled_from(["acme", "beta", "system"]))
        parts = draw(st.lists(st.sampled_from(PARTS if agent else PARTS[:3]), max_size=4))
        slip = draw(st.sampled_from(SLIPS))
        fields: dict[str, Any] = {}
        for part in dict.fromkeys(parts):
            fields |= getattr(self, f"_{part}")(draw, agent, of)
        if agent:
            state = self._model.agents[agent]
            incarnation = "another" if slip == "incarnation" else self._model.incarnation
            fields["fence"] = Fence(incarnation, state["epoch"] - (slip == "epoch"))
            if "events" in fields or draw(st.booleans()):
                fields["expected_version"] = state["version"] + (slip == "version")
            if slip == "part":
                fields |= draw(wrong_parts)
            if draw(st.integers(0, 3)) == 0:
                fields |= self._at_once(draw, agent, of, fields)
        return Commit(of, agent, **fields)

    def _puts(self, draw: Any, agent: Any, of: Any) -> Any:
        own = [of, of, of, of, of] if of != SYSTEM else []
        writers = st.sampled_from([*own, "acme", "beta"])
        puts = st.builds(
            Put,
            st.sampled_from(["job", "issue"]),
            keys,
            writers,
            st.none() | bodies,
            st.lists(st.sampled_from(TERMS), max_size=3).map(tuple),
            st.sampled_from([ANY, ANY, ABSENT, 1, 2, 3]),
        )
        letters = st.builds(
            lambda agent, id, of, body: Put(DEAD_LETTERS, f"{agent}/{id}", of, body),
            agents,
            ids,
            writers,
            st.none() | bodies,
        )
        found = draw(st.lists(puts | letters, min_size=1, max_size=2))
        return {"puts": tuple(found)}

    def _feed(self, draw: Any, agent: Any, of: Any) -> Any:
        return {"feed": tuple(draw(st.lists(feeds, min_size=1, max_size=2)))}

    def _sends(self, draw: Any, agent: Any, of: Any) -> Any:
        near = [a for a in AGENTS if of == "system" or a.startswith((of, "system"))]
        to = st.sampled_from([*near, *near, *near, *AGENTS])
        new = st.just(f"new{self._model.seq}")
        send = st.builds(Send, new | new | ids, st.just(agent or f"{of}/client:x"), to, bodies)
        return {"sends": tuple(draw(st.lists(send, min_size=1, max_size=2)))}

    def _inbox(self, draw: Any, agent: Any, of: Any) -> Any:
        waiting = [m["message_id"] for m in self._model.inbox(agent)][:3]
        how = {
            id: draw(st.sampled_from(["acks", "acks", "retries", "buries", ""])) for id in waiting
        }
        return {
            "acks": tuple(Ack(id, draw(st.none() | bodies)) for id in waiting if how[id] == "acks"),
            "retries": tuple(Retry(id, 7, "busy") for id in waiting if how[id] == "retries"),
            "buries": tuple(Bury(id, "dead") for id in waiting if how[id] == "buries"),
        }

    def _at_once(self, draw: Any, agent: Any, of: Any, fields: dict[str, Any]) -> Any:
        """A message that the commit handles itself, beside what is drawn already."""
        id = draw(st.just(f"once{self._model.seq}") | ids)
        sent = Send(id, f"{of}/client:x", agent, b"now")
        return {
            "sends": (sent, *fields.get("sends", ())),
            "acks": (Ack(id, draw(st.none() | bodies)), *fields.get("acks", ())),
        }

    def _journal(self, draw: Any, agent: Any, of: Any) -> Any:
        found = {"events": tuple(draw(st.lists(events, min_size=1, max_size=3)))}
        if draw(st.booleans()):
            found["snapshot"] = draw(st.builds(Snapshot, bodies, few))
        return found

    def _reminders(self, draw: Any, agent: Any, of: Any) -> Any:
        due = st.integers(-2_000, 12_000).map(lambda by: self._clock.now_ms() + by)
        found = st.builds(Remind, keys, st.none() | due | due, bodies)
        return {"reminders": tuple(draw(st.lists(found, min_size=1, max_size=2)))}

    def _steps(self, draw: Any, agent: Any, of: Any) -> Any:
        begun = draw(st.lists(intents, max_size=2))
        epoch = self._model.agents[agent]["epoch"]
        fitting = [
            Result(step["job"], step["key"], b"told")
            for step in self._model.steps
            if (step["agent"], step["epoch"], step["result"]) == (agent, epoch, None)
        ]
        fitting += [Result(intent.job, intent.key, b"at once") for intent in begun]
        ended = draw(st.lists(st.sampled_from(fitting), max_size=2)) if fitting else []
        return {"intents": tuple(begun), "results": tuple(ended)}
