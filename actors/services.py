"""What the agents of one process share: the model client, the sandbox, the clock, the settings.

Made once in the process that hosts the agents, because neither HTTP connections
nor a sandbox's self-test travel.  It holds no state that matters: any process
can make its own.
"""

from __future__ import annotations

import random as system_random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from actors.errors import (
    BaseRefUnknownError,
    DiskFullError,
    NotARepositoryError,
    RepositoryBusyError,
    RepositoryEmptyError,
    SandboxRefusedError,
    SetupFailedError,
)
from actors.modelcall import NOT_CONFIGURED, NOT_CONFIGURED_WAIT_S
from actors.models.client import ModelClient
from actors.policy import PolicyError
from actors.sample import is_sample
from actors.sandbox import Sandbox
from actors.settings import DepartmentSettings
from actors.setup.cache import Dependencies
from actors.setup.run import SetupLimits
from actors.upkeep import Upkeep
from runtime.clock import Clock, SystemClock
from runtime.errors import JobFailedError, JobWaiting

WAIT_S: Final = {DiskFullError: 60.0, RepositoryBusyError: 30.0, SandboxRefusedError: 30.0}
_WAITS: Final = {
    DiskFullError: "disk_full",
    RepositoryBusyError: "repository_busy",
    SandboxRefusedError: "sandbox_refused",
}
GB: Final = 1 << 30
_FINAL: Final = (
    NotARepositoryError,
    RepositoryEmptyError,
    BaseRefUnknownError,
    PolicyError,
    SetupFailedError,
)
"""Errors that another try would meet again: the owner has to do something."""


class HopelessError(JobFailedError):
    """The work can't be done as things are, and another try would meet the same.

    Args: a sentence that says why and what to do.
    """

    def __str__(self) -> str:
        return str(self.args[0])


def _client(settings: DepartmentSettings, clock: Clock) -> ModelClient:
    return ModelClient(settings.model, clock, system_random.SystemRandom().random)


@dataclass
class Services:
    """Shared by the agents of one process."""

    settings: DepartmentSettings
    clock: Clock = field(default_factory=SystemClock)
    client: ModelClient | None = None
    """Default: one for the settings' model."""
    sandbox: Sandbox = field(default_factory=Sandbox)
    monotonic: Callable[[], float] = time.monotonic

    @property
    def model(self) -> ModelClient:
        if self.client is None:
            self.client = _client(self.settings, self.clock)
        return self.client

    @property
    def workspaces(self) -> Path:
        """Where mirrors and workspaces are."""
        return self.settings.data_dir / "workspaces"

    @property
    def dependencies(self) -> Dependencies:
        """What setups have made on this machine."""
        settings = self.settings
        bytes_max = round(settings.cache_gb * GB / 2)
        limits = SetupLimits(settings.setup_hosts, settings.setup_s, bytes_max)
        return Dependencies(self.workspaces / "dependencies", self.sandbox, limits)

    @cached_property
    def upkeep(self) -> Upkeep:
        """Of what jobs leave on this machine."""
        bytes_max = round(self.settings.cache_gb * GB)
        return Upkeep(self.workspaces, self.settings.cache_days, bytes_max)

    def waiting(self, reason: str, seconds: float) -> JobWaiting:
        return JobWaiting(reason, self.clock.now_ms() + round(seconds * 1000))

    def need_model(self) -> None:
        """Wait until a model is configured.

        Raises:
            JobWaiting: none is.
        """
        if not self.model.settings.configured:
            raise self.waiting(NOT_CONFIGURED, NOT_CONFIGURED_WAIT_S)

    async def need_model_for(self, base_tree: str) -> None:
        """As `need_model`; and the script is none, except for the shipped sample."""
        self.need_model()
        if self.model.settings.provider != "scripted":
            return
        if not await is_sample(self.settings.sample_dir, base_tree):
            raise self.waiting(NOT_CONFIGURED, NOT_CONFIGURED_WAIT_S)

    @contextmanager
    def troubles(self) -> Iterator[None]:
        """What went wrong around the work becomes a wait with a reason, or a final failure.

        Raises:
            JobWaiting: the disk is full, the repository busy, or commands can't be isolated.
            HopelessError: the repository or its policy has to be mended first.
        """
        try:
            yield
        except tuple(_WAITS) as error:
            kind = next(kind for kind in _WAITS if isinstance(error, kind))
            raise self.waiting(_WAITS[kind], WAIT_S[kind]) from error
        except _FINAL as error:
            raise HopelessError(str(error)) from error
