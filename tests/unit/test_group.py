"""Group commit: what goes in one call to the store, and how many calls there are at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from runtime.errors import StoreError, StoreUnavailableError
from runtime.group import TOLD_TOGETHER, GroupCommitter
from runtime.store.contract import Commit, Committed, Put, Refused
from runtime.store.memory import MemoryStore
from runtime.verify.loop import LoopClock, run


class Slow(MemoryStore):
    """Notes the sizes of the calls, and how many were open at the most."""

    def __init__(self) -> None:
        super().__init__(LoopClock(asyncio.get_running_loop()))
        self.sizes: list[int] = []
        self.open = self.most = 0

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        self.sizes.append(len(commits))
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(1)
        self.open -= 1
        return await super().commit(commits)


async def sizes_of(commits: int, abreast: int, together: int) -> tuple[list[int], int]:
    store = Slow()
    group = GroupCommitter(store, abreast, together)
    answers = []
    for _ in range(commits):
        answers.append(group.commit(Commit("acme")))
        await asyncio.sleep(0)
    assert all(isinstance(answer, Committed) for answer in await asyncio.gather(*answers))
    # whoever comes as the last call ends is written too
    assert isinstance(await group.commit(Commit("acme")), Committed)
    await group.close()
    return store.sizes, store.most


def test_calls_have_the_size_and_the_number_that_they_may_have() -> None:
    """A burst of schedules would go as one call, and nothing be done before all of it was."""
    assert run(sizes_of(11, 2, 4)) == ([1, 1, 4, 4, 1, 1], 2)


def test_one_call_at_a_time_takes_all_that_has_gathered() -> None:
    """Hosts and the store would answer each other in ever smaller pieces."""
    assert run(sizes_of(11, 1, 1_000)) == ([1, 10, 1], 1)


class Gate(MemoryStore):
    """Answers no commit before it is opened."""

    def __init__(self) -> None:
        super().__init__(LoopClock(asyncio.get_running_loop()))
        self.opened = asyncio.Event()

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        await self.opened.wait()
        return await super().commit(commits)


async def _told_together() -> list[int]:
    store, told = Gate(), list[int]()
    group = GroupCommitter(store, abreast=2, together=TOLD_TOGETHER + 1)
    answers = [group.commit(Commit("acme")) for _ in range(2 * TOLD_TOGETHER + 2)]
    for number, answer in enumerate(answers):
        answer.add_done_callback(lambda _, number=number: told.append(number))  # type: ignore[misc]
    await asyncio.sleep(1)
    store.opened.set()
    await asyncio.gather(*answers)
    await group.close()
    return told


def test_answers_of_two_calls_come_in_their_order() -> None:
    """A host would think that an agent's earlier message is its latest, and let one overtake it."""
    told = run(_told_together())
    assert told == list(range(2 * TOLD_TOGETHER + 2))


class Picky(MemoryStore):
    """Fails at what it does not expect, as a codec does."""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        for put in [put for commit in commits for put in commit.puts]:
            if not isinstance(put.expect, int):
                raise TypeError("no way to write this")
            put.expect.to_bytes(8, signed=True)
        return await super().commit(commits)


async def _beside(bad: Put) -> list[Committed | Refused | BaseException]:
    group = GroupCommitter(Picky(LoopClock(asyncio.get_running_loop())))
    puts = (Put("c", "first", "acme", b""), bad, Put("c", "last", "acme", b""))
    answers = [group.commit(Commit("acme", puts=(put,))) for put in puts]
    async with asyncio.timeout(1):
        found = await asyncio.gather(*answers, return_exceptions=True)
    assert isinstance(await group.commit(Commit("acme")), Committed)
    await group.close()
    return found


@pytest.mark.parametrize("expect", [object(), 1 << 70])
def test_a_commit_that_a_store_fails_at_fails_alone(expect: int) -> None:
    """One agent's nonsense would leave everybody of its host waiting for ever."""
    first, bad, last = run(_beside(Put("c", "bad", "acme", b"", (), expect)))
    assert isinstance(first, Committed) and isinstance(last, Committed)
    assert isinstance(bad, StoreError)


class Unavailable(MemoryStore):
    """Can't take the next commits, for these reasons."""

    def __init__(self, *why: str) -> None:
        super().__init__(LoopClock(asyncio.get_running_loop()))
        self.why = list(why)

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        if self.why and (why := self.why.pop(0)):
            raise StoreUnavailableError(why)
        return await super().commit(commits)


def test_why_commits_are_held_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Every host would fill the log twice a second, and of a full store say that it is silent."""

    async def held() -> None:
        group = GroupCommitter(Unavailable("no answer", "no answer", "full", "", "full", "full"))
        for _ in range(2):
            assert isinstance(await group.commit(Commit("acme")), Committed)
        await group.close()

    run(held())
    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert len(told) == 3
    assert [why in line for why, line in zip(("no answer", "full", "full"), told, strict=True)]
