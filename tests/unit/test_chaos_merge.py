"""One history out of what many processes noted: true where nobody heard the answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.clock import ManualClock
from runtime.errors import StoreUnavailableError
from runtime.store.contract import Ack, Commit, Event, Fence, Send
from runtime.store.memory import MemoryStore
from runtime.store.through import Through
from runtime.verify.chaos.merge import merge
from runtime.verify.chaos.notes import Did, Notes, read_notes
from runtime.verify.chaos.reading import marks
from runtime.verify.chaos.report import contradictions
from runtime.verify.chaos.watch import Watch
from runtime.verify.history import Fact, History
from runtime.verify.invariants import violations
from runtime.verify.reader import read_everything

A, B = "acme/thing:0", "acme/thing:1"
LEASE_S = 3.0


class Deaf(Through):
    """A store whose next answer is lost."""

    lose = False

    async def commit(self, commits):
        answers = await super().commit(commits)
        if self.lose:
            self.lose = False
            raise StoreUnavailableError("no answer")
        return answers

    async def release(self, owner, agents):
        await super().release(owner, agents)
        if self.lose:
            self.lose = False
            raise StoreUnavailableError("no answer")

    async def claim(self, owner, limit, agents=None):
        claimed = await super().claim(owner, limit, agents)
        if self.lose:
            self.lose = False
            raise StoreUnavailableError("no answer")
        return claimed


class Scene:
    """Two processes that note, over one store."""

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(1_000_000)
        self.store = MemoryStore(self.clock)
        self.folder = root / "notes"
        self.deaf = [Deaf(self.store), Deaf(self.store)]
        self.watches = [Watch(one, self.notes()) for one in self.deaf]
        self.fence = Fence("", 0)

    def notes(self) -> Notes:
        return Notes(self.folder, lambda: self.clock.now_ms() * 1_000_000)

    async def claimed(self, who: int = 0, agent: str = A) -> None:
        owner = f"host-{who}/1"
        incarnation = await self.watches[who].register(owner, f"host-{who}", LEASE_S)
        [one] = await self.watches[who].claim(owner, 1, [agent])
        self.fence = Fence(incarnation, one.epoch)

    async def lose_claim(self, who: int, agent: str) -> None:
        """One that nobody answers."""
        owner = f"host-{who}/1"
        self.clock.advance(0.1)
        self.deaf[who].lose = True
        with pytest.raises(StoreUnavailableError):
            await self.watches[who].claim(owner, 1, [agent])

    async def lose_two_claims(self) -> None:
        """Host 0 gives A up and takes it again, and then host 1 takes B; neither is answered."""
        await self.watches[0].release("host-0/1", [A])
        await self.watches[1].register("host-1/1", "host-1", LEASE_S)
        for who, agent in ((0, A), (1, B)):
            await self.lose_claim(who, agent)

    async def send(self, id: str) -> None:
        await self.watches[0].commit([Commit("acme", sends=(Send(id, "acme/client:x", A, b"{}"),))])

    def turn(self, id: str, version: int) -> Commit:
        event = Event("changed", b'{"patch":[["set",["n"],1]]}')
        return Commit(
            "acme", A, self.fence, version, acks=(Ack(id),), events=(event,),
            sends=(Send(f"{id}-on", A, B, b"{}"),),
        )  # fmt: skip

    async def history(self) -> list[Fact]:
        history = History()
        history.facts = merge(read_notes(self.folder), await marks(self.store), [])
        await read_everything(self.store, history)
        return history.facts


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    await made.claimed()
    return made


def rules(facts: list[Fact]) -> set[str]:
    """Those that are broken; messages of these scenes may wait."""
    found = [*violations(facts), *contradictions(facts)]
    return {one.rule for one in found if "still queued" not in one.text}


async def test_a_commit_whose_answer_was_lost_is_in_the_history(scene: Scene) -> None:
    """A kill between commit and answer would look like a state from nowhere."""
    await scene.send("m1")
    scene.deaf[0].lose = True
    with pytest.raises(StoreUnavailableError):
        await scene.watches[0].commit([scene.turn("m1", 0)])
    facts = await scene.history()
    [turn] = [fact for fact in facts if fact.f == "commit" and fact.agent == A]
    assert (turn.type, turn.ver) == ("ok", 1)
    assert rules(facts) == set()


async def test_a_commit_that_was_answered_and_is_gone_is_found(scene: Scene) -> None:
    """A store that loses what it said was durable would pass."""
    await scene.send("m1")
    await scene.watches[0].commit([scene.turn("m1", 0)])
    facts = await scene.history()
    assert rules(facts) == set()
    scene.store = MemoryStore(scene.clock)  # everything is lost
    assert {"I7", "I14"} <= rules(await scene.history())


async def test_a_claim_whose_answer_was_lost_explains_the_epoch_it_took(scene: Scene) -> None:
    """Epochs would seem to jump with each host that dies while it claims."""
    scene.clock.advance(10)
    await scene.watches[1].register("host-1/1", "host-1", LEASE_S)
    scene.deaf[1].lose = True
    with pytest.raises(StoreUnavailableError):
        await scene.watches[1].claim("host-1/1", 1, [A])
    scene.clock.advance(10)
    await scene.watches[1].register("host-1/2", "host-1", LEASE_S)
    await scene.watches[1].claim("host-1/2", 1, [A])
    epochs = [fact.epoch for fact in await scene.history() if fact.f == "claim"]
    assert epochs == [1, 2, 3]


async def test_a_claim_whose_answer_was_lost_is_of_who_let_the_agent_go(scene: Scene) -> None:
    """Another host's claim that was lost a moment later would seem to have taken the agent."""
    await scene.lose_two_claims()
    scene.clock.advance(0.1)
    await scene.watches[0].release("host-0/1", [A])
    scene.clock.advance(0.1)
    await scene.watches[0].claim("host-0/1", 1, [A])
    facts = await scene.history()
    assert rules(facts) == set()
    owners = [(fact.key, fact.epoch) for fact in facts if fact.f == "claim" and fact.agent == A]
    assert owners == [("host-0/1", 1), ("host-0/1", 2), ("host-0/1", 3)]


