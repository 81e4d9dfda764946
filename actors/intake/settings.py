"""What intake accepts: where repositories may be, and how many jobs run at once.

Roots and hosts are the department's, read once and the same way, so that
intake never accepts what an agent would then refuse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actors.settings import HOSTS_DEFAULT, DepartmentSettings
from runtime.errors import SettingsError

JOBS_AT_ONCE_DEFAULT = 5
DIGITS_MAX = 20


@dataclass(frozen=True)
class IntakeSettings:
    repository_roots: tuple[Path, ...] = ()
    """`TROUPE_REPOSITORY_ROOTS`, separated by `:`: directories whose repositories
    may be named by path. Empty: none may."""
    repository_hosts: tuple[str, ...] = HOSTS_DEFAULT
    """`TROUPE_REPOSITORY_HOSTS`, separated by `,`: hosts of https and ssh URLs."""
    jobs_at_once: int = JOBS_AT_ONCE_DEFAULT
    """`SCHEDULER_MAX_CONCURRENT`: what the estimated wait reckons with."""
    github_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`TROUPE_GITHUB_SECRETS`, JSON: organization -> the secret of its webhooks."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> IntakeSettings:
        """Read the variables that the fields name.

        Raises:
            SettingsError: a relative root, a number that is none or below one, secrets
                that are none.
        """
        department = DepartmentSettings.from_env(env)
        text = env.get("SCHEDULER_MAX_CONCURRENT", "").strip() or str(JOBS_AT_ONCE_DEFAULT)
        if not text.isdecimal() or len(text) > DIGITS_MAX or int(text) < 1:
            raise SettingsError(f"SCHEDULER_MAX_CONCURRENT must be a number above zero: {text!r}")
        return cls(
            department.repository_roots,
            department.repository_hosts,
            int(text),
            _secrets(env.get("TROUPE_GITHUB_SECRETS", "").strip() or "{}"),
        )


def _secrets(text: str) -> dict[str, str]:
    """Never tells what it could not read: it may be a secret."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(x, str) and x for x in found.values()):
        raise SettingsError('TROUPE_GITHUB_SECRETS must be JSON like {"default": "a secret"}')
    return found
