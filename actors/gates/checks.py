"""Gates `lint` and `types`: what the repository's own checkers passed, they still pass.

The exit codes decide, on the base tree and on the final one, in the same
sandbox: findings that were there before are nobody's fault, and a command that
can't be run here is `unknown`, never green.  There is a gate for each command
that the policy names, and none for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from actors.gates.candidate import Candidate, CheckVerdict, Gate
from actors.records import GateFinding, GateResult

CHECKS: Final[Mapping[str, str]] = MappingProxyType({"lint": "linter", "types": "type checker"})
"""Key below `commands` of the policy, and name of the gate -> what it is called."""
NOT_RUN: Final = (126, 127)
"""Exit codes of a shell: the command is no program, or is not there."""


def check_gates(candidate: Candidate) -> list[tuple[str, Gate]]:
    """The gates of the checkers that the policy names."""
    commands = candidate.policy.commands
    return [(name, partial(_passes, name)) for name in CHECKS if getattr(commands, name)]


def _passes(name: str, candidate: Candidate) -> GateResult:
    before, after = candidate.checks_before.get(name), candidate.checks_after.get(name)
    what = f"the {CHECKS[name]}"
    if after is None or after.exit_code is None:
        message = f"{what} did not run to its end on the final tree"
        return GateResult(gate=name, verdict="unknown", message=message)
    if after.exit_code == 0:
        return GateResult(gate=name, verdict="passed", message=f"{what} finds nothing")
    return _red(name, before, after)


def _red(name: str, before: CheckVerdict | None, after: CheckVerdict) -> GateResult:
    said = f"the {CHECKS[name]} fails with exit code {after.exit_code}"
    if before is None or before.exit_code is None:
        message = f"{said}; on the base tree it did not run to its end"
        return GateResult(gate=name, verdict="unknown", message=message)
    if before.exit_code == 0:
        evidence = tuple(GateFinding(why=line) for line in after.last_lines)
        message = f"{said}, and passed before"
        return GateResult(gate=name, verdict="failed", message=message, findings=evidence)
    if before.exit_code in NOT_RUN:
        message = f"the {CHECKS[name]} can't be run here: exit code {before.exit_code}"
        return GateResult(gate=name, verdict="unknown", message=message)
    return GateResult(gate=name, verdict="passed", message=f"{said}, as it did before")
