"""One history out of what many processes noted: pure.

The order of the commits is that of their marks in the feed: the store's own.
A commit's place in time is the earliest that this order allows: not before it
was asked for, nor before the one that comes before it.  So whatever really came
after a commit comes after it here.  The rest is put in by the clock of the
machine; a claim, whose moment is only known to lie between question and answer,
after the last commit of the epoch it ended.

    commit     as `runtime.verify.history` says; `fail`: it was refused
    claim      an epoch nobody knows the claim of is one whose answer was lost: of who released
               the agent since, else of who was gone before the next claim, else the latest
    release    holds from when it was asked for: its answer, too, may have been lost
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from runtime.ids import split
from runtime.store.contract import Commit, Committed, Refused
from runtime.verify.chaos.notes import Answered, Asked, Did, Note
from runtime.verify.history import Fact, Lease, Tailed, Written

MS: Final = 1_000_000

_Releases = dict[tuple[str, str], list[int]]
"""(agent, owner) -> when it was released."""


class Place(NamedTuple):
    """Where in a history something is."""

    at_ns: int
    cursor: int = 0
    """Of a commit: its mark's; of what comes right after one: the same."""
    rank: int = 0
    """0 a commit, 1 what comes right after it, 2 what the clock alone has placed."""
    number: int = 0


@dataclass
class _Commit:
    proc: str
    asked: Asked
    answered: Answered | None = None
    place: Place | None = None
    """None: it is not in the feed."""

    @property
    def commit(self) -> Commit:
        return self.asked.commit

    @property
    def epoch(self) -> int:
        return self.commit.fence.epoch if self.commit.fence else 0


@dataclass
class _Claim:
    proc: str
    did: Did
    lost: bool = False
    """Whether its answer was."""


def merge(
    noted: Iterable[tuple[str, Note]],
    marks: Sequence[tuple[int, str]],
    live: Sequence[tuple[int, Fact]],
) -> list[Fact]:
    """The history.

    Args:
        noted: (process, note), each process's in its order.
        marks: (cursor, id) of every commit's mark, in the feed's order.
        live: (nanoseconds, fact) of what was seen outside of the deployment, in order.
    """
    return _Merge(noted).go(marks, live)


