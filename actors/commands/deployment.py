"""What `troupe up` starts: the department on a cluster of this machine.

A machine without a model gets the scripted one beside the cluster, which only
ever serves the shipped sample; everything else waits until there is a model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from actors.models.settings import ModelSettings
from runtime.cluster import ClusterSettings, Companion

AGENTS = "actors.department:agents"
APPLICATION = "serve_app:app"
SCRIPTED = Companion(
    "scripted-model", (sys.executable, "-m", "actors.models.scripted"), "TROUPE_SCRIPTED_URL"
)
ROOTS = "TROUPE_REPOSITORY_ROOTS"


def deployment(data: Path, port: int, hosts: int, env: Mapping[str, str]) -> ClusterSettings:
    """The deployment over `data` that the environment describes.

    Raises:
        SettingsError: a variable can't be used.
    """
    model = ModelSettings.from_env(env)
    scripted = not model.configured
    return ClusterSettings.from_env(
        env,
        data=str(data),
        port=port,
        hosts=hosts,
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
