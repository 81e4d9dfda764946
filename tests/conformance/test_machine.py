"""Random work on every store and on the model: see `runtime.verify.conformance.machine`."""

from __future__ import annotations

import pytest

from runtime.verify.conformance.machine import run_machine

from .stores import STORES


@pytest.mark.parametrize("name", STORES)
def test_random_work_agrees_with_the_model(name: str) -> None:
    """A store would differ from the contract in a way that no single test names."""
    run_machine(STORES, name, runs=40, steps=30, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", STORES)
def test_much_random_work_agrees_with_the_model(name: str) -> None:
    """The same at length, and different each time."""
    run_machine(STORES, name, runs=200, steps=50, derandomize=False)
