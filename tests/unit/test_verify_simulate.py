"""The simulation itself: it repeats, it counts, it fails when it should, and says why."""

from __future__ import annotations

import asyncio
import json

import pytest

from runtime.clock import ManualClock
from runtime.errors import StoreUnavailableError
from runtime.store.contract import Send
from runtime.store.memory import MemoryStore
from runtime.verify import __main__ as command
from runtime.verify.history import History, neighbours
from runtime.verify.loop import run
from runtime.verify.network import CALM as NO_FAULTS
from runtime.verify.network import Faults, Network, faulty
from runtime.verify.process import Process, task_factory
from runtime.verify.simulate import CALM, FLOORS, TROUBLE, Report, run_seed, simulate
from runtime.verify.simulate import run_seed_on_sqlite as on_sqlite
from runtime.verify.world import Plan
from tests.conformance.kit import accept, send

SHORT = Plan(duration_s=40.0)


def test_a_few_seeds_break_no_rule() -> None:
    """A change of the runtime could lose, double or reorder work under faults."""
    report = simulate(first=1, seeds=2)
    assert report.failed == [], "\n".join(report.failed[0].explain())
    assert report.too_little() == []


def test_without_trouble_no_rule_cries_wolf() -> None:
    """A rule that fails in fair weather would be blamed on the faults."""
    report = simulate(first=7, seeds=1, plan=CALM)
    assert report.failed == []
    assert report.counts["kills"] == report.counts["callsLostAfter"] == 0
    assert report.counts["turns"] > 250


def test_the_same_seed_makes_the_same_history_and_another_another() -> None:
    """A failing seed could not be looked at again."""
    first, again, other = (run_seed(seed, SHORT)[0].digest for seed in (5, 5, 6))
    assert first == again != other


def test_the_store_on_a_file_runs_on_virtual_time_too() -> None:
    """Only the memory store would be held against the rules, or its failures be seen once."""
    one, again = (on_sqlite(4, SHORT)[0] for _ in range(2))
    assert one.violations == []
    assert one.counts["turns"] > 50
    assert one.digest == again.digest


def test_a_run_that_did_too_little_fails() -> None:
    """A simulation in which nothing happens would pass for ever."""
    report = Report(first=1, seeds=2)
    for name, rate in FLOORS.items():
        report.counts[name] = int(rate * 2)
    assert report.good
    for name in ("kills", "staleCommitsRefused", "begunNotRecorded", "pollsDeaf", "turns"):
        report.counts[name] -= 1
        assert not report.good
        assert name in report.sentence()
        report.counts[name] += 1


def test_every_kind_of_fault_has_a_floor() -> None:
    """A fault that is never made any more would not be missed."""
    one, _ = run_seed(1, TROUBLE)
    faults = {name for name in one.counts if name in FLOORS}
    assert {"kills", "partitions", "freezes", "zombies", "callsTwice", "callsCut"} <= faults
    assert set(one.counts) - set(FLOORS) == {"messages", "commits", "calls"}


def test_a_failure_is_shown_with_what_was_around_it() -> None:
    """Whoever sees the figure would have to search the history."""
    history = History(lambda: 1)
    for number in range(40):
        agent = "a" if number % 10 == 0 else "b"
        history.add("p", "ok", "commit", agent=agent, key=f"k{number}")
    lines = neighbours(history.facts, 30)
    assert [line for line in lines if line.startswith("> ")] == ["> 30 0.001s p ok commit a k30"]
    assert "  0 0.001s p ok commit a k0" in lines
    assert len(lines) == 12


def test_the_command_fails_with_the_seed_and_the_reason(monkeypatch, capsys) -> None:
    """A broken runtime would pass a pipeline."""
    monkeypatch.setattr("runtime.hosting.activation.DELIVERIES_MAX", 1 << 30)
    assert command.main(["simulate", "--seeds", "3", "--json"]) == 1
    out, err = capsys.readouterr()
    figure = json.loads(out)
    assert figure["failedSeeds"] == [1]
    assert figure["violations"] > 0
    assert err.startswith("seed 1: I")
    assert "\n> " in err


# The line to the store


async def _line(faults: Faults, store: MemoryStore):
    asyncio.get_running_loop().set_task_factory(task_factory)
    process = Process("p#1", "seed")
    network = Network(store, History(), process.clock, "seed", faults)
    return process, network, network.connect(process)


def one_fault(**chance: float) -> Faults:
    return Faults(**{"lost_before": 0, "lost_after": 0, "twice": 0, "slow": 0, "deaf": 0, **chance})


@pytest.mark.parametrize(("fault", "there"), [("lost_before", False), ("lost_after", True)])
def test_an_unknown_outcome_is_one(fault, there) -> None:
    """Only one of the two ways a call is lost would be tried."""

    async def main() -> bool:
        store = MemoryStore(ManualClock())
        process, _, line = await _line(one_fault(**{fault: 1.0}), store)
        call = process.spawn(line.commit([accept(send("m1"))]))
        with pytest.raises(StoreUnavailableError):
            await call
        return bool(await store.inbox("acme/counter:a", 0, 9))

    assert run(main()) is there


def test_a_cut_line_answers_nothing_and_heals() -> None:
    """A partition would let calls through, or never end."""

    async def main() -> None:
        process, network, line = await _line(NO_FAULTS, MemoryStore(ManualClock()))
        network.lines["p#1"].cut = True
        with pytest.raises(StoreUnavailableError):
            await process.spawn(line.health())
        network.lines["p#1"].cut = False
        await process.spawn(line.health())

    run(main())


def test_what_a_dead_process_had_sent_may_still_arrive() -> None:
    """The zombie's last commit, on its way at the kill, would never be met."""

    async def main() -> int:
        store = MemoryStore(ManualClock())
        for number in range(40):
            process = Process(f"p#{number}", "seed")
            line = faulty(store, process, f"seed {number}", NO_FAULTS)
            process.spawn(line.commit([accept(send(f"m{number}"))]))
            await asyncio.sleep(0)
            process.kill()
            await asyncio.sleep(1)
        return len(await store.inbox("acme/counter:a", 0, 99))

    async def prepared() -> int:
        asyncio.get_running_loop().set_task_factory(task_factory)
        return await main()

    assert 5 < run(prepared()) < 35


def test_a_repeated_call_is_done_twice_and_a_deaf_poll_hears_nothing() -> None:
    """Duplicates and lost wake-ups would not be simulated."""

    async def main() -> tuple[list[str], float]:
        store = MemoryStore(ManualClock())
        process, network, line = await _line(one_fault(twice=1.0), store)
        await process.spawn(line.register("o1", "host-1", 10.0))
        seen = [fact.f for fact in network.history.facts]
        network.faults = one_fault(deaf=1.0)
        polling = process.spawn(line.poll("o1", 0, 9, 5.0))
        await asyncio.sleep(1)
        await store.claim("o1", 1, ["acme/counter:a"])
        await store.commit([accept(Send("m1", "acme/client:x", "acme/counter:a", b"{}"))])
        assert len((await polling).messages) == 1
        return seen, asyncio.get_running_loop().time()

    seen, at_s = run(main())
    assert seen == ["register", "register"]
    assert at_s > 5
