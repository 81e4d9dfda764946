"""Which schedules are near: the table looks at no more of its moments than it has to."""

from __future__ import annotations

import heapq

from hypothesis import given
from hypothesis import strategies as st

from runtime.plans.table import PlanTable

Times = st.integers(0, 60)


@given(st.sets(Times), Times)
def test_the_near_moments_are_those_of_the_heap_in_order(moments: set[int], until_ms: int) -> None:
    """A schedule would be prepared late, or the planner sleep over it."""
    table = PlanTable()
    for at_ms in moments:
        heapq.heappush(table._moments, at_ms)
    near, then_ms = table._near(until_ms)
    assert near == sorted(at_ms for at_ms in moments if at_ms <= until_ms)
    assert then_ms == min((at_ms for at_ms in moments if at_ms > until_ms), default=None)