async def test_a_claim_whose_answer_was_lost_is_of_a_host_that_is_gone(scene: Scene) -> None:
    """Another host's claim that was lost later would seem to hold the agent."""
    await scene.lose_two_claims()
    scene.clock.advance(LEASE_S / 2)
    await scene.watches[1].renew("host-1/1", LEASE_S)
    scene.clock.advance(LEASE_S / 2)  # host 0 has not renewed its own
    third = Watch(Through(scene.store), scene.notes())
    await third.register("host-2/1", "host-2", LEASE_S)
    await third.claim("host-2/1", 1, [A])
    facts = await scene.history()
    assert rules(facts) == set()
    owners = [(fact.key, fact.epoch) for fact in facts if fact.f == "claim" and fact.agent == A]
    assert owners == [("host-0/1", 1), ("host-0/1", 2), ("host-2/1", 3)]


async def test_a_host_that_was_gone_before_cannot_have_had_the_agent(scene: Scene) -> None:
    """Its lost claim would hide that the agent was taken from a holder with a lease."""
    await scene.watches[0].release("host-0/1", [A])
    await scene.watches[1].register("host-1/1", "host-1", LEASE_S)
    await scene.lose_claim(1, B)
    scene.clock.advance(LEASE_S)
    await scene.claimed(0)
    scene.clock.advance(0.1)
    await scene.watches[0].release("host-0/1", [A])
    scene.clock.advance(0.1)
    deaf = Deaf(scene.store)
    deaf.lose = True
    third = Watch(deaf, scene.notes())
    await third.register("host-2/1", "host-2", LEASE_S)
    with pytest.raises(StoreUnavailableError):
        await third.claim("host-2/1", 1, [A])
    scene.clock.advance(0.1)
    await scene.store.release("host-2/1", [A])  # a store that lets go by itself
    await scene.claimed(0)
    assert rules(await scene.history()) == {"I4"}


