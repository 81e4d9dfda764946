"""Conformance: random work on every store and on a naive model of the contract.

    model     the contract once more, as an oracle
    stores    the stores, and how one is opened with small bounds
    draws     what is drawn: names, and commits that fit what the model says is there
    machine   the work, drawn by Hypothesis: what differs is shown on the shortest way there

Needs the extra `verify` (Hypothesis), and redis-server for the Redis store.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runtime.verify.chaos.redis import RedisProcess
from runtime.verify.report import Outcome, TooLittleError

STORES: Final = ("memory", "sqlite", "socket", "redis")


def conformance(stores: Sequence[str], runs: int, steps: int) -> Outcome:
    """Try each store in so many runs of so many steps.

    Raises:
        TooLittleError: Hypothesis, or redis-server, is not installed.
    """
    root = Path(tempfile.mkdtemp(prefix="troupe-conformance-"))
    server = RedisProcess(root / "redis")
    try:
        if "redis" in stores:
            server.start()
        return _tried(stores, runs, steps, server)
    finally:
        server.kill()
        shutil.rmtree(root)


def _tried(stores: Sequence[str], runs: int, steps: int, server: RedisProcess) -> Outcome:
    try:
        from runtime.verify.conformance.machine import run_machine  # noqa: PLC0415
    except ImportError as error:
        raise TooLittleError("Hypothesis is not installed: pip install 'troupe[verify]'") from error
    from runtime.verify.conformance.stores import openers  # noqa: PLC0415

    ways = openers(lambda: server.url)
    told = {}
    details = []
    for name in stores:
        try:
            done = run_machine(ways, name, runs, steps, derandomize=False)
            told[name] = {"runs": done["runs"], "calls": done["calls"], "divergences": 0}
        except AssertionError as error:
            told[name] = {"runs": 0, "calls": 0, "divergences": 1}
            details += [f"{name}: {error!r}", *getattr(error, "__notes__", ())]
    found = sum(one["divergences"] for one in told.values())
    figure = {
        "verification": "conformance", "stores": told, "stepsEach": steps, "divergences": found,
    }  # fmt: skip
    calls = sum(one["calls"] for one in told.values())
    sentence = f"{', '.join(stores)}: {calls} calls in {runs} runs of {steps} steps each, " + (
        "DIVERGENCES." if found else "every answer as the contract's model gives it."
    )
    return Outcome(figure, sentence, not found, details)