class _Merge:
    def __init__(self, noted: Iterable[tuple[str, Note]]) -> None:
        self.commits: dict[str, _Commit] = {}
        self.claims: list[_Claim] = []
        self.lost: list[tuple[str, Did]] = []
        """Claims that were asked for and not answered."""
        self.others: list[tuple[str, Did]] = []
        self.placed: list[tuple[Place, Fact]] = []
        open_claims: dict[str, list[Did]] = defaultdict(list)
        for proc, note in noted:
            if isinstance(note, Asked):
                self.commits[note.id] = _Commit(proc, note)
            elif isinstance(note, Answered):
                self.commits[note.id].answered = note
            elif note.f != "claim":
                self.others.append((proc, note))
            elif note.type == "invoke":
                open_claims[proc].append(note)
            else:
                asked = [one for one in open_claims[proc] if one.began_ns != note.began_ns]
                open_claims[proc] = asked
                if note.type == "ok":
                    self.claims.append(_Claim(proc, note))
        self.lost = [(proc, one) for proc, left in open_claims.items() for one in left]
        self.lapses: dict[str, int] = defaultdict(int)
        """When each owner's lease lapsed, at the earliest, if nothing else had ended it."""
        for _, did in self.others:
            if did.f in ("register", "renew") and did.type == "ok":
                lapse_ns = did.began_ns + round(did.value[1] * 1_000 * MS)
                self.lapses[did.key] = max(self.lapses[did.key], lapse_ns)

    def go(self, marks: Sequence[tuple[int, str]], live: Sequence[tuple[int, Fact]]) -> list[Fact]:
        landed = self._landed(marks)
        self._commits(landed)
        self._incarnations(landed)
        self._refusals()
        self._claims(landed)
        self._others()
        for number, (at_ns, fact) in enumerate(live):
            self.placed.append((Place(at_ns, 0, 2, number), fact))
        self.placed.sort(key=lambda one: one[0])
        return _numbered([fact for _, fact in self.placed], [fact for _, fact in live])

    # commits

    def _landed(self, marks: Sequence[tuple[int, str]]) -> list[_Commit]:
        """In the order of the store; what was answered ok and is not there comes by its answer."""
        landed = []
        at_ns = 0
        for cursor, id in marks:
            one = self.commits[id]
            at_ns = max(at_ns, one.asked.at_ns)
            one.place = Place(at_ns, cursor)
            landed.append(one)
        for one in self.commits.values():
            if one.place is None and one.answered and isinstance(one.answered.answer, Committed):
                one.place = Place(one.answered.at_ns, 1 << 60)
                landed.append(one)
        return sorted(landed, key=lambda one: one.place or Place(0))

    def _commits(self, landed: list[_Commit]) -> None:
        versions: dict[str, int] = defaultdict(int)
        for one in landed:
            assert one.place is not None
            agent = one.commit.agent or ""
            answer = one.answered.answer if one.answered else None
            ended_ns = one.answered.at_ns if one.answered else one.place.at_ns
            if isinstance(answer, Refused):
                text = f"{answer.reason}, though it was written"
                self._add(one.place, one.proc, "ok", "contradiction", ended_ns, key=text)
            if isinstance(answer, Committed):
                version, written = answer.version, (answer.seqs, answer.cursor)
            else:
                version = versions[agent] + len(one.commit.events) if agent else 0
                written = ((), one.place.cursor)
            versions[agent] = version
            self._add(
                one.place, one.proc, "ok", "commit", max(ended_ns, one.place.at_ns),
                org=one.commit.organization, agent=agent, epoch=one.epoch, ver=version,
                value=Written(one.commit, *written),
            )  # fmt: skip

    def _incarnations(self, landed: list[_Commit]) -> None:
        """A new one begins right after the last sign of the one before; none comes back."""
        signs = [
            (one.place, one.commit.fence.incarnation)
            for one in landed
            if one.place is not None and one.commit.fence is not None
        ]
        signs += [
            (Place(did.ended_ns, 0, 2), did.value[2])
            for _, did in self.others
            if did.f == "register"
        ]
        seen: set[str] = set()
        before = Place(0)
        for place, incarnation in sorted(signs):
            if incarnation not in seen:
                seen.add(incarnation)
                began = before._replace(rank=3)
                self._add(began, "world", "info", "incarnation", place.at_ns, key=incarnation)
            before = place

    def _refusals(self) -> None:
        for one in self.commits.values():
            answered = one.answered
            if one.place is None and answered and isinstance(answered.answer, Refused):
                self._add(
                    Place(answered.at_ns, 0, 2), one.proc, "fail", "commit", answered.at_ns,
                    org=one.commit.organization, agent=one.commit.agent or "", epoch=one.epoch,
                    key=answered.answer.reason, value=Written(one.commit),
                )  # fmt: skip

    # claims

    def _claims(self, landed: list[_Commit]) -> None:
        releases, ends = self._given_up()
        names = {did.key: did.value[0] for _, did in self.others if did.f == "register"}
        by_agent: dict[str, list[_Claim]] = defaultdict(list)
        for claim in self.claims:
            by_agent[claim.did.agent].append(claim)
        of_agent: dict[str, list[_Commit]] = defaultdict(list)
        for one in landed:
            if one.commit.agent and one.commit.fence:
                of_agent[one.commit.agent].append(one)
        for agent in by_agent.keys() | of_agent.keys():
            known = by_agent[agent]
            claims = self._with_lost(agent, known, of_agent[agent], releases)
            holder, after = "", Place(0)
            for claim in claims:
                until_ns = claim.did.ended_ns
                earlier = [
                    one.place
                    for one in of_agent[agent]
                    if one.epoch < claim.did.epoch and one.asked.at_ns <= until_ns and one.place
                ]
                given_up = [
                    Place(at_ns, 0, 3)
                    for at_ns in (
                        *releases[agent, holder],
                        *ends[holder],
                        *ends[names.get(holder, "")],
                    )
                    if at_ns <= until_ns and not claim.lost
                ]
                after = max(
                    after,
                    Place(claim.did.began_ns, 0, 2),
                    *(place._replace(rank=1) for place in earlier),
                    *given_up,
                )
                holder = claim.did.key
                self._claim(claim, after)

    def _claim(self, claim: _Claim, place: Place) -> None:
        did = claim.did
        self._add(
            place, claim.proc, "ok", "claim", did.ended_ns, org=split(did.agent)[0],
            agent=did.agent, key=did.key, epoch=did.epoch, ver=did.ver,
            value=did.ended_ns // MS,
        )  # fmt: skip

    def _given_up(self) -> tuple[_Releases, dict[str, list[int]]]:
        """When (agent, owner) was released; when an owner gave up, or its name was taken over."""
        releases: _Releases = defaultdict(list)
        ends: dict[str, list[int]] = defaultdict(list)
        for _, did in self.others:
            if did.f == "release":
                releases[did.agent, did.key].append(did.began_ns)
            elif did.f == "register":
                ends[did.value[0]].append(did.began_ns)
            elif did.f == "renew" and not did.value[1]:
                ends[did.key].append(did.began_ns)
        return releases, ends

    def _with_lost(
        self, agent: str, claims: list[_Claim], commits: list[_Commit], releases: _Releases
    ) -> list[_Claim]:
        """The claims of an agent by epoch, with those whose answer was lost."""
        known = {claim.did.epoch: claim for claim in claims}
        writers = {one.epoch: one for one in commits}
        last = max((*known, *writers), default=0)
        found = []
        until_ns = 1 << 62
        for epoch in range(last, 0, -1):
            claim = known.get(epoch)
            claim = claim or self._lost(agent, epoch, writers.get(epoch), until_ns, releases)
            if claim is not None:
                until_ns = claim.did.ended_ns
                found.append(claim)
        return found[::-1]

    def _lost(
        self, agent: str, epoch: int, writer: _Commit | None, until_ns: int, releases: _Releases
    ) -> _Claim | None:
        """The unanswered claim that can have been of this epoch.

        Who released the agent since had it; if nobody did, somebody whose lease was over
        when the next one claimed it; if there is nobody, it is the latest.
        """
        fitting = [
            (proc, did)
            for proc, did in self.lost
            if did.began_ns <= until_ns and (writer is None or proc == writer.proc)
        ]
        if not fitting:
            return None
        had_it = [
            (proc, did)
            for proc, did in fitting
            if any(did.began_ns <= at <= until_ns for at in releases.get((agent, did.key), ()))
        ]
        gone = [(proc, did) for proc, did in fitting if self.lapses[did.key] <= until_ns]
        proc, did = max(had_it or gone or fitting, key=lambda one: one[1].began_ns)
        made = replace(did, type="ok", agent=agent, epoch=epoch, ended_ns=until_ns)
        return _Claim(proc, made, lost=True)

    # the rest

    def _others(self) -> None:
        """Each where it says least: a lease ends early, and is prolonged late."""
        for proc, did in self.others:
            value = did.value
            prolonged = did.f == "renew" and value[1] > 0
            at_ns = did.ended_ns if prolonged else did.began_ns
            if did.f in ("register", "renew"):
                began_ms = did.began_ns // MS
                value = Lease(did.value[0], began_ms, began_ms + round(did.value[1] * 1000))
            self._add(
                Place(at_ns, 0, 2), proc, did.type, did.f, at_ns,
                agent=did.agent, key=did.key, value=value,
            )  # fmt: skip

    def _add(self, place: Place, proc: str, type: Any, f: str, t_ns: int, **fields: Any) -> None:
        place = place._replace(number=len(self.placed))
        self.placed.append((place, Fact(0, t_ns // MS, proc, type, f, **fields)))


def _numbered(facts: list[Fact], live: list[Fact]) -> list[Fact]:
    """Numbers them; what a subscriber says of places among the live facts is translated."""
    for i, fact in enumerate(facts):
        fact.i = i
    for fact in live:
        if isinstance(fact.value, Tailed):
            at = fact.value.asked_at
            fact.value.asked_at = live[at].i if at < len(live) else fact.i
    return facts
