"""The benchmark's table: ratios of one round, better is above one, nothing invented."""

from __future__ import annotations

from tests.benchmarks.plan import RESTATE, ROWS
from tests.benchmarks.table import figures, ratio_of, table

MESSAGES = next(row for row in ROWS if row.metric == "c64_msgs_s")
MILLISECONDS = next(row for row in ROWS if row.metric == "c64_p50_ms")


def run(round: int, case: str, **metrics: float) -> dict[str, object]:
    return {"round": round, "case": case, "metrics": metrics}


def test_a_ratio_is_of_the_same_round() -> None:
    """A slow hour of the machine would count for or against somebody."""
    rows = [
        run(1, "P1 troupe, one host", c64_msgs_s=10_000),
        run(1, f"{RESTATE} partitions)", c64_msgs_s=1_000),
        run(2, "P1 troupe, one host", c64_msgs_s=30_000),
        run(3, f"{RESTATE} partitions)", c64_msgs_s=100),
    ]
    ours = figures(rows, MESSAGES.case, "c64_msgs_s")
    peer = figures(rows, RESTATE, "c64_msgs_s")
    assert ratio_of(MESSAGES, ours, peer) == {1: 10.0}


def test_less_time_is_a_ratio_above_one() -> None:
    """A slower latency would be shown as an advantage."""
    assert ratio_of(MILLISECONDS, {1: 2.0}, {1: 8.0}) == {1: 4.0}


def test_what_was_not_measured_has_no_line() -> None:
    """A reader would take an empty cell for a zero."""
    told = table([run(1, "P1 troupe, one host", c64_msgs_s=20_000.0)])
    assert [line.split(" | ")[0] for line in told.splitlines()[2:]] == [f"| {MESSAGES.work}"]
    assert "| 20,000 | >= 20,000 |" in told


def test_no_figure_stands_in_the_table_twice() -> None:
    """Two lines of one figure said different things of the peer beside it."""
    assert len({(row.case, row.metric) for row in ROWS}) == len(ROWS)


def test_one_client_is_not_a_hundred() -> None:
    """A case whose number begins with another's would be taken for it."""
    rows = [run(1, "P5 clients=1", p50_ms=1.7), run(1, "P5 clients=100", p50_ms=3.1)]
    assert figures(rows, "P5 clients=1", "p50_ms") == {1: 1.7}
