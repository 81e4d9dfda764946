"""Steps: I11. Begun under a fence, called once for an intent, recorded once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from runtime.store.contract import Commit
from runtime.verify.history import Fact, Violation
from runtime.verify.invariants.reading import JobView, job_changes
from runtime.verify.workload import Worker


def steps_recorded_once(facts: Sequence[Fact]) -> list[Violation]:
    """I11: a step's first recorded result is the one; a recorded step is not begun or called again.

    A call that can change something (kind not `pure`) is made once for each
    intent its process has recorded, and not before the earlier results of its
    run are.  A completed worker, as `workload` has them, answers with the recorded results.
    Calls repeated by another run of a step without a result are no violation.
    """
    return _Steps().go(facts)


class _Steps:
    def __init__(self) -> None:
        self.recorded: dict[tuple[str, str], tuple[Fact, bytes]] = {}
        """(job, key) -> (the commit, the result)."""
        self.begun: dict[tuple[str, str], int] = {}
        """(process, idempotency key) -> where its latest intent is."""
        self.called: dict[tuple[str, str], int] = {}
        self.claimed: dict[tuple[str, str], int] = {}
        """(agent, process) -> where its latest claim is."""
        self.ran: dict[str, int] = {}
        """Run -> where it began."""
        self.answers: dict[str, set[str]] = defaultdict(set)
        """Idempotency key -> what the outside answered."""
        self.unrecorded: dict[str, set[tuple[str, str]]] = defaultdict(set)
        """Run -> steps that have returned and are not recorded yet."""
        self.found: list[Violation] = []

    def go(self, facts: Sequence[Fact]) -> list[Violation]:
        for fact in facts:
            if fact.f == "claim":
                self.claimed[fact.agent, fact.proc] = fact.i
            elif fact.f == "commit" and fact.type == "ok":
                self._commit(fact, fact.value.commit)
            elif fact.f == "run":
                self.ran[fact.value] = fact.i
            elif fact.f in ("call", "lookup"):
                self._call(fact)
        for fact, job, _ in job_changes(facts):
            if job.status == "completed" and job.agent_type == Worker.kind:
                self._completed(fact, job)
        return self.found

    def _say(self, fact: Fact, text: str) -> None:
        self.found.append(Violation("I11", fact.i, text))

    def _commit(self, fact: Fact, commit: Commit) -> None:
        for intent in commit.intents:
            if (intent.job, intent.key) in self.recorded:
                self._say(
                    fact, f"{intent.job} {intent.key} was begun after its result was recorded"
                )
            self.begun[fact.proc, f"{intent.job}:{intent.key}"] = fact.i
        for result in commit.results:
            self._record(fact, result.job, result.key, result.body)

    def _record(self, fact: Fact, job: str, key: str, body: bytes) -> None:
        if (job, key) in self.recorded:
            self._say(fact, f"{job} {key} was recorded twice")
            return
        self.recorded[job, key] = (fact, body)
        for waiting in self.unrecorded.values():
            waiting.discard((job, key))
        answers = self.answers.get(f"{job}:{key}")
        if answers is not None and json.loads(body) not in answers:
            self._say(fact, f"{job} {key} was recorded as {body!r}, which the outside never said")

    def _call(self, fact: Fact) -> None:
        call = fact.value
        job, _, key = fact.key.partition(":")
        if fact.type == "ok":
            self.answers[fact.key].add(call.result)
            if (job, key) not in self.recorded:
                self.unrecorded[call.run].add((job, key))
        if fact.type != "invoke":
            return
        if (job, key) in self.recorded and self._knew(fact, self.recorded[job, key][0]):
            self._say(fact, f"{fact.key} was called after its result was recorded")
        if call.kind != "pure":
            who = (fact.proc, fact.key)
            if self.begun.get(who, -1) <= self.called.get(who, -1):
                self._say(fact, f"{fact.key} was called by {fact.proc} without an intent")
            if waiting := self.unrecorded.get(call.run):
                self._say(fact, f"{fact.key} was called while {sorted(waiting)} are not recorded")
        self.called[fact.proc, fact.key] = fact.i

    def _knew(self, call: Fact, record: Fact) -> bool:
        """Whether the calling run began when the result was there to be read.

        A zombie may call a `pure` step that another process has recorded since.
        """
        if call.proc == record.proc:
            return self.ran.get(call.value.run, 0) > record.i
        return self.claimed.get((record.agent, call.proc), 0) > record.i

    def _completed(self, fact: Fact, job: JobView) -> None:
        data: Any = (job.result or {}).get("data", {})
        for key, value in data.items():
            record, body = self.recorded.get((job.id, key), (None, b"null"))
            if record is None or record.i > fact.i or json.loads(body) != value:
                self._say(fact, f"{job.id} answers {key}={value!r}, recorded is {body!r}")
