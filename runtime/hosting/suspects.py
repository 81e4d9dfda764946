"""Suspects: what a host may have died of, and when it has killed enough of them.

A message whose handler ends the process, or whose job's run does, would be
claimed anew after each death for ever, and take everybody else of its host
along each time.  So an activation whose agent was left behind by its last
holder (`abandoned`) marks what that one can have been at, before it begins
with it under its own epoch:

    document  (`suspect`, recipient's address/message id) -> Mark

Messages are handled in their order, so that can only be the first in line and
the first run of a job before it: what waits behind, and an agent without
messages, is never suspected.  A mark of the epoch just before, found after
another death, says that this host, too, died while it was at the message.  The
third death ends it.

Hosts die of other things, and of other messages.  So what has two deaths to its
name is held back for HOLD_S and begun while nothing else like it is under way
in its host; a host that dies without having begun with it takes one death off
it again.  And a run that has recorded a step since the last death is suspected
anew.  What is asked and handled before it is accepted leaves nothing to mark, so
for HOLD_S an agent that was left behind has everything accepted first.  Who was
not left behind by a dead host pays nothing for any of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from runtime.errors import InvalidMessageError
from runtime.ids import SCHEDULER, split
from runtime.jobs.writer import LostError
from runtime.message import Message
from runtime.patience import patiently
from runtime.store.contract import FeedEvent, Put, Refused, StoredMessage
from runtime.turn import feed_event

if TYPE_CHECKING:
    from runtime.hosting.activation import Activation

COLLECTION: Final = "suspect"
REASON: Final = "killed_its_host"
"""Of the dead letter, and of the job that has failed so."""
DEATHS_MAX: Final = 3
"""Hosts that may die of one message."""
HOLD_S = 30.0
"""How long a host must have lived without what has two deaths to its name."""
ALONE_S: Final = 60.0
"""No suspect keeps the others waiting for longer."""
CUTS_MAX: Final = 16
"""Cuts of one run that are kept, the latest."""


class Mark(msgspec.Struct, frozen=True):
    """What is known of one suspect."""

    deaths: int
    """Hosts that have died, as far as is known, while they were at it."""
    epoch: int
    """The one under which it was begun last."""
    results: int = 0
    """Steps of the run that had a result by then."""
    cuts: tuple[int, ...] = ()
    """When a run that had begun was taken up again, in ms."""
    incarnation: str = ""
    """Of the store, under which the epoch is."""

    @property
    def is_enough(self) -> bool:
        return self.deaths >= DEATHS_MAX

    @property
    def error(self) -> str:
        return f"{REASON}: {self.deaths} hosts have died while they were at it"


def judged(known: Mark | None, epoch: int, results: int, incarnation: str = "") -> Mark:
    """What is to be thought of a suspect under `epoch`; the same as before under the same one.

    A new incarnation of the store has fenced everybody, and says of no host that it has died.
    """
    if known is None:
        return Mark(1, epoch, results, incarnation=incarnation)
    if known.epoch == epoch:
        return known
    if results > known.results:
        return replace(known, deaths=1, epoch=epoch, results=results, incarnation=incarnation)
    if known.incarnation != incarnation:
        return replace(known, epoch=epoch, incarnation=incarnation)
    died_of_it = known.epoch == epoch - 1
    deaths = known.deaths + 1 if died_of_it else max(1, known.deaths - 1)
    return replace(known, deaths=deaths, epoch=epoch)


def first_in_line(inbox: Iterable[StoredMessage]) -> frozenset[int]:
    """Seqs of what a holder can have been at: the first message, and a run that goes before it."""
    found: list[int] = []
    for stored in inbox:
        runs = job_of(stored) is not None
        if not (runs and found):
            found.append(stored.seq)
        if not runs:
            break
    return frozenset(found)


def job_of(stored: StoredMessage) -> str | None:
    """Id of the job whose run a message is; None: it is no run."""
    if stored.sender != SCHEDULER:
        return None
    try:
        message = Message.from_json(stored.body)
    except InvalidMessageError:
        return None
    return str(message.content["jobId"]) if message.message_type == "job.run" else None


class Suspects:
    """Of one activation, whose agent was left by a holder that is gone."""

    def __init__(self, activation: Activation, seqs: frozenset[int]) -> None:
        self._activation = activation
        self._seqs = seqs
        self._marked: set[int] = set()
        self._accepts_first_until_s = asyncio.get_running_loop().time() + HOLD_S

    @property
    def accept_first(self) -> bool:
        """Whether what is asked must be accepted before it is handled: it may be the suspect."""
        return asyncio.get_running_loop().time() < self._accepts_first_until_s

    def __contains__(self, stored: StoredMessage) -> bool:
        return stored.seq in self._seqs

    @asynccontextmanager
    async def begun(
        self, stored: StoredMessage, results: int = 0, has_run: bool = False
    ) -> AsyncIterator[Mark | None]:
        """During the block the message is being handled, and the store knows so.

        It gives the mark, which is enough when nothing may be begun any more;
        None: the message is no suspect.

        Args:
            results: steps of the run that have a result.
            has_run: the last holder is known to have begun with it.

        Raises:
            LostError: somebody else has the agent.
        """
        if stored not in self:
            yield None
            return
        known = await self._known(stored)
        fence = self._activation.fence
        mark = judged(known, fence.epoch, results, fence.incarnation)
        if mark is not known and (has_run or (known and mark.deaths > known.deaths)):
            now_ms = self._activation.host.clock.now_ms()
            mark = replace(mark, cuts=(*mark.cuts, now_ms)[-CUTS_MAX:])
        if mark.is_enough:
            self._marked.add(stored.seq)
            yield mark
        elif mark.deaths == 1:
            await self._write(stored, mark)
            yield mark
        else:
            if stored.seq not in self._marked:
                await asyncio.sleep(HOLD_S)
            async with alone(self._activation.host.alone):
                await self._write(stored, mark)
                yield mark

    def settled(self, stored: StoredMessage) -> tuple[Put, ...]:
        """What goes with the commit by which a message leaves the inbox."""
        if stored.seq not in self._marked:
            return ()
        return (Put(COLLECTION, self._key(stored), self._activation.organization, None),)

    def told(self, stored: StoredMessage, mark: Mark, job_id: str | None = None) -> FeedEvent:
        """The event by which everybody learns that a suspect is given up."""
        now_ms = self._activation.host.clock.now_ms()
        return quarantined(self._activation.address, stored.message_id, mark, now_ms, job_id)

    def _key(self, stored: StoredMessage) -> str:
        return f"{self._activation.address}/{stored.message_id}"

    async def _known(self, stored: StoredMessage) -> Mark | None:
        store, key = self._activation.host.store, self._key(stored)
        document = await patiently(store.get, COLLECTION, key)
        return msgspec.json.decode(document.body, type=Mark) if document is not None else None

    async def _write(self, stored: StoredMessage, mark: Mark) -> None:
        if stored.seq in self._marked:
            return
        organization, agent_id = split(self._activation.address)
        body, terms = msgspec.json.encode(mark), (f"agent={agent_id}",)
        put = Put(COLLECTION, self._key(stored), organization, body, terms)
        answer = await self._activation.write(puts=(put,))
        if isinstance(answer, Refused):
            raise LostError(f"{answer.reason} {answer.detail}")
        self._marked.add(stored.seq)


def quarantined(
    agent: str, message_id: str, mark: Mark, now_ms: int, job_id: str | None = None
) -> FeedEvent:
    """`agent:quarantined` of a message, or of a job's run, of the agent with an address."""
    organization, agent_id = split(agent)
    rooms, data = [f"agent:{agent_id}"], {"agentId": agent_id, "messageId": message_id}
    data["error"] = mark.error
    if job_id is not None:
        data["jobId"] = job_id
        rooms.append(f"job:{job_id}")
    return feed_event(organization, "agent:quarantined", data, tuple(rooms), now_ms)


@asynccontextmanager
async def alone(lock: asyncio.Lock) -> AsyncIterator[None]:
    """Hold the lock during the block, though no longer than ALONE_S."""
    await lock.acquire()
    held = True

    def let_go() -> None:
        nonlocal held
        if held:
            held = False
            lock.release()

    timer = asyncio.get_running_loop().call_later(ALONE_S, let_go)
    try:
        yield
    finally:
        timer.cancel()
        let_go()
