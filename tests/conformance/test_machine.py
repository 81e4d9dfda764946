"""Random work on every store and on the model; at length by `troupe verify conformance`."""

from __future__ import annotations

import pytest

from runtime.verify.conformance.machine import run_machine

from .stores import STORES


@pytest.mark.parametrize("name", STORES)
def test_random_work_agrees_with_the_model(name: str) -> None:
    """A store would differ from the contract in a way that no single test names."""
    run_machine(STORES, name, runs=40, steps=30, derandomize=True)
