"""Virtual time and simulated processes: what a kill, a freeze and a step of the clock do."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.verify.loop import EPOCH_MS, LoopClock, StalledError, run
from runtime.verify.process import Process, current, task_factory

ROOT = Path(__file__).resolve().parents[2]


def simulated(main) -> object:
    """Run `main()` on a virtual loop with processes."""

    async def prepared():
        asyncio.get_running_loop().set_task_factory(task_factory)
        return await main()

    return run(prepared())


def test_a_day_passes_at_once() -> None:
    """A simulation would wait for its timeouts."""

    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert simulated(main) == pytest.approx(86_400)
    assert time.monotonic() - began < 5


def test_timers_fire_in_their_order_and_together() -> None:
    """Things would happen in another order than in real time."""

    async def main() -> list[str]:
        seen: list[str] = []

        async def later(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append(name)

        await asyncio.gather(later("c", 3), later("a", 1), later("b", 1), later("d", 3.5))
        return seen

    assert simulated(main) == ["a", "b", "c", "d"]


def test_waiting_for_nothing_is_an_error() -> None:
    """A deadlock in the code under test would hang the verification."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StalledError):
        simulated(main)


def test_a_clock_can_be_wrong_and_be_set() -> None:
    """Clock steps could not be simulated."""

    async def main() -> list[int]:
        clock = LoopClock(asyncio.get_running_loop(), offset_ms=-5)
        await asyncio.sleep(1)
        before = clock.now_ms()
        clock.step(-10)
        return [before - EPOCH_MS, clock.now_ms() - EPOCH_MS]

    assert simulated(main) == [995, -9_005]


def test_nothing_of_a_killed_process_runs_on() -> None:
    """A kill that runs `finally` would be an orderly end, and find nothing."""

    async def main() -> list[str]:
        seen: list[str] = []
        process = Process("p#1", "seed")

        async def work() -> None:
            try:
                seen.append("begun")
                await asyncio.sleep(1)
                seen.append("went on")
            finally:
                seen.append("finally")

        async def cancels() -> None:
            task = asyncio.create_task(work())
            try:
                await asyncio.sleep(0.5)
                task.cancel()
                await asyncio.sleep(9)
            except BaseException:
                seen.append("caught")
                raise

        process.spawn(work())
        process.spawn(cancels())
        await asyncio.sleep(0.2)
        process.kill()
        await asyncio.sleep(5)
        seen.append("end")
        process.bury()
        return [one for one in seen[: seen.index("end")]]

    assert simulated(main) == ["begun", "begun"]


def test_a_process_dies_between_two_steps() -> None:
    """Only kills at rest would be tried: when every task waits for the store or the clock."""

    async def main() -> int:
        process = Process("p#1", "seed")
        steps = []

        async def work() -> None:
            while True:
                steps.append(1)
                await asyncio.sleep(0)

        process.steps_left = 4
        process.spawn(work())
        await asyncio.sleep(1)
        assert not process.alive
        process.bury()
        return len(steps)

    assert simulated(main) == 3


def test_a_process_can_die_where_it_stands() -> None:
    """Crash points inside a process's own call could not be met."""

    async def main() -> list[str]:
        process = Process("p#1", "seed")
        seen = []

        async def work() -> None:
            seen.append("before")
            await process.end_here()
            seen.append("after")

        process.spawn(work())
        await asyncio.sleep(1)
        process.bury()
        return seen

    assert simulated(main) == ["before"]


def test_a_frozen_process_goes_on_as_if_nothing_had_been() -> None:
    """SIGSTOP would lose what came meanwhile, or let it be handled before its time."""

    async def main() -> list[object]:
        loop, seen = asyncio.get_running_loop(), []
        process = Process("p#1", "seed")

        async def work() -> None:
            for _ in range(3):
                await asyncio.sleep(1)
                seen.append(loop.time())
            try:
                async with asyncio.timeout(2):
                    await asyncio.Event().wait()
            except TimeoutError:
                seen.append(("timed out", loop.time()))

        process.spawn(work())
        await asyncio.sleep(1.5)
        process.freeze()
        await asyncio.sleep(8.5)
        process.thaw()
        await asyncio.sleep(2.5)
        process.freeze()
        await asyncio.sleep(5)
        process.thaw()
        await asyncio.sleep(1)
        process.bury()
        return seen

    assert simulated(main) == [1, 10, 11, ("timed out", 17.5)]


def test_tasks_belong_to_the_process_that_made_them() -> None:
    """A kill would miss what a process has begun, or hit what it only called."""

    async def main() -> list[object]:
        one, two = Process("one#1", "seed"), Process("two#1", "seed")
        seen = []

        async def inner() -> None:
            await asyncio.sleep(0)
            seen.append(current())

        async def outer() -> None:
            await asyncio.create_task(inner())
            await two.spawn(inner())

        await one.spawn(outer())
        await asyncio.create_task(inner())
        return [process and process.name for process in seen]

    assert simulated(main) == ["one#1", "two#1", None]


DIGEST = """
from runtime.verify.simulate import run_seed
from runtime.verify.world import Plan
print(run_seed(3, Plan(duration_s=30))[0].digest)
"""


def test_the_same_seed_makes_the_same_history_in_any_process() -> None:
    """A failing seed would not fail again: order would hang on hashes or addresses."""
    digests = [
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1] != ""


def test_what_a_run_leaves_unfinished_is_thrown_away_without_a_word(caplog) -> None:
    """Each killed process would be reported at some later test's end as a forgotten task."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(task_factory)
        process = Process("p#1", "seed")
        process.spawn(asyncio.sleep(1000))
        await asyncio.sleep(1)
        process.kill()

    run(main())
    gc.collect()
    assert caplog.text == ""