async def test_a_release_whose_answer_was_lost_gives_the_agent_up(scene: Scene) -> None:
    """Whoever takes the agent next would seem to have taken it from a holder with a lease."""
    scene.deaf[0].lose = True
    with pytest.raises(StoreUnavailableError):
        await scene.watches[0].release("host-0/1", [A])
    await scene.claimed(1)
    assert rules(await scene.history()) == set()


async def test_an_agent_taken_from_a_holder_with_a_lease_is_found(scene: Scene) -> None:
    """Two hosts would work on one agent by turns, each throwing the other's work away."""
    await scene.store.release("host-0/1", [A])  # a store that lets go by itself
    await scene.claimed(1)
    assert rules(await scene.history()) == {"I4"}


async def test_an_agent_taken_when_its_holders_lease_was_given_up_is_none(scene: Scene) -> None:
    """Every kill of a host would be a false alarm: its lease ends with its connection."""

    class Slow(Through):
        """Another process claims before the answer is noted."""

        async def renew(self, owner: str, lease_s: float) -> bool:
            known = await super().renew(owner, lease_s)
            scene.clock.advance(0.001)
            await scene.claimed(1)
            scene.clock.advance(0.001)
            return known

    scene.clock.advance(0.001)
    await Watch(Slow(scene.store), scene.notes()).renew("host-0/1", 0.0)
    assert rules(await scene.history()) == set()


async def test_a_jump_that_no_claim_explains_is_found(scene: Scene) -> None:
    """A store that gives epochs out of turn would pass."""
    scene.clock.advance(10)
    await scene.store.register("host-9/1", "host-9", LEASE_S)
    await scene.store.claim("host-9/1", 1, [A])  # by somebody who is not watched
    await scene.store.register("host-9/2", "host-9", LEASE_S)
    await scene.watches[1].register("host-1/1", "host-1", LEASE_S)
    await scene.store.release("host-9/1", [A])
    await scene.watches[1].claim("host-1/1", 1, [A])
    assert "I4" in rules(await scene.history())


async def test_a_stale_commit_that_was_taken_is_found(scene: Scene) -> None:
    """A store without a fence would pass."""
    await scene.send("m1")
    stale = scene.turn("m1", 0)
    scene.clock.advance(10)
    await scene.claimed(1)
    [refused] = await scene.watches[0].commit([stale])
    assert refused.reason == "stale_epoch"
    assert rules(await scene.history()) == set()
    await scene.store.release("host-1/1", [A])
    scene.notes().write(Did("claim", "ok", 1 << 60, 1 << 60, agent=A, key="host-2/1", epoch=2))
    await scene.watches[0].commit([scene.turn("m1", 0)])
    assert "I4" in rules(await scene.history())


async def test_a_refused_commit_of_which_something_is_there_is_found(scene: Scene) -> None:
    """A store that refuses and writes all the same would pass."""
    await scene.send("m1")
    await scene.watches[0].commit([scene.turn("m1", 0)])
    facts = merge(
        [
            (proc, note if not hasattr(note, "answer") else refused(note))
            for proc, note in read_notes(scene.folder)
        ],
        await marks(scene.store),
        [],
    )
    assert "I7" in rules(facts)


def refused(note):
    from msgspec.structs import replace

    from runtime.store.contract import Refused

    return replace(note, answer=Refused("stale_epoch"))


def test_a_note_that_a_kill_has_cut_off_is_left_out(tmp_path: Path) -> None:
    """One process killed in mid-word would make the whole run unreadable."""
    notes = Notes(tmp_path / "notes")
    notes.did("run", "invoke", 1, key="job_1", value="r")
    file = tmp_path / "notes" / notes.proc
    with file.open("ab") as half:
        half.write(b"\xff\x00\x00\x00half")
    [(proc, note)] = list(read_notes(tmp_path / "notes"))
    assert (proc, note.key) == (notes.proc, "job_1")
