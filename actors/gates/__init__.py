"""Gates: the deterministic review every change passes before anyone is asked.

`run_gates` looks at a candidate with each gate and answers the worst verdict:
`failed` (goes back to its author), `unknown` (a gate could not look; never
green), `needs_human` (a person is told what to look at) or `passed`.  Pure
functions, no model, no git; one gate a file.  They may take seconds on a large
change: call them off the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from actors.gates.candidate import (
    Candidate,
    Change,
    CheckVerdict,
    Gate,
    GateInputError,
    SuiteVerdict,
    UnscannableError,
    worst,
)
from actors.gates.checks import check_gates
from actors.gates.dependencies import dependencies
from actors.gates.filesystem import plain_files
from actors.gates.limits import not_empty, size
from actors.gates.protected import ci_files, protected_paths
from actors.gates.secrets import hidden_text, secrets
from actors.gates.suite import tests_pass
from actors.gates.trees import make_candidate, read_policy
from actors.gates.weakened import tests_not_weakened
from actors.records import GateFinding, GateReport, GateResult

logger = logging.getLogger(__name__)

GATES: Final[tuple[tuple[str, Gate], ...]] = (
    ("patch", not_empty),
    ("tests", tests_pass),
    ("no_weakened_tests", tests_not_weakened),
    ("protected_paths", protected_paths),
    ("ci", ci_files),
    ("dependencies", dependencies),
    ("secrets", secrets),
    ("hidden_text", hidden_text),
    ("files", plain_files),
    ("size", size),
)
"""Of every candidate, in the order in which they are reported."""


def run_gates(candidate: Candidate, gates: Sequence[tuple[str, Gate]] = GATES) -> GateReport:
    """Look at a candidate with every gate; one that fails to look is `unknown`.

    After `gates` come those of the checkers that the repository's policy names.
    """
    looking = (*gates, *check_gates(candidate))
    results = tuple(_run(name, gate, candidate) for name, gate in looking)
    return GateReport(verdict=worst([item.verdict for item in results]), results=results)


def _run(name: str, gate: Gate, candidate: Candidate) -> GateResult:
    try:
        return gate(candidate)
    except GateInputError as error:
        return GateResult(gate=name, verdict="unknown", message=str(error))
    except Exception as error:  # the change is hostile input: no mistake of ours may let it through
        logger.exception("A gate broke.", extra={"action": "gate.broken", "gate": name})
        message = f"the gate itself broke: {type(error).__name__}"
        return GateResult(gate=name, verdict="unknown", message=message)


__all__ = [
    "GATES",
    "Candidate",
    "Change",
    "CheckVerdict",
    "Gate",
    "GateFinding",
    "GateInputError",
    "GateReport",
    "GateResult",
    "SuiteVerdict",
    "UnscannableError",
    "make_candidate",
    "read_policy",
    "run_gates",
]
