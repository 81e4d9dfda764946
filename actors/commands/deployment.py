"""What `troupe up` starts: the department on a cluster of this machine.

A machine without a model gets the scripted one beside the cluster, which only
ever serves the shipped sample; everything else waits until there is a model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from actors.intake.settings import IntakeSettings
from actors.models.settings import ModelSettings
from actors.settings import DepartmentSettings
from runtime.cluster import ClusterSettings, Companion
from runtime.errors import SettingsError

AGENTS = "actors.department:agents"
APPLICATION = "serve_app:app"
SCRIPTED = Companion(
    "scripted-model", (sys.executable, "-m", "actors.models.scripted"), "TROUPE_SCRIPTED_URL"
)
ROOTS = "TROUPE_REPOSITORY_ROOTS"


KNOWN: Final = frozenset(
    {
        "PORT", "REDIS_URL", "LOG_LEVEL", "PROMETHEUS_PORT", "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL", "SCHEDULER_MAX_CONCURRENT", "SCHEDULER_MAX_RETRIES",
        "SCHEDULER_BACKOFF_BASE", "SCHEDULER_BACKOFF_MAX", "SCHEDULER_CHECK_INTERVAL",
        "TROUPE_DATA", "TROUPE_URL", "TROUPE_TOKEN", "TROUPE_HOSTS", "TROUPE_HOSTS_MAX",
        "TROUPE_HOST_CPUS", "TROUPE_HOST_LABELS", "TROUPE_MAX_PER_ORGANIZATION",
        "TROUPE_MAX_PER_REPOSITORY", "TROUPE_MAX_PER_KEY", "TROUPE_RETENTION_DAYS",
        "TROUPE_LEDGER_DAYS", "TROUPE_RETENTION_ROWS", "TROUPE_MODEL", "TROUPE_TRIAGE_MODEL",
        "TROUPE_MODEL_PRICES", "TROUPE_REPOSITORY_ROOTS", "TROUPE_REPOSITORY_HOSTS",
        "TROUPE_REPOSITORY", "TROUPE_GITHUB_SECRETS", "TROUPE_SETUP_HOSTS", "TROUPE_SETUP_S",
        "TROUPE_CACHE_DAYS", "TROUPE_CACHE_GB", "TROUPE_ROUNDS_MAX", "TROUPE_TOKENS_MAX",
        "TROUPE_COST_USD_MAX", "TROUPE_WALL_S", "TROUPE_ANSWER_TOKENS_MAX",
    }
)  # fmt: skip
"""Every variable of docs/operations.md."""
OF_COMMANDS: Final = frozenset({"TROUPE_DATA", "TROUPE_URL", "TROUPE_TOKEN"})
"""Those that say where a command goes, and nothing of what it starts."""
OURS: Final = ("SCHEDULER_", "TROUPE_", "PROMETHEUS_")
NEAR: Final = 0.85
"""How alike two names are when one is taken for a slip of the other, 0..1."""


def slips(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that nothing reads and that look like one that is read -> that one."""
    unknown = [name for name in sorted(env) if name.startswith(OURS) and name not in KNOWN]
    near = {name: get_close_matches(name, KNOWN, 1, NEAR) for name in unknown}
    return {name: found[0] for name, found in near.items() if found and found[0] not in env}


def ignored(asked: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """Variables by which what runs would be another, had it been started with them.

    One that is not set asks for nothing.

    Args:
        asked: the environment of a `troupe up` that came too late.
        running: the one that what runs was started with.
    """
    names = (name for name in sorted(KNOWN - OF_COMMANDS) if asked.get(name))
    meant = _meant(running)
    return [name for name in names if _meant({**running, name: asked[name]}) != meant]


def _meant(env: Mapping[str, str]) -> tuple[object, ...] | None:
    """All that the environment says to a deployment; None: it can't be meant."""
    try:
        return tuple(
            one.from_env(env) for one in (ClusterSettings, IntakeSettings, DepartmentSettings)
        )
    except SettingsError:  # each is right by itself: asked for together they may be, too
        return None


def deployment(
    data: Path, port: int | None, hosts: int | None, env: Mapping[str, str]
) -> ClusterSettings:
    """The deployment over `data` that the environment describes.

    Args:
        port, hosts: None: as the environment says, too.

    Raises:
        SettingsError: a variable can't be used.
    """
    IntakeSettings.from_env(env)  # and the department's with it: read by processes to come
    model = ModelSettings.from_env(env)
    scripted = not model.configured
    given = {"port": port, "hosts": hosts}
    return ClusterSettings.from_env(
        env,
        **{name: value for name, value in given.items() if value is not None},
        data=str(data),
        agents=AGENTS,
        application=APPLICATION,
        companions=(SCRIPTED,) if scripted else (),
        model_provider="scripted" if scripted else model.provider,
    )


def environment(data: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the deployment's processes.

    Unless the operator names others, repositories may be given by path below
    the operator's home and below the data directory: whoever started Troupe on
    this machine can read those anyway, and it listens on loopback only.
    """
    roots = env.get(ROOTS) or os.pathsep.join((str(Path.home()), str(data)))
    return {**env, "TROUPE_DATA": str(data), ROOTS: roots}
