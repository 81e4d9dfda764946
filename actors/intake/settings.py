"""What intake accepts: where repositories may be, and how many jobs run at once.

Roots and hosts are the department's, read once and the same way, so that
intake never accepts what an agent would then refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from actors.settings import HOSTS_DEFAULT, DepartmentSettings
from runtime.errors import SettingsError

JOBS_AT_ONCE_DEFAULT = 5


@dataclass(frozen=True)
class IntakeSettings:
    repository_roots: tuple[Path, ...] = ()
    """`TROUPE_REPOSITORY_ROOTS`, separated by `:`: directories whose repositories
    may be named by path. Empty: none may."""
    repository_hosts: tuple[str, ...] = HOSTS_DEFAULT
    """`TROUPE_REPOSITORY_HOSTS`, separated by `,`: hosts of https and ssh URLs."""
    jobs_at_once: int = JOBS_AT_ONCE_DEFAULT
    """`SCHEDULER_MAX_CONCURRENT`: what the estimated wait reckons with."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> IntakeSettings:
        """Read the variables that the fields name.

        Raises:
            SettingsError: a relative root, a number that is none or below one.
        """
        department = DepartmentSettings.from_env(env)
        text = env.get("SCHEDULER_MAX_CONCURRENT", "").strip() or str(JOBS_AT_ONCE_DEFAULT)
        if not text.isdecimal() or int(text) < 1:
            raise SettingsError(f"SCHEDULER_MAX_CONCURRENT must be a number above zero: {text!r}")
        return cls(department.repository_roots, department.repository_hosts, int(text))
