"""From objections to one gate's result: the worst decides, the worst come first."""

from __future__ import annotations

from collections.abc import Sequence

from actors.gates.candidate import WORST_FIRST, Objection, worst
from actors.records import FINDINGS_MAX, GateResult


def result(gate: str, objections: Sequence[Objection], otherwise: str) -> GateResult:
    """The gate's result; `otherwise` is its message when there is no objection."""
    if not objections:
        return GateResult(gate=gate, verdict="passed", message=otherwise)
    ordered = sorted(objections, key=lambda item: WORST_FIRST.index(item.verdict))
    more = len(ordered) - 1
    first = ordered[0].finding
    message = f"{first.path}: {first.why}" if first.path else first.why
    if more:
        message += f" (and {more} more)"
    return GateResult(
        gate=gate,
        verdict=worst([item.verdict for item in ordered]),
        message=message,
        findings=tuple(item.finding for item in ordered[:FINDINGS_MAX]),
    )
