"""The table of a run: ours, the peers' and the ratio of the same round; pure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.plan import ROWS, Row

Json = Mapping[str, Any]
By = dict[int, float]
"""A figure by its round."""


def table(rows: Sequence[Json]) -> str:
    """Markdown: a line for each row of `plan.ROWS` that was measured."""
    lines = ["| work | ours | target | beside | ratio |", "|---|---|---|---|---|"]
    for row in ROWS:
        ours = figures(rows, row.case, row.metric)
        if not ours:
            continue
        beside = {peer: figures(rows, case, metric) for peer, (case, metric) in row.peers.items()}
        told = [f"{peer} {spread(found)}" for peer, found in beside.items() if found]
        ratios = [
            f"{peer} {spread(ratio)}x"
            for peer, found in beside.items()
            if (ratio := ratio_of(row, ours, found))
        ]
        lines.append(
            f"| {row.work} | {spread(ours)} | {row.target} | {'; '.join(told)} "
            f"| {'; '.join(ratios)} |"
        )
    return "\n".join(lines) + "\n"


def figures(rows: Sequence[Json], case: str, metric: str) -> By:
    """A metric of the case whose name begins so, and does not go on with a digit."""
    named = re.compile(re.escape(case) + r"(?!\d)")
    return {
        row["round"]: float(row["metrics"][metric])
        for row in rows
        if named.match(row["case"]) and row.get("metrics", {}).get(metric) is not None
    }


def ratio_of(row: Row, ours: By, peer: By) -> By:
    """How much better ours is, in the rounds that have both; above 1 is better."""
    both = ours.keys() & peer.keys()
    if row.less_is_better:
        return {number: peer[number] / ours[number] for number in both if ours[number]}
    return {number: ours[number] / peer[number] for number in both if peer[number]}


def spread(found: By) -> str:
    """The median, and the least and the most where there are several."""
    middle = short(statistics.median(found.values()))
    if len(found) == 1:
        return middle
    return f"{middle} ({short(min(found.values()))}-{short(max(found.values()))})"


def short(value: float) -> str:
    """Three figures that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
